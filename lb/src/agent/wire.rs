//! The messages between agent and balancer: JSON objects, one a WebSocket text message, told apart by `type`. Pure.
//!
//! | type | from | fields |
//! |---|---|---|
//! | `hello` | balancer | `version`, `fleet`, `token`, `balancer`, `policy`, `instance` and `epoch` (what it has already) |
//! | `hello` | agent | `version`, `fleet`, `instance` (another one after each start) |
//! | `snapshot` | agent | `epoch`, `members` |
//! | `delta` | agent | `from`, `epoch`, `changed`, `removed` (generations) |
//! | `report` | balancer | `epoch` that it serves, `replicas`, `latencies` |
//! | `command` | balancer | `id`, `op` and what belongs to it |
//! | `result` | agent | `id`, and `ok` or `error` |
//! | `ping`, `pong` | both | `seq` |
//!
//! Versions: a message or field that this version does not know is ignored, and told to the operator; a new version may add
//! some. What is there must be as described here, or the session ends.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::replica::{Generation, Hostname};
use crate::runtime::remote::RemoteMember;
use crate::supervisor::{Change, Order, RefusalKind};

/// The version of these messages.
pub const VERSION: u32 = 1;

/// The first message of either side.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`VERSION`] of the sender.
    pub version: u32,
    /// The fleet's name; both must mean the same.
    pub fleet: String,
    /// The shared secret, from a balancer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// A name for the log, from a balancer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balancer: Option<String>,
    /// How that chooses replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Which run of the agent: from the agent its own; from a balancer the one whose state it has.
    #[serde(default)]
    pub instance: String,
    /// Which of that run's states a balancer has; 0 for none.
    #[serde(default)]
    pub epoch: u64,
}

/// The whole fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Counts the agent's states.
    pub epoch: u64,
    /// All replicas, by generation.
    pub members: Vec<RemoteMember>,
}

/// The way from one state of the fleet to a later one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// The state that it changes.
    pub from: u64,
    /// The state that it makes.
    pub epoch: u64,
    /// Replicas that are new or changed, whole.
    pub changed: Vec<RemoteMember>,
    /// Replicas that are gone.
    pub removed: Vec<Generation>,
}

/// What a balancer sees of one replica. Counters are since its own start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportItem {
    /// Which one.
    pub generation: Generation,
    /// Requests that this balancer holds on it.
    pub in_flight: u32,
    /// Responses it gave.
    pub served: u64,
    /// Tries on it that failed.
    pub failed: u64,
    /// Microseconds that its responses had to be waited for, in all.
    pub waited_us: u64,
    /// False if this balancer has taken it out of rotation itself.
    pub good: bool,
}

/// What a balancer sees.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The state that it serves.
    pub epoch: u64,
    /// Every replica that it has, or still holds requests on.
    pub replicas: Vec<ReportItem>,
    /// Responses since its start by latency, cumulative; the bounds are those of the metric `ringkeeper_response_seconds`.
    #[serde(default)]
    pub latencies: Vec<u64>,
}

/// What a balancer wants done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// `/add`.
    Add {
        /// How many.
        n: usize,
        /// Names for the first of them.
        hostnames: Vec<Hostname>,
    },
    /// `/rm`.
    Remove {
        /// How many.
        n: usize,
        /// Those that must be among them.
        hostnames: Vec<Hostname>,
    },
    /// A weight or a priority.
    Set {
        /// Whose.
        hostname: Hostname,
        /// Its weight from now on, if that changes.
        weight: Option<u16>,
        /// Its priority from now on, if that changes.
        priority: Option<u16>,
    },
    /// A replica that is to be replaced.
    Eject {
        /// Which one.
        generation: Generation,
        /// Why.
        reason: String,
    },
    /// A rolling update.
    Deploy(Change),
    /// The last decisions are asked for.
    Decisions,
    /// How the last rolling update stands is asked for.
    Deployment,
}

impl From<Order> for Op {
    fn from(order: Order) -> Self {
        match order {
            Order::Add { n, hostnames } => Self::Add { n, hostnames },
            Order::Remove { n, hostnames } => Self::Remove { n, hostnames },
            Order::Set { hostname, weight, priority } => Self::Set { hostname, weight, priority },
            Order::Eject { generation, reason } => Self::Eject { generation, reason },
            Order::Deploy(change) => Self::Deploy(change),
        }
    }
}

/// A command; its result carries the same `id`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// Given by the balancer, each once in a session.
    pub id: u64,
    /// What is wanted.
    #[serde(flatten)]
    pub op: Op,
}

