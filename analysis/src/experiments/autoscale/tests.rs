use std::collections::BTreeMap;

use super::run::{Decision, Stand};
use super::*;
use crate::experiments::record::tests::written;

/// Two waves of a few seconds, with these requests slow: from a time to another.
fn run(name: &str, slow: (f64, f64), n: &[(f64, u32)]) -> Run {
    let case = case(name, &[3, 4, 6, 4, 6], &["--autoscale", "on"], 0);
    let took = |number| {
        let due = case.wave.due(number).unwrap().as_secs_f64();
        if due >= slow.0 && due < slow.1 { 900_000 } else { 52_000 }
    };
    Run {
        took_us: (0..case.wave.requests()).map(took).collect(),
        failures: BTreeMap::new(),
        fleet: n.iter().map(|(at, n)| Stand { at: *at, n: *n, ready: *n, spares: 0 }).collect(),
        decisions: vec![Decision {
            at: 3.4,
            decision: "1 -> 5 replicas".into(),
            reason: "+4: 6.2 in flight per replica > 2 for 200 ms".into(),
            outcome: "done".into(),
        }],
        case,
    }
}

const FOLLOWS: [(f64, u32); 7] = [(0.0, 1), (3.5, 5), (10.0, 3), (12.0, 1), (13.6, 6), (20.0, 2), (22.5, 1)];

fn found() -> Autoscale {
    let news = News {
        members: 1000,
        snapshot_bytes: 300_000,
        snapshot_ms: vec![9.0, 12.5, 31.0],
        delta_bytes: 350,
        delta_ms: vec![1.5, 1.25, 9.0, 1.75],
    };
    Autoscale {
        waves: run("two waves", (3.0, 4.0), &FOLLOWS),
        variants: vec![run("N fixed", (3.0, 20.0), &[(0.0, 1)])],
        news: vec![news],
    }
}

fn holds(found: &Autoscale) -> Vec<bool> {
    found.checks().iter().map(|check| check.holds).collect()
}

#[test]
fn the_page_and_the_plots_have_waves_decisions_and_news() {
    let (page, plots) = written(found());
    let rows: Vec<String> = page.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for row in [
        "| two waves | 1 | 1 | 5 | 1 | 1 | 0.40 | 0.50 | 52 | 1.9 | 900 | 1750 | 0 |",
        "| two waves | 2 | 1 | 6 | 1 | 1 | - | 0.60 | 52 | 0.0 | 52 | 1750 | 0 |",
        "| two waves | 1 -> 5 replicas | +4: 6.2 in flight per replica > 2 for 200 ms | done | 3.40 |",
        "| snapshot | 1000 | 300000 | 3 | 12.50 | 31.00 | 31.00 |",
        "| wave 1: p99 above twice its calm value, 104 ms | 3.0 s | 1.9 s | yes |",
        "| news: a delta before 1000 members, median | 2.0 ms | 1.62 ms | yes |",
    ] {
        assert!(rows.iter().any(|line| line == row), "{row}: {page}");
    }
    assert!(page.contains("3500 requests at fixed times, seed 17") && page.contains("--policy least-requests"));
    for text in ["requests a second", "N, replicas", "twice the calm p99: 104 ms", "N fixed", "p99 of the last second"]
    {
        assert!(plots.contains(text), "{text}");
    }
}

#[test]
fn what_goes_wrong_does_not_hold() {
    // Two waves with three checks each, two runs, two sorts of news.
    assert_eq!(holds(&found()), [true; 10]);
    let waves = |slow, n: &[(f64, u32)]| holds(&Autoscale { waves: run("two waves", slow, n), ..found() });
    assert_eq!(waves((3.0, 6.0), &FOLLOWS)[..3], [false, true, true], "slow for too long");
    let late = [FOLLOWS[..3].to_vec(), vec![(13.4, 1), (13.6, 6), (22.5, 1)]].concat();
    assert_eq!(waves((3.0, 4.0), &late)[..3], [true, false, true], "three at the end");
    let wavers = [FOLLOWS[..2].to_vec(), vec![(5.0, 4), (5.5, 5)], FOLLOWS[2..].to_vec()].concat();
    assert_eq!(waves((3.0, 4.0), &wavers)[..3], [true, true, false]);
    assert_eq!(waves((3.0, 4.0), &[(0.0, 1)])[..6], [true, false, false, true, false, false], "N does not follow");
    let mut lost = found();
    lost.variants[0].failures.insert("status 503".into(), 1);
    lost.news[0].snapshot_ms = vec![20.1];
    lost.news[0].delta_ms.clear();
    assert_eq!(holds(&lost)[6..], [true, false, false, false], "no news is bad news");
}

#[test]
fn variants_differ_in_what_they_are_about() {
    let variants = variants(Path::new("target/lb"));
    let has = |word: &str| -> Vec<bool> {
        variants.iter().map(|case| case.told.agent.iter().any(|argument| argument.contains(word))).collect()
    };
    assert_eq!(has("--autoscale"), [false, true, true, true]);
    assert_eq!(has("sleep 1; exec target/server"), [false, false, true, true]);
    assert_eq!(has("--spares"), [false, false, false, true]);
    assert!(variants.iter().all(|case| case.wave == variants[0].wave));
    assert_eq!(main_case().wave.spans().len(), 2);
}
