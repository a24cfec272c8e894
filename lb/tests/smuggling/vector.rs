//! What a vector is: bytes that a client sends, and what must come of them.

use crate::support::recorder::Act;

/// A request that a second look finds behind or within another one.
pub(crate) const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// One attack, or one harmless request that looks like one.
pub(crate) struct Vector {
    pub(crate) name: String,
    pub(crate) why: &'static str,
    pub(crate) steps: Vec<Step>,
    /// What comes of it depends on its bytes arriving together.
    pub(crate) at_once: bool,
    /// What replicas do about requests for these targets; other requests get [`own_answer`].
    ///
    /// [`own_answer`]: crate::support::recorder::own_answer
    pub(crate) scripts: Vec<(&'static str, Vec<Act>)>,
    /// Any of these is right. All of them either close the connection or leave it open.
    pub(crate) outcomes: Vec<Outcome>,
}

/// What a client does. In the end it waits for what [`Outcome`] says.
#[derive(Clone)]
pub(crate) enum Step {
    Send(Vec<u8>),
    /// Waits for so many answers in all.
    Await(usize),
    /// Waits for an interim answer.
    AwaitInterim,
    /// Lets a replica pass an [`Act::Gate`], and waits until it has done what comes behind it.
    OpenGate,
    /// Says that nothing more comes.
    HalfClose,
}

/// What comes of a vector.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    /// Requests that replicas get whole, in this order.
    pub(crate) forwarded: Vec<Want>,
    /// A request that may have reached a replica in part. Its body is a part of this one's.
    pub(crate) cut: Option<Want>,
    pub(crate) answers: Vec<Answer>,
    /// The interim answers, in this order, if it matters.
    pub(crate) interim: Option<Vec<u16>>,
    /// The connection is closed in the end; otherwise it serves a further request.
    pub(crate) closed: bool,
}

/// A final answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// From the balancer, which must close the connection behind it.
    Refused(u16),
    /// From the balancer or a replica.
    Status(u16),
    /// A 200 with this body.
    Body(&'static str),
    /// Breaks off after its head, or after a part of its body.
    Broken(u16),
}

/// A request as a replica is to get it.
#[derive(Debug, Clone)]
pub(crate) struct Want {
    pub(crate) method: &'static str,
    pub(crate) target: Vec<u8>,
    pub(crate) body: Vec<u8>,
    /// Fields with the value they must have, or `None` if they must not be there.
    pub(crate) fields: Vec<(&'static str, Option<&'static str>)>,
}

pub(crate) fn want(method: &'static str, target: &str, body: &str) -> Want {
    Want { method, target: target.as_bytes().to_vec(), body: body.as_bytes().to_vec(), fields: Vec::new() }
}

/// The request of [`SMUGGLED`], where it is a request.
pub(crate) fn second() -> Want {
    want("GET", "/smuggled", "")
}

impl Want {
    pub(crate) fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.fields.push((name, Some(value)));
        self
    }

    pub(crate) fn without(mut self, name: &'static str) -> Self {
        self.fields.push((name, None));
        self
    }
}

impl Outcome {
    /// These requests are forwarded and answered with 200, and the connection stays.
    pub(crate) fn served(forwarded: Vec<Want>) -> Self {
        let answers = vec![Answer::Status(200); forwarded.len()];
        Self { forwarded, cut: None, answers, interim: None, closed: false }
    }

    /// The same with the connection closed behind the last.
    pub(crate) fn last(forwarded: Vec<Want>) -> Self {
        Self { closed: true, ..Self::served(forwarded) }
    }

    /// Nothing gets through.
    pub(crate) fn refused(status: u16) -> Self {
        Self::served(Vec::new()).then_refused(status)
    }

    pub(crate) fn then_refused(mut self, status: u16) -> Self {
        self.answers.push(Answer::Refused(status));
        self.closed = true;
        self
    }

    pub(crate) fn with_cut(mut self, cut: Want) -> Self {
        self.cut = Some(cut);
        self
    }

    pub(crate) fn answered(mut self, answers: &[Answer]) -> Self {
        self.answers = answers.to_vec();
        self
    }

    pub(crate) fn and_closed(mut self) -> Self {
        self.closed = true;
        self
    }

    pub(crate) fn with_interim(mut self, interim: &[u16]) -> Self {
        self.interim = Some(interim.to_vec());
        self
    }
}

/// One vector whose client sends all its bytes at once.
pub(crate) fn vector(name: impl Into<String>, sent: impl Into<Vec<u8>>, outcome: Outcome, why: &'static str) -> Vector {
    let steps = vec![Step::Send(sent.into())];
    Vector { name: name.into(), why, steps, at_once: false, scripts: Vec::new(), outcomes: vec![outcome] }
}

/// One that is refused, and nothing reaches a replica.
pub(crate) fn refused(name: impl Into<String>, status: u16, sent: impl Into<Vec<u8>>, why: &'static str) -> Vector {
    vector(name, sent, Outcome::refused(status), why)
}

/// One whose requests are forwarded.
pub(crate) fn served(
    name: impl Into<String>,
    sent: impl Into<Vec<u8>>,
    forwarded: Vec<Want>,
    why: &'static str,
) -> Vector {
    vector(name, sent, Outcome::served(forwarded), why)
}

impl Vector {
    pub(crate) fn or(mut self, outcome: Outcome) -> Self {
        assert_eq!(self.outcomes[0].closed, outcome.closed, "{}: a test must know what to wait for", self.name);
        self.outcomes.push(outcome);
        self
    }

    pub(crate) fn at_once(mut self) -> Self {
        self.at_once = true;
        self
    }

    /// What a replica does about requests for this target.
    pub(crate) fn script(mut self, target: &'static str, acts: impl Into<Vec<Act>>) -> Self {
        self.scripts.retain(|(other, _)| *other != target);
        self.scripts.push((target, acts.into()));
        self
    }

    pub(crate) fn then(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }
}

/// A `POST /attack` with these further field lines, each with its CRLF, and what comes behind the head.
pub(crate) fn post(fields: &str, rest: &str) -> Vec<u8> {
    format!("POST /attack HTTP/1.1\r\nHost: a\r\n{fields}\r\n{rest}").into_bytes()
}

/// The same from bytes.
pub(crate) fn post_bytes(fields: &[u8], rest: &str) -> Vec<u8> {
    [b"POST /attack HTTP/1.1\r\nHost: a\r\n", fields, b"\r\n", rest.as_bytes()].concat()
}

/// A `POST /attack` as a replica gets it.
pub(crate) fn attack(body: &str) -> Want {
    want("POST", "/attack", body)
}

/// A GET of `/last`, which ends the connection.
pub(crate) const LAST: &str = "GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// And what a replica gets of it.
pub(crate) fn last() -> Want {
    want("GET", "/last", "")
}
