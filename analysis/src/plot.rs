//! Charts as SVG: bars with whiskers, lines over a growing quantity. Knows nothing of what is drawn.

use std::error::Error;
use std::path::Path;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, SegmentValue};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Room above that for each line of a legend.
const LEGEND_LINE: f64 = 0.1;
/// A line of more points is drawn without a mark for each.
const MARKED: usize = 30;

/// A drawing area that may fail.
pub(crate) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
pub(crate) type Drawn = Result<(), Box<dyn Error>>;

/// Told apart also by those who don't see red and green (P. Tol, "Colour Schemes", 2021: bright).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0x44, 0x77, 0xAA),
    RGBColor(0xEE, 0x66, 0x77),
    RGBColor(0x22, 0x88, 0x33),
    RGBColor(0xBB, 0xBB, 0xBB),
    RGBColor(0xCC, 0xBB, 0x44),
    RGBColor(0xAA, 0x33, 0x77),
    RGBColor(0x66, 0xCC, 0xEE),
];
/// Of what is shaded: lines of all colours show on it.
const SHADE: RGBColor = RGBColor(0xEE, 0xEE, 0xEE);
const FONT: &str = "sans-serif";
const CAPTION: u32 = 17;
const LABEL: u32 = 13;
/// Room above the highest value, for its number.
const HEADROOM: f64 = 1.18;

/// The colour of the series with this number.
pub(crate) fn colour(index: usize) -> RGBColor {
    COLOURS[index % COLOURS.len()]
}

/// An empty sheet of `columns` × `rows` panels, each with this size.
pub(crate) fn sheet(file: &Path, (columns, rows): (usize, usize), (width, height): (u32, u32)) -> Sheet<'_> {
    let root = SVGBackend::new(file, (width * columns as u32, height * rows as u32)).into_drawing_area();
    Sheet { root, panels: (rows, columns) }
}

pub(crate) struct Sheet<'a> {
    root: Area<'a>,
    panels: (usize, usize),
}

impl<'a> Sheet<'a> {
    /// White paper, cut into panels.
    pub(crate) fn panels(&self) -> Result<Vec<Area<'a>>, Box<dyn Error>> {
        self.root.fill(&WHITE)?;
        Ok(self.root.split_evenly(self.panels))
    }

    /// Writes the file; a failed write shows here.
    pub(crate) fn finish(&self) -> Drawn {
        Ok(self.root.present()?)
    }
}

/// One bar: its name, colour, and median, least and most.
pub(crate) struct Bar {
    pub(crate) name: String,
    pub(crate) colour: RGBColor,
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

/// Bars with whiskers and their numbers; the axis begins at 0.
pub(crate) fn bars(area: &Area<'_>, title: &str, unit: &str, bars: &[Bar], number: impl Fn(f64) -> String) -> Drawn {
    let top = bars.iter().map(|bar| bar.max).fold(0.0, f64::max).max(f64::MIN_POSITIVE) * HEADROOM;
    let mut chart = ChartBuilder::on(area)
        .caption(title, (FONT, CAPTION))
        .margin(10)
        .set_label_area_size(LabelAreaPosition::Left, 62)
        .set_label_area_size(LabelAreaPosition::Bottom, 28)
        .build_cartesian_2d((0..bars.len().saturating_sub(1)).into_segmented(), 0.0..top)?;
    let name = |at: &SegmentValue<usize>| match at {
        SegmentValue::CenterOf(at) => bars.get(*at).map_or_else(String::new, |bar| bar.name.clone()),
        _ => String::new(),
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .x_labels(bars.len())
        .x_label_formatter(&name)
        .y_labels(6)
        .y_label_formatter(&|value| tick(*value))
        .y_desc(unit)
        .label_style((FONT, LABEL))
        .draw()?;
    let centred = (FONT, LABEL).into_font().color(&BLACK).pos(Pos::new(HPos::Center, VPos::Bottom));
    for (at, bar) in bars.iter().enumerate() {
        let corners = [(SegmentValue::Exact(at), 0.0), (SegmentValue::Exact(at + 1), bar.median)];
        let mut rectangle = Rectangle::new(corners, bar.colour.filled());
        rectangle.set_margin(0, 0, 8, 8);
        chart.draw_series([rectangle])?;
        let middle = SegmentValue::CenterOf(at);
        chart.draw_series([PathElement::new([(middle.clone(), bar.min), (middle, bar.max)], BLACK.stroke_width(1))])?;
        for end in [bar.min, bar.max] {
            chart.draw_series([EmptyElement::at((SegmentValue::CenterOf(at), end))
                + PathElement::new([(-4, 0), (4, 0)], BLACK.stroke_width(1))])?;
        }
        chart.draw_series([EmptyElement::at((SegmentValue::CenterOf(at), bar.max))
            + Text::new(number(bar.median), (0, -4), centred.clone())])?;
    }
    Ok(())
}

/// One line: its name, colour, and points (x, median, least, most).
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) colour: RGBColor,
    pub(crate) points: Vec<(f64, f64, f64, f64)>,
}

