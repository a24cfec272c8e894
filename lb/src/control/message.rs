//! What servers say on the control channel, and what they are told. Pure.

use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;

use serde::{Serialize, Serializer, ser::SerializeStruct};
use serde_json::{Map, Value};

use super::frame::Encoding;
use crate::registry::{Affinity, Refusal, Registration};
use crate::relay::Protocol;

/// A word of a server about itself is not kept beyond this many characters.
const STATE: usize = 40;

/// Which of the two ports is which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `port` is the server's own, `relay_port` the one that clients use.
    Standard,
    /// As the clients of the program `lander` have it: the other way round.
    Lander,
}

impl FromStr for Dialect {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "standard" => Ok(Self::Standard),
            "lander" => Ok(Self::Lander),
            _ => Err("standard, lander".into()),
        }
    }
}

/// The numbers of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Code {
    /// Not a message, or something in it is missing or wrong.
    InvalidRequest = 1,
    /// Not a command.
    InvalidCommand = 2,
    /// Registered already.
    Registered = 3,
    /// Not registered.
    NotRegistered = 4,
    /// Neither `tcp` nor `udp`.
    InvalidProtocol = 6,
    /// The balancer's own trouble.
    Internal = 7,
    /// The port can't be opened.
    CannotBind = 8,
}

/// Why a message was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Its number.
    pub code: Code,
    /// What is wrong, and what is allowed.
    pub message: String,
}

impl Problem {
    /// Something in a message is missing or wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self { code: Code::InvalidRequest, message: message.into() }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal {
            Refusal::Registered(..) => Code::Registered,
            Refusal::NotRegistered(..) => Code::NotRegistered,
            Refusal::CannotBind(..) => Code::CannotBind,
            Refusal::TooMany(_) | Refusal::Full(..) | Refusal::Affinity(..) => Code::InvalidRequest,
            Refusal::Stopping => Code::Internal,
        };
        Self { code, message: refusal.to_string() }
    }
}

/// What a server wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// To be registered.
    Register {
        /// For what.
        registration: Registration,
        /// The shared secret, if it has one.
        token: Option<String>,
    },
    /// Not to be registered any more.
    Unregister {
        /// For what.
        registration: Registration,
    },
    /// To be known to live.
    Health {
        /// Of which of its registrations it speaks, if not of all.
        of: Option<(Protocol, u16)>,
        /// What it says of itself, if anything.
        state: Option<String>,
    },
}

/// The word for "in rotation".
pub const GOOD: &str = "good";

impl Request {
    /// What `message` asks for.
    pub fn parse(message: &Map<String, Value>, dialect: Dialect) -> Result<Self, Problem> {
        let Some(command) = message.get("cmd") else {
            return Err(Problem::invalid("cmd is missing; allowed: register, unregister, hello, healthcheck"));
        };
        match command.as_str() {
            Some("register") => {
                let token = match message.get("token") {
                    None | Some(Value::Null) => None,
                    Some(Value::String(token)) => Some(token.clone()),
                    Some(_) => return Err(Problem::invalid("token is not a text")),
                };
                Ok(Self::Register { registration: registration(message, dialect)?, token })
            }
            Some("unregister") => Ok(Self::Unregister { registration: registration(message, dialect)? }),
            Some("hello" | "healthcheck") => {
                let state = match message.get("state") {
                    None | Some(Value::Null) => None,
                    Some(Value::String(state)) => Some(printable(state)),
                    Some(state) => return Err(wrong("state", state, "a text; good for in rotation")),
                };
                // Whatever else comes along is what the seed's own message has, and need not be right.
                let protocol = message.get("protocol").and_then(Value::as_str).and_then(|text| text.parse().ok());
                let port = message.get("port").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok());
                Ok(Self::Health { of: protocol.zip(port), state })
            }
            _ => Err(Problem {
                code: Code::InvalidCommand,
                message: format!("cmd is {}; allowed: register, unregister, hello, healthcheck", shown(command)),
            }),
        }
    }
}

