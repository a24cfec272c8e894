//! Groups of bars.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::axis::{Axis, steps, tick};
use super::legend::{Sign, head};
use super::{Area, Drawn, FONT, TEXT, wide, written};

/// Bars of several series in named groups; the axis begins at 0.
pub(crate) struct Grouped<'a> {
    pub(crate) title: &'a str,
    /// What the axis shows, with the unit.
    pub(crate) y: &'a str,
    /// Names and colours.
    pub(crate) series: Vec<(String, RGBColor)>,
    /// From left to right: a name, and a bar for each series.
    pub(crate) groups: Vec<(String, Vec<Option<Height>>)>,
    /// A line from left to right, and what it is.
    pub(crate) mark: Option<(f64, String)>,
    /// What is written above a bar, if there is room.
    pub(crate) number: Option<fn(f64) -> String>,
}

/// How high a bar is, and the ends of its whisker.
#[derive(Clone, Copy)]
pub(crate) struct Height {
    pub(crate) value: f64,
    pub(crate) whisker: Option<(f64, f64)>,
}

impl From<f64> for Height {
    fn from(value: f64) -> Self {
        Self { value, whisker: None }
    }
}

impl Height {
    /// The highest of what is drawn.
    fn most(&self) -> f64 {
        self.whisker.map_or(self.value, |(_, max)| max.max(self.value))
    }
}

/// Room around the plot: for the axis at the left, at the right, above and below.
const LEFT: u32 = 76;
const MARGIN: u32 = 12;
/// The height of a line of a group's name.
const LINE: i32 = 18;
/// What part of a group its bars take at most, and the most pixels that a bar takes.
const FULL: f64 = 0.84;
const BROAD: f64 = 72.0;
/// Between a bar and its number, and between a number and the edge of its bar.
const GAP: i32 = 4;

/// How numbers are written: as there is room.
#[derive(Clone, Copy, PartialEq)]
enum Numbers {
    Across,
    Upright,
    Absent,
}

