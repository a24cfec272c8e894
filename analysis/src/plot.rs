//! Charts as SVG: bars with whiskers, lines over a growing quantity, rows of dots. Knows nothing of what is drawn.

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

/// Dots of several series in named rows, over a plain axis.
pub(crate) struct Dots<'a> {
    pub(crate) title: &'a str,
    pub(crate) x: &'a str,
    /// The axis from left to right, and its labels.
    pub(crate) from: f64,
    pub(crate) to: f64,
    pub(crate) ticks: Vec<f64>,
    /// Where a line goes from top to bottom.
    pub(crate) mark: Option<f64>,
    /// Names and colours.
    pub(crate) series: Vec<(String, RGBColor)>,
    /// From top to bottom: a name, and a value for each series.
    pub(crate) rows: Vec<(String, Vec<Option<f64>>)>,
}

/// Room for the names of rows, for the legend, and at the right of it.
const NAMES: u32 = 250;
const LEGEND: i32 = 26;
const MARGIN: i32 = 20;
/// What part of a row its dots take, from the first series to the last.
const DODGE: f64 = 0.6;

/// Rows of dots. Series are a little apart, so that equal values show; the legend is above.
pub(crate) fn dots(area: &Area<'_>, dots: &Dots<'_>) -> Drawn {
    let area = area.titled(dots.title, (FONT, CAPTION))?;
    let (legend, area) = area.split_vertically(LEGEND);
    let (width, _) = legend.dim_in_pixel();
    let step = (width as i32 - 2 * MARGIN) / dots.series.len().max(1) as i32;
    let middle = LEGEND / 2;
    let named = (FONT, LABEL).into_font().color(&BLACK).pos(Pos::new(HPos::Left, VPos::Center));
    for ((name, colour), at) in dots.series.iter().zip(0..) {
        let left = MARGIN + at * step;
        legend.draw(&Circle::new((left, middle), 4, colour.filled()))?;
        legend.draw(&Text::new(name.as_str(), (left + 10, middle), named.clone()))?;
    }
    let last = dots.rows.len().saturating_sub(1) as f64;
    let mut chart = ChartBuilder::on(&area)
        .margin(10)
        .margin_right(MARGIN)
        .set_label_area_size(LabelAreaPosition::Left, NAMES)
        .set_label_area_size(LabelAreaPosition::Bottom, 44)
        .build_cartesian_2d(
            Axis { from: dots.from, to: dots.to, labels: dots.ticks.clone() },
            // The first row is the highest.
            Axis { from: -0.5, to: last + 0.5, labels: (0..dots.rows.len()).map(|row| row as f64).collect() },
        )?;
    // Every other row is shaded, so that its dots are seen together.
    for row in (1..dots.rows.len()).step_by(2) {
        let y = last - row as f64;
        chart.draw_series([Rectangle::new([(dots.from, y - 0.5), (dots.to, y + 0.5)], SHADE.filled())])?;
    }
    let name = |y: &f64| dots.rows.get((last - y).round() as usize).map_or_else(String::new, |(name, _)| name.clone());
    chart
        .configure_mesh()
        .disable_y_mesh()
        .light_line_style(TRANSPARENT)
        .x_labels(dots.ticks.len())
        .x_label_formatter(&|x| tick(*x))
        .x_desc(dots.x)
        .y_labels(dots.rows.len())
        .y_label_formatter(&name)
        .label_style((FONT, LABEL))
        .draw()?;
    if let Some(mark) = dots.mark {
        chart.draw_series([PathElement::new([(mark, -0.5), (mark, last + 0.5)], BLACK.stroke_width(1))])?;
    }
    let apart = DODGE / dots.series.len().saturating_sub(1).max(1) as f64;
    for ((_, values), row) in dots.rows.iter().zip(0..) {
        let there = values.iter().zip(&dots.series).filter_map(|(value, (_, colour))| Some(((*value)?, colour)));
        let there: Vec<(f64, &RGBColor)> = there.collect();
        let top = last - f64::from(row) + apart * there.len().saturating_sub(1) as f64 / 2.0;
        for ((value, colour), at) in there.into_iter().zip(0..) {
            chart.draw_series([Circle::new((value, top - apart * f64::from(at)), 4, colour.filled())])?;
        }
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
        let sheet = sheet(&file, (3, 1), (400, 300));
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
        let rows = Dots {
            title: "Dots",
            x: "share",
            from: 0.0,
            to: 3.0,
            ticks: vec![0.0, 2.0],
            mark: Some(1.0),
            series: vec![("series a".into(), colour(0)), ("series b".into(), colour(1))],
            rows: vec![("upper".into(), vec![Some(1.0), None]), ("lower".into(), vec![Some(2.0), Some(2.5)])],
        };
        dots(&panels[2], &rows).unwrap();
        let under = Line { name: "under it".into(), colour: colour(2), points: line.points.clone() };
        lines(&panels[1], &axes, &[under, line]).unwrap();
        sheet.finish().unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        // Three values and two names in the legend; two points each of two lines.
        assert_eq!(text.matches("<circle").count(), 3 + 2 + 4);
        let height = |name: &str| text.find(&format!("\n{name}\n")).unwrap();
        assert!(height("series a") < height("series b"));
        for word in [
            "Dots",
            "upper",
            "lower",
            "share",
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
