//! The same keys before each program: which replica has answered how many.

use indicatif::ProgressBar;

use super::super::cx::Settings;
use super::super::spread::Spread;
use super::super::stage::{Member, Service, Stage};
use super::front::{Front, Program};
use crate::load::counted_by;

/// Requests in flight.
pub(super) const CONCURRENCY: u64 = 100;

/// Sends the load to `program` before `members`, which take the time of `service`. Predicted is what keys alone decide in lb.
pub(super) async fn measure(
    stage: &Stage,
    program: &Program,
    (members, service): (&[Member], Option<Service>),
    settings: &Settings,
    keys: &[u64],
) -> Result<Spread, String> {
    let mut front = Front::start(stage, program, members).await?;
    let url = |number: u64| format!("http://{}/home?id={}", front.addr, keys[number as usize % keys.len()]);
    let outcome = counted_by(url, settings.requests, CONCURRENCY as usize, &ProgressBar::hidden()).await?;
    front.check()?;
    let count = |member: &Member| outcome.by_replica.get(&member.hostname).copied().unwrap_or_default();
    let replicas = members.len() as u32;
    let exact = program.subject().filter(|subject| subject.is_exact());
    let predicted = match exact {
        Some(subject) => subject.predicted(replicas, CONCURRENCY as usize, settings.seed)?,
        None => Vec::new(),
    };
    Ok(Spread {
        subject: program.name(),
        replicas,
        concurrency: CONCURRENCY,
        service,
        counts: members.iter().map(count).collect(),
        predicted,
        exact: exact.is_some(),
        outcome,
    })
}