/// Groups of bars with their numbers; the legend is above.
pub(crate) fn grouped(area: &Area<'_>, chart: &Grouped<'_>) -> Drawn {
    let mut entries: Vec<(&str, Sign)> =
        chart.series.iter().map(|(name, colour)| (name.as_str(), Sign::Square(*colour))).collect();
    entries.extend(chart.mark.iter().map(|(_, name)| (name.as_str(), Sign::Line)));
    let area = head(area, chart.title, &entries)?;
    let (width, height) = area.dim_in_pixel();
    let group = f64::from(width.saturating_sub(LEFT + 2 * MARGIN)) / chart.groups.len().max(1) as f64;
    let part = (FULL / chart.series.len().max(1) as f64).min(BROAD / group.max(BROAD));
    let bar = (group * part) as i32;
    let names: Vec<Vec<String>> = chart.groups.iter().map(|(name, _)| wrapped(name, group as i32 - GAP)).collect();
    let below = names.iter().map(Vec::len).max().unwrap_or(0) as i32 * LINE + LINE / 2;
    let heights = || chart.groups.iter().flat_map(|(_, heights)| heights).flatten();
    let widest = chart.number.and_then(|number| heights().map(|height| wide(&number(height.value), TEXT)).max());
    let (numbers, room) = match widest {
        Some(widest) if widest + GAP <= bar => (Numbers::Across, TEXT as i32 + 2 * GAP),
        Some(widest) if TEXT as i32 <= bar => (Numbers::Upright, widest + 2 * GAP),
        _ => (Numbers::Absent, 2 * GAP),
    };
    let most = heights().map(Height::most).chain(chart.mark.iter().map(|(mark, _)| *mark)).fold(0.0, f64::max);
    let most = if most > 0.0 { most } else { 1.0 };
    let plot = (f64::from(height) - f64::from(2 * MARGIN) - f64::from(below)).max(f64::from(2 * room));
    let top = most * plot / (plot - f64::from(room));
    let right = chart.groups.len().max(1) as f64;
    let mut context = ChartBuilder::on(&area)
        .margin(MARGIN)
        .set_label_area_size(LabelAreaPosition::Left, LEFT)
        .set_label_area_size(LabelAreaPosition::Bottom, below)
        .build_cartesian_2d(
            Axis { from: 0.0, to: right, labels: Vec::new() },
            Axis { from: 0.0, to: top, labels: steps(top) },
        )?;
    context
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .y_label_formatter(&|value| tick(*value))
        .y_desc(chart.y)
        .label_style((FONT, TEXT))
        .draw()?;
    let first = 0.5 - part * (chart.series.len() as f64 - 1.0) / 2.0;
    let centre = |group: u32, series: u32| f64::from(group) + first + part * f64::from(series);
    for ((lines, (_, heights)), at) in names.iter().zip(&chart.groups).zip(0..) {
        let middle = f64::from(at) + 0.5;
        for (line, down) in lines.iter().zip(0..) {
            let style = written(TEXT, HPos::Center, VPos::Top);
            context.draw_series([
                EmptyElement::at((middle, 0.0)) + Text::new(line.clone(), (0, GAP + 2 + down * LINE), style)
            ])?;
        }
        for ((height, (_, colour)), series) in heights.iter().zip(&chart.series).zip(0..) {
            let (Some(height), middle) = (height, centre(at, series)) else { continue };
            let corners = [(middle - part / 2.0, 0.0), (middle + part / 2.0, height.value)];
            let mut rectangle = Rectangle::new(corners, colour.filled());
            rectangle.set_margin(0, 0, u32::from(bar > GAP), 0);
            context.draw_series([rectangle])?;
            if let Some((min, max)) = height.whisker {
                context.draw_series([PathElement::new([(middle, min), (middle, max)], BLACK.stroke_width(1))])?;
                let reach = (bar / 4).min(GAP);
                for end in [min, max] {
                    context.draw_series([EmptyElement::at((middle, end))
                        + PathElement::new([(-reach, 0), (reach, 0)], BLACK.stroke_width(1))])?;
                }
            }
        }
    }
    if let Some((mark, _)) = chart.mark {
        context.draw_series([PathElement::new([(0.0, mark), (right, mark)], BLACK.stroke_width(2))])?;
    }
    // Numbers are last, on white: the line does not strike them through.
    let (Some(number), false) = (chart.number, numbers == Numbers::Absent) else { return Ok(()) };
    for ((_, heights), at) in chart.groups.iter().zip(0..) {
        for (height, series) in heights.iter().take(chart.series.len()).zip(0..) {
            let Some(height) = height else { continue };
            let text = number(height.value);
            let long = wide(&text, TEXT);
            let (half, tall, style) = match numbers {
                Numbers::Across => (long / 2, TEXT as i32, written(TEXT, HPos::Center, VPos::Bottom)),
                _ => {
                    let upright = (FONT, TEXT).into_font().transform(FontTransform::Rotate270);
                    (TEXT as i32 / 2 - 1, long, upright.color(&BLACK).pos(written(TEXT, HPos::Left, VPos::Center).pos))
                }
            };
            context.draw_series([EmptyElement::at((centre(at, series), height.most()))
                + Rectangle::new([(-half, -GAP + 2 - tall), (half, -GAP + 2)], WHITE.filled())
                + Text::new(text, (0, -GAP), style)])?;
        }
    }
    Ok(())
}

