//! The plots: `work.svg` and `burst.svg`.

use std::path::Path;

use super::report::{BURST_SERVERS, Report, Row, WORK_CLIENTS, WORK_SERVERS};
use crate::control::Protocol;
use crate::plot::{Axes, Drawn, Line, colour, lines, sheet};

const PANEL: (u32, u32) = (460, 340);
/// Colours of what was measured, what the document has, and what is possible.
const MEASURED: usize = 0;
const DOCUMENT: usize = 1;
const POSSIBLE: usize = 3;

/// Draws what the report has the values of.
pub(super) fn draw(report: &Report, out: &Path) -> Drawn {
    work(report, &out.join("work.svg"))?;
    burst(report, &out.join("burst.svg"))
}

/// A panel for each protocol and number of clients: how much faster than with one server.
fn work(report: &Report, file: &Path) -> Drawn {
    let protocols = [Protocol::Tcp, Protocol::Udp];
    let sheet = sheet(file, (WORK_CLIENTS.len(), protocols.len()), PANEL);
    let cases = protocols.into_iter().flat_map(|protocol| WORK_CLIENTS.map(|clients| (protocol, clients)));
    for (panel, (protocol, clients)) in sheet.panels()?.into_iter().zip(cases) {
        let rows = report.speed_up(protocol, clients);
        let possible = WORK_SERVERS.map(|servers| (servers as f64, report.possible(servers) as f64));
        let possible = possible.map(|(x, y)| (x, y, y, y)).to_vec();
        let name = format!("possible on {} cores", report.machine.cores);
        // What was measured lies on top.
        let all = [Line { name, colour: colour(POSSIBLE), points: possible }, document(&rows), measured(&rows)];
        let title =
            format!("{}, {clients} clients, {} ms of work each", protocol.name().to_uppercase(), report.work_ms);
        lines(&panel, &axes(&title, "times as fast as one", &WORK_SERVERS), &all)?;
    }
    sheet.finish()
}

fn burst(report: &Report, file: &Path) -> Drawn {
    let rows = report.success();
    let sheet = sheet(file, (1, 1), PANEL);
    for panel in sheet.panels()? {
        let title = "1000 connections in one burst, 20 KB each";
        let axes = Axes { most: Some(100.0), ..axes(title, "% answered", &BURST_SERVERS) };
        lines(&panel, &axes, &[document(&rows), measured(&rows)])?;
    }
    sheet.finish()
}

fn measured(rows: &[Row]) -> Line {
    let points = rows.iter().map(|row| (row.servers as f64, row.measured.median, row.measured.min, row.measured.max));
    Line { name: "measured".into(), colour: colour(MEASURED), points: points.collect() }
}

fn document(rows: &[Row]) -> Line {
    let points = rows.iter().map(|row| (row.servers as f64, row.document, row.document, row.document));
    Line { name: "the document's program".into(), colour: colour(DOCUMENT), points: points.collect() }
}

fn axes<'a>(title: &'a str, y: &'a str, servers: &[usize]) -> Axes<'a> {
    let ticks = servers.iter().map(|servers| *servers as f64).collect();
    Axes { title, x: "servers", y, log_x: false, log_y: false, ticks, ..Axes::default() }
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::report;
    use super::*;

    #[test]
    fn plots_say_what_they_show() {
        let dir = tempfile::tempdir().unwrap();
        draw(&report(), dir.path()).unwrap();
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        let work = read("work.svg");
        for word in ["TCP, 10 clients, 50 ms of work each", "measured", "document", "possible on 2 cores"] {
            assert!(work.contains(word), "{word}");
        }
        assert!(read("burst.svg").contains("% answered"));
    }
}
