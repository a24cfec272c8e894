//! What several quantities do in the course of some seconds: as steps, lines and dots over one axis of time.

use std::collections::HashSet;

use plotters::coord::ranged1d::Ranged;
use plotters::prelude::*;

use super::axis::Scale;
use super::legend::{Sign, head};
use super::rows::{BELOW, GAP, MARGIN};
use super::{Area, Drawn, FONT, SHADE, TEXT};

/// Quantities over time.
pub(crate) struct Course<'a> {
    pub(crate) title: &'a str,
    pub(crate) x: Scale<'a>,
    pub(crate) y: Scale<'a>,
    /// A second axis, at the right.
    pub(crate) right: Option<Scale<'a>>,
    /// Is there to be room for one anyway, as another course below or above this one has it?
    pub(crate) aligned: bool,
    /// What is shaded, from top to bottom.
    pub(crate) bands: Vec<(f64, f64)>,
    /// The later ones are over the earlier ones.
    pub(crate) layers: Vec<Layer>,
}

/// One quantity.
pub(crate) struct Layer {
    pub(crate) name: String,
    pub(crate) colour: RGBColor,
    pub(crate) shape: Shape,
    /// Does it go by the axis at the right?
    pub(crate) right: bool,
}

/// How a quantity is drawn.
pub(crate) enum Shape {
    /// It stays as it is until the next point.
    Steps(Vec<(f64, f64)>),
    /// The same, filled down to the axis.
    Blocks(Vec<(f64, f64)>),
    Line(Vec<(f64, f64)>),
    Dots(Vec<(f64, f64)>),
    /// The same value all the time, dashed.
    Limit(f64),
}

/// For labels at either side.
const LABELS: u32 = 64;
const STROKE: u32 = 3;
const THIN: u32 = 2;
/// Dots show through each other.
const OPACITY: f64 = 0.5;
const RADIUS: i32 = 2;
/// A dash and the gap behind it, in pixels.
const DASH: i32 = 7;
/// Blocks show what is behind them.
const FAINT: f64 = 0.35;

/// The chart, with its legend above it.
pub(crate) fn course(area: &Area<'_>, chart: &Course<'_>) -> Drawn {
    let entries: Vec<(&str, Sign)> = chart.layers.iter().map(|layer| (layer.name.as_str(), layer.sign())).collect();
    let area = head(area, chart.title, &entries)?;
    let right = if chart.right.is_some() || chart.aligned { LABELS } else { 0 };
    let mut context = ChartBuilder::on(&area)
        .margin(GAP)
        .margin_right(if right > 0 { GAP } else { MARGIN })
        .set_label_area_size(LabelAreaPosition::Left, LABELS)
        .set_label_area_size(LabelAreaPosition::Right, right)
        .set_label_area_size(LabelAreaPosition::Bottom, BELOW)
        .build_cartesian_2d(chart.x.axis(), chart.y.axis())?
        .set_secondary_coord(chart.x.axis(), chart.right.as_ref().unwrap_or(&chart.y).axis());
    let (top, bottom) = (chart.y.axis().range().end, chart.y.axis().range().start);
    for (from, to) in &chart.bands {
        let corners = [(chart.x.place(*from), bottom), (chart.x.place(*to), top)];
        context.draw_series([Rectangle::new(corners, SHADE.filled())])?;
    }
    context
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_label_formatter(&|place| chart.x.label(*place))
        .x_desc(chart.x.name)
        .y_label_formatter(&|place| chart.y.label(*place))
        .y_desc(chart.y.name)
        .label_style((FONT, TEXT))
        .draw()?;
    if let Some(right) = &chart.right {
        context
            .configure_secondary_axes()
            .y_label_formatter(&|place| right.label(*place))
            .y_desc(right.name)
            .label_style((FONT, TEXT))
            .draw()?;
    }
    for layer in &chart.layers {
        let y = match &chart.right {
            Some(right) if layer.right => right,
            _ => &chart.y,
        };
        // Both axes go from the same bottom to the same top of the paper.
        let scale = |value: f64| {
            let axis = y.axis().range();
            bottom + (y.place(value) - axis.start) / (axis.end - axis.start) * (top - bottom)
        };
        let at = |(x, value): &(f64, f64)| (chart.x.place(*x), scale(*value));
        let colour = layer.colour;
        match &layer.shape {
            Shape::Blocks(points) => {
                let blocks = points.windows(2).map(|pair| {
                    let (from, to) = (at(&pair[0]), at(&pair[1]));
                    Rectangle::new([from, (to.0, bottom)], colour.mix(FAINT).filled())
                });
                context.draw_series(blocks)?;
            }
            Shape::Steps(points) => {
                let stairs = stairs(points).iter().map(at).collect::<Vec<_>>();
                context.draw_series([PathElement::new(stairs, colour.stroke_width(STROKE))])?;
            }
            Shape::Line(points) => {
                let line = points.iter().map(at).collect::<Vec<_>>();
                context.draw_series([PathElement::new(line, colour.stroke_width(THIN))])?;
            }
            Shape::Dots(points) => {
                // Those that fall on one pixel are one dot: thousands stay readable, and the file small.
                let mut seen = HashSet::new();
                let places = points.iter().map(at).filter(|place| seen.insert(context.backend_coord(place)));
                let places: Vec<_> = places.collect();
                let dot = |place| Circle::new(place, RADIUS, colour.mix(OPACITY).filled());
                context.draw_series(places.into_iter().map(dot))?;
            }
            Shape::Limit(value) => {
                let ends = [chart.x.from, chart.x.to].map(|x| at(&(x, *value)));
                context.draw_series(DashedLineSeries::new(ends, DASH, DASH, colour.stroke_width(THIN)))?;
            }
        }
    }
    Ok(())
}

