//! A run under way: replicas, proxies, and samples taken in turn.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::paced;
use super::proxies::{Kind, Programs, Proxy};
use super::report::Sample;
use super::workload::{GROWTH, PACED, Workload};
use super::wrk::{self, Load};
use super::{LOAD_CORE, pinned};
use crate::child::Running;
use crate::cpu::{CpuTime, resident_kib};

/// Members of the rows that compare proxies.
pub(crate) const MEMBERS: usize = 3;
/// What is told of the paced row's latency.
const QUANTILES: [f64; 4] = [0.5, 0.9, 0.99, 0.999];
/// How long a proxy is watched without load.
const BACKGROUND: Duration = Duration::from_secs(1);
/// Connections of the paced row.
const PACED_CONNECTIONS: usize = 64;

pub(crate) struct Session {
    dir: TempDir,
    pub(crate) programs: Programs,
    _replicas: Running,
    /// Ports of the replicas.
    pub(crate) members: Vec<u16>,
    pub(crate) warm_up: u64,
    pub(crate) seconds: u64,
    bar: ProgressBar,
}

impl Session {
    /// Starts the replicas. `samples` is how many will be taken.
    pub(crate) async fn start(
        programs: Programs,
        growth: bool,
        (warm_up, seconds): (u64, u64),
        samples: u64,
    ) -> Result<Self, String> {
        let dir = tempfile::Builder::new().prefix("ringkeeper-bench-").tempdir();
        let dir = dir.map_err(|error| format!("no temporary folder: {error}"))?;
        let ports = if growth { usize::from(GROWTH[GROWTH.len() - 1]) } else { MEMBERS };
        let (replicas, members) = replicas(&programs.analysis, "replica", ports, dir.path()).await?;
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} samples, {eta} left: {msg}");
        let bar = ProgressBar::new(samples).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let bar = bar.with_finish(ProgressFinish::AndClear);
        bar.enable_steady_tick(Duration::from_secs(1));
        Ok(Self { dir, programs, _replicas: replicas, members, warm_up, seconds, bar })
    }

    /// For the files of this run.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A proxy before the first `members` replicas.
    pub(crate) async fn proxy(&self, kind: Kind, name: &str, members: usize) -> Result<Proxy, String> {
        Proxy::start(kind, name, &self.programs, &self.members[..members], self.dir.path()).await
    }

    /// One of each, before three replicas.
    pub(crate) async fn proxies(&self, kinds: &[Kind]) -> Result<Vec<(String, Proxy)>, String> {
        let mut proxies = Vec::new();
        for kind in kinds {
            proxies.push((kind.name().to_owned(), self.proxy(*kind, kind.name(), MEMBERS).await?));
        }
        Ok(proxies)
    }

    /// `lb` before 3, 50 and 500 replicas.
    pub(crate) async fn growth(&self) -> Result<Vec<(String, Proxy)>, String> {
        let mut proxies = Vec::new();
        for members in GROWTH {
            let name = format!("lb-{members}");
            proxies.push((name.clone(), self.proxy(Kind::Lb, &name, usize::from(members)).await?));
        }
        Ok(proxies)
    }

    /// A warm-up, then a measured run of a workload that has no idle connections.
    pub(crate) async fn sample(&self, row: &str, round: u32, name: &str, proxy: &Proxy, load: &Load) -> Answer {
        self.say(&format!("{row}, round {round}, {name}"));
        let fail = |error: String| format!("{row}, round {round}, {name}: {error}");
        wrk::run(&proxy.base, load, self.warm_up, self.dir.path()).await.map_err(fail)?;
        self.measure(row, round, name, proxy, load).await.map_err(fail)
    }

    async fn measure(&self, row: &str, round: u32, name: &str, proxy: &Proxy, load: &Load) -> Answer {
        let before = cpu(proxy)?;
        let summary = wrk::run(&proxy.base, load, self.seconds, self.dir.path()).await?;
        let used = cpu(proxy)?.since(before);
        let seconds = summary.micros as f64 / 1e6;
        let mut sample = Sample {
            row: row.into(),
            subject: name.into(),
            round,
            requests: summary.requests,
            seconds,
            per_second: summary.requests as f64 / seconds,
            p50_us: summary.p50_us,
            p99_us: summary.p99_us,
            rss_kib: resident(proxy)?,
            ..Sample::default()
        };
        charge(&mut sample, used);
        self.done(&sample);
        Ok(sample)
    }

    /// A sample, and before it a look at what the proxy uses without any request.
    pub(crate) async fn sample_and_background(
        &self,
        row: &str,
        round: u32,
        name: &str,
        proxy: &Proxy,
        load: &Load,
    ) -> Answer {
        self.say(&format!("{row}, round {round}, {name}, no load"));
        let before = cpu(proxy)?;
        tokio::time::sleep(BACKGROUND).await;
        let used = cpu(proxy)?.since(before);
        let mut sample = self.sample(row, round, name, proxy, load).await?;
        sample.background_us = Some(used.total.as_secs_f64() * 1e6 / BACKGROUND.as_secs_f64());
        Ok(sample)
    }

    /// A sample beside idle connections, of a proxy that nobody else has used: an allocator keeps what it once had, so only
    /// the first thousand connections show what they take.
    pub(crate) async fn idle(&self, round: u32, kind: Kind, workload: &Workload) -> Answer {
        let (row, name) = (workload.id, kind.name());
        self.say(&format!("{row}, round {round}, {name}"));
        let fail = |error: String| format!("{row}, round {round}, {name}: {error}");
        let proxy = self.proxy(kind, &format!("{name}-idle"), MEMBERS).await.map_err(fail)?;
        wrk::run(&proxy.base, &workload.load, self.warm_up, self.dir.path()).await.map_err(fail)?;
        let before = resident(&proxy).map_err(fail)?;
        let addr = addr(&proxy).map_err(fail)?;
        let mut idle = Vec::with_capacity(workload.idle);
        for _ in 0..workload.idle {
            idle.push(ask_once(addr).await.map_err(|error| fail(format!("an idle connection: {error}")))?);
        }
        let added = resident(&proxy).map_err(fail)?.saturating_sub(before);
        let mut sample = self.measure(row, round, name, &proxy, &workload.load).await.map_err(fail)?;
        sample.idle_kib = Some(added as f64 / workload.idle as f64);
        for (number, stream) in idle.iter().enumerate() {
            // A proxy that has closed them meanwhile would have been measured without them.
            if !matches!(stream.try_read(&mut [0; 1]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock) {
                return Err(fail(format!("idle connection {number} was closed")));
            }
        }
        Ok(sample)
    }

    /// A sample at a fixed rate, with a warm-up at the same one.
    pub(crate) async fn paced(&self, round: u32, name: &str, proxy: &Proxy, rate: f64) -> Answer {
        self.say(&format!("{PACED}, round {round}, {name}"));
        let fail = |error: String| format!("{PACED}, round {round}, {name}: {error}");
        let addr = addr(proxy).map_err(fail)?;
        let run = async |seconds| paced::run(addr, "/54", rate, PACED_CONNECTIONS, seconds).await.map_err(fail);
        run(self.warm_up).await?;
        let before = cpu(proxy).map_err(fail)?;
        let latency = run(self.seconds).await?;
        let used = cpu(proxy).map_err(fail)?.since(before);
        let micros = |quantile| latency.value_at_quantile(quantile) as f64 / 1e3;
        let mut sample = Sample {
            row: PACED.into(),
            subject: name.into(),
            round,
            requests: latency.len(),
            seconds: self.seconds as f64,
            per_second: latency.len() as f64 / self.seconds as f64,
            p50_us: micros(0.50),
            p99_us: micros(0.99),
            rss_kib: resident(proxy).map_err(fail)?,
            quantiles_us: QUANTILES.map(|quantile| (quantile, micros(quantile))).to_vec(),
            ..Sample::default()
        };
        charge(&mut sample, used);
        self.done(&sample);
        Ok(sample)
    }

    /// Requests a second that a proxy can do at most, found in a short run.
    pub(crate) async fn most(&self, proxy: &Proxy, load: &Load) -> Result<f64, String> {
        let summary = wrk::run(&proxy.base, load, self.warm_up, self.dir.path()).await?;
        Ok(summary.requests as f64 / (summary.micros as f64 / 1e6))
    }

    /// What is being done now; on a terminal only.
    pub(crate) fn say(&self, what: &str) {
        self.bar.set_message(what.to_owned());
    }

    /// One more is done; a line for it where no bar is drawn.
    #[allow(clippy::print_stderr, reason = "progress of a program for the command line")]
    pub(crate) fn done(&self, sample: &Sample) {
        self.bar.inc(1);
        if !std::io::stderr().is_terminal() {
            let Sample { row, subject, round, cpu_us, per_second, p99_us, .. } = sample;
            eprintln!(
                "{}/{} {row}, round {round}, {subject}: {cpu_us:.1} µs CPU, {per_second:.0}/s, p99 {p99_us:.0} µs",
                self.bar.position(),
                self.bar.length().unwrap_or_default()
            );
        }
    }
}