/// How the axes of a chart of lines are.
#[derive(Default)]
pub(crate) struct Axes<'a> {
    pub(crate) title: &'a str,
    pub(crate) x: &'a str,
    pub(crate) y: &'a str,
    pub(crate) log_x: bool,
    pub(crate) log_y: bool,
    /// What x values are labelled; others get none.
    pub(crate) ticks: Vec<f64>,
    /// What a label of x says, if not its value.
    pub(crate) tick: Option<fn(f64) -> String>,
    /// Where x ends, if not at the last label.
    pub(crate) right: Option<f64>,
    /// The highest y there can be: no label is above it.
    pub(crate) most: Option<f64>,
    /// A stretch of x that is shaded.
    pub(crate) band: Option<(f64, f64)>,
    /// Lines may lie on each other: each is wider than the next, so that its edges show.
    pub(crate) nested: bool,
}

/// Lines with whiskers, and a legend if there are several.
pub(crate) fn lines(area: &Area<'_>, axes: &Axes<'_>, lines: &[Line]) -> Drawn {
    let points = || lines.iter().flat_map(|line| &line.points);
    let (least, most) =
        points().fold((f64::INFINITY, 0.0_f64), |(least, most), (_, _, min, max)| (least.min(*min), most.max(*max)));
    let (Some(left), Some(right)) = (axes.ticks.first(), axes.ticks.last()) else { return Ok(()) };
    // Logarithms are drawn on plain axes, with the labels that are wanted and no others.
    let place = |value: f64, log: bool| if log { value.max(f64::MIN_POSITIVE).log10() } else { value };
    let at = |x: f64, y: f64| (place(x, axes.log_x), place(y, axes.log_y));
    let (left, right) = (place(*left, axes.log_x), place(axes.right.unwrap_or(*right), axes.log_x));
    let room = (right - left) * 0.06;
    let legend = LEGEND_LINE * lines.len() as f64;
    let (bottom, top) = if axes.log_y {
        let (bottom, most) = (place(least, true).floor(), place(most, true));
        (bottom, most.ceil().max(most + (most - bottom) * legend))
    } else {
        (0.0, most * (HEADROOM + legend))
    };
    let labels = if axes.log_y { powers(bottom, top) } else { steps(top) }.into_iter();
    let mut chart = ChartBuilder::on(area)
        .caption(axes.title, (FONT, CAPTION))
        .margin(10)
        .margin_right(20)
        .set_label_area_size(LabelAreaPosition::Left, 68)
        .set_label_area_size(LabelAreaPosition::Bottom, 44)
        .build_cartesian_2d(
            Axis {
                from: left - room,
                to: right + room,
                labels: axes.ticks.iter().map(|tick| place(*tick, axes.log_x)).collect(),
            },
            Axis {
                from: bottom,
                to: top,
                labels: labels.filter(|y| axes.most.is_none_or(|most| *y <= most)).collect(),
            },
        )?;
    if let Some((from, to)) = axes.band {
        let corners = [(place(from, axes.log_x), bottom), (place(to, axes.log_x), top)];
        chart.draw_series([Rectangle::new(corners, SHADE.filled())])?;
    }
    let value = |at: f64, log: bool| if log { 10_f64.powf(at) } else { at };
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_labels(axes.ticks.len())
        .x_label_formatter(&|x| axes.tick.unwrap_or(tick)(value(*x, axes.log_x)))
        .x_desc(axes.x)
        .y_labels(8)
        .y_label_formatter(&|y| tick(value(*y, axes.log_y)))
        .y_desc(axes.y)
        .label_style((FONT, LABEL))
        .draw()?;
    for (line, above) in lines.iter().zip((0..lines.len() as u32).rev()) {
        let colour = line.colour;
        let width = if axes.nested { 2 + 2 * above } else { 2 };
        chart
            .draw_series(LineSeries::new(line.points.iter().map(|(x, y, ..)| at(*x, *y)), colour.stroke_width(width)))?
            .label(&line.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(3)));
        for (x, y, min, max) in line.points.iter().filter(|_| line.points.len() <= MARKED) {
            chart.draw_series([PathElement::new([at(*x, *min), at(*x, *max)], colour.stroke_width(1))])?;
            chart.draw_series([Circle::new(at(*x, *y), 3, colour.filled())])?;
        }
    }
    if lines.len() < 2 {
        return Ok(());
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .label_font((FONT, LABEL))
        .draw()?;
    Ok(())
}

