//! What the sessions of an agent share: the fleet's states, and what balancers report. Its task follows the supervisor.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::Instant;

use super::ledger::{Ledger, Update};
use super::tally::Tally;
use super::wire::Report;
use crate::pool::PoolReader;
use crate::replica::{Generation, Health, Seen};
use crate::runtime::remote::{RemoteMember, Standing};
use crate::supervisor::{Holders, MemberStatus, State, Status, SupervisorHandle};

/// Balancers of an agent before this one are back within this time: their longest pause, and a handshake.
const RETURN: Duration = Duration::from_secs(6);

#[derive(Debug)]
struct Shared {
    ledger: Ledger,
    tally: Tally,
}

/// See the module's documentation. Cheap to clone.
#[derive(Clone)]
pub struct Hub {
    shared: Arc<Mutex<Shared>>,
    epoch: watch::Sender<u64>,
    /// Counts reports, and sessions that begin or end.
    reports: watch::Sender<u64>,
}

impl Hub {
    /// The hub of one run of the agent. A balancer that has left may hold requests for `grace`.
    pub fn new(instance: String, grace: Duration) -> Self {
        let shared = Shared { ledger: Ledger::new(instance), tally: Tally::new(grace) };
        Self { shared: Arc::new(Mutex::new(shared)), epoch: watch::channel(0).0, reports: watch::channel(0).0 }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows the supervisor for as long as that lives.
    pub async fn follow(self, mut supervisor: SupervisorHandle) {
        loop {
            self.advance(&supervisor.status());
            supervisor.changed().await;
        }
    }

    /// Takes in how the fleet stands, unless that is known already.
    pub(super) fn advance(&self, status: &Status) {
        let members: Vec<_> = status.members.iter().map(remote).collect();
        let mut shared = self.shared();
        // What runs before the first state was told has been told of by an agent before this one.
        if shared.ledger.epoch() == 0 && members.iter().any(|member| member.runtime_id.is_some()) {
            shared.tally.expect(Instant::now() + RETURN);
        }
        let advanced = shared.ledger.advance(members);
        let epoch = shared.ledger.epoch();
        drop(shared);
        if advanced {
            self.epoch.send_replace(epoch);
            self.reports.send_modify(|count| *count += 1);
        }
    }

    /// Which run of the agent this is.
    pub fn instance(&self) -> String {
        self.shared().ledger.instance().to_owned()
    }

    /// The present epoch, as it changes.
    pub fn epochs(&self) -> watch::Receiver<u64> {
        self.epoch.subscribe()
    }

    /// What a balancer has to be told that has the state `epoch` of the run `instance`, and the epoch that it has then.
    pub fn since(&self, instance: &str, epoch: u64) -> (Update, u64) {
        let shared = self.shared();
        (shared.ledger.since(instance, epoch), shared.ledger.epoch())
    }

    /// A session of a balancer begins; gives its number.
    pub(super) fn join(&self, balancer: &str) -> u64 {
        self.shared().tally.join(balancer)
    }

    /// A session has ended.
    pub(super) fn leave(&self, balancer: &str, session: u64, supervisor: &SupervisorHandle) {
        let mut shared = self.shared();
        shared.tally.leave(balancer, session, Instant::now());
        for replica in supervisor.status().members.iter().filter_map(|member| member.replica.as_ref()) {
            replica.mirror(shared.tally.seen(replica.generation));
        }
        drop(shared);
        self.reports.send_modify(|count| *count += 1);
    }

    /// Takes in a report: the supervisor's replicas show what all balancers see, and those that one has taken out of
    /// rotation are probed.
    pub(super) fn report(
        &self,
        balancer: &str,
        session: u64,
        report: Report,
        supervisor: &SupervisorHandle,
        pool: &PoolReader,
    ) {
        let mut shared = self.shared();
        let bad = shared.tally.report(balancer, session, report);
        for replica in supervisor.status().members.iter().filter_map(|member| member.replica.as_ref()) {
            replica.mirror(shared.tally.seen(replica.generation));
            if bad.contains(&replica.generation) {
                // One that others reach is only asked: it may be that balancer's own trouble.
                if shared.tally.is_bad_for_all(replica.generation) {
                    pool.suspect(replica);
                } else {
                    pool.doubt(replica);
                }
            }
        }
        drop(shared);
        self.reports.send_modify(|count| *count += 1);
    }

    /// All that is seen of a replica.
    pub fn seen(&self, generation: Generation) -> Seen {
        self.shared().tally.seen(generation)
    }

    /// Responses by latency, cumulative, of all balancers.
    pub fn latencies(&self) -> Vec<u64> {
        self.shared().tally.latencies()
    }

    /// Balancers that are connected, how many of them serve the present state, and its epoch.
    pub fn connected(&self) -> (usize, usize, u64) {
        let shared = self.shared();
        let epoch = shared.ledger.epoch();
        let (connected, current) = shared.tally.connected(epoch);
        (connected, current, epoch)
    }
}

impl Holders for Hub {
    fn released(&self, generation: Generation) -> BoxFuture<'static, ()> {
        let hub = self.clone();
        Box::pin(async move {
            let mut reports = hub.reports.subscribe();
            loop {
                let next = {
                    let shared = hub.shared();
                    let since = shared.ledger.leaving_since(generation);
                    if since.is_some_and(|epoch| shared.tally.is_released(generation, epoch, Instant::now())) {
                        return;
                    }
                    shared.tally.next_release(Instant::now())
                };
                let late = async {
                    match next {
                        Some(next) => tokio::time::sleep_until(next).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    changed = reports.changed() => if changed.is_err() { return },
                    () = late => {}
                }
            }
        })
    }
}

/// A replica as balancers are told of it.
fn remote(MemberStatus { view, replica }: &MemberStatus) -> RemoteMember {
    let millis = |time: SystemTime| {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or_default()
    };
    let is_lost = replica.as_ref().is_some_and(|replica| replica.health() == Health::Lost);
    RemoteMember {
        generation: view.spec.generation,
        id: view.spec.id,
        hostname: view.spec.hostname.clone(),
        addr: view.instance.as_ref().and_then(|instance| instance.addr),
        runtime_id: view.instance.as_ref().map(|instance| instance.id.to_string()),
        state: match view.state {
            _ if is_lost => Standing::Lost,
            State::Starting => Standing::Starting,
            State::Ready => Standing::Ready,
            State::Unready => Standing::Unready,
            State::Draining => Standing::Draining,
        },
        desired: view.desired,
        spare: view.spare,
        share: view.share,
        order: view.order,
        started_at: view.instance.as_ref().map(|instance| millis(instance.started_at)),
        crashes: view.crashes,
        // Worked out anew each time, from two clocks: what differs by a millisecond is no new state.
        launch_at: view.launch_at.map(millis).map(|at| at.next_multiple_of(100)),
        last_error: view.last_error.clone(),
    }
}
