//! The steps of a demonstration: each is told with what is expected and what was seen.

use std::future::Future;

/// Counts steps, and those that saw something else than was expected.
#[derive(Debug, Default)]
pub(super) struct Steps {
    number: u32,
    failed: u32,
}

impl Steps {
    /// Does a step. It says what it has seen: as a success if that is what was expected.
    #[allow(clippy::print_stdout, reason = "a program for the command line")]
    pub(super) async fn step(
        &mut self,
        what: &str,
        expected: &str,
        doing: impl Future<Output = Result<String, String>>,
    ) {
        self.number += 1;
        println!("\n{:>2}  {what}\n      expected  {expected}", self.number);
        let (seen, verdict) = match doing.await {
            Ok(seen) => (seen, "ok"),
            Err(seen) => {
                self.failed += 1;
                (seen, "FAILED")
            }
        };
        println!("      seen      {}\n      {verdict}", seen.replace('\n', "\n                "));
    }

    /// How many steps there were, and how many of them failed.
    pub(super) fn count(&self) -> (u32, u32) {
        (self.number, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn failed_steps_are_counted() {
        let mut steps = Steps::default();
        steps.step("one", "it works", async { Ok("it works".into()) }).await;
        steps.step("two", "it works", async { Err("it doesn't".into()) }).await;
        assert_eq!(steps.count(), (2, 1));
    }
}
