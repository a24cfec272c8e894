//! What charts with named rows share: the names at the left, the axis below.

use std::error::Error;

use plotters::prelude::*;

use super::axis::{Axis, Scale};
use super::{Area, FONT, SHADE, TEXT, wide};

/// The rows are counted from the top: the middle of the first is at 0.5.
pub(super) type Rows<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Axis, Axis>>;

/// The room around a chart of rows, and for the labels of the axis and its name.
pub(super) const MARGIN: i32 = 20;
pub(super) const GAP: i32 = 10;
pub(super) const BELOW: u32 = 52;
/// The tick marks between names and rows.
const MARK: i32 = 12;

/// The room that names take at the left of a chart.
pub(super) fn left<'n>(names: impl Iterator<Item = &'n str>) -> i32 {
    names.map(|name| wide(name, TEXT)).max().unwrap_or(0) + MARK
}

/// Empty rows with this room at their left, above them and at their right; every other is shaded, if it's wanted.
pub(super) fn rows<'a, 'b>(
    area: &'a Area<'b>,
    x: &Scale<'_>,
    names: &[&str],
    (left, above, right): (i32, i32, i32),
    shaded: bool,
) -> Result<Rows<'a, 'b>, Box<dyn Error>> {
    let axis = x.axis();
    let (from, to, count) = (axis.from, axis.to, names.len());
    let middles = (0..count).map(|row| row as f64 + 0.5).collect();
    let mut chart = ChartBuilder::on(area)
        .margin(GAP)
        .margin_top(above)
        .margin_right(right)
        .set_label_area_size(LabelAreaPosition::Left, left)
        .set_label_area_size(LabelAreaPosition::Bottom, BELOW)
        .build_cartesian_2d(axis, Axis { from: count as f64, to: 0.0, labels: middles })?;
    for row in (1..count).step_by(2).filter(|_| shaded) {
        let y = row as f64;
        chart.draw_series([Rectangle::new([(from, y), (to, y + 1.0)], SHADE.filled())])?;
    }
    chart
        .configure_mesh()
        .disable_y_mesh()
        .light_line_style(TRANSPARENT)
        .x_label_formatter(&|place| x.label(*place))
        .x_desc(x.name)
        .y_label_formatter(&|y| names.get(*y as usize).map_or_else(String::new, |name| (*name).to_owned()))
        .label_style((FONT, TEXT))
        .draw()?;
    Ok(chart)
}

/// How far from the middle of its row a value is drawn, from -0.5 to 0.5: equal values are seen to be many, and the
/// same values are drawn the same.
pub(super) fn jitter(at: usize) -> f64 {
    const GOLDEN: f64 = 0.618_033_988_749_895;
    (at as f64 * GOLDEN + 0.5).fract() - 0.5
}
