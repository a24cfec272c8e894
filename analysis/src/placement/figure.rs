//! Single figures: how uneven counts are. Pure.

use serde::{Deserialize, Serialize};

/// How uneven a load is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Evenness {
    /// The largest, as a multiple of the mean.
    pub(crate) max_mean: f64,
    /// The standard deviation, as a part of the mean.
    pub(crate) sd_mean: f64,
}

impl Evenness {
    /// Of these counts or shares; 0 for none.
    pub(crate) fn of(loads: &[f64]) -> Self {
        let count = loads.len().max(1) as f64;
        let mean = loads.iter().sum::<f64>() / count;
        if mean <= 0.0 {
            return Self { max_mean: 0.0, sd_mean: 0.0 };
        }
        let variance = loads.iter().map(|load| (load - mean).powi(2)).sum::<f64>() / count;
        let max = loads.iter().copied().fold(0.0, f64::max);
        Self { max_mean: digits(max / mean), sd_mean: digits(variance.sqrt() / mean) }
    }
}

/// Mean and worst of several cases.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cases {
    pub(crate) mean: f64,
    pub(crate) worst: f64,
}

impl Cases {
    /// 0 for none.
    pub(crate) fn of(values: &[f64]) -> Self {
        let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
        Self { mean: digits(mean), worst: digits(values.iter().copied().fold(0.0, f64::max)) }
    }
}

/// As many digits as matter, so that a number is the same after it was written and read.
pub(crate) fn digits(value: f64) -> f64 {
    (value * 1e9).round() / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evenness_is_that_of_the_population() {
        assert_eq!(Evenness::of(&[2.0, 4.0, 6.0]), Evenness { max_mean: 1.5, sd_mean: 0.408_248_290 });
        assert_eq!(Evenness::of(&[5.0; 4]), Evenness { max_mean: 1.0, sd_mean: 0.0 });
        assert_eq!(Evenness::of(&[0.0, 0.0]).max_mean, 0.0);
        assert_eq!(Evenness::of(&[]).max_mean, 0.0);
    }

    #[test]
    fn the_worst_is_the_largest() {
        assert_eq!(Cases::of(&[0.25, 0.5, 0.0]), Cases { mean: 0.25, worst: 0.5 });
        assert_eq!(Cases::of(&[]), Cases { mean: 0.0, worst: 0.0 });
    }
}