/// Why a command changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What it means for whoever asked.
    pub kind: RefusalKind,
    /// In words.
    pub message: String,
}

/// What came of a command: `ok` or `error`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Of which command.
    pub id: u64,
    /// Its answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ok: Option<Value>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
}

/// A sign of life; a `pong` repeats the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    /// Counts them.
    pub seq: u64,
}

/// Any message.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Message {
    /// The first one.
    Hello(Hello),
    /// The whole fleet.
    Snapshot(Snapshot),
    /// What has changed.
    Delta(Delta),
    /// What a balancer sees.
    Report(Report),
    /// What a balancer wants.
    Command(Command),
    /// What came of it.
    Result(Outcome),
    /// Is anybody there?
    Ping(Ping),
    /// Yes.
    Pong(Ping),
    /// One that this version does not know.
    #[serde(skip)]
    Unknown(String),
}

/// A message that is not as it should be; the session ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a malformed message: {0}")]
pub struct Malformed(String);

impl Message {
    /// The message as text.
    pub fn encode(&self) -> String {
        // Nothing in it can fail: keys are text, and numbers are finite.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The message that `text` holds, and the fields in it that this version does not know.
    pub fn decode(text: &str) -> Result<(Self, Vec<String>), Malformed> {
        #[derive(Deserialize)]
        struct Head<'a> {
            #[serde(borrow)]
            r#type: std::borrow::Cow<'a, str>,
        }
        let Head { r#type: kind } = serde_json::from_str(text).map_err(|error| Malformed(error.to_string()))?;
        let mut ignored = Vec::new();
        let message = match &*kind {
            "hello" => Self::Hello(body(text, &kind, &mut ignored)?),
            "snapshot" => Self::Snapshot(body(text, &kind, &mut ignored)?),
            "delta" => Self::Delta(body(text, &kind, &mut ignored)?),
            "report" => Self::Report(body(text, &kind, &mut ignored)?),
            "command" => return command(text),
            "result" => Self::Result(body(text, &kind, &mut ignored)?),
            "ping" => Self::Ping(body(text, &kind, &mut ignored)?),
            "pong" => Self::Pong(body(text, &kind, &mut ignored)?),
            other => Self::Unknown(other.to_owned()),
        };
        Ok((message, ignored))
    }
}

fn body<T: DeserializeOwned>(text: &str, kind: &str, ignored: &mut Vec<String>) -> Result<T, Malformed> {
    const MOST: usize = 16;
    let mut json = serde_json::Deserializer::from_str(text);
    let mut note = |path: serde_ignored::Path<'_>| {
        // Places in a list are all alike.
        let path = path.to_string();
        let path: Vec<_> = path.split('.').map(|part| if part.parse::<u64>().is_ok() { "*" } else { part }).collect();
        let path = format!("{kind}.{}", path.join("."));
        if path != format!("{kind}.type") && ignored.len() < MOST && !ignored.contains(&path) {
            ignored.push(path);
        }
    };
    let body = serde_ignored::deserialize(&mut json, &mut note);
    let body = body.and_then(|body| json.end().map(|()| body));
    body.map_err(|error| Malformed(format!("{kind}: {error}")))
}

