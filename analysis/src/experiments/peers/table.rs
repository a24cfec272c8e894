//! The sections of `peers.md`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::super::a2::SERVICE;
use super::super::stage::{Harm, Runtime};
use super::super::table::spreads;
use super::even::CONCURRENCY;
use super::failures::{self, CONNECTIONS, HARMS, OURS, RATE, REPLICAS, Round};
use super::seen::SLOW;
use super::{Figures, Peers};
use crate::bench::report::Spread as Middle;
use crate::bench::table::markdown;

pub(super) fn sections(peers: &Peers) -> String {
    let mut text = String::new();
    for skipped in &peers.skipped {
        let _ = write!(text, "Skipped: {skipped}\n\n");
    }
    let _ = write!(
        text,
        "## Requests by replica\n\n\
         The same keys for all, `GET /home?id=132574`, {CONCURRENCY} in flight, before the same replicas, which no balancer \
         has started.\nEach program has one thread. lb goes by `--hash-key query:id`; HAProxy has `balance url_param id` and \
         `hash-type consistent`,\nplain and with `hash-balance-factor 125`; nginx has `hash $arg_id consistent`, which places \
         replicas by their addresses: with\nothers its shares are others. Requests/s and times are the client's as much as a \
         program's: docs/benchmarks.md compares\nwhat they cost.\n\n{}\n\n\
         Replicas that serve {} requests at a time, each in {} ms:\n\n{}\n\n\
         ## Failures\n\n{}\n\n{}\n",
        spreads(peers.spreads.iter()),
        SERVICE.at_once,
        SERVICE.ms,
        spreads(peers.slow.iter()),
        how(peers.runtime),
        costs(peers),
    );
    if let Some(reasons) = reasons(peers) {
        let _ = write!(text, "\nWhat went wrong:\n\n{reasons}\n");
    }
    text
}

fn how(runtime: Runtime) -> String {
    let (hears, again) = match runtime {
        Runtime::Docker => (
            "; the engine tells it which of them was killed, has ended or was paused",
            "The engine does for them what it can (`--restart always`, fixed addresses): it starts anew what\nhas crashed, \
             but never what was killed with `docker kill`, and what is paused stays so.",
        ),
        Runtime::Process => ("", "Nobody starts a process anew before them, however it has ended."),
    };
    let [long, short] = [Harm::Kill, Harm::Crash].map(|harm| failures::length(harm).as_secs_f64());
    let slow = SLOW.as_millis();
    format!(
        "{REPLICAS} replicas; before each program {RATE:.0} requests a second over {CONNECTIONS} connections, with random keys. \
         In each round the next replica\nis harmed. lb has its default settings and respawns replicas{hears}.\n\n\
         HAProxy and nginx don't respawn. {again}\nThey stand before the same replicas and see the same harm, each under its \
         own load, at the\nsame time; lb has its turn alone. HAProxy has checks like lb's (`check inter\n500ms fall 3 rise 1`, `timeout check 500ms`, GET /heartbeat), \
         `retries 2`, `option redispatch 1` and `retry-on \
         all-retryable-errors`;\n`observing`: and `observe layer4 error-limit 3 on-error mark-down on-marked-down \
         shutdown-sessions`, as lb learns from live\ntraffic by default.\nnginx has no checks of its own without its \
         commercial part: only `max_fails=3 fail_timeout=2s`, which must be whole seconds, and\n`proxy_next_upstream error \
         timeout` with three tries. Time limits are lb's: 2 s to connect, 30 s for an answer.\n\n\
         A round ends {long:.0} s after the harm, {short:.0} s after a crash; what is paused may go on then, so that \
         requests that wait for it end. Once\nall connections of a load wait for one replica, every other request waits for \
         a connection. Slow: answered, but more than {slow} ms\nafter it was due. Disturbed: from the harm to the end of the \
         last request that failed or was slow. {REPLICAS} again: from the harm to\nthe first answer of a replica that is none \
         of the survivors; `-`: not in the round. Medians, least to most in brackets."
    )
}

