//! The I/O shell around the table: opens and closes ports, publishes their pools, lets replicas drain, and looks whether
//! those that refused a connection are back.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::table::{Left, Member, Table};
use super::{
    COMMANDS, Command, Leaving, Peer, PortStatus, Refusal, Registration, RegistryConfig, RegistryHandle, ReplicaStatus,
    Status, log,
};
use crate::placement::Place;
use crate::pool::{Pool, Suspicion, pool};
use crate::relay::{OpenPort, Port, PortKey, Protocol, Workers};
use crate::replica::{Generation, Health, Hostname, Replica, ReplicaId, ReplicaSpec, Share};

/// News that may wait to be taken in.
const NEWS: usize = 256;
/// From one try to reach a replica that refused a connection to the next.
const LOOK: Duration = Duration::from_millis(500);
/// For such a try.
const PATIENCE: Duration = Duration::from_secs(1);
/// A datagram can't be tried out: after this time the replica gets some again.
const PAUSE: Duration = Duration::from_secs(1);
/// From one look for suspicions that were lost to the next.
const SWEEP: Duration = Duration::from_secs(1);
/// For the connections of a replica that was given up to be closed by the workers.
const CUT: Duration = Duration::from_secs(1);

/// What tasks report.
#[derive(Clone, Copy)]
enum News {
    Suspected(PortKey, Suspicion),
    Reachable(PortKey, Generation),
    /// A draining replica has no connection left, or its time is up.
    Drained(Generation, bool),
    Gone(Generation),
}

/// An open port.
struct Open {
    open: OpenPort,
    pool: Pool,
}

/// A replica, registered or leaving.
struct Known {
    key: PortKey,
    port: Arc<Port>,
    member: Member,
    replica: Arc<Replica>,
    registered_at: SystemTime,
}

struct Registry {
    table: Table,
    config: RegistryConfig,
    workers: Workers,
    ports: BTreeMap<PortKey, Open>,
    /// By age.
    known: BTreeMap<Generation, Known>,
    looks: HashMap<Generation, AbortHandle>,
    news: mpsc::Sender<News>,
    status: watch::Sender<Arc<Status>>,
}

/// Starts the registry as a task of its own, which ends when nobody talks to it any more.
pub fn start(config: RegistryConfig, workers: Workers) -> RegistryHandle {
    let (commands, mut received) = mpsc::channel(COMMANDS);
    let (news, mut reported) = mpsc::channel(NEWS);
    let (status, watched) = watch::channel(Arc::default());
    let mut registry = Registry {
        table: Table::default(),
        config,
        workers,
        ports: BTreeMap::new(),
        known: BTreeMap::new(),
        looks: HashMap::new(),
        news,
        status,
    };
    tokio::spawn(async move {
        let mut sweep = tokio::time::interval(SWEEP);
        loop {
            tokio::select! {
                command = received.recv() => match command {
                    Some(command) => registry.command(command).await,
                    None => return,
                },
                Some(news) = reported.recv() => registry.take_in(news),
                _ = sweep.tick() => registry.sweep(),
            }
            registry.show();
        }
    });
    RegistryHandle { commands, status: watched, peers: Arc::default() }
}

impl Registry {
    async fn command(&mut self, command: Command) {
        match command {
            Command::Register { peer, registration, answer } => {
                let done = self.register(peer, registration).await;
                self.answer(answer, done);
            }
            Command::Unregister { peer, registration, answer } => {
                let done = match self.table.leave(peer, &registration) {
                    Ok(left) => {
                        self.retire(left, None).await;
                        Ok(())
                    }
                    Err(refusal) => Err(refusal),
                };
                self.answer(answer, done);
            }
            Command::State { peer, of, state } => {
                for (key, member) in self.table.set_state(peer.id, of, state.as_deref()) {
                    self.rotate(key, member);
                }
            }
            Command::Leave { peer, leaving } => {
                let registrations: Vec<_> = self.table.of_peer(peer.id).map(|member| member.registration).collect();
                for registration in registrations {
                    if let Ok(left) = self.table.leave(peer, &registration) {
                        self.retire(left, Some(leaving)).await;
                    }
                }
            }
        }
    }

    /// Whoever gets the answer may look at the status at once.
    fn answer(&self, to: oneshot::Sender<Result<(), Refusal>>, answer: Result<(), Refusal>) {
        self.show();
        let _ = to.send(answer);
    }

    async fn register(&mut self, peer: Peer, registration: Registration) -> Result<(), Refusal> {
        let key = registration.key();
        let opens = self.table.admit(peer, &registration, &self.config)?;
        if opens {
            self.open(key).await?;
        }
        let member = self.table.join(peer, registration).clone();
        let Some(open) = self.ports.get(&key) else { return Err(Refusal::Stopping) };
        let spec = ReplicaSpec { id: member.id, generation: member.generation, hostname: hostname(member.id) };
        let replica = Replica::new(&spec, member.addr, open.pool.load()).with_share(registration.share());
        replica.set_health(Health::Ready);
        let port = Arc::clone(&open.open.port);
        log::registered(key, &member, opens, self.table.members(key).len());
        let known = Known { key, port, member, replica: Arc::new(replica), registered_at: SystemTime::now() };
        self.known.insert(spec.generation, known);
        self.publish(key);
        Ok(())
    }

    async fn open(&mut self, key: PortKey) -> Result<(), Refusal> {
        let (pool, reader, mut suspicions) = pool(self.config.policy.policy());
        let open = self.workers.open(key, &reader).await.map_err(|error| {
            log::not_opened(key, &error);
            Refusal::CannotBind(key, error.to_string())
        })?;
        self.ports.insert(key, Open { open, pool });
        let news = self.news.clone();
        // It ends with the port, and with the connections that remember it.
        tokio::spawn(async move {
            while let Some(suspicion) = suspicions.recv().await {
                if news.send(News::Suspected(key, suspicion)).await.is_err() {
                    return;
                }
            }
        });
        Ok(())
    }

