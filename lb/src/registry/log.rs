//! What happens to registrations, as lines of log: one line an event, the facts as fields besides.

use super::Leaving;
use super::table::Member;
use crate::relay::PortKey;

macro_rules! line {
    ($level:ident, $key:expr, $member:expr, $($arg:tt)+) => {{
        let (key, member) = ($key, $member);
        tracing::$level!(
            relay = %key,
            addr = %member.addr,
            ring_id = member.id.0,
            generation = member.generation.0,
            $($arg)+
        );
    }};
}

/// `1 replica`, `2 replicas`.
fn counted(count: usize) -> String {
    format!("{count} replica{}", if count == 1 { "" } else { "s" })
}

pub(super) fn registered(key: PortKey, member: &Member, opened: bool, replicas: usize) {
    let what = if opened { "which is open now".into() } else { format!("which has {} now", counted(replicas)) };
    line!(info, key, member, "replica {} (ring {}) is registered for {key}, {what}", member.addr, member.id);
}

pub(super) fn left(key: PortKey, member: &Member, leaving: Option<Leaving>, remaining: usize, in_flight: u32) {
    let (addr, id) = (member.addr, member.id);
    let rest = if remaining == 0 {
        format!("{key} is closed, it was the last one")
    } else {
        format!("{key} has {} left", counted(remaining))
    };
    match leaving {
        None => line!(info, key, member, in_flight, "replica {addr} (ring {id}) is unregistered; {rest}"),
        Some(Leaving::Closed) => {
            line!(info, key, member, in_flight, "replica {addr} (ring {id}): its server has gone; {rest}");
        }
        Some(Leaving::Silent(time)) => {
            let time = humantime::format_duration(time);
            line!(
                warn,
                key,
                member,
                in_flight,
                "replica {addr} (ring {id}): its server was silent for {time}, its connections are closed; {rest}"
            );
        }
    }
}

pub(super) fn rotation(key: PortKey, member: &Member) {
    let (addr, id) = (member.addr, member.id);
    match member.reason() {
        Some(reason) => line!(warn, key, member, "replica {addr} (ring {id}) of {key} is out of rotation: {reason}"),
        None => line!(info, key, member, "replica {addr} (ring {id}) of {key} is back in rotation"),
    }
}

pub(super) fn late(key: PortKey, member: &Member, in_flight: u32) {
    let (addr, id) = (member.addr, member.id);
    line!(
        warn,
        key,
        member,
        in_flight,
        "replica {addr} (ring {id}) of {key} has left, what it still had under way ({in_flight}) is closed"
    );
}

pub(super) fn not_opened(key: PortKey, error: &std::io::Error) {
    tracing::warn!(relay = %key, "{key} can't be opened: {error}");
}