pub(crate) type Answer = Result<Sample, String>;

/// Spreads CPU time over the requests of a sample.
pub(crate) fn charge(sample: &mut Sample, used: CpuTime) {
    sample.cpu_us = used.total.as_secs_f64() * 1e6 / sample.requests.max(1) as f64;
    sample.user_us = sample.cpu_us * used.user_part();
    sample.system_us = sample.cpu_us - sample.user_us;
}

pub(crate) fn cpu(proxy: &Proxy) -> Result<CpuTime, String> {
    CpuTime::of(proxy.running.pid).map_err(|error| format!("its CPU time: {error}\n{}", proxy.running.last_words()))
}

pub(crate) fn resident(proxy: &Proxy) -> Result<u64, String> {
    resident_kib(proxy.running.pid).map_err(|error| format!("its memory: {error}\n{}", proxy.running.last_words()))
}

pub(crate) fn addr(proxy: &Proxy) -> Result<SocketAddr, String> {
    proxy.base.trim_start_matches("http://").parse().map_err(|error| format!("{}: {error}", proxy.base))
}

/// A connection that has had one answer, as one of a browser would.
pub(crate) async fn ask_once(addr: SocketAddr) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(addr).await?;
    stream.write_all(b"GET /54 HTTP/1.1\r\nHost: bench\r\n\r\n").await?;
    let mut answer = Vec::new();
    while !answer.ends_with(&[b'x'; 54]) {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(stream)
}

/// The replicas' process, which is this program's command `what`, and the ports it listens on.
pub(crate) async fn replicas(
    analysis: &Path,
    what: &str,
    ports: usize,
    dir: &Path,
) -> Result<(Running, Vec<u16>), String> {
    let mut command = pinned(LOAD_CORE, analysis);
    command.args([what, "--ports", &ports.to_string()]);
    let log: PathBuf = dir.join(format!("{what}.log"));
    let mut running = Running::start(command, log).map_err(|error| format!("the replicas: {error}"))?;
    loop {
        running.check("the replicas' process")?;
        if let Some((line, _)) = running.output().split_once('\n') {
            let members: Result<Vec<u16>, _> = line.split(',').map(str::parse).collect();
            return Ok((running, members.map_err(|error| format!("the replicas' ports: {error}"))?));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
