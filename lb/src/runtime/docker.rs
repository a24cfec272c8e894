//! The `docker` runtime: replicas as containers, through the engine's socket.
//!
//! A container's name, host name and network alias are the replica's host name; its identity lives in labels, so that a
//! restarted balancer knows its fleet again. Addresses come from the engine, keyed by container, never from DNS.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bollard::Docker as Engine;
use bollard::errors::Error as EngineError;
use bollard::models::{
    ContainerCreateBody, ContainerStatsResponse, ContainerSummary, ContainerSummaryStateEnum, EndpointSettings,
    EventMessage, HostConfig, NetworkingConfig,
};
use bollard::query_parameters::{
    CreateContainerOptions, EventsOptions, InspectContainerOptions, ListContainersOptions, RemoveContainerOptions,
    StartContainerOptions, StatsOptions, StopContainerOptions,
};
use futures_util::{Stream, StreamExt};
use tokio::sync::mpsc;

use super::{Deployed, Instance, InstanceId, Launch, Measured, Runtime, RuntimeError, RuntimeEvent, Template, Usage};
use crate::replica::{Generation, Hostname, ReplicaId, ReplicaSpec};

const FLEET: &str = "ringkeeper.fleet";
const HOSTNAME: &str = "ringkeeper.hostname";
const RING_ID: &str = "ringkeeper.ring-id";
const GENERATION: &str = "ringkeeper.generation";
const DEPLOYED: &str = "ringkeeper.deployed";
const PROMOTED: &str = "ringkeeper.promoted";
const INSTEAD_OF: &str = "ringkeeper.instead-of";

/// The first answer of the engine may take this long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Events that the supervisor may be behind with; the stream waits.
const EVENTS: usize = 1024;
/// Pauses between attempts to follow the engine's events.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// From one look at which containers there are to measure, to the next.
const FOLLOW: Duration = Duration::from_secs(2);
/// A name may still belong to a container that is being removed: how often, and how long apart, it is asked for again.
const NAME_TRIES: u32 = 10;
const NAME_PAUSE: Duration = Duration::from_millis(100);
/// Signals after which a container's end is near: INT, QUIT, ABRT, KILL, TERM. Others are everyday business of servers.
const FATAL: [&str; 5] = ["2", "3", "6", "9", "15"];

/// What the runtime is told once.
#[derive(Debug, Clone)]
pub struct DockerOptions {
    /// Where the engine listens, `unix://` or `tcp://`.
    pub host: String,
    /// Value of the label `ringkeeper.fleet`.
    pub fleet: String,
    /// What the configuration says that replicas are started from.
    pub configured: Template,
    /// Network they are on.
    pub network: String,
    /// Port they listen on.
    pub port: u16,
}

/// See the module's documentation.
#[derive(Debug, Clone)]
pub struct Docker {
    engine: Engine,
    options: DockerOptions,
    /// Containers that did not start, and are removed for that: nobody else's doing, and told by the launch itself.
    unborn: Arc<Mutex<HashSet<String>>>,
}

impl Docker {
    /// Finds the engine and agrees on a version of its API.
    pub async fn connect(options: DockerOptions) -> Result<Self, RuntimeError> {
        let no_engine = |reason: String| {
            RuntimeError::Failed(format!("cannot reach the Docker engine at {}: {reason}", options.host))
        };
        let engine = Engine::connect_with_host(&options.host).map_err(|error| no_engine(error.to_string()))?;
        let engine = match tokio::time::timeout(CONNECT_TIMEOUT, engine.negotiate_version()).await {
            Ok(engine) => engine.map_err(|error| no_engine(error.to_string()))?,
            Err(_) => return Err(no_engine("no answer".into())),
        };
        Ok(Self { engine, options, unborn: Arc::default() })
    }