/// A plain axis with labels at given places.
struct Axis {
    from: f64,
    to: f64,
    labels: Vec<f64>,
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        let part = (value - self.from) / (self.to - self.from);
        from + (part * f64::from(to - from)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.labels.clone()
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.from..self.to
    }
}

/// The whole logarithms from `bottom` to `top`.
fn powers(bottom: f64, top: f64) -> Vec<f64> {
    (bottom as i32..=top as i32).map(f64::from).collect()
}

/// A label as short as can be.
fn tick(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Round steps from 0 to `top`, four to eight of them.
pub(crate) fn steps(top: f64) -> Vec<f64> {
    let power = 10_f64.powf(top.max(f64::MIN_POSITIVE).log10().floor());
    let step =
        [0.2, 0.5, 1.0, 2.0].map(|part| part * power).into_iter().find(|step| top / step <= 8.0).unwrap_or(power);
    (0..=(top / step) as u32).map(|count| f64::from(count) * step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_short() {
        assert_eq!([0.0, 60.0, 0.5, 1.25, 1000.0].map(tick), ["0", "60", "0.5", "1.25", "1000"]);
    }

    #[test]
    fn steps_are_round_and_few() {
        assert_eq!(steps(47.0), [0.0, 10.0, 20.0, 30.0, 40.0]);
        for top in [0.03, 1.0, 1.3, 9.9, 120.0, 51_000.0] {
            assert!((4..=9).contains(&steps(top).len()), "{top}: {:?}", steps(top));
        }
    }

    #[test]
    fn a_sheet_holds_every_name_and_number() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("bars.svg");
        let sheet = sheet(&file, (2, 1), (400, 300));
        let panels = sheet.panels().unwrap();
        let bar = |name: &str, median| Bar {
            name: name.into(),
            colour: colour(0),
            median,
            min: median - 1.0,
            max: median + 1.0,
        };
        bars(&panels[0], "Title", "µs", &[bar("one", 3.0), bar("two", 5.0)], |value| format!("{value:.1}")).unwrap();
        let line = Line {
            name: "a line".into(),
            colour: colour(1),
            points: vec![(3.0, 1.0, 0.5, 2.0), (50.0, 9.0, 8.0, 10.0)],
        };
        let axes = Axes {
            title: "Lines",
            x: "members",
            y: "ns",
            log_x: true,
            log_y: true,
            ticks: vec![3.0, 50.0],
            tick: Some(|x| format!("x{x:.0}")),
            band: Some((5.0, 20.0)),
            nested: true,
            ..Axes::default()
        };
        let under = Line { name: "under it".into(), colour: colour(2), points: line.points.clone() };
        lines(&panels[1], &axes, &[under, line]).unwrap();
        sheet.finish().unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        for word in [
            "Title",
            "one",
            "two",
            "3.0",
            "5.0",
            "µs",
            "members",
            "Lines",
            "\nx50\n",
            "#EEEEEE",
            "under it",
            "stroke-width=\"4\"",
        ] {
            assert!(text.contains(word), "{word}");
        }
    }
}
