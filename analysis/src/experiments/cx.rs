//! What an experiment has to work with.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use serde::{Deserialize, Serialize};

use super::stage::{Runtime, Stage, engine};
use crate::bench::machine::Machine;

/// What all experiments of a run were told.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Settings {
    /// Requests of each load.
    pub(super) requests: u64,
    /// How often each failure is caused, if that was said.
    pub(super) rounds: Option<u32>,
    pub(super) seed: u64,
}

/// A stage, and what is to be done on it.
pub(super) struct Cx {
    pub(super) stage: Stage,
    pub(super) settings: Settings,
    lb: PathBuf,
}

impl Cx {
    pub(super) fn new(stage: Stage, settings: Settings, lb: &Path) -> Self {
        Self { stage, settings, lb: lb.to_owned() }
    }

    /// With the balancer that is measured: with docker that is an image.
    pub(super) async fn machine(&self, runtime: Runtime) -> Result<Machine, String> {
        let machine = Machine::look(&self.lb);
        match runtime {
            Runtime::Docker => Ok(Machine { lb: engine::image().await?, ..machine }),
            Runtime::Process => Ok(machine),
        }
    }

    /// A bar for so many `what`.
    pub(super) fn bar(&self, name: &str, total: u64, what: &str) -> ProgressBar {
        let style = format!("{name} {{bar:30}} {{pos}}/{{len}} {what}, {{eta}} left: {{msg}}");
        let style = ProgressStyle::with_template(&style);
        let bar = ProgressBar::new(total).with_finish(ProgressFinish::AndClear);
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar
    }

    /// The next step begins: shown beside the bar, or as a line where no bar is drawn.
    #[allow(clippy::print_stderr, reason = "progress of a program for the command line")]
    pub(super) fn begins(&self, bar: &ProgressBar, step: &str) {
        bar.set_message(step.to_owned());
        if !std::io::stderr().is_terminal() {
            let done = 100 * bar.position() / bar.length().unwrap_or(0).max(1);
            eprintln!("{done:>3} % {step}");
        }
    }
}
