//! `analysis all`: every experiment, one after the other, on one stage.

use super::Args;

/// Runs all; false if something does not hold.
pub(crate) async fn run(args: &Args) -> Result<bool, String> {
    let mut holds = true;
    for which in [super::Which::A1, super::Which::A2] {
        holds &= super::one(which, args).await?;
    }
    Ok(holds)
}
