//! Rows of many values.

use plotters::prelude::*;

use super::axis::Scale;
use super::legend::{Sign, head};
use super::rows::{GAP, MARGIN, jitter, left, rows};
use super::{Area, Drawn};

/// Many values of several series in named rows.
pub(crate) struct Strips<'a> {
    pub(crate) title: &'a str,
    pub(crate) x: Scale<'a>,
    /// Names and colours.
    pub(crate) series: Vec<(String, RGBColor)>,
    /// From top to bottom: a name, and the values of each series.
    pub(crate) rows: Vec<(String, Vec<Vec<f64>>)>,
}

/// What part of a row is for its strips, and of a strip for its dots.
const FULL: f64 = 0.9;
const SPREAD: f64 = 0.6;
/// Dots show through each other.
const OPACITY: f64 = 0.5;
const RADIUS: i32 = 4;

/// Strips of dots with their medians; series are below each other, the legend is above.
pub(crate) fn strips(area: &Area<'_>, chart: &Strips<'_>) -> Drawn {
    let mut entries: Vec<(&str, Sign)> =
        chart.series.iter().map(|(name, colour)| (name.as_str(), Sign::Dot(*colour))).collect();
    entries.push(("median", Sign::Stroke(BLACK)));
    let area = head(area, chart.title, &entries)?;
    let names: Vec<&str> = chart.rows.iter().map(|(name, _)| name.as_str()).collect();
    let mut context = rows(&area, &chart.x, &names, (left(names.iter().copied()), GAP, MARGIN), true)?;
    for ((_, series), row) in chart.rows.iter().zip(0..) {
        let there = || series.iter().zip(&chart.series).filter(|(values, _)| !values.is_empty());
        let strip = FULL / there().count().max(1) as f64;
        for ((values, (_, colour)), at) in there().zip(0..) {
            let middle = f64::from(row) + (1.0 - FULL) / 2.0 + strip * (f64::from(at) + 0.5);
            let dot = |(at, value): (usize, &f64)| {
                let place = (chart.x.place(*value), middle + jitter(at) * strip * SPREAD);
                Circle::new(place, RADIUS, colour.mix(OPACITY).filled())
            };
            context.draw_series(values.iter().enumerate().map(dot))?;
            let place = chart.x.place(median(values));
            let ends = [(place, middle - strip / 2.0), (place, middle + strip / 2.0)];
            context.draw_series([PathElement::new(ends, BLACK.stroke_width(3))])?;
        }
    }
    Ok(())
}

/// The middle value, or the mean of the two in the middle.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = |at: usize| sorted.get(at).copied().unwrap_or_default();
    (middle(sorted.len() / 2) + middle(sorted.len().saturating_sub(1) / 2)) / 2.0
}

#[cfg(test)]
mod tests {
    use super::super::colour;
    use super::super::tests::{attribute, drawn, elements, words};
    use super::*;

    fn chart(log: bool) -> Strips<'static> {
        Strips {
            title: "Strips",
            x: Scale {
                name: "from kill to ready (log)",
                from: 1.0,
                to: 1000.0,
                log,
                ticks: vec![1.0, 10.0, 100.0, 1000.0],
                tick: Some(|ms| if ms < 1000.0 { format!("{ms} ms") } else { format!("{} s", ms / 1000.0) }),
            },
            series: vec![("processes".into(), colour(0)), ("containers".into(), colour(1))],
            rows: vec![
                ("upper".into(), vec![vec![10.0, 10.0, 10.0], vec![100.0]]),
                ("lower".into(), vec![vec![], vec![0.0, 5000.0]]),
            ],
        }
    }

    /// The dots of values, without those of the legend.
    fn dots(svg: &str) -> Vec<(f64, f64)> {
        let dots = elements(svg, "circle").into_iter().filter(|dot| attribute(dot, "opacity") < 1.0);
        dots.map(|dot| (attribute(dot, "cx"), attribute(dot, "cy"))).collect()
    }

    #[test]
    fn strips_have_every_value_name_and_tick() {
        let svg = drawn((830, 240), |area| strips(area, &chart(true)));
        assert_eq!(dots(&svg).len(), 6);
        let words: Vec<&str> = words(&svg).into_iter().map(|(text, _)| text).collect();
        for word in
            ["upper", "lower", "processes", "containers", "median", "1 ms", "100 ms", "1 s", "from kill to ready (log)"]
        {
            assert_eq!(words.iter().filter(|text| **text == word).count(), 1, "{word}");
        }
        // Three medians, and that of the legend.
        assert_eq!(svg.matches("stroke-width=\"3\"").count(), 4);
    }

    #[test]
    fn values_are_at_their_logarithms_or_at_the_ends() {
        let svg = drawn((830, 240), |area| strips(area, &chart(true)));
        let ticks: Vec<f64> = ["1 ms", "10 ms", "100 ms", "1 s"]
            .iter()
            .filter_map(|tick| words(&svg).into_iter().find(|(text, _)| text == tick))
            .map(|(_, element)| attribute(element, "x"))
            .collect();
        let near = |x: f64, tick: f64| (x - tick).abs() <= 1.0;
        let x: Vec<f64> = dots(&svg).into_iter().map(|(x, _)| x).collect();
        for (x, tick) in x.iter().zip([1, 1, 1, 2, 0, 3]) {
            assert!(near(*x, ticks[tick]), "{x} {ticks:?}");
        }
        // The only value is the median.
        assert!(svg.contains(&format!("stroke-width=\"3\" points=\"{},", x[3])), "{svg}");
        let plain = drawn((830, 240), |area| strips(area, &chart(false)));
        let third = dots(&plain)[3].0;
        assert!((third - ticks[0]) / (ticks[3] - ticks[0]) < 0.11, "{third}");
    }

    #[test]
    fn equal_values_are_drawn_apart_and_each_time_the_same() {
        let draw = || drawn((830, 240), |area| strips(area, &chart(true)));
        let svg = draw();
        let mut y: Vec<f64> = dots(&svg)[..3].iter().map(|(_, y)| *y).collect();
        y.dedup();
        assert_eq!(y.len(), 3);
        assert_eq!(svg, draw());
    }

    #[test]
    fn the_median_is_between_two_in_the_middle() {
        assert_eq!([median(&[3.0, 1.0, 2.0]), median(&[4.0, 1.0]), median(&[])], [2.0, 2.5, 0.0]);
    }
}
