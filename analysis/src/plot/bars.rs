//! Bars with whiskers.

use plotters::coord::ranged1d::SegmentValue;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::axis::tick;
use super::{Area, CAPTION, Drawn, FONT, HEADROOM, LABEL};

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
