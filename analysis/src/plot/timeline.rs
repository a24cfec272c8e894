//! What happened in the course of some seconds: when in one panel, and how long it took in another below it.

use std::collections::HashSet;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::axis::Scale;
use super::legend::{Sign, head};
use super::rows::{BELOW, GAP, MARGIN, Rows, jitter, left, rows};
use super::{Area, Drawn, FONT, SHADE, TEXT, wide, written};

/// Points in named rows over time, and events.
pub(crate) struct Timeline<'a> {
    pub(crate) title: &'a str,
    pub(crate) x: Scale<'a>,
    /// Lines from top to bottom: when, and what it was.
    pub(crate) events: Vec<(f64, String)>,
    /// What the shaded stretches of rows are.
    pub(crate) stretch: &'a str,
    /// From top to bottom.
    pub(crate) rows: Vec<Track>,
}

/// A row: its name and colour, its points (when, and how long it took, if that is known), and what is shaded.
pub(crate) struct Track {
    pub(crate) name: String,
    pub(crate) colour: RGBColor,
    pub(crate) points: Vec<(f64, Option<f64>)>,
    pub(crate) stretches: Vec<(f64, f64)>,
}

/// What part of a row its points take, up and down.
const SPREAD: f64 = 0.6;
/// A dot of a row with many, and one of a row with few: it must be seen beside a line.
const MANY: (i32, f64) = (2, 0.6);
const FEW: (i32, f64) = (4, 0.9);
const MOST_OF_FEW: usize = 60;
/// Of lines where there are dots: these show through.
const FAINT: f64 = 0.5;
/// The height of a line of labels above the rows, and what is between a line and its label.
const LANE: i32 = 18;
const BESIDE: i32 = 5;
/// For the labels of the panel below.
const LABELS: i32 = 84;

/// The rows, below the labels of the events.
pub(crate) fn timeline(area: &Area<'_>, chart: &Timeline<'_>) -> Drawn {
    let shaded = chart.rows.iter().any(|row| !row.stretches.is_empty());
    let entries: Vec<(&str, Sign)> = shaded.then_some((chart.stretch, Sign::Edged(SHADE))).into_iter().collect();
    let area = head(area, chart.title, &entries)?;
    let sides = sides(chart, &area);
    let places: Vec<(i32, i32)> =
        chart.events.iter().map(|(at, name)| (sides.pixel(chart, *at), wide(name, TEXT) + BESIDE)).collect();
    let lanes = lanes(&places);
    let above = lanes.iter().max().map_or(0, |lane| (*lane as i32 + 1) * LANE);
    let names: Vec<&str> = chart.rows.iter().map(|row| row.name.as_str()).collect();
    let mut context = rows(&area, &chart.x, &names, (sides.left, GAP + above, sides.right), false)?;
    for (row, at) in chart.rows.iter().zip(0..) {
        let y = f64::from(at);
        let edge = [(chart.x.place(chart.x.from), y), (chart.x.place(chart.x.to), y)];
        context.draw_series([PathElement::new(edge, BLACK.mix(0.2).stroke_width(1))])?;
        for (from, to) in &row.stretches {
            let corners = [(chart.x.place(*from), y), (chart.x.place(*to), y + 1.0)];
            context.draw_series([Rectangle::new(corners, SHADE.filled())])?;
        }
    }
    let height = context.plotting_area().dim_in_pixel().1 as i32;
    for ((at, name), lane) in chart.events.iter().zip(lanes) {
        let top = -LANE * lane as i32 - LANE;
        context.draw_series([EmptyElement::at((chart.x.place(*at), 0.0))
            + PathElement::new([(0, top), (0, 0)], BLACK.stroke_width(1))
            + PathElement::new([(0, 0), (0, height)], BLACK.mix(FAINT).stroke_width(1))
            + Text::new(name.clone(), (BESIDE, top + LANE / 2), written(TEXT, HPos::Left, VPos::Center))])?;
    }
    for (row, at) in chart.rows.iter().zip(0..) {
        let middle = f64::from(at) + 0.5;
        let points = row.points.iter().enumerate().map(|(at, (x, _))| (*x, middle + jitter(at) * SPREAD));
        dots(&mut context, chart, points, row.colour)?;
    }
    Ok(())
}

