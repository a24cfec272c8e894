//! Settings of what is decided by the load.

use std::time::Duration;

use super::{Layers, number, or_off, time};
use crate::config::RuntimeConfig;
use crate::pilot::PilotConfig;
use crate::pilot::outlier::OutlierConfig;
use crate::pilot::scale::ScaleConfig;
use crate::pilot::weigh::WeighConfig;
use crate::policy::PolicyKind;
use crate::proxy::Percent;

/// N at most, unless something is said.
const MAX_REPLICAS: usize = 10;

fn switch(text: &str) -> Result<Option<bool>, String> {
    match text {
        "off" => Ok(None),
        "on" => Ok(Some(false)),
        "dry-run" => Ok(Some(true)),
        _ => Err("off, on, dry-run".into()),
    }
}

fn above_zero(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| *number > 0.0 && *number <= 1_000_000.0);
    number.ok_or_else(|| "a number above 0".into())
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse::<Percent>().ok().filter(|Percent(share)| *share > 0.0 && *share <= 1.0);
    share.map(|Percent(share)| share).ok_or_else(|| "a share above 0% and up to 100%, such as 20%".into())
}

pub(super) fn read(l: &mut Layers, runtime: Option<&RuntimeConfig>, policy: Option<PolicyKind>) -> Option<PilotConfig> {
    let autoscale = l.parse("autoscale", switch);
    let in_flight = l.parse("target_in_flight", or_off(above_zero));
    let cpu = l.parse("target_cpu", |text| match text {
        "off" => Ok(None),
        // Of a core, and there may be several.
        text => match text.parse::<Percent>() {
            Ok(Percent(share)) if share > 0.0 => Ok(Some(share)),
            _ => Err("a share above 0%, such as 70%, or off".to_owned()),
        },
    });
    let p99 = l.parse("target_p99", or_off(time));
    let step = l.parse("scale_step", number(1..=1000));
    let mut times = ["scale_up_window", "scale_down_window", "scale_up_cooldown", "scale_down_cooldown", "scale_hold"]
        .map(|key| l.parse(key, time))
        .into_iter();
    let mut next = || times.next().flatten();
    let (up_window, down_window, up_cooldown, down_cooldown, hold) = (next(), next(), next(), next(), next());
    let forecast = l.parse("forecast", or_off(time));
    let outliers = l.parse("outliers", switch);
    let latency_factor = l.parse("outlier_latency", |text| {
        let factor = text.parse::<f64>().ok().filter(|factor| *factor > 1.0 && *factor <= 1000.0);
        factor.ok_or_else(|| "a factor above 1, to 1000".to_owned())
    });
    let failure_share = l.parse("outlier_failures", share);
    let max_share = l.parse("outlier_share", share);
    let weights = l.parse("weights", |text| match text {
        "fixed" => Ok(false),
        "auto" => Ok(true),
        _ => Err("fixed, auto".into()),
    });
    let scale = ScaleConfig {
        min: 1,
        max: MAX_REPLICAS,
        in_flight: in_flight?,
        cpu: cpu?,
        p99: p99?,
        step: step?,
        up_window: up_window?,
        down_window: down_window?,
        up_cooldown: up_cooldown?,
        down_cooldown: down_cooldown?,
        hold: hold?,
        forecast: forecast?,
        smoothing: Duration::from_millis(500),
    };
    let outlier = OutlierConfig {
        latency_factor: latency_factor?,
        failure_share: failure_share?,
        max_share: max_share?,
        ..OutlierConfig::default()
    };
    let (autoscale, outliers, weights) = (autoscale?, outliers?, weights?);
    let heals = matches!(runtime, Some(RuntimeConfig::Process { .. } | RuntimeConfig::Docker(_)) | None);
    for (key, is_on) in [("autoscale", autoscale.is_some()), ("outliers", outliers.is_some())] {
        if is_on && !heals && l.is_given(key) {
            l.refuse(
                key,
                "it needs a runtime that starts replicas: process or docker (with runtime agent: at lb agent)",
            );
        }
    }
    if autoscale.is_some() && scale.in_flight.is_none() && scale.cpu.is_none() && scale.p99.is_none() {
        l.refuse("autoscale", "it needs a target: target_in_flight, target_cpu or target_p99");
    }
    if weights && policy.is_some_and(PolicyKind::is_hashing) && l.is_given("weights") {
        l.refuse(
            "weights",
            "auto moves keys with every change; take a policy that does not go by keys, such as round-robin",
        );
    }
    Some(PilotConfig {
        scale: autoscale.filter(|_| heals).map(|dry_run| (scale, dry_run)),
        outliers: outliers.filter(|_| heals).map(|dry_run| (outlier, dry_run)),
        weigh: weights.then(WeighConfig::default),
    })
}

/// The fleet's bounds, which are the scaler's as well.
pub(super) fn bounds(
    l: &mut Layers,
    min: Option<usize>,
    max: Option<usize>,
    pilot: Option<&mut PilotConfig>,
) -> (usize, Option<usize>) {
    let scale = pilot.and_then(|pilot| pilot.scale.as_mut());
    let is_on = scale.as_ref().is_some_and(|(_, dry_run)| !dry_run);
    let least = min.unwrap_or(if is_on { 1 } else { 0 });
    let most = max.or(is_on.then_some(MAX_REPLICAS.max(least)));
    if most.is_some_and(|most| least > most) {
        l.refuse("min_replicas", &format!("max_replicas is {}", most.unwrap_or_default()));
    }
    if let Some((scale, _)) = scale {
        (scale.min, scale.max) = (min.unwrap_or(scale.min), max.unwrap_or(scale.max.max(least)));
    }
    (least, most)
}