/// A command of a newer version may be unknown; that is its sender's trouble, who hears of it.
fn command(text: &str) -> Result<(Message, Vec<String>), Malformed> {
    #[derive(Deserialize)]
    struct Head {
        id: u64,
        op: String,
    }
    const KNOWN: &[&str] = &["add", "remove", "set", "eject", "deploy", "decisions", "deployment"];
    let Head { id, op } = serde_json::from_str(text).map_err(|error| Malformed(format!("command: {error}")))?;
    if !KNOWN.contains(&op.as_str()) {
        return Ok((Message::Unknown(format!("command.op {op}")), vec![format!("#{id}")]));
    }
    let command = serde_json::from_str(text).map_err(|error| Malformed(format!("command {op}: {error}")))?;
    let fields: serde_json::Map<String, Value> = serde_json::from_str(text).unwrap_or_default();
    let known: &[&str] = match op.as_str() {
        "add" | "remove" => &["n", "hostnames"],
        "set" => &["hostname", "weight", "priority"],
        "eject" => &["generation", "reason"],
        "deploy" => &["image", "command", "env"],
        _ => &[],
    };
    let is_known = |key: &str| ["type", "id", "op"].contains(&key) || known.contains(&key);
    let ignored = fields.keys().filter(|key| !is_known(key)).map(|key| format!("command.{op}.{key}"));
    Ok((Message::Command(command), ignored.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(text: &str) -> (Message, Vec<String>) {
        Message::decode(text).unwrap()
    }

    #[test]
    fn messages_are_what_the_table_says() {
        let member = r#"{"generation":4,"id":1,"hostname":"S1","addr":"10.0.0.1:5000","runtime_id":"abc","state":"ready",
            "desired":true,"share":{"weight":1,"priority":0},"order":4,"started_at":7}"#;
        let (snapshot, ignored) = decode(&format!(r#"{{"type":"snapshot","epoch":3,"members":[{member}]}}"#));
        assert!(ignored.is_empty(), "{ignored:?}");
        let Message::Snapshot(Snapshot { epoch: 3, members }) = &snapshot else { panic!("{snapshot:?}") };
        assert_eq!((members[0].hostname.as_str(), members[0].spare, members[0].crashes), ("S1", false, 0));
        for text in [
            r#"{"type":"hello","version":1,"fleet":"f","token":"t","balancer":"b","policy":"p","instance":"i","epoch":2}"#,
            r#"{"type":"delta","from":1,"epoch":2,"changed":[],"removed":[7]}"#,
            r#"{"type":"report","epoch":2,"replicas":[{"generation":1,"in_flight":2,"served":3,"failed":4,"waited_us":5,"good":false}],"latencies":[1,2]}"#,
            r#"{"type":"command","id":1,"op":"add","n":2,"hostnames":["S4"]}"#,
            r#"{"type":"command","id":1,"op":"remove","n":2,"hostnames":[]}"#,
            r#"{"type":"command","id":1,"op":"set","hostname":"S4","weight":3,"priority":null}"#,
            r#"{"type":"command","id":1,"op":"eject","generation":4,"reason":"is slow"}"#,
            r#"{"type":"command","id":1,"op":"deploy","image":"a:2"}"#,
            r#"{"type":"command","id":1,"op":"decisions"}"#,
            r#"{"type":"result","id":1,"ok":{"N":1}}"#,
            r#"{"type":"result","id":1,"error":{"kind":"bad","message":"no"}}"#,
            r#"{"type":"ping","seq":1}"#,
            r#"{"type":"pong","seq":1}"#,
        ] {
            let (message, ignored) = decode(text);
            assert_eq!(message.encode(), text);
            assert!(ignored.is_empty(), "{text}: {ignored:?}");
        }
    }

    #[test]
    fn what_a_newer_version_adds_is_ignored_and_told() {
        assert_eq!(decode(r#"{"type":"gossip","x":1}"#).0, Message::Unknown("gossip".into()));
        let (message, ignored) = decode(r#"{"type":"ping","seq":1,"mood":"good"}"#);
        assert_eq!((message, ignored), (Message::Ping(Ping { seq: 1 }), vec!["ping.mood".to_owned()]));
        let item = r#"{"generation":1,"in_flight":0,"served":0,"failed":0,"waited_us":0,"good":true,"cpu":1}"#;
        let (_, ignored) = decode(&format!(r#"{{"type":"report","epoch":1,"replicas":[{item},{item}]}}"#));
        assert_eq!(ignored, ["report.replicas.*.cpu"], "once, not for every place");
        let (message, ignored) = decode(r#"{"type":"command","id":9,"op":"add","n":1,"hostnames":[],"zone":"b"}"#);
        assert!(matches!(message, Message::Command(_)));
        assert_eq!(ignored, ["command.add.zone"]);
        let (message, _) = decode(r#"{"type":"command","id":9,"op":"teleport","to":"mars"}"#);
        assert_eq!(message, Message::Unknown("command.op teleport".into()));
    }

    #[test]
    fn what_is_not_as_it_should_be_is_malformed() {
        for text in [
            "",
            "[]",
            "rubbish",
            r#"{"epoch":1}"#,
            r#"{"type":7}"#,
            r#"{"type":"ping"}"#,
            r#"{"type":"ping","seq":-1}"#,
            r#"{"type":"ping","seq":1} trailing"#,
            r#"{"type":"snapshot","epoch":1,"members":[{"generation":1}]}"#,
            r#"{"type":"command","id":1,"op":"add","n":-2,"hostnames":[]}"#,
            r#"{"type":"command","id":1,"op":"add","n":1,"hostnames":["a b"]}"#,
            r#"{"type":"command","op":"add"}"#,
        ] {
            assert!(Message::decode(text).is_err(), "{text}");
        }
    }
}
