//! A balancer's connection to its agent: made again whenever it breaks, with growing pauses.
//!
//! What the agent tells goes to the supervisor as events of the runtime [`Remote`](crate::runtime::remote::Remote); what the
//! supervisor and the data path see goes back as reports; orders go there and their answers come back.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, SinkExt, StreamExt};
use rand::RngExt;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;

use super::tls::{self, Socket};
use super::wire::{Command, Delta, Hello, Message, Op, Outcome, Ping, Report, ReportItem, Snapshot, VERSION};
use super::{COMMANDS, HANDSHAKE, Ignored, PING, SEND, SILENCE, TO_BALANCER, ledger, limits};
use crate::metrics::{LinkMetrics, ProxyMetrics};
use crate::replica::Generation;
use crate::runtime::RuntimeEvent;
use crate::runtime::remote::{Membership, RemoteMember, Standing};
use crate::supervisor::{Forward, LinkStatus, Listing, Order, Question, Refusal, State, SupervisorHandle};

/// Pauses between attempts to connect: the first, and the longest. Each is 50 to 100 % of that.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// A session that lasted so long was a good one: the next pause is the first again.
const GOOD: Duration = Duration::from_secs(5);
/// From one report to the next: while nothing leaves, and while something does.
const REPORT: Duration = Duration::from_millis(100);
const REPORT_SOON: Duration = Duration::from_millis(10);
/// The same while the supervisor takes in one thing after the other.
const REPORT_GAP: Duration = Duration::from_millis(1);
/// For an order to be carried out. Rolling updates take their time.
const ORDER: Duration = Duration::from_secs(3600);

/// Where the agent is, and how it is spoken to.
#[derive(Clone)]
pub struct LinkConfig {
    /// Host name or address, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The URL, for messages and the handshake.
    pub url: String,
    /// TLS, for `wss://`.
    pub tls: Option<TlsConnector>,
    /// The fleet's name.
    pub fleet: String,
    /// The shared secret.
    pub token: Option<String>,
    /// How this balancer chooses replicas.
    pub policy: String,
}

struct Asked {
    op: Op,
    answer: oneshot::Sender<Result<Value, Refusal>>,
}

/// Sends orders to the agent.
#[derive(Clone)]
pub struct LinkHandle {
    orders: mpsc::Sender<Asked>,
}

impl LinkHandle {
    async fn send(&self, op: Op) -> Result<Value, Refusal> {
        let (answer, answered) = oneshot::channel();
        self.orders.try_send(Asked { op, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Refusal::Busy,
            mpsc::error::TrySendError::Closed(_) => Refusal::Closing,
        })?;
        match tokio::time::timeout(ORDER, answered).await {
            Ok(answer) => answer.unwrap_or(Err(Refusal::Closing)),
            Err(_) => Err(Refusal::NoAgent("it does not answer".into())),
        }
    }
}

impl Forward for LinkHandle {
    fn order(&self, order: Order) -> BoxFuture<'_, Result<Listing, Refusal>> {
        async move {
            let answer = self.send(order.into()).await?;
            let is_other = |error: serde_json::Error| Refusal::NoAgent(format!("it answers something else: {error}"));
            serde_json::from_value(answer).map_err(is_other)
        }
        .boxed()
    }

    fn ask(&self, question: Question) -> BoxFuture<'_, Result<Value, Refusal>> {
        let op = match question {
            Question::Decisions => Op::Decisions,
            Question::Deployment => Op::Deployment,
        };
        self.send(op).boxed()
    }
}

/// What the agent has told so far.
#[derive(Default)]
struct Told {
    instance: String,
    epoch: u64,
    members: Arc<[RemoteMember]>,
}

/// See the module's documentation.
pub struct Link {
    config: LinkConfig,
    balancer: String,
    events: mpsc::Sender<RuntimeEvent>,
    orders: mpsc::Receiver<Asked>,
    supervisor: SupervisorHandle,
    latencies: ProxyMetrics,
    metrics: LinkMetrics,
    told: Told,
    /// Those that this balancer has taken out of rotation itself, by its last word on them.
    bad: HashSet<Generation>,
    ignored: Ignored,
}

