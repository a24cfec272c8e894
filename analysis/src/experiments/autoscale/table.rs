//! The tables of the page.

use super::news::{self, News};
use super::run::{Run, Verdict};
use super::{Autoscale, TARGET};
use crate::bench::table::markdown;

/// What every run was like, wave by wave.
pub(super) fn waves(found: &Autoscale) -> String {
    let header = [
        "run",
        "wave",
        "N before",
        "most",
        "at its end",
        "changes of direction",
        "first decision after, s",
        "most in rotation after, s",
        "calm p99, ms",
        "over twice that for, s",
        "slowest, ms",
        "requests",
        "failed",
    ];
    let seconds = |value: Option<f64>| value.map_or_else(|| "-".into(), |value| format!("{value:.2}"));
    let row = |run: &Run, number: usize, verdict: &Verdict| {
        vec![
            run.case.name.clone(),
            (number + 1).to_string(),
            verdict.before.to_string(),
            verdict.most.to_string(),
            verdict.end.to_string(),
            verdict.turns.to_string(),
            seconds(verdict.decided),
            seconds(verdict.reached),
            format!("{:.0}", run.calm()),
            format!("{:.1}", verdict.excess),
            format!("{:.0}", verdict.slowest_ms),
            run.took_us.len().to_string(),
            run.failed().to_string(),
        ]
    };
    let rows = found.runs().flat_map(|run| {
        let verdicts = run.verdicts();
        verdicts.iter().enumerate().map(|(number, verdict)| row(run, number, verdict)).collect::<Vec<_>>()
    });
    markdown(&header, 1, rows.collect()).unwrap_or_default()
}

/// What every run was told.
pub(super) fn settings(found: &Autoscale) -> String {
    let item = |run: &Run| {
        let case = &run.case;
        let stretches: Vec<String> =
            case.wave.parts().map(|(_, seconds, rate)| format!("{seconds} s at {rate}/s")).collect();
        let environment: Vec<String> =
            case.told.replicas.iter().map(|(name, value)| format!("{name}={value}")).collect();
        format!(
            "- **{}**: {}\n  - `lb agent --runtime process {}`\n  - `lb serve --runtime agent {}`\n  - replicas: `{}`",
            case.name,
            stretches.join(", "),
            case.told.agent.join(" "),
            case.told.balancer.join(" "),
            environment.join(" "),
        )
    };
    found.runs().map(item).collect::<Vec<_>>().join("\n")
}

/// All decisions.
pub(super) fn decisions(found: &Autoscale) -> String {
    let row = |run: &Run| {
        let decisions = run.decisions.iter().map(|decision| {
            vec![
                run.case.name.clone(),
                decision.decision.clone(),
                decision.reason.clone(),
                decision.outcome.clone(),
                format!("{:.2}", decision.at),
            ]
        });
        decisions.collect::<Vec<_>>()
    };
    let header = ["run", "decision", "reason", "outcome", "at, s"];
    markdown(&header, 4, found.runs().flat_map(row).collect()).unwrap_or_else(|| "None.".into())
}

/// From the agent to the data path.
pub(super) fn news(found: &[News]) -> String {
    let row = |news: &News, what: String, bytes: usize, times: &[f64]| {
        let sorted = sorted(times);
        let part = |part: f64| {
            let rank = (sorted.len() as f64 * part).ceil() as usize;
            format!("{:.2}", sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default())
        };
        vec![
            what,
            news.members.to_string(),
            bytes.to_string(),
            times.len().to_string(),
            format!("{:.2}", median(times)),
            part(0.95),
            part(1.0),
        ]
    };
    let rows = found.iter().flat_map(|news| {
        [
            row(news, "snapshot".into(), news.snapshot_bytes, &news.snapshot_ms),
            row(news, "delta: one replaced".into(), news.delta_bytes, &news.delta_ms),
        ]
    });
    let header = ["what is told", "members", "bytes", "times", "median, ms", "p95", "most"];
    let table = markdown(&header, 1, rows.collect()).unwrap_or_default();
    format!(
        "This program plays the agent, and this follows it:\n`lb {}`.\nMilliseconds from before the message is put into \
         words until the balancer's report that it serves this state has come.\nSnapshots go each to a balancer that \
         has just been started.\n\n{table}",
        news::ARGS,
    )
}

/// The middle value; 0 of none.
pub(super) fn median(values: &[f64]) -> f64 {
    let sorted = sorted(values);
    let middle = |at: usize| sorted.get(at).copied().unwrap_or_default();
    f64::midpoint(middle(sorted.len() / 2), middle(sorted.len().saturating_sub(1) / 2))
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// What the first two sections begin with.
pub(super) fn words() -> (String, String) {
    (
        format!(
            "Requests are due at fixed times, whatever happens to those before, and each counts from when it was due. p99: \
             of the\nrequests that were due in a second, looked at ten times a second. A replica is to have {TARGET} in \
             flight."
        ),
        "What each was told, besides where it listens.".to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!([median(&[3.0, 9.0, 1.0]), median(&[4.0, 1.0]), median(&[])], [3.0, 2.5, 0.0]);
    }
}