    fn body(&self, Launch { spec, template, promoted, instead_of }: &Launch) -> ContainerCreateBody {
        let hostname = spec.hostname.to_string();
        let label = |name: &str, value: String| (name.to_owned(), value);
        let endpoint = EndpointSettings { aliases: Some(vec![hostname.clone()]), ..Default::default() };
        let mut env: Vec<_> = template.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        env.extend([format!("SERVER_ID={hostname}"), format!("PORT={}", self.options.port)]);
        let mut labels = HashMap::from([
            label(FLEET, self.options.fleet.clone()),
            label(HOSTNAME, hostname.clone()),
            label(RING_ID, spec.id.to_string()),
            label(GENERATION, spec.generation.to_string()),
        ]);
        if **template != self.options.configured {
            let mark = Deployed { template: Template::clone(template), instead_of: self.options.configured.clone() };
            labels.extend(serde_json::to_string(&mark).ok().map(|mark| label(DEPLOYED, mark)));
        }
        labels.extend(instead_of.map(|generation| label(INSTEAD_OF, generation.to_string())));
        if !promoted.is_empty() {
            labels.extend(serde_json::to_string(promoted).ok().map(|promoted| label(PROMOTED, promoted)));
        }
        ContainerCreateBody {
            hostname: Some(hostname),
            image: Some(template.image.clone()),
            cmd: (!template.command.is_empty()).then(|| template.command.clone()),
            env: Some(env),
            labels: Some(labels),
            host_config: Some(HostConfig {
                network_mode: Some(self.options.network.clone()),
                nano_cpus: template.nano_cpus,
                memory: template.memory,
                ..Default::default()
            }),
            networking_config: Some(NetworkingConfig {
                endpoints_config: Some(HashMap::from([(self.options.network.clone(), endpoint)])),
            }),
            ..Default::default()
        }
    }

    async fn create(&self, launch: &Launch) -> Result<String, RuntimeError> {
        let spec = &launch.spec;
        for _ in 0..NAME_TRIES {
            let options = CreateContainerOptions { name: Some(spec.hostname.to_string()), ..Default::default() };
            let error = match self.engine.create_container(Some(options), self.body(launch)).await {
                Ok(created) => return Ok(created.id),
                Err(error) => error,
            };
            if status(&error) != Some(409) {
                return Err(failed(&error));
            }
            match self.engine.inspect_container(spec.hostname.as_str(), None::<InspectContainerOptions>).await {
                Ok(holder) => {
                    let labels = holder.config.and_then(|config| config.labels).unwrap_or_default();
                    if labels.get(FLEET) != Some(&self.options.fleet) {
                        return Err(RuntimeError::NameTaken(spec.hostname.to_string()));
                    }
                    // Left over from a past of this fleet, which gives out each name once.
                    if let Some(id) = holder.id {
                        self.remove(&id).await?;
                    }
                }
                Err(error) if status(&error) == Some(404) => {}
                Err(error) => return Err(failed(&error)),
            }
            tokio::time::sleep(NAME_PAUSE).await;
        }
        Err(RuntimeError::NameTaken(spec.hostname.to_string()))
    }

    /// Starts a created container, and learns its address.
    async fn start(&self, id: &str) -> Result<Option<SocketAddr>, RuntimeError> {
        self.engine.start_container(id, None::<StartContainerOptions>).await.map_err(|error| failed(&error))?;
        let inspected = self.engine.inspect_container(id, None::<InspectContainerOptions>).await;
        let networks = inspected.map_err(|error| failed(&error))?.network_settings.and_then(|it| it.networks);
        Ok(self.addr(networks))
    }

    fn addr(&self, networks: Option<HashMap<String, EndpointSettings>>) -> Option<SocketAddr> {
        let mut networks = networks?;
        let ip = networks.remove(&self.options.network)?.ip_address?;
        Some(SocketAddr::new(ip.parse::<IpAddr>().ok()?, self.options.port))
    }

