//! The Docker engine: a network, images and containers that carry one label, and are removed at the end.
//!
//! What takes no time that counts is asked of the `docker` program, harm of the engine itself.

use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;

use bollard::Docker;
use nix::sys::resource::{Resource, getrlimit};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use super::Plan;

/// The fleet's name, that of its network, and the value of the label.
pub(crate) const NAME: &str = "ringkeeper-analysis";
/// What is started here and is no replica of the balancer's carries this label.
pub(super) const LABEL: &str = "ringkeeper.analysis";
/// The balancer's container.
const BALANCER: &str = "ringkeeper-analysis-lb";
/// The image of replicas with settings.
const REPLICA_IMAGE: &str = "ringkeeper-analysis-server";
/// What replicas are called before any is replaced.
const HOSTNAMES: &str = "^/S[0-9]+$";
/// Open files of the balancer's container, at most.
const MOST_FILES: u64 = 65_536;
/// For a program or the engine to answer; a pull would take longer, but nothing is pulled.
const ANSWER: Duration = Duration::from_secs(60);

/// Does an engine answer?
pub(crate) async fn answers() -> Result<(), String> {
    // Not `docker info`, which newer clients end with success although nobody answers.
    let version = docker(&["version", "--format", "{{.Server.Version}}"], "").await?;
    if version.is_empty() { Err("docker version names none".into()) } else { Ok(()) }
}

