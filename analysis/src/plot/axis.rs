//! An axis with labels where they are wanted.

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};

/// A plain axis with labels at given places.
pub(super) struct Axis {
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) labels: Vec<f64>,
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
pub(super) fn powers(bottom: f64, top: f64) -> Vec<f64> {
    (bottom as i32..=top as i32).map(f64::from).collect()
}

/// A label as short as can be.
pub(super) fn tick(value: f64) -> String {
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
}