    /// Removes a container by force; one that is gone, or going, is fine.
    async fn remove(&self, id: &str) -> Result<(), RuntimeError> {
        let options = RemoveContainerOptions { force: true, v: true, ..Default::default() };
        match self.engine.remove_container(id, Some(options)).await {
            Ok(()) => Ok(()),
            Err(error) if matches!(status(&error), Some(404 | 409)) => Ok(()),
            Err(error) => Err(failed(&error)),
        }
    }

    fn filters(&self) -> HashMap<String, Vec<String>> {
        HashMap::from([("label".into(), vec![format!("{FLEET}={}", self.options.fleet)])])
    }

    fn instance(&self, container: ContainerSummary) -> Option<Instance> {
        let labels = container.labels.as_ref()?;
        let spec = spec(labels)?;
        let deployed = labels.get(DEPLOYED).and_then(|mark| serde_json::from_str(mark).ok());
        let instead_of = labels.get(INSTEAD_OF).and_then(|text| text.parse().ok()).map(Generation);
        let promoted = labels.get(PROMOTED).and_then(|promoted| serde_json::from_str(promoted).ok());
        let running =
            matches!(container.state, Some(ContainerSummaryStateEnum::RUNNING | ContainerSummaryStateEnum::PAUSED));
        let created = u64::try_from(container.created.unwrap_or_default()).unwrap_or_default();
        Some(Instance {
            spec,
            id: InstanceId(container.id?),
            addr: self.addr(container.network_settings.and_then(|settings| settings.networks)),
            running,
            started_at: SystemTime::UNIX_EPOCH + Duration::from_secs(created),
            deployed,
            promoted: promoted.unwrap_or_default(),
            instead_of,
        })
    }
}

/// The identity that labels hold.
fn spec(labels: &HashMap<String, String>) -> Option<ReplicaSpec> {
    Some(ReplicaSpec {
        id: ReplicaId(labels.get(RING_ID)?.parse().ok()?),
        generation: generation(labels)?,
        hostname: Hostname::new(labels.get(HOSTNAME)?)?,
    })
}

fn generation(labels: &HashMap<String, String>) -> Option<Generation> {
    labels.get(GENERATION)?.parse().ok().map(Generation)
}