/// The rounds of each program and harm, the balancer's first.
pub(super) fn grouped(peers: &Peers) -> Vec<(&str, Harm, Vec<&Figures>)> {
    let mut programs: Vec<&str> = vec![OURS];
    for round in &peers.rounds {
        if !programs.contains(&&*round.program) {
            programs.push(&round.program);
        }
    }
    let of = |program: &str, harm| -> Vec<&Figures> {
        let is_it = |round: &&Round| round.program == program && round.harm == harm;
        peers.rounds.iter().filter(is_it).map(|round| &round.figures).collect()
    };
    let all = HARMS.into_iter().flat_map(|harm| programs.iter().map(move |program| (*program, harm)));
    all.map(|(program, harm)| (program, harm, of(program, harm))).filter(|(_, _, of)| !of.is_empty()).collect()
}

fn costs(peers: &Peers) -> String {
    let row = |(program, harm, rounds): (&str, Harm, Vec<&Figures>)| {
        let sum = |value: fn(&Figures) -> u64| rounds.iter().map(|figures| value(figures)).sum::<u64>().to_string();
        let slowest = rounds.iter().map(|figures| figures.slowest_ms).fold(0.0, f64::max);
        let disturbed = rounds.iter().map(|figures| figures.disturbed.unwrap_or_default()).collect();
        let again: Vec<f64> = rounds.iter().filter_map(|figures| figures.again).collect();
        let some = if again.is_empty() || again.len() == rounds.len() {
            String::new()
        } else {
            format!(", {} of {}", again.len(), rounds.len())
        };
        vec![
            harm.name(peers.runtime).to_owned(),
            program.to_owned(),
            rounds.len().to_string(),
            sum(|figures| figures.requests),
            sum(Figures::failed),
            sum(|figures| figures.slow),
            format!("{slowest:.0}"),
            middle(disturbed),
            format!("{}{some}", middle(again)),
        ]
    };
    let again = format!("{REPLICAS} again, s");
    let header = ["harm", "program", "rounds", "requests", "failed", "slow", "slowest, ms", "disturbed for, s", &again];
    markdown(&header, 2, grouped(peers).into_iter().map(row).collect()).unwrap_or_default()
}

fn middle(values: Vec<f64>) -> String {
    match Middle::of(values) {
        Some(Middle { median, min, max }) => format!("{median:.3} ({min:.3}..{max:.3})"),
        None => "-".into(),
    }
}

fn reasons(peers: &Peers) -> Option<String> {
    let rows = grouped(peers).into_iter().flat_map(|(program, harm, rounds)| {
        let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
        for (why, count) in rounds.iter().flat_map(|figures| &figures.failures) {
            *sums.entry(why).or_default() += count;
        }
        let row = move |(why, count): (&str, u64)| {
            vec![harm.name(peers.runtime).to_owned(), program.to_owned(), why.to_owned(), count.to_string()]
        };
        sums.into_iter().map(row)
    });
    markdown(&["harm", "program", "what", "requests"], 3, rows.collect())
}

#[cfg(test)]
mod tests {
    use super::super::super::spread::tests::example;
    use super::super::tests::peers;
    use super::*;

    fn plain(text: &str) -> Vec<String> {
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    #[test]
    fn rounds_are_added_up_by_harm_and_program() {
        let rows = plain(&costs(&peers()));
        let wanted = [
            "| docker kill | lb | 2 | 200 | 0 | 0 | 12 | 0.000 (0.000..0.000) | 0.700 (0.600..0.800) |",
            "| docker kill | nginx | 2 | 200 | 3 | 14 | 900 | 1.250 (1.000..1.500) | - |",
            "| crash in the server | nginx | 2 | 200 | 0 | 0 | 12 | 0.000 (0.000..0.000) | 0.800 (0.800..0.800), 1 of 2 |",
        ];
        assert_eq!(rows[2..], wanted);
        let rows = plain(&reasons(&peers()).unwrap());
        assert_eq!(rows[2..], ["| docker kill | nginx | status 502 | 3 |"]);
    }

    #[test]
    fn sections_say_what_was_left_out_and_who_starts_replicas_anew() {
        let all = Peers { spreads: vec![example("nginx", 100, &[60, 40])], ..peers() };
        let text = sections(&all);
        for words in
            ["Skipped: HAProxy: not installed\n", "| nginx     | 2 |", "`--restart always`", "the engine tells it"]
        {
            assert!(text.contains(words), "{words}: {text}");
        }
        let text = sections(&Peers { runtime: Runtime::Process, ..all });
        assert!(text.contains("Nobody starts a process anew") && !text.contains("ngine"), "{text}");
    }
}
