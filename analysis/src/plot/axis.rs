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

/// An axis of values with its name and labels.
#[derive(Default)]
pub(crate) struct Scale<'a> {
    /// What it shows, with the unit.
    pub(crate) name: &'a str,
    /// The axis from end to end; a logarithmic one begins above 0.
    pub(crate) from: f64,
    pub(crate) to: f64,
    pub(crate) log: bool,
    pub(crate) ticks: Vec<f64>,
    /// What a label says, if not its value.
    pub(crate) tick: Option<fn(f64) -> String>,
}

impl Scale<'_> {
    /// Where a value is; what is beyond an end is at that end.
    pub(super) fn place(&self, value: f64) -> f64 {
        let value = value.max(self.from).min(self.to);
        if self.log { value.max(f64::MIN_POSITIVE).log10() } else { value }
    }

    pub(super) fn axis(&self) -> Axis {
        let labels = self.ticks.iter().map(|tick| self.place(*tick)).collect();
        Axis { from: self.place(self.from), to: self.place(self.to), labels }
    }

    /// What the label at a place says.
    pub(super) fn label(&self, place: f64) -> String {
        let there = self.ticks.iter().find(|tick| self.place(**tick) == place);
        there.map_or_else(String::new, |value| self.tick.unwrap_or(tick)(*value))
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
    fn a_scale_holds_what_is_beyond_its_ends() {
        let mut scale = Scale { from: 1.0, to: 100.0, log: true, ticks: vec![1.0, 10.0], ..Scale::default() };
        assert_eq!([0.0, 10.0, f64::INFINITY].map(|value| scale.place(value)), [0.0, 1.0, 2.0]);
        assert_eq!([1.0, 0.5].map(|place| scale.label(place)), ["10", ""]);
        scale.log = false;
        assert_eq!([0.0, 10.0, 101.0].map(|value| scale.place(value)), [1.0, 10.0, 100.0]);
    }

    #[test]
    fn steps_are_round_and_few() {
        assert_eq!(steps(47.0), [0.0, 10.0, 20.0, 30.0, 40.0]);
        for top in [0.03, 1.0, 1.3, 9.9, 120.0, 51_000.0] {
            assert!((4..=9).contains(&steps(top).len()), "{top}: {:?}", steps(top));
        }
    }
}