/// How orders get to a link.
pub fn orders() -> (LinkHandle, LinkOrders) {
    let (orders, asked) = mpsc::channel(COMMANDS);
    (LinkHandle { orders }, LinkOrders(asked))
}

/// Orders on their way to a link.
pub struct LinkOrders(mpsc::Receiver<Asked>);

impl Link {
    /// A link whose events go to `events`. What it reports is what `supervisor` shows and `latencies` has measured.
    pub fn new(
        config: LinkConfig,
        events: mpsc::Sender<RuntimeEvent>,
        LinkOrders(orders): LinkOrders,
        supervisor: SupervisorHandle,
        latencies: ProxyMetrics,
        metrics: LinkMetrics,
    ) -> Self {
        let balancer = format!("{:08x}", rand::random::<u32>());
        let (told, bad, ignored) = (Told::default(), HashSet::new(), Ignored::default());
        Self { config, balancer, events, orders, supervisor, latencies, metrics, told, bad, ignored }
    }

    /// Connects, and connects again, for as long as the balancer lives.
    pub async fn run(mut self) {
        let mut pause = PAUSES.0;
        let mut failure = String::new();
        loop {
            let began = Instant::now();
            let end = match tokio::time::timeout(HANDSHAKE, self.connect()).await {
                Ok(Ok(socket)) => {
                    self.metrics.connected.set(1);
                    let end = self.talk(socket).await;
                    self.metrics.connected.set(0);
                    failure.clear();
                    end
                }
                Ok(Err(error)) => error,
                Err(_) => "its handshake did not come in time".into(),
            };
            if self.events.send(RuntimeEvent::Detached(end.clone())).await.is_err() {
                return;
            }
            if began.elapsed() >= GOOD {
                pause = PAUSES.0;
            }
            // Said once, not with every attempt.
            if end != failure {
                let url = &self.config.url;
                tracing::warn!(url, "the agent at {url} can't be heard, what it said last is served: {end}");
                failure = end;
            }
            let part = rand::rng().random_range(0.5..=1.0);
            self.wait(pause.mul_f64(part), &failure).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Lets time pass. Whoever wants something meanwhile hears that nobody is there.
    async fn wait(&mut self, pause: Duration, why: &str) {
        let until = Instant::now() + pause;
        while let Ok(Some(asked)) = tokio::time::timeout_at(until, self.orders.recv()).await {
            let _ = asked.answer.send(Err(Refusal::NoAgent(why.to_owned())));
        }
    }

    async fn connect(&mut self) -> Result<WebSocketStream<Box<dyn Socket>>, String> {
        let LinkConfig { host, port, url, tls, fleet, token, policy } = self.config.clone();
        let stream = TcpStream::connect((host.as_str(), port)).await.map_err(|error| format!("connect: {error}"))?;
        let _ = stream.set_nodelay(true);
        let stream: Box<dyn Socket> = match tls {
            Some(connector) => tls::connect(&connector, &host, stream).await?,
            None => Box::new(stream),
        };
        let (mut socket, _) = tokio_tungstenite::client_async_with_config(&url, stream, Some(limits(TO_BALANCER)))
            .await
            .map_err(|error| format!("handshake: {error}"))?;
        let hello = Hello {
            version: VERSION,
            fleet: fleet.clone(),
            token,
            balancer: Some(self.balancer.clone()),
            policy: Some(policy),
            instance: self.told.instance.clone(),
            epoch: self.told.epoch,
        };
        send(&mut socket, &Message::Hello(hello)).await?;
        loop {
            let Some(text) = next(&mut socket).await? else { continue };
            return match self.decode(&text)? {
                Message::Hello(hello) if hello.fleet == fleet => {
                    tracing::info!(url, "connected to the agent at {url}");
                    if hello.instance == self.told.instance {
                        // It may have nothing to tell.
                        let _ = self.events.send(self.membership()).await;
                    }
                    self.told.instance = hello.instance;
                    Ok(socket)
                }
                Message::Hello(hello) => Err(format!("its fleet is '{}', this one is '{fleet}'", hello.fleet)),
                _ => Err("its first message is no hello".into()),
            };
        }
    }

    fn membership(&self) -> RuntimeEvent {
        let (instance, members) = (self.told.instance.as_str().into(), Arc::clone(&self.told.members));
        RuntimeEvent::Members(Membership { instance, epoch: self.told.epoch, members })
    }

    /// Until one side has had enough; gives the reason.
    async fn talk(&mut self, socket: WebSocketStream<Box<dyn Socket>>) -> String {
        let mut asked = HashMap::new();
        let end = self.talk_on(socket, &mut asked).await.err().unwrap_or_else(|| "it has ended".into());
        for (_, answer) in asked {
            let answer: oneshot::Sender<Result<Value, Refusal>> = answer;
            // It may have been carried out; nobody knows.
            let _ = answer.send(Err(Refusal::NoAgent(format!("{end}; whether it was carried out is not known"))));
        }
        end
    }

    async fn talk_on(
        &mut self,
        mut socket: WebSocketStream<Box<dyn Socket>>,
        asked: &mut HashMap<u64, oneshot::Sender<Result<Value, Refusal>>>,
    ) -> Result<(), String> {
        let mut pings = tokio::time::interval(PING);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut heard, mut seq, mut commands) = (Instant::now(), 0, 0);
        let mut report_at = Instant::now();
        let mut reported_at = report_at;
        let mut reported = Report::default();
        let mut supervisor = self.supervisor.clone();
        loop {
            tokio::select! {
                text = next(&mut socket) => {
                    heard = Instant::now();
                    let Some(text) = text? else { continue };
                    match self.decode(&text)? {
                        Message::Snapshot(Snapshot { epoch, members }) => self.tell(epoch, members).await?,
                        Message::Delta(delta) => self.change(delta).await?,
                        Message::Result(Outcome { id, ok, error }) => {
                            let answer = match (ok, error) {
                                (_, Some(failure)) => {
                                    Err(Refusal::Agent { kind: failure.kind, message: failure.message })
                                }
                                (ok, None) => Ok(ok.unwrap_or_default()),
                            };
                            if let Some(caller) = asked.remove(&id) {
                                let seen = (self.told.instance.clone(), self.told.epoch);
                                tokio::spawn(answer_when_seen(caller, answer, seen, supervisor.clone()));
                            }
                        }
                        Message::Ping(ping) => send(&mut socket, &Message::Pong(ping)).await?,
                        Message::Pong(_) => {}
                        Message::Unknown(kind) => self.ignored.note("agent", vec![kind]),
                        Message::Hello(_) | Message::Report(_) | Message::Command(_) => {
                            return Err("it sent what only a balancer sends".into());
                        }
                    }
                }
                Some(Asked { op, answer }) = self.orders.recv() => {
                    asked.retain(|_, answer| !answer.is_closed());
                    if asked.len() >= COMMANDS {
                        let _ = answer.send(Err(Refusal::Busy));
                        continue;
                    }
                    commands += 1;
                    asked.insert(commands, answer);
                    send(&mut socket, &Message::Command(Command { id: commands, op })).await?;
                }
                // What the supervisor has taken in is told at once, unless another report has just left: somebody may wait for
                // it to let go of a replica.
                () = supervisor.changed() => report_at = report_at.min(reported_at + REPORT_GAP),
                () = tokio::time::sleep_until(report_at) => {
                    let (report, leaving) = self.report();
                    reported_at = Instant::now();
                    report_at = reported_at + if leaving { REPORT_SOON } else { REPORT };
                    if report != reported {
                        send(&mut socket, &Message::Report(report.clone())).await?;
                        reported = report;
                    }
                }
                _ = pings.tick() => {
                    if heard.elapsed() > SILENCE {
                        return Err(format!("nothing was heard for {} s", SILENCE.as_secs()));
                    }
                    seq += 1;
                    send(&mut socket, &Message::Ping(Ping { seq })).await?;
                }
            }
        }
    }

    async fn tell(&mut self, epoch: u64, mut members: Vec<RemoteMember>) -> Result<(), String> {
        members.sort_unstable_by_key(|member| member.generation);
        (self.told.epoch, self.told.members) = (epoch, members.into());
        self.metrics.epoch.set(i64::try_from(epoch).unwrap_or(i64::MAX));
        self.events.send(self.membership()).await.map_err(|_| "the supervisor has ended".to_owned())
    }

    async fn change(&mut self, delta: Delta) -> Result<(), String> {
        if delta.from != self.told.epoch {
            // The next hello asks for everything.
            let (from, has) = (delta.from, self.told.epoch);
            self.told.epoch = 0;
            return Err(format!("it changes state {from}, and this balancer has state {has}"));
        }
        let epoch = delta.epoch;
        let members = ledger::apply(&self.told.members, delta);
        self.tell(epoch, members).await
    }

    /// What this balancer sees now, and whether something is leaving.
    fn report(&mut self) -> (Report, bool) {
        let status = self.supervisor.status();
        // What an agent before this one has said has numbers of its own.
        let link = status.link.as_ref().filter(|link| *link.instance == *self.told.instance);
        let epoch = link.map_or(0, |link| link.epoch);
        // If the supervisor has not taken the newest word in yet, or the agent does not take it to be ready, what was said
        // against a replica last stands.
        let is_current = epoch == self.told.epoch;
        let (mut bad, known) = (HashSet::new(), std::mem::take(&mut self.bad));
        let members = Arc::clone(&self.told.members);
        let told_ready = |generation: Generation| {
            let found = members.binary_search_by_key(&generation, |member| member.generation);
            found.is_ok_and(|at| members[at].state == Standing::Ready && members[at].desired)
        };
        let mut leaving = false;
        let item = |member: &crate::supervisor::MemberStatus| {
            let replica = member.replica.as_ref()?;
            let (view, generation) = (&member.view, replica.generation);
            leaving |= !view.desired;
            let is_ready_here = view.state == State::Ready && replica.is_ready();
            let is_judged = is_current && told_ready(generation);
            let good = if is_judged { is_ready_here } else { !known.contains(&generation) };
            if !good {
                bad.insert(generation);
            }
            Some(ReportItem {
                generation,
                in_flight: replica.in_flight(),
                served: replica.served(),
                failed: replica.failed(),
                waited_us: u64::try_from(replica.waited().as_micros()).unwrap_or(u64::MAX),
                good,
            })
        };
        let replicas = status.members.iter().filter_map(item).collect();
        self.bad = bad;
        (Report { epoch, replicas, latencies: self.latencies.latencies() }, leaving)
    }

    fn decode(&mut self, text: &str) -> Result<Message, String> {
        let (message, ignored) = Message::decode(text).map_err(|error| error.to_string())?;
        self.ignored.note("agent", ignored);
        Ok(message)
    }
}

/// Whoever hears that something was done must not see it undone: the supervisor takes in first what the agent said before.
async fn answer_when_seen(
    caller: oneshot::Sender<Result<Value, Refusal>>,
    answer: Result<Value, Refusal>,
    (instance, epoch): (String, u64),
    mut supervisor: SupervisorHandle,
) {
    let is_behind = |link: &LinkStatus| *link.instance != *instance || link.epoch < epoch;
    let seen = async {
        while supervisor.status().link.as_ref().is_some_and(|link| link.detached.is_none() && is_behind(link)) {
            supervisor.changed().await;
        }
    };
    let _ = tokio::time::timeout(SEND, seen).await;
    // A caller that has gone does not want to know.
    let _ = caller.send(answer);
}

/// The next text; `None` for what is none of ours. Nothing is lost if it is not waited for to the end.
async fn next(socket: &mut WebSocketStream<Box<dyn Socket>>) -> Result<Option<String>, String> {
    match socket.next().await {
        Some(Ok(Frame::Text(text))) => Ok(Some(text.to_string())),
        Some(Ok(Frame::Binary(_))) => Err("a malformed message: binary".into()),
        Some(Ok(Frame::Close(Some(close)))) => Err(format!("it has closed the connection: {}", close.reason)),
        Some(Ok(Frame::Close(None))) | None => Err("it has closed the connection".into()),
        Some(Ok(_)) => Ok(None),
        Some(Err(error)) => Err(error.to_string()),
    }
}

async fn send(socket: &mut WebSocketStream<Box<dyn Socket>>, message: &Message) -> Result<(), String> {
    let sent = tokio::time::timeout(SEND, socket.send(Frame::text(message.encode()))).await;
    sent.map_err(|_| format!("it takes nothing for {} s", SEND.as_secs()))?.map_err(|error| error.to_string())
}
