//! Notices of the fleet as lines of log: one line an event, the facts as fields besides.

use humantime::format_duration;
use std::time::Duration;

use super::fleet::Notice;

/// Milliseconds are fine enough for an operator.
fn rounded(delay: Duration) -> impl std::fmt::Display {
    format_duration(Duration::from_millis(delay.as_millis() as u64))
}

macro_rules! line {
    ($level:ident, $replica:expr, $($arg:tt)+) => {{
        let replica = $replica;
        tracing::$level!(
            hostname = %replica.hostname,
            ring_id = replica.id.0,
            generation = replica.generation.0,
            $($arg)+
        );
    }};
}

pub(super) fn log(notice: &Notice) {
    match notice {
        Notice::Ready { replica: r } => line!(info, r, "replica {} (ring {}) is ready", r.hostname, r.id),
        Notice::Unready { replica: r, reason } => {
            line!(warn, r, "replica {} (ring {}) {reason}, out of rotation until it answers", r.hostname, r.id);
        }
        Notice::Replaced { replica: r, reason, replacement: to, delay } => {
            let to = &to.hostname;
            match delay {
                None => {
                    line!(warn, r, replacement = %to, "replica {} (ring {}) {reason}, replaced by {to}", r.hostname, r.id);
                }
                Some(delay) => line!(
                    warn, r, replacement = %to, delay_ms = delay.as_millis() as u64,
                    "replica {} (ring {}) {reason}, like others before it; replaced by {to} in {}",
                    r.hostname, r.id, rounded(*delay)
                ),
            }
        }
        Notice::LaunchFailed { replica: r, reason, delay } => line!(
            error,
            r,
            delay_ms = delay.as_millis() as u64,
            "replica {} (ring {}) could not be started, next try in {}: {reason}",
            r.hostname,
            r.id,
            rounded(*delay)
        ),
        Notice::StopFailed { replica: r, reason } => {
            line!(
                error,
                r,
                "replica {} (ring {}) could not be stopped, will be tried again: {reason}",
                r.hostname,
                r.id
            );
        }
        Notice::Adopted { replica: r } => {
            line!(info, r, "replica {} (ring {}) was running already, adopted", r.hostname, r.id);
        }
        Notice::Stray { replica: r } => {
            line!(warn, r, "replica {} (ring {}) is not wanted any more, removed", r.hostname, r.id);
        }
        Notice::Removed { replica: r } => {
            line!(info, r, "replica {} (ring {}) is removed on demand, finishing its requests", r.hostname, r.id);
        }
        Notice::Shared { replica: r, old, new } => {
            let changed = [("weight", old.weight, new.weight), ("priority", old.priority, new.priority)];
            let changed = changed.into_iter().filter(|(_, old, new)| old != new);
            let changed: Vec<_> = changed.map(|(what, old, new)| format!("{what} {old} -> {new}")).collect();
            let changed = changed.join(", ");
            let drains = if new.weight == 0 { ", takes no new requests" } else { "" };
            line!(
                info,
                r,
                weight = new.weight,
                priority = new.priority,
                "replica {} (ring {}): {changed}{drains}",
                r.hostname,
                r.id
            );
        }
        Notice::SpareReady { replica: r } => {
            line!(info, r, "spare {} is ready, to take over for whoever fails", r.hostname);
        }
        Notice::SpareFailed { replica: r, reason, delay } => line!(
            warn,
            r,
            delay_ms = delay.as_millis() as u64,
            "spare {} {reason}, another is started in {}",
            r.hostname,
            rounded(*delay)
        ),
        Notice::Promoted { replica: r, reason, replacement: to } => {
            let to = &to.hostname;
            line!(warn, r, replacement = %to, "replica {} (ring {}) {reason}, spare {to} takes over", r.hostname, r.id);
        }
        Notice::Deploying { template, replicas } => {
            tracing::info!(template, replicas, "rolling update to {template}: {replicas} replicas are to be replaced");
        }
        Notice::Updated { replica: r, replacement: to, done, total } => {
            let to = &to.hostname;
            line!(
                info, r, replacement = %to, done, total,
                "rolling update: {to} takes over from {} (ring {}), {done} of {total}", r.hostname, r.id
            );
        }
        Notice::Deployed { template } => tracing::info!(template, "rolling update to {template} is done"),
        Notice::RollingBack { reason } => {
            tracing::error!("rolling update failed, what it has brought is replaced by what was before: {reason}");
        }
        Notice::RolledBack { reason, left: 0 } => {
            tracing::warn!("rolling update was rolled back, all is as before: {reason}");
        }
        Notice::RolledBack { reason, left } => {
            tracing::error!(
                left,
                "rolling update was rolled back, but {left} of its replicas are still there: {reason}"
            );
        }
        Notice::AddFailed { reason } => {
            tracing::error!("adding replicas failed, those started for it are removed again: {reason}");
        }
    }
}