    fn publish(&self, key: PortKey) {
        let Some(open) = self.ports.get(&key) else { return };
        open.open.port.set_by_flow(self.table.by_flow(key));
        let members = self.table.members(key);
        let place = |member: &Member| {
            let Share { weight, priority } = member.registration.share();
            Place { id: member.id.0, weight, priority }
        };
        let places: Vec<Place> = members.iter().map(place).collect();
        let replicas = members.iter().filter_map(|member| self.known.get(&member.generation));
        open.pool.publish(replicas.map(|known| Arc::clone(&known.replica)).collect(), &places);
    }

    /// Takes a member that has left the table out of its port, and lets its connections end.
    async fn retire(&mut self, left: Left, leaving: Option<Leaving>) {
        let Left { key, member, remaining } = left;
        let generation = member.generation;
        if let Some(look) = self.looks.remove(&generation) {
            look.abort();
        }
        let Some(known) = self.known.get(&generation) else { return };
        let replica = Arc::clone(&known.replica);
        let given_up = matches!(leaving, Some(Leaving::Silent(_)));
        replica.set_health(if given_up { Health::Lost } else { Health::Draining });
        self.publish(key);
        if remaining == 0
            && let Some(Open { open, .. }) = self.ports.remove(&key)
        {
            open.close().await;
        }
        log::left(key, &member, leaving, remaining, replica.in_flight());
        let (news, drain) = (self.news.clone(), if given_up { CUT } else { self.config.drain_timeout });
        tokio::spawn(async move {
            let late = timeout(drain, replica.drained()).await.is_err();
            let _ = news.send(News::Drained(generation, late)).await;
        });
    }

    /// Puts a replica in rotation or out of it, as its member says.
    fn rotate(&mut self, key: PortKey, member: Member) {
        log::rotation(key, &member);
        let Some(known) = self.known.get_mut(&member.generation) else { return };
        known.replica.set_health(if member.in_rotation() { Health::Ready } else { Health::Unready });
        known.member = member;
    }

    /// Nobody answers at a replica's port: looks when somebody does.
    fn suspect(&mut self, key: PortKey, generation: Generation) {
        if let Some(member) = self.table.set_reachable(key, generation, false) {
            let look = tokio::spawn(look(key, member.addr, generation, self.news.clone())).abort_handle();
            self.looks.insert(generation, look);
            self.rotate(key, member);
        }
    }

    /// The data path takes a replica out of rotation by itself. Its word for that may have found no room.
    fn sweep(&mut self) {
        let lost =
            self.known.values().filter(|known| known.member.in_rotation() && known.replica.health() == Health::Unready);
        for (key, generation) in lost.map(|known| (known.key, known.member.generation)).collect::<Vec<_>>() {
            self.suspect(key, generation);
        }
    }

    fn take_in(&mut self, news: News) {
        match news {
            News::Suspected(key, Suspicion::Refused(generation) | Suspicion::Broken(generation)) => {
                self.suspect(key, generation);
            }
            News::Reachable(key, generation) => {
                self.looks.remove(&generation);
                if let Some(member) = self.table.set_reachable(key, generation, true) {
                    self.rotate(key, member);
                }
            }
            News::Drained(generation, late) => {
                let Some(known) = self.known.get(&generation) else { return };
                let replica = Arc::clone(&known.replica);
                if !late || replica.in_flight() == 0 {
                    self.known.remove(&generation);
                    return;
                }
                log::late(known.key, &known.member, replica.in_flight());
                replica.set_health(Health::Lost);
                if let Some(open) = self.ports.get(&known.key) {
                    open.pool.announce();
                }
                let news = self.news.clone();
                tokio::spawn(async move {
                    let _ = timeout(CUT, replica.drained()).await;
                    let _ = news.send(News::Gone(generation)).await;
                });
            }
            News::Gone(generation) => {
                self.known.remove(&generation);
            }
        }
    }

    /// Lets everybody see how things are now.
    fn show(&self) {
        let mut ports: BTreeMap<PortKey, PortStatus> = BTreeMap::new();
        for known in self.known.values() {
            let open = self.ports.get(&known.key);
            let status = ports.entry(known.key).or_insert_with(|| PortStatus {
                port: Arc::clone(open.map_or(&known.port, |open| &open.open.port)),
                open: open.is_some(),
                replicas: Vec::new(),
            });
            status.replicas.push(ReplicaStatus {
                replica: Arc::clone(&known.replica),
                registered_at: known.registered_at,
                reason: known.member.reason(),
            });
        }
        self.status.send_replace(Arc::new(Status { ports: ports.into_values().collect() }));
    }
}

/// Replicas of ports are told apart by their addresses; their names only fill the place of one.
fn hostname(id: ReplicaId) -> Hostname {
    // A letter and a number are a host name.
    Hostname::new(&format!("R{id}")).unwrap_or_else(|| unreachable!("R{id} is a host name"))
}

/// Reports when a replica that refused a connection accepts one.
async fn look(key: PortKey, addr: SocketAddr, generation: Generation, news: mpsc::Sender<News>) {
    match key.protocol {
        Protocol::Tcp => loop {
            tokio::time::sleep(LOOK).await;
            if matches!(timeout(PATIENCE, TcpStream::connect(addr)).await, Ok(Ok(_))) {
                break;
            }
        },
        Protocol::Udp => tokio::time::sleep(PAUSE).await,
    }
    let _ = news.send(News::Reachable(key, generation)).await;
}