fn registration(message: &Map<String, Value>, dialect: Dialect) -> Result<Registration, Problem> {
    let protocol = match message.get("protocol") {
        None => return Err(Problem::invalid("protocol is missing; allowed: tcp, udp")),
        Some(value) => value.as_str().and_then(|text| text.parse().ok()).ok_or_else(|| Problem {
            code: Code::InvalidProtocol,
            message: format!("protocol is {}; allowed: tcp, udp", shown(value)),
        })?,
    };
    let Some(port) = number(message, "port", 1)? else {
        return Err(Problem::invalid("port is missing; allowed: a whole number from 1 to 65535"));
    };
    let relay_port = number(message, "relay_port", 1)?.unwrap_or(port);
    let (port, relay_port) = match dialect {
        Dialect::Standard => (port, relay_port),
        Dialect::Lander => (relay_port, port),
    };
    let affinity = match message.get("affinity") {
        None | Some(Value::Null) => None,
        Some(value) if protocol == Protocol::Tcp => return Err(wrong("affinity", value, "nothing, as it is for udp")),
        Some(value) => match value.as_str() {
            Some("datagram") => Some(Affinity::Datagram),
            Some("flow") => Some(Affinity::Flow),
            _ => return Err(wrong("affinity", value, "datagram, flow")),
        },
    };
    let weight = number(message, "weight", 1)?.and_then(NonZeroU16::new).unwrap_or(NonZeroU16::MIN);
    let priority = number(message, "priority", 0)?.unwrap_or(0);
    Ok(Registration { protocol, port, relay_port, affinity, weight, priority })
}

fn number(message: &Map<String, Value>, key: &str, least: u16) -> Result<Option<u16>, Problem> {
    match message.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let number = value.as_u64().and_then(|number| u16::try_from(number).ok()).filter(|number| *number >= least);
            let allowed = || format!("a whole number from {least} to 65535");
            number.map(Some).ok_or_else(|| wrong(key, value, &allowed()))
        }
    }
}

fn wrong(key: &str, value: &Value, allowed: &str) -> Problem {
    Problem::invalid(format!("{key} is {}; allowed: {allowed}", shown(value)))
}

/// A value as a message may quote it.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("'{}'", printable(text)),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
        other => other.to_string(),
    }
}

/// A text as a line of log may have it.
fn printable(text: &str) -> String {
    text.chars().take(STATE).flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

/// What a server is told of its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply(pub Result<(), Problem>);

impl Serialize for Reply {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Ok(()) => {
                let mut reply = serializer.serialize_struct("Reply", 2)?;
                reply.serialize_field("ack", "successful")?;
                reply.serialize_field("error", &0)?;
                reply.end()
            }
            Err(problem) => {
                let mut reply = serializer.serialize_struct("Reply", 3)?;
                reply.serialize_field("ack", "failed")?;
                reply.serialize_field("msg", &problem.message)?;
                reply.serialize_field("error", &(problem.code as u8))?;
                reply.end()
            }
        }
    }
}

/// The question whether a server lives.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Hello {
    cmd: &'static str,
}