fn status(error: &EngineError) -> Option<u16> {
    match error {
        EngineError::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// The engine's own words.
fn failed(error: &EngineError) -> RuntimeError {
    RuntimeError::Failed(match error {
        EngineError::DockerResponseServerError { message, .. } => message.trim().to_owned(),
        other => other.to_string(),
    })
}

/// What an event of the engine means for a replica.
fn meaning(message: EventMessage) -> Option<RuntimeEvent> {
    let attributes = message.actor?.attributes?;
    let generation = generation(&attributes)?;
    let attribute = |name| attributes.get(name).map_or("?", String::as_str);
    match message.action?.as_str() {
        "die" => {
            let reason = match attribute("exitCode") {
                "137" => "was killed (exit status 137)".into(),
                code => format!("exited with status {code}"),
            };
            Some(RuntimeEvent::Died { generation, reason })
        }
        "destroy" => Some(RuntimeEvent::Died { generation, reason: "was removed by somebody else".into() }),
        "kill" if FATAL.contains(&attribute("signal")) => {
            let reason = format!("was sent signal {} by somebody else", attribute("signal"));
            Some(RuntimeEvent::Doomed { generation, reason })
        }
        "pause" => Some(RuntimeEvent::Paused { generation }),
        "unpause" => Some(RuntimeEvent::Doubtful { generation, reason: "goes on after a pause".into() }),
        "oom" => Some(RuntimeEvent::Doubtful { generation, reason: "ran out of memory".into() }),
        _ => None,
    }
}

impl Runtime for Docker {
    const HEALS: bool = true;

    async fn launch(&self, launch: &Launch) -> Result<Instance, RuntimeError> {
        let spec = &launch.spec;
        let id = self.create(launch).await?;
        match self.start(&id).await {
            Ok(addr) => Ok(Instance {
                spec: spec.clone(),
                id: InstanceId(id),
                addr,
                running: true,
                started_at: SystemTime::now(),
                deployed: None,
                promoted: Vec::new(),
                instead_of: None,
            }),
            Err(error) => {
                self.unborn.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone());
                if let Err(left) = self.remove(&id).await {
                    tracing::error!(hostname = %spec.hostname, "a container that did not start is left over: {left}");
                }
                Err(error)
            }
        }
    }

    async fn stop(&self, id: &InstanceId, grace: Duration) -> Result<(), RuntimeError> {
        if !grace.is_zero() {
            let seconds = i32::try_from(grace.as_secs().max(1)).unwrap_or(i32::MAX);
            let options = StopContainerOptions { t: Some(seconds), ..Default::default() };
            // Whatever comes of asking politely, force follows.
            let _ = self.engine.stop_container(&id.0, Some(options)).await;
        }
        self.remove(&id.0).await
    }

    async fn list(&self) -> Result<Vec<Instance>, RuntimeError> {
        let options = ListContainersOptions { all: true, filters: Some(self.filters()), ..Default::default() };
        let containers = self.engine.list_containers(Some(options)).await.map_err(|error| failed(&error))?;
        Ok(containers.into_iter().filter_map(|container| self.instance(container)).collect())
    }

    fn usage(&self) -> impl Stream<Item = Measured> + Send + 'static {
        let (sender, receiver) = mpsc::channel(EVENTS);
        tokio::spawn(measure(self.clone(), sender));
        futures_util::stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) })
    }

    fn events(&self) -> impl Stream<Item = RuntimeEvent> + Send + 'static {
        let (sender, receiver) = mpsc::channel(EVENTS);
        let mut filters = self.filters();
        filters.insert("type".into(), vec!["container".into()]);
        tokio::spawn(follow(self.engine.clone(), filters, Arc::clone(&self.unborn), sender));
        futures_util::stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) })
    }
}

/// Is this the end of a container that did not start?
fn was_unborn(unborn: &Mutex<HashSet<String>>, message: &EventMessage) -> bool {
    let id = message.actor.as_ref().and_then(|actor| actor.id.as_ref());
    let is_removed = message.action.as_deref() == Some("destroy");
    is_removed && id.is_some_and(|id| unborn.lock().unwrap_or_else(PoisonError::into_inner).remove(id))
}

/// Follows the engine's events as long as somebody listens, however often the stream breaks.
async fn follow(
    engine: Engine,
    filters: HashMap<String, Vec<String>>,
    unborn: Arc<Mutex<HashSet<String>>>,
    sender: mpsc::Sender<RuntimeEvent>,
) {
    let mut pause = RECONNECT.0;
    loop {
        // What happens from here on is told, however long it takes to be heard; what happened before was missed.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let since = Some(format!("{}.{:09}", now.as_secs(), now.subsec_nanos()));
        let options = EventsOptions { filters: Some(filters.clone()), since, ..Default::default() };
        let mut events = std::pin::pin!(engine.events(Some(options)));
        if sender.send(RuntimeEvent::Resync).await.is_err() {
            return;
        }
        let error = loop {
            match events.next().await {
                Some(Ok(message)) => {
                    pause = RECONNECT.0;
                    if was_unborn(&unborn, &message) {
                        continue;
                    }
                    if let Some(event) = meaning(message)
                        && sender.send(event).await.is_err()
                    {
                        return;
                    }
                }
                Some(Err(error)) => break error.to_string(),
                None => break "the stream ended".into(),
            }
        };
        tracing::warn!("the engine's events broke off, following them again: {error}");
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = sender.closed() => return,
        }
        pause = (pause * 2).min(RECONNECT.1);
    }
}