/// How long each took, over the same time: the axis is where that of the rows is, if both areas are equally wide.
pub(crate) fn scatter(area: &Area<'_>, title: &str, y: &Scale<'_>, chart: &Timeline<'_>) -> Drawn {
    let there = || chart.rows.iter().filter(|row| row.points.iter().any(|(_, took)| took.is_some()));
    let entries: Vec<(&str, Sign)> = there().map(|row| (row.name.as_str(), Sign::Dot(row.colour))).collect();
    let area = head(area, title, &entries)?;
    let sides = sides(chart, &area);
    let mut context = ChartBuilder::on(&area)
        .margin(GAP)
        .margin_right(sides.right)
        .set_label_area_size(LabelAreaPosition::Left, sides.left)
        .set_label_area_size(LabelAreaPosition::Bottom, BELOW)
        .build_cartesian_2d(chart.x.axis(), y.axis())?;
    context
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_label_formatter(&|place| chart.x.label(*place))
        .x_desc(chart.x.name)
        .y_label_formatter(&|place| y.label(*place))
        .y_desc(y.name)
        .label_style((FONT, TEXT))
        .draw()?;
    for (at, _) in &chart.events {
        let ends = [y.from, y.to].map(|end| (chart.x.place(*at), y.place(end)));
        context.draw_series([PathElement::new(ends, BLACK.mix(FAINT).stroke_width(1))])?;
    }
    for row in there() {
        let points = row.points.iter().filter_map(|(x, took)| Some((*x, y.place((*took)?))));
        dots(&mut context, chart, points, row.colour)?;
    }
    Ok(())
}

/// Dots of the points that are on the time's axis. Those that fall on one pixel are one dot: thousands stay readable,
/// and the file small.
fn dots(
    context: &mut Rows<'_, '_>,
    chart: &Timeline<'_>,
    points: impl Iterator<Item = (f64, f64)>,
    colour: RGBColor,
) -> Drawn {
    let mut seen: HashSet<(i32, i32)> = HashSet::new();
    let points = points.filter(|(x, _)| (chart.x.from..=chart.x.to).contains(x));
    let places: Vec<(f64, f64)> = points.map(|(x, y)| (chart.x.place(x), y)).collect();
    let places = places.into_iter().filter(|place| seen.insert(context.backend_coord(place))).collect::<Vec<_>>();
    let (radius, opacity) = if places.len() > MOST_OF_FEW { MANY } else { FEW };
    context.draw_series(places.into_iter().map(|place| Circle::new(place, radius, colour.mix(opacity).filled())))?;
    Ok(())
}

/// The room at both sides of the plot, and its width.
struct Sides {
    left: i32,
    right: i32,
    plot: i32,
}

/// At the right there is room for the labels of late events, so that every label is at the right of its line.
fn sides(chart: &Timeline<'_>, area: &Area<'_>) -> Sides {
    let left = left(chart.rows.iter().map(|row| row.name.as_str())).max(LABELS);
    let room = area.dim_in_pixel().0 as i32 - left - GAP;
    let beyond = |(at, name): &(f64, String)| {
        let part = part(chart, *at);
        let long = f64::from(wide(name, TEXT) + 2 * BESIDE);
        if part > 0.0 { ((long - (1.0 - part) * f64::from(room)) / part).ceil() as i32 } else { 0 }
    };
    let right = chart.events.iter().map(beyond).max().unwrap_or(0).clamp(MARGIN, (room / 3).max(MARGIN));
    Sides { left, right, plot: room - right }
}

impl Sides {
    fn pixel(&self, chart: &Timeline<'_>, at: f64) -> i32 {
        (part(chart, at) * f64::from(self.plot)) as i32
    }
}

/// What part of the axis is before this time.
fn part(chart: &Timeline<'_>, at: f64) -> f64 {
    let [from, at, to] = [chart.x.from, at, chart.x.to].map(|value| chart.x.place(value));
    (at - from) / (to - from)
}

/// In which line above the rows each label is, by its place and width: the lowest where it is over no other label, and
/// over no line of one that is lower. So the first of several that are close together is the highest.
fn lanes(labels: &[(i32, i32)]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..labels.len()).rev().collect();
    order.sort_by_key(|at| std::cmp::Reverse(labels[*at].0));
    let mut lanes = vec![0; labels.len()];
    let mut placed: Vec<(i32, usize)> = Vec::new();
    for at in order {
        let (x, wide) = labels[at];
        // A label begins at its line, so what is at the right of this one is met by its line first.
        let met = placed.iter().filter(|(line, _)| *line <= x + wide).map(|(_, lane)| lane + 1);
        lanes[at] = met.max().unwrap_or(0);
        placed.push((x, lanes[at]));
    }
    lanes
}

#[cfg(test)]
mod tests {
    use super::super::colour;
    use super::super::tests::{attribute, drawn, elements, words};
    use super::*;