/// The corners of steps.
fn stairs(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut corners: Vec<(f64, f64)> = Vec::with_capacity(points.len() * 2);
    for (x, y) in points {
        if let Some((_, before)) = corners.last().copied() {
            corners.push((*x, before));
        }
        corners.push((*x, *y));
    }
    corners
}

impl Layer {
    fn sign(&self) -> Sign {
        match self.shape {
            Shape::Blocks(_) => Sign::Edged(blended(self.colour)),
            Shape::Steps(_) | Shape::Line(_) => Sign::Stripe(self.colour),
            Shape::Dots(_) => Sign::Dot(self.colour),
            Shape::Limit(_) => Sign::Dashes(self.colour),
        }
    }
}

/// A colour as it looks on paper, faint.
fn blended(RGBColor(red, green, blue): RGBColor) -> RGBColor {
    let mix = |part: u8| (f64::from(part) * FAINT + 255.0 * (1.0 - FAINT)).round() as u8;
    RGBColor(mix(red), mix(green), mix(blue))
}

#[cfg(test)]
mod tests {
    use super::super::colour;
    use super::super::tests::{attribute, drawn, elements, words};
    use super::*;

    fn chart() -> Course<'static> {
        let layer = |name: &str, at, shape, right| Layer { name: name.into(), colour: colour(at), shape, right };
        Course {
            title: "A wave",
            x: Scale { name: "s from the beginning", to: 10.0, ticks: vec![0.0, 10.0], ..Scale::default() },
            y: Scale { name: "requests a second", to: 200.0, ticks: vec![0.0, 200.0], ..Scale::default() },
            right: Some(Scale { name: "N", to: 4.0, ticks: vec![1.0, 4.0], ..Scale::default() }),
            aligned: false,
            bands: vec![(2.0, 6.0)],
            layers: vec![
                layer("load", 3, Shape::Blocks(vec![(0.0, 100.0), (2.0, 200.0), (10.0, 0.0)]), false),
                layer("replicas", 0, Shape::Steps(vec![(0.0, 2.0), (3.0, 4.0), (10.0, 4.0)]), true),
                layer("dots", 1, Shape::Dots(vec![(5.0, 100.0), (5.0, 100.0), (6.0, 150.0)]), false),
                layer("line", 2, Shape::Line(vec![(0.0, 10.0), (10.0, 20.0)]), false),
                layer("limit", 5, Shape::Limit(150.0), false),
            ],
        }
    }

    #[test]
    fn every_name_and_tick_is_there_and_equal_dots_are_drawn_once() {
        let svg = drawn((830, 300), |area| course(area, &chart()));
        let words: Vec<&str> = words(&svg).into_iter().map(|(text, _)| text).collect();
        for word in ["A wave", "load", "replicas", "dots", "line", "limit", "N", "requests a second", "10", "200", "4"]
        {
            assert!(words.contains(&word), "{word}: {words:?}");
        }
        let dots = elements(&svg, "circle").into_iter().filter(|dot| attribute(dot, "opacity") < 1.0);
        assert_eq!(dots.count(), 2);
    }

    #[test]
    fn each_layer_goes_by_its_axis() {
        let svg = drawn((830, 300), |area| course(area, &chart()));
        // Two of four replicas are as high as 100 of 200 requests.
        let steps = elements(&svg, "polyline").into_iter().rfind(|line| line.contains("stroke-width=\"3\"")).unwrap();
        let points = steps.split("points=\"").nth(1).unwrap();
        let first: f64 = points.split([',', ' ']).nth(1).unwrap().parse().unwrap();
        let dot = elements(&svg, "circle").into_iter().find(|dot| attribute(dot, "opacity") < 1.0).unwrap();
        assert!((attribute(dot, "cy") - first).abs() <= 1.0, "{dot} {points}");
    }

    #[test]
    fn courses_below_each_other_have_the_same_time_in_the_same_place() {
        let alone = Course { right: None, ..chart() };
        let aligned = Course { right: None, aligned: true, ..chart() };
        let end = |chart: &Course<'_>| {
            let svg = drawn((830, 300), |area| course(area, chart));
            let (_, tick) = words(&svg).into_iter().find(|(text, _)| *text == "10").unwrap();
            attribute(tick, "x")
        };
        assert_eq!(end(&aligned), end(&chart()));
        assert!(end(&alone) > end(&chart()));
    }

    #[test]
    fn steps_stay_until_the_next_point() {
        assert_eq!(stairs(&[(0.0, 1.0), (2.0, 5.0)]), [(0.0, 1.0), (2.0, 1.0), (2.0, 5.0)]);
        assert_eq!(stairs(&[]), []);
    }
}