impl Hello {
    /// In the words of whoever uses this encoding.
    pub fn new(encoding: Encoding) -> Self {
        Self {
            cmd: match encoding {
                Encoding::Json => "hello",
                Encoding::MessagePack => "healthcheck",
            },
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (*self as u8).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::encode;
    use super::*;
    use serde_json::json;

    fn parse(message: &Value, dialect: Dialect) -> Result<Request, Problem> {
        Request::parse(message.as_object().unwrap(), dialect)
    }

    fn registered(message: &Value, dialect: Dialect) -> Registration {
        match parse(message, dialect).unwrap() {
            Request::Register { registration, .. } | Request::Unregister { registration } => registration,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn ports_are_as_the_dialect_has_them() {
        let message = json!({"cmd": "register", "protocol": "tcp", "port": 30000, "relay_port": 50000});
        let standard = registered(&message, Dialect::Standard);
        assert_eq!((standard.port, standard.relay_port), (30000, 50000));
        let lander = registered(&message, Dialect::Lander);
        assert_eq!((lander.port, lander.relay_port), (50000, 30000));
        for dialect in [Dialect::Standard, Dialect::Lander] {
            let one = registered(&json!({"cmd": "unregister", "protocol": "udp", "port": 80}), dialect);
            assert_eq!((one.protocol, one.port, one.relay_port), (Protocol::Udp, 80, 80));
        }
    }

    #[test]
    fn what_else_may_come_along_is_understood() {
        let message = json!({
            "cmd": "register", "protocol": "udp", "port": 1, "relay_port": 2,
            "affinity": "flow", "weight": 3, "priority": 4, "token": "secret", "more": [1],
        });
        let Request::Register { registration, token } = parse(&message, Dialect::Standard).unwrap() else { panic!() };
        assert_eq!((registration.affinity, token.as_deref()), (Some(Affinity::Flow), Some("secret")));
        assert_eq!((registration.weight.get(), registration.priority), (3, 4));
    }

    #[test]
    fn what_is_wrong_is_named_with_what_is_allowed() {
        let good = json!({"cmd": "register", "protocol": "udp", "port": 1});
        let refused = |key: &str, value: Value, code: Code, texts: &[&str]| {
            let mut message = good.clone();
            if value == json!("absent") {
                message.as_object_mut().unwrap().remove(key);
            } else {
                message[key] = value;
            }
            let problem = parse(&message, Dialect::Standard).unwrap_err();
            assert_eq!(problem.code, code, "{problem:?}");
            for text in texts {
                assert!(problem.message.contains(text), "{text} in {problem:?}");
            }
        };
        refused("cmd", json!("absent"), Code::InvalidRequest, &["cmd is missing", "register"]);
        refused("cmd", json!("start\n"), Code::InvalidCommand, &["cmd is 'start\\n'", "unregister"]);
        refused("cmd", json!(7), Code::InvalidCommand, &["cmd is 7"]);
        refused("protocol", json!("absent"), Code::InvalidRequest, &["protocol is missing", "tcp, udp"]);
        refused("protocol", json!("sctp"), Code::InvalidProtocol, &["'sctp'", "tcp, udp"]);
        refused("protocol", json!(6), Code::InvalidProtocol, &["protocol is 6"]);
        for port in [json!(0), json!(65536), json!(-1), json!("80"), json!(1.5), json!([1])] {
            refused("port", port.clone(), Code::InvalidRequest, &["port is ", "1 to 65535"]);
            refused("relay_port", port, Code::InvalidRequest, &["relay_port is ", "1 to 65535"]);
        }
        refused("port", json!("absent"), Code::InvalidRequest, &["port is missing"]);
        refused("affinity", json!("sticky"), Code::InvalidRequest, &["affinity is 'sticky'", "datagram, flow"]);
        refused("weight", json!(0), Code::InvalidRequest, &["weight is 0", "1 to 65535"]);
        refused("priority", json!(70000), Code::InvalidRequest, &["priority is 70000", "0 to 65535"]);
        refused("token", json!(5), Code::InvalidRequest, &["token is not a text"]);
        let tcp = json!({"cmd": "register", "protocol": "tcp", "port": 1, "affinity": "flow"});
        assert!(parse(&tcp, Dialect::Standard).unwrap_err().message.contains("for udp"));
    }

    #[test]
    fn health_is_taken_in_either_word() {
        let health = |message: Value| match parse(&message, Dialect::Standard).unwrap() {
            Request::Health { of, state } => (of, state),
            other => panic!("{other:?}"),
        };
        assert_eq!(health(json!({"cmd": "hello"})), (None, None));
        let seeds = json!({"cmd": "healthcheck", "protocol": "tcp", "port": 50000, "state": "good"});
        assert_eq!(health(seeds), (Some((Protocol::Tcp, 50000)), Some("good".into())));
        let odd = json!({"cmd": "hello", "protocol": "x", "port": "y", "state": "bad"});
        assert_eq!(health(odd), (None, Some("bad".into())));
        let long = json!({"cmd": "hello", "state": "x".repeat(1000)});
        assert_eq!(health(long).1.unwrap().len(), STATE);
        assert!(parse(&json!({"cmd": "hello", "state": 1}), Dialect::Standard).is_err());
    }

    #[test]
    fn replies_are_the_contracts_letter_by_letter() {
        let refused = Reply(Err(Problem { code: Code::CannotBind, message: "why".into() }));
        assert_eq!(encode(Encoding::Json, &Reply(Ok(()))), b"{\"ack\":\"successful\",\"error\":0}\n");
        assert_eq!(encode(Encoding::Json, &refused), b"{\"ack\":\"failed\",\"msg\":\"why\",\"error\":8}\n");
        assert_eq!(encode(Encoding::Json, &Hello::new(Encoding::Json)), b"{\"cmd\":\"hello\"}\n");
        assert_eq!(encode(Encoding::MessagePack, &Reply(Ok(()))), b"\x17\0\0\0\x82\xa3ack\xaasuccessful\xa5error\x00");
        assert_eq!(
            encode(Encoding::MessagePack, &Hello::new(Encoding::MessagePack)),
            b"\x11\0\0\0\x81\xa3cmd\xabhealthcheck"
        );
    }
}
