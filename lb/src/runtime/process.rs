//! The `process` runtime: replicas as child processes on loopback.
//!
//! A child must not outlive the balancer, not even one that is killed with -9. `PR_SET_PDEATHSIG` sees to that, but follows
//! the *thread* that forked: so all children are forked by one thread that lives as long as the runtime does. Each child
//! leads a process group, so that what it starts is stopped with it, and Ctrl-C in a terminal reaches the balancer alone,
//! which then drains.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::{Stream, StreamExt};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, getppid};
use tokio::io::AsyncRead;
use tokio::process::{Child, Command};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_util::codec::{FramedRead, LinesCodec};

use super::{Instance, InstanceId, Launch, Measured, Runtime, RuntimeError, RuntimeEvent, Template, Usage};
use crate::replica::{Generation, ReplicaSpec};

/// Children that may wait to be forked, and stops that may wait to be done.
const QUEUE: usize = 64;
/// Events that the supervisor may be behind with.
const EVENTS: usize = 1024;
/// Longest line of a child's output that is logged; the rest of a longer one is dropped.
const LINE: usize = 4096;
/// How long a child's last words are waited for after its end.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// See the module's documentation.
#[derive(Debug)]
pub struct Process {
    /// The sample `server`, which takes any free port and says which.
    sample: PathBuf,
    forks: mpsc::Sender<Fork>,
    children: Children,
    events: broadcast::Sender<RuntimeEvent>,
}

type Children = Arc<Mutex<BTreeMap<Generation, Running>>>;

#[derive(Debug)]
struct Running {
    instance: Instance,
    stops: mpsc::Sender<Stop>,
}

#[derive(Debug)]
struct Fork {
    command: Command,
    child: oneshot::Sender<io::Result<Child>>,
}

#[derive(Debug)]
struct Stop {
    grace: Duration,
    stopped: oneshot::Sender<()>,
}

