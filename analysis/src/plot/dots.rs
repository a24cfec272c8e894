//! Rows of dots.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::axis::{Axis, tick};
use super::{Area, CAPTION, Drawn, FONT, LABEL, SHADE};

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