/// Follows the engine's figures of every container that runs, as long as somebody listens.
async fn measure(docker: Docker, sender: mpsc::Sender<Measured>) {
    let mut followed: HashMap<InstanceId, tokio::task::JoinSet<()>> = HashMap::new();
    let mut look = tokio::time::interval(FOLLOW);
    loop {
        tokio::select! {
            _ = look.tick() => {}
            () = sender.closed() => return,
        }
        // What can't be listed now is followed after the next look.
        let Ok(Ok(instances)) = tokio::time::timeout(CONNECT_TIMEOUT, docker.list()).await else { continue };
        let running: Vec<_> = instances.into_iter().filter(|instance| instance.running).collect();
        followed.retain(|id, task| !task.is_empty() && running.iter().any(|instance| instance.id == *id));
        for instance in running {
            let (engine, sender) = (docker.engine.clone(), sender.clone());
            followed.entry(instance.id.clone()).or_insert_with(|| {
                let mut task = tokio::task::JoinSet::new();
                task.spawn(follow_usage(engine, instance, docker.options.configured.clone(), sender));
                task
            });
        }
        followed.values_mut().for_each(|task| while task.try_join_next().is_some() {});
    }
}

async fn follow_usage(engine: Engine, instance: Instance, limits: Template, sender: mpsc::Sender<Measured>) {
    let options = StatsOptions { stream: true, one_shot: false };
    let mut figures = std::pin::pin!(engine.stats(&instance.id.0, Some(options)));
    while let Some(Ok(figures)) = figures.next().await {
        let Some(usage) = usage_of(&figures, &limits) else { continue };
        let measured = Measured { generation: instance.spec.generation, at: tokio::time::Instant::now(), usage };
        if sender.send(measured).await.is_err() {
            return;
        }
    }
}

/// As `docker stats` counts: file caches that nobody uses are no memory in use.
fn usage_of(figures: &ContainerStatsResponse, limits: &Template) -> Option<Usage> {
    let cpu = figures.cpu_stats.as_ref()?.cpu_usage.as_ref()?.total_usage?;
    let memory = figures.memory_stats.as_ref()?;
    let caches = memory.stats.as_ref();
    // cgroup v2, then v1.
    let cache = caches.and_then(|caches| caches.get("inactive_file").or_else(|| caches.get("total_inactive_file")));
    let used = memory.usage?.saturating_sub(cache.copied().unwrap_or_default());
    Some(Usage {
        cpu: Duration::from_nanos(cpu),
        memory: used,
        cpu_limit: limits.nano_cpus.map(|nano| nano as f64 / 1e9),
        memory_limit: limits.memory.and_then(|limit| u64::try_from(limit).ok()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::EventActor;

    fn event(action: &str, attributes: &[(&str, &str)]) -> Option<RuntimeEvent> {
        let own = [(GENERATION, "7"), (FLEET, "f")];
        let attributes = own.iter().chain(attributes).map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let actor = EventActor { id: Some("abc".into()), attributes: Some(attributes) };
        meaning(EventMessage { action: Some(action.into()), actor: Some(actor), ..Default::default() })
    }

    #[test]
    fn events_mean_what_they_do_to_a_replica() {
        let generation = Generation(7);
        assert!(
            matches!(event("die", &[("exitCode", "1")]), Some(RuntimeEvent::Died { generation: g, .. }) if g == generation)
        );
        assert!(matches!(event("kill", &[("signal", "15")]), Some(RuntimeEvent::Doomed { .. })));
        assert_eq!(event("kill", &[("signal", "1")]), None, "a server may take SIGHUP for a reload");
        assert_eq!(event("pause", &[]), Some(RuntimeEvent::Paused { generation }));
        assert!(matches!(event("unpause", &[]), Some(RuntimeEvent::Doubtful { .. })));
        assert!(matches!(event("oom", &[]), Some(RuntimeEvent::Doubtful { .. })));
        assert!(matches!(event("destroy", &[]), Some(RuntimeEvent::Died { .. })));
        assert_eq!(event("exec_start: sh", &[]), None);
    }
}