/// Runs the docker program, with this on its standard input; what it prints.
pub(super) async fn docker(args: &[&str], input: &str) -> Result<String, String> {
    let failed = |error: &dyn std::fmt::Display| format!("docker {}: {error}", args.first().unwrap_or(&""));
    let mut command = Command::new("docker");
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| failed(&error))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).await.map_err(|error| failed(&error))?;
    }
    let output = timeout(ANSWER, child.wait_with_output()).await;
    let output = output.map_err(|_| failed(&"no answer in time"))?.map_err(|error| failed(&error))?;
    if !output.status.success() {
        return Err(failed(&String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A network of our own on an engine that has the images.
pub(crate) struct Engine {
    client: Docker,
}

impl Engine {
    pub(super) async fn open() -> Result<Self, String> {
        for image in ["ringkeeper", "ringkeeper-server"] {
            let there = docker(&["image", "inspect", "--format", "{{.Id}}", image], "").await;
            there.map_err(|_| format!("the image {image} is missing: `make images` makes it"))?;
        }
        let client = Docker::connect_with_defaults().map_err(|error| format!("the Docker engine: {error}"))?;
        let client = timeout(ANSWER, client.negotiate_version()).await.map_err(|_| "the Docker engine: no answer")?;
        let engine = Self { client: client.map_err(|error| format!("the Docker engine: {error}"))? };
        // Of a run that could not clean up.
        engine.sweep().await?;
        let filter = format!("name={HOSTNAMES}");
        let taken = docker(&["ps", "-a", "--filter", &filter, "--format", "{{.Names}}"], "").await?;
        if let Some(name) = taken.lines().next() {
            return Err(format!(
                "a container {name} exists, so another fleet is here; `make down` removes that of `make up`"
            ));
        }
        // With a subnet of its own choice, named: only then can containers keep their addresses when they start anew.
        docker(&["network", "create", NAME], "").await?;
        let subnet = subnet().await?;
        docker(&["network", "rm", NAME], "").await?;
        docker(&["network", "create", "--subnet", &subnet, NAME], "").await?;
        Ok(engine)
    }

    /// Starts the balancer's container, as `make up PROFILE=slim` does: where it listens.
    pub(super) async fn balancer(&self, plan: &Plan) -> Result<IpAddr, String> {
        let image = self.replica_image(&plan.environment()).await?;
        let replicas = plan.replicas.to_string();
        // As many open files as this host allows, as `make up` asks for.
        let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(MOST_FILES, |(_, most)| most.min(MOST_FILES));
        let files = format!("nofile={files}:{files}");
        let mut args = vec!["run", "-d", "--name", BALANCER, "--label", LABEL, "--network", NAME, "--ulimit", &files];
        args.extend(["-v", "/var/run/docker.sock:/var/run/docker.sock", "ringkeeper", "serve"]);
        args.extend(["--runtime", "docker", "--fleet", NAME, "--network", NAME, "--image", &image]);
        args.extend(["--listen", "0.0.0.0:5000", "--admin-listen", "0.0.0.0:5001", "--replicas", &replicas]);
        args.extend(plan.args.iter().map(String::as_str));
        docker(&args, "").await?;
        self.address(BALANCER).await
    }

    /// The sample server's image with this environment.
    pub(super) async fn replica_image(&self, environment: &[(&str, String)]) -> Result<String, String> {
        let mut file = "FROM ringkeeper-server\n".to_owned();
        for (name, value) in environment {
            file.push_str(&format!("ENV {name}={value}\n"));
        }
        docker(&["build", "-q", "-t", REPLICA_IMAGE, "-"], &file).await?;
        Ok(REPLICA_IMAGE.into())
    }

    /// The address of a container on our network.
    async fn address(&self, name: &str) -> Result<IpAddr, String> {
        let format = format!("{{{{(index .NetworkSettings.Networks \"{NAME}\").IPAddress}}}}");
        let address = docker(&["inspect", "-f", &format, name], "").await?;
        address.parse().map_err(|_| format!("the container {name} has the address '{address}'"))
    }

    /// An error if the balancer's container does not run.
    pub(super) async fn check(&self) -> Result<(), String> {
        let state = docker(&["inspect", "-f", "{{.State.Status}}", BALANCER], "").await?;
        if state == "running" { Ok(()) } else { Err(format!("the balancer's container is {state}")) }
    }

    /// Removes all containers, the balancer's first: it would replace the others.
    pub(crate) async fn clear(&self) -> Result<(), String> {
        remove(&format!("label={LABEL}")).await?;
        remove(&format!("label=ringkeeper.fleet={NAME}")).await?;
        // What the engine was about to create for the balancer comes after the list was made.
        remove(&format!("label=ringkeeper.fleet={NAME}")).await
    }

    async fn sweep(&self) -> Result<(), String> {
        self.clear().await?;
        // Neither is there, as a rule.
        let _ = docker(&["network", "rm", NAME], "").await;
        let _ = docker(&["image", "rm", "-f", REPLICA_IMAGE], "").await;
        Ok(())
    }

    pub(super) async fn kill(&self, container: &str) -> Result<(), String> {
        self.client.kill_container(container, None).await.map_err(|error| format!("docker kill: {error}"))
    }

    pub(super) async fn pause(&self, container: &str) -> Result<(), String> {
        self.client.pause_container(container).await.map_err(|error| format!("docker pause: {error}"))
    }

    pub(super) async fn resume(&self, container: &str) -> Result<(), String> {
        self.client.unpause_container(container).await.map_err(|error| format!("docker unpause: {error}"))
    }

    pub(super) async fn remove(&self, container: &str) -> Result<(), String> {
        let options = bollard::query_parameters::RemoveContainerOptions { force: true, ..Default::default() };
        self.client.remove_container(container, Some(options)).await.map_err(|error| format!("docker rm: {error}"))
    }
}

/// What the balancer's container has logged of late.
pub(super) async fn last_words() -> String {
    // It logs to standard error, which is for errors of the program elsewhere.
    let mut command = Command::new("docker");
    command.args(["logs", "--tail", "20", BALANCER]).stdin(Stdio::null()).kill_on_drop(true);
    match timeout(ANSWER, command.output()).await {
        Ok(Ok(output)) => String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        _ => String::new(),
    }
}

/// Of our network, such as `172.18.0.0/16`.
pub(super) async fn subnet() -> Result<String, String> {
    docker(&["network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", NAME], "").await
}

/// What the balancer's image is: which, and of when.
pub(crate) async fn image() -> Result<String, String> {
    let of = docker(&["image", "inspect", "--format", "{{.Id}}, of {{.Created}}", "ringkeeper"], "").await?;
    Ok(format!("image ringkeeper, {of}"))
}

/// Removes the containers that this filter finds.
async fn remove(filter: &str) -> Result<(), String> {
    let found = docker(&["ps", "-aq", "--filter", filter], "").await?;
    let mut args = vec!["rm", "-f"];
    args.extend(found.lines());
    // One that is gone meanwhile is no error.
    if args.len() > 2 && docker(&args, "").await.is_err() {
        let left = docker(&["ps", "-aq", "--filter", filter], "").await?;
        if !left.is_empty() {
            return Err(format!("these containers can't be removed: {}", left.replace('\n', " ")));
        }
    }
    Ok(())
}

impl Drop for Engine {
    fn drop(&mut self) {
        let run = |args: &[&str]| {
            let output = std::process::Command::new("docker").args(args).stderr(Stdio::null()).output();
            output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
        };
        let fleet = format!("label=ringkeeper.fleet={NAME}");
        for filter in [format!("label={LABEL}"), fleet.clone(), fleet] {
            let found = run(&["ps", "-aq", "--filter", &filter]);
            let mut args = vec!["rm", "-f"];
            args.extend(found.lines());
            if args.len() > 2 {
                run(&args);
            }
        }
        run(&["network", "rm", NAME]);
        run(&["image", "rm", "-f", REPLICA_IMAGE]);
    }
}

/// Where a container's server listens.
pub(super) fn at(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip, port)
}