/// The words in lines of at most so many pixels; a longer word has a line for itself.
fn wrapped(text: &str, most: i32) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if wide(line, TEXT) + wide(word, TEXT) + wide(" ", TEXT) <= most => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::colour;
    use super::super::tests::{attribute, drawn, elements, words};
    use super::*;

    fn chart(groups: usize, series: usize) -> Grouped<'static> {
        let height = |at: usize| Height {
            value: 3000.0 + 100.0 * at as f64,
            whisker: Some((2900.0 + 100.0 * at as f64, 3200.0 + 100.0 * at as f64)),
        };
        Grouped {
            title: "Bars in groups",
            y: "requests",
            series: (0..series).map(|at| (format!("series {at}"), colour(at))).collect(),
            groups: (0..groups)
                .map(|group| (format!("group {group}"), (0..series).map(|at| Some(height(at))).collect()))
                .collect(),
            mark: Some((3333.0, "mean 3333".into())),
            number: Some(|value| format!("{value:.0}")),
        }
    }

    /// The bars: what is filled, but for the paper, the legend, and what is under numbers.
    fn filled(svg: &str) -> Vec<&str> {
        elements(svg, "rect")
            .into_iter()
            .filter(|one| !one.contains("#FFFFFF") && attribute(one, "height") > 12.5)
            .collect()
    }

    #[test]
    fn groups_have_every_bar_name_and_number() {
        let mut chart = chart(3, 2);
        chart.groups[1].1[0] = None;
        let svg = drawn((830, 360), |area| grouped(area, &chart));
        assert_eq!(filled(&svg).len(), 5);
        let words = words(&svg);
        for (word, times) in
            [("group 2", 1), ("series 1", 1), ("requests", 1), ("mean 3333", 1), ("3000", 2 + 1), ("3100", 3)]
        {
            assert_eq!(words.iter().filter(|(text, _)| *text == word).count(), times, "{word}");
        }
    }

    #[test]
    fn the_legend_is_above_every_bar() {
        let svg = drawn((500, 360), |area| grouped(area, &chart(3, 6)));
        let words = words(&svg);
        let entries: Vec<_> =
            words.iter().filter(|(text, _)| text.starts_with("series") || text.starts_with("mean")).collect();
        let lowest = entries.iter().map(|(_, text)| attribute(text, "y")).fold(0.0, f64::max);
        let first = entries.iter().map(|(_, text)| attribute(text, "y")).fold(f64::INFINITY, f64::min);
        assert!(first + f64::from(TEXT) < lowest, "the entries take several lines: {first} {lowest}");
        // The axis is the longest of what is upright.
        let ends = |points: &str| -> Option<(f64, f64)> {
            let mut y = points.split_whitespace().filter_map(|point| point.split(',').nth(1)?.parse().ok());
            Some((y.next()?, y.next()?))
        };
        let upright = svg.split("points=\"").skip(1).filter_map(|rest| ends(rest.split('"').next()?));
        let (top, _) = upright.max_by(|a, b| (a.1 - a.0).total_cmp(&(b.1 - b.0))).unwrap();
        assert!(lowest + 6.0 < top, "{lowest} {top}");
        for (text, element) in entries {
            assert!(attribute(element, "x") + f64::from(wide(text, TEXT)) < 500.0, "{text}");
        }
    }

    #[test]
    fn numbers_stand_upright_in_narrow_bars_and_are_absent_in_narrower() {
        let turned =
            |groups, series| drawn((830, 360), |area| grouped(area, &chart(groups, series))).matches("rotate").count();
        // One text is turned anyway: that of the axis.
        assert_eq!(turned(3, 2), 1);
        assert_eq!(turned(12, 3), 12 * 3 + 1);
        assert_eq!(turned(12, 6), 1);
        assert!(!drawn((830, 360), |area| grouped(area, &chart(12, 6))).contains("\n3100\n"));
    }

    #[test]
    fn bars_of_nothing_are_drawn() {
        let mut chart = chart(2, 1);
        chart.mark = None;
        chart.groups = vec![("none".into(), vec![Some(0.0.into())]), ("absent".into(), vec![None])];
        let svg = drawn((830, 360), |area| grouped(area, &chart));
        let words: Vec<&str> = words(&svg).into_iter().map(|(text, _)| text).collect();
        // The number of the bar, and the axis.
        assert_eq!(
            [words.iter().filter(|text| **text == "0").count(), words.iter().filter(|text| **text == "1").count()],
            [2, 1]
        );
    }

    #[test]
    fn long_names_are_wrapped() {
        assert_eq!(wrapped("modified 512 slots", 110), ["modified 512", "slots"]);
        assert_eq!(wrapped("unbreakable", 10), ["unbreakable"]);
    }
}
