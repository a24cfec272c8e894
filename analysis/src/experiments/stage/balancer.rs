//! A balancer that serves, and what can be asked of it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use reqwest::{Client, Method};

use super::engine::{Engine, at, last_words};
use super::{LOOK, Member, Plan};
use crate::child::{Running, command};
use crate::load::cause;
use crate::loopback::free_port;

/// For all replicas to be ready.
pub(super) const READY: Duration = Duration::from_secs(60);
/// For an answer; `/rm` waits for requests to end.
const ANSWER: Duration = Duration::from_secs(30);

/// It ends when this is dropped, if it is a process; else with the next one, or the stage.
pub(crate) struct Balancer {
    pub(crate) addr: SocketAddr,
    admin: SocketAddr,
    client: Client,
    process: Option<Running>,
}

impl Balancer {
    pub(super) async fn container(engine: &Engine, plan: &Plan) -> Result<Self, String> {
        engine.clear().await?;
        let ip = engine.balancer(plan).await?;
        let (addr, admin) = (at(ip, 5000), at(ip, 5001));
        let mut balancer = Self { addr, admin, client: client()?, process: None };
        let Err(error) = balancer.until_answers().await else { return Ok(balancer) };
        engine.check().await?;
        Err(format!("{error}\n{}", balancer.last_words().await))
    }

    pub(super) async fn process(lb: &Path, plan: &Plan, dir: &Path) -> Result<Self, String> {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let mut command = command(lb);
        command.args(["serve", "--runtime", "process", "--replicas", &plan.replicas.to_string()]);
        command.args(["--listen", &addr.to_string(), "--admin-listen", &admin.to_string()]).args(&plan.args);
        // Replicas get what their balancer has.
        command.envs(plan.environment());
        let running = Running::start(command, dir.join("lb.log")).map_err(|error| format!("lb: {error}"))?;
        let mut balancer = Self { addr, admin, client: client()?, process: Some(running) };
        balancer.until_answers().await?;
        Ok(balancer)
    }

    /// Of a path of the public listener.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// Its replicas, oldest first.
    pub(crate) async fn members(&self) -> Result<Vec<Member>, String> {
        let url = format!("http://{}/api/v1/replicas", self.admin);
        let answer = self.client.get(url).send().await.map_err(|error| cause(&error))?;
        answer.json().await.map_err(|error| format!("/api/v1/replicas: {error}"))
    }

    /// The status and body of an answer of the public listener.
    pub(crate) async fn ask(&self, method: Method, path: &str, body: &str) -> Result<(u16, String), String> {
        let request = self.client.request(method, self.url(path)).body(body.to_owned());
        let answer = request.send().await.map_err(|error| cause(&error))?;
        let status = answer.status().as_u16();
        Ok((status, answer.text().await.map_err(|error| cause(&error))?))
    }

    /// Starts another replica, and waits until it is ready.
    pub(crate) async fn add(&mut self) -> Result<(), String> {
        let count = self.members().await?.len() as u32;
        match self.ask(Method::POST, "/add", r#"{"n":1}"#).await? {
            (200, _) => self.until_ready(count + 1).await,
            (status, body) => Err(format!("/add: {status} {body}")),
        }
    }

    /// Removes the replica of this name, and waits until it is gone.
    pub(crate) async fn remove(&mut self, hostname: &str) -> Result<(), String> {
        let body = serde_json::json!({ "n": 1, "hostnames": [hostname] }).to_string();
        match self.ask(Method::DELETE, "/rm", &body).await? {
            (200, _) => Ok(()),
            (status, body) => Err(format!("/rm: {status} {body}")),
        }
    }

    /// Waits until this many replicas are there, and all are ready.
    pub(crate) async fn until_ready(&mut self, count: u32) -> Result<(), String> {
        let began = Instant::now();
        loop {
            let members = self.members().await?;
            if members.len() == count as usize && members.iter().all(Member::is_ready) {
                return Ok(());
            }
            if began.elapsed() > READY {
                let words = self.last_words().await;
                return Err(format!("after {READY:?} {count} ready replicas are not there: {members:?}\n{words}"));
            }
            self.check()?;
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn until_answers(&mut self) -> Result<(), String> {
        let (url, began) = (format!("http://{}/healthz", self.admin), Instant::now());
        while let Err(error) = self.client.get(&url).send().await {
            if began.elapsed() > READY {
                return Err(format!("the balancer does not answer after {READY:?}: {}", cause(&error)));
            }
            self.check()?;
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// What it has logged of late.
    pub(crate) async fn last_words(&self) -> String {
        match &self.process {
            Some(running) => running.last_words(),
            None => last_words().await,
        }
    }

    /// An error if its process has ended.
    pub(crate) fn check(&mut self) -> Result<(), String> {
        self.process.as_mut().map_or(Ok(()), |running| running.check("lb"))
    }
}

fn client() -> Result<Client, String> {
    Client::builder().no_proxy().timeout(ANSWER).build().map_err(|error| error.to_string())
}