    fn chart() -> Timeline<'static> {
        let track = |name: &str, at, points| Track { name: name.into(), colour: colour(at), points, stretches: vec![] };
        let mut late = track("k3x9q (new)", 2, vec![(2.0, Some(3.0)), (9.0, Some(3.0)), (-0.6, None)]);
        late.stretches.push((0.0, 1.5));
        Timeline {
            title: "A replica is killed",
            x: Scale { name: "s after the kill", from: -0.5, to: 3.0, ticks: vec![0.0, 3.0], ..Scale::default() },
            events: vec![
                (0.0, "docker kill".into()),
                (0.005, "out of rotation 5 ms".into()),
                (0.01, "listed".into()),
                (2.99, "3 ready after 2990 ms".into()),
            ],
            stretch: "not ready",
            rows: vec![
                track("S1", 0, vec![(-0.5, Some(1.0)), (0.0, Some(10.0)), (0.0, Some(10.0))]),
                track("failed", 1, vec![(0.002, None)]),
                late,
            ],
        }
    }

    fn latency() -> Scale<'static> {
        Scale { name: "ms (log)", from: 1.0, to: 100.0, log: true, ticks: vec![1.0, 10.0, 100.0], tick: None }
    }

    /// Where the dots of points are, without those of the legend.
    fn dots(svg: &str) -> Vec<(f64, f64)> {
        let dots = elements(svg, "circle").into_iter().filter(|dot| attribute(dot, "opacity") < 1.0);
        dots.map(|dot| (attribute(dot, "cx"), attribute(dot, "cy"))).collect()
    }

    fn place(svg: &str, word: &str) -> (f64, f64) {
        let (_, element) = words(svg).into_iter().find(|(text, _)| *text == word).unwrap();
        (attribute(element, "x"), attribute(element, "y"))
    }

    #[test]
    fn every_row_event_and_point_of_the_time_is_drawn() {
        let svg = drawn((830, 300), |area| timeline(area, &chart()));
        // Three of the first row, one of each other: two are beyond the axis.
        assert_eq!(dots(&svg).len(), 5);
        let heights = ["S1", "failed", "k3x9q (new)"].map(|name| place(&svg, name).1);
        assert!(heights.is_sorted(), "{heights:?}");
        for (dot, row) in dots(&svg).iter().zip([0, 0, 0, 1, 2]) {
            assert!((dot.1 - heights[row]).abs() < (heights[1] - heights[0]) / 2.0, "{dot:?} {heights:?}");
        }
        for word in ["A replica is killed", "s after the kill", "not ready", "docker kill", "listed"] {
            place(&svg, word);
        }
        // The stretch, and its sign in the legend.
        assert_eq!(svg.matches("#EEEEEE").count(), 2);
    }

    #[test]
    fn labels_of_events_that_are_close_do_not_meet() {
        let chart = chart();
        let svg = drawn((830, 300), |area| timeline(area, &chart));
        let labels: Vec<(f64, f64, f64)> = chart
            .events
            .iter()
            .map(|(_, name)| (place(&svg, name), f64::from(wide(name, TEXT))))
            .map(|((x, y), wide)| (x, x + wide, y))
            .collect();
        for (at, (left, right, y)) in labels.iter().enumerate() {
            assert!(*right <= 830.0, "{labels:?}");
            for (other_left, other_right, other) in &labels[at + 1..] {
                let beside = right < other_left || other_right < left;
                assert!(beside || other - y >= f64::from(LANE), "{labels:?}");
            }
        }
    }

    #[test]
    fn a_label_is_above_those_that_its_line_does_not_pass() {
        assert_eq!(lanes(&[(0, 100), (5, 50), (6, 60), (200, 10)]), [2, 1, 0, 0]);
        assert_eq!(lanes(&[(6, 60), (0, 3), (6, 10)]), [1, 0, 0]);
        assert_eq!(lanes(&[]), [0; 0]);
    }

    #[test]
    fn one_dot_of_a_row_is_larger_than_one_of_many() {
        let mut chart = chart();
        chart.rows[0].points = (0..200).map(|at| (f64::from(at) * 0.01, None)).collect();
        let svg = drawn((830, 300), |area| timeline(area, &chart));
        let radii: Vec<f64> = elements(&svg, "circle").into_iter().map(|dot| attribute(dot, "r")).collect();
        assert!(radii[0] < radii[200], "{radii:?}");
    }

    #[test]
    fn how_long_it_took_is_below_when_it_was() {
        let upper = drawn((830, 300), |area| timeline(area, &chart()));
        let lower = drawn((830, 300), |area| scatter(area, "How long", &latency(), &chart()));
        for tick in ["0", "3"] {
            assert_eq!(place(&upper, tick).0, place(&lower, tick).0);
        }
        // Two that are the same are drawn once; what has no length is not there, not even in the legend.
        let dots = dots(&lower);
        assert_eq!(dots.len(), 3);
        assert!((dots[1].0 - place(&lower, "0").0).abs() <= 1.0 && (dots[1].1 - place(&lower, "10").1).abs() <= 1.0);
        assert_eq!(words(&lower).iter().filter(|(text, _)| ["S1", "k3x9q (new)", "failed"].contains(text)).count(), 2);
    }
}