fn lock(children: &Children) -> MutexGuard<'_, BTreeMap<Generation, Running>> {
    children.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Process {
    /// A runtime without children. Must be called within a tokio runtime, which watches over them.
    ///
    /// A template without a command means the program `sample`.
    pub fn new(sample: PathBuf) -> io::Result<Self> {
        let (forks, mut asked) = mpsc::channel::<Fork>(QUEUE);
        let handle = tokio::runtime::Handle::current();
        std::thread::Builder::new().name("fork".into()).spawn(move || {
            let _watched_by = handle.enter();
            while let Some(Fork { mut command, child }) = asked.blocking_recv() {
                let _ = child.send(command.spawn());
            }
        })?;
        Ok(Self { sample, forks, children: Arc::default(), events: broadcast::channel(EVENTS).0 })
    }

    /// The command for `spec`, and where it will listen if that is known beforehand.
    fn command(&self, spec: &ReplicaSpec, template: &Template) -> io::Result<(Command, Option<SocketAddr>)> {
        let (mut command, addr) = match template.command.as_slice() {
            [] => {
                let mut command = Command::new(&self.sample);
                command.env("PORT", "0");
                (command, None)
            }
            words => {
                // Free at this moment; should another take it, the replica fails to start and gets the next.
                let addr = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
                let port = addr.port().to_string();
                let mut words = words
                    .iter()
                    .map(|word| word.replace("{port}", &port).replace("{hostname}", spec.hostname.as_str()));
                let mut command = Command::new(words.next().unwrap_or_default());
                command.args(words).env("PORT", port);
                (command, Some(addr))
            }
        };
        command
            .envs(&template.env)
            .env("SERVER_ID", spec.hostname.as_str())
            .env("BIND", Ipv4Addr::LOCALHOST.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        die_with_the_balancer(&mut command);
        Ok((command, addr))
    }
}

/// Has the kernel kill the child when the forking thread ends.
#[allow(unsafe_code)]
fn die_with_the_balancer(command: &mut Command) {
    let balancer = Pid::this();
    let request = move || {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        // It may have ended before the request was made; then the child has another parent by now.
        if getppid() != balancer {
            return Err(io::Error::other("the balancer has ended"));
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes two system calls and allocates nothing (`io::Error::other` only
    // where the child is about to end).
    unsafe {
        command.pre_exec(request);
    }
}

fn failed(what: &str, error: impl std::fmt::Display) -> RuntimeError {
    RuntimeError::Failed(format!("{what}: {error}"))
}

impl Runtime for Process {
    const HEALS: bool = true;

    async fn launch(&self, Launch { spec, template, .. }: &Launch) -> Result<Instance, RuntimeError> {
        let (command, addr) = self.command(spec, template).map_err(|error| failed("no free port", error))?;
        let program = command.as_std().get_program().to_string_lossy().into_owned();
        let (sender, forked) = oneshot::channel();
        let fork = Fork { command, child: sender };
        self.forks.send(fork).await.map_err(|_| RuntimeError::Failed("the forking thread has ended".into()))?;
        let mut child = match forked.await {
            Ok(child) => child.map_err(|error| failed(&format!("cannot run {program}"), error))?,
            Err(_) => return Err(RuntimeError::Failed("the forking thread has ended".into())),
        };
        let last_words = Arc::new(Mutex::new(String::new()));
        let stderr = child.stderr.take().map(|stderr| follow(spec, stderr, Some(Arc::clone(&last_words))));
        let mut stdout = child.stdout.take().map(lines);
        let addr = match (addr, &mut stdout) {
            (Some(addr), _) => addr,
            (None, None) => return Err(RuntimeError::Failed(format!("{program} has no output"))),
            (None, Some(stdout)) => match stdout.next().await {
                Some(Ok(line)) => line
                    .strip_prefix("listening on ")
                    .and_then(|addr| addr.trim().parse().ok())
                    .ok_or_else(|| RuntimeError::Failed(format!("{program} began with '{line}'")))?,
                _ => {
                    let status = child.wait().await.map_err(|error| failed("wait", error))?;
                    let reason = ending(status, stderr, &last_words).await;
                    return Err(RuntimeError::Failed(format!("{program} {reason}")));
                }
            },
        };
        if let Some(stdout) = stdout {
            log_lines(spec, stdout, None);
        }
        let pid = child.id().ok_or_else(|| RuntimeError::Failed(format!("{program} ended at once")))?;
        let id = InstanceId(pid.to_string());
        let instance = Instance {
            spec: spec.clone(),
            id,
            addr: Some(addr),
            running: true,
            started_at: SystemTime::now(),
            deployed: None,
            promoted: Vec::new(),
            instead_of: None,
        };
        let (stops, asked) = mpsc::channel(QUEUE);
        lock(&self.children).insert(spec.generation, Running { instance: instance.clone(), stops });
        let (children, events, generation) = (Arc::clone(&self.children), self.events.clone(), spec.generation);
        tokio::spawn(async move {
            let (status, stoppers) = watch(child, pid, asked).await;
            let reason = match status {
                Ok(status) => ending(status, stderr, &last_words).await,
                Err(error) => format!("can't be waited for: {error}"),
            };
            lock(&children).remove(&generation);
            let _ = events.send(RuntimeEvent::Died { generation, reason });
            for stopped in stoppers {
                let _ = stopped.send(());
            }
        });
        Ok(instance)
    }

    async fn stop(&self, id: &InstanceId, grace: Duration) -> Result<(), RuntimeError> {
        let stops =
            lock(&self.children).values().find(|child| child.instance.id == *id).map(|child| child.stops.clone());
        let Some(stops) = stops else { return Ok(()) };
        let (sender, stopped) = oneshot::channel();
        // Either way it has ended: the watcher lives as long as the child.
        if stops.send(Stop { grace, stopped: sender }).await.is_ok() {
            let _ = stopped.await;
        }
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Instance>, RuntimeError> {
        Ok(lock(&self.children).values().map(|child| child.instance.clone()).collect())
    }

    fn usage(&self) -> impl Stream<Item = Measured> + Send + 'static {
        let interval = tokio::time::interval(super::usage::INTERVAL);
        let state = (interval, Arc::clone(&self.children), Vec::<Measured>::new());
        futures_util::stream::unfold(state, |(mut interval, children, mut left)| async move {
            loop {
                if let Some(measured) = left.pop() {
                    return Some((measured, (interval, children, left)));
                }
                interval.tick().await;
                let alive: Vec<_> = lock(&children)
                    .iter()
                    .map(|(generation, child)| (*generation, child.instance.id.clone()))
                    .collect();
                let at = tokio::time::Instant::now();
                let read = |(generation, id): (Generation, InstanceId)| {
                    Some(Measured { generation, at, usage: usage_of(&id.0)? })
                };
                left = alive.into_iter().filter_map(read).collect();
            }
        })
    }

    fn events(&self) -> impl Stream<Item = RuntimeEvent> + Send + 'static {
        super::subscription(self.events.subscribe())
    }
}

/// What the kernel counts of a process (`proc(5)`: fields 14 and 15 of `stat`, field 2 of `statm`).
fn usage_of(pid: &str) -> Option<Usage> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold blanks.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let (user, system) = (fields.next()?.parse::<u64>().ok()?, fields.next()?.parse::<u64>().ok()?);
    let pages = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = pages.split_ascii_whitespace().nth(1)?.parse().ok()?;
    let (ticks, page) = (rustix::param::clock_ticks_per_second(), rustix::param::page_size() as u64);
    Some(Usage {
        cpu: Duration::from_secs_f64((user + system) as f64 / ticks as f64),
        memory: pages * page,
        cpu_limit: None,
        memory_limit: None,
    })
}

/// Waits for the child's end, and brings it about when asked to. Gives back who is to be told.
async fn watch(
    mut child: Child,
    pid: u32,
    mut asked: mpsc::Receiver<Stop>,
) -> (io::Result<ExitStatus>, Vec<oneshot::Sender<()>>) {
    let group = Pid::from_raw(pid as i32);
    let mut stoppers = Vec::new();
    let mut kill_at = None;
    let status = loop {
        let kill = async {
            match kill_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            status = child.wait() => break status,
            Some(Stop { grace, stopped }) = asked.recv() => {
                stoppers.push(stopped);
                // The child is not reaped yet, so the number is still its own.
                if grace.is_zero() {
                    let _ = killpg(group, Signal::SIGKILL);
                } else if kill_at.is_none() {
                    let _ = killpg(group, Signal::SIGTERM);
                    kill_at = Some(tokio::time::Instant::now() + grace);
                }
            }
            () = kill => {
                let _ = killpg(group, Signal::SIGKILL);
                kill_at = None;
            }
        }
    };
    // What it had started goes with it. A group keeps its number as long as it has members.
    let _ = killpg(group, Signal::SIGKILL);
    asked.close();
    while let Some(Stop { stopped, .. }) = asked.recv().await {
        stoppers.push(stopped);
    }
    (status, stoppers)
}

/// "exited with status 1: address in use", "was killed by SIGKILL".
async fn ending(status: ExitStatus, stderr: Option<tokio::task::JoinHandle<()>>, last_words: &Mutex<String>) -> String {
    use std::os::unix::process::ExitStatusExt;
    if let Some(stderr) = stderr {
        // Its descendants may hold the pipe open.
        let _ = tokio::time::timeout(LAST_WORDS, stderr).await;
    }
    let how = match (status.code(), status.signal().and_then(|signal| Signal::try_from(signal).ok())) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => format!("was killed by {signal}"),
        (None, None) => "ended".into(),
    };
    let last_words = last_words.lock().unwrap_or_else(PoisonError::into_inner);
    if status.code().is_some_and(|code| code != 0) && !last_words.is_empty() {
        format!("{how}: {last_words}")
    } else {
        how
    }
}

fn lines<R: AsyncRead + Unpin>(output: R) -> FramedRead<R, LinesCodec> {
    FramedRead::new(output, LinesCodec::new_with_max_length(LINE))
}

fn follow<R: AsyncRead + Unpin + Send + 'static>(
    spec: &ReplicaSpec,
    output: R,
    last: Option<Arc<Mutex<String>>>,
) -> tokio::task::JoinHandle<()> {
    log_lines(spec, lines(output), last)
}

/// Logs a child's output at level debug, and keeps its last line.
fn log_lines<R: AsyncRead + Unpin + Send + 'static>(
    spec: &ReplicaSpec,
    mut output: FramedRead<R, LinesCodec>,
    last: Option<Arc<Mutex<String>>>,
) -> tokio::task::JoinHandle<()> {
    let hostname = spec.hostname.clone();
    tokio::spawn(async move {
        // A line that is too long or not text is an error, after which the reader says "end" once before it goes on. It
        // must go on: a child whose output nobody reads would block.
        let mut skipped = false;
        loop {
            match output.next().await {
                Some(Ok(line)) => {
                    tracing::debug!(%hostname, "output: {line}");
                    if let Some(last) = &last {
                        *last.lock().unwrap_or_else(PoisonError::into_inner) = line;
                    }
                }
                Some(Err(_)) => skipped = true,
                None if skipped => skipped = false,
                None => return,
            }
        }
    })
}
