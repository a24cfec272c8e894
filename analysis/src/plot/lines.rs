//! Lines over a growing quantity.

use plotters::prelude::*;

use super::axis::{Axis, powers, steps, tick};
use super::{Area, CAPTION, Drawn, FONT, HEADROOM, LABEL, SHADE};

/// Room above that for each line of a legend.
const LEGEND_LINE: f64 = 0.1;
/// A line of more points is drawn without a mark for each.
const MARKED: usize = 30;

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
    /// What y reaches at least, so that panels side by side can be compared.
    pub(crate) top: Option<f64>,
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
    let most = most.max(axes.top.unwrap_or_default());
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
