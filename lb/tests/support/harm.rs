//! What happens to containers, and what has to follow, whoever keeps the fleet.

use std::time::{Duration, Instant};

use super::engine::{Engine, docker_ok};
use super::load::Load;
use super::{Lb, eventually};

/// `docker kill` and its like are programs that start and ask; this asks the engine directly, so that times are its own.
fn engine() -> bollard::Docker {
    bollard::Docker::connect_with_unix_defaults().expect("a socket")
}

pub async fn kill(name: &str) {
    let client = engine().negotiate_version().await.expect("an engine");
    client.kill_container(name, None).await.expect("killed");
}

/// Containers of the fleet are just those that are listed.
pub async fn same_as_listed(lb: &Lb, engine: &Engine) {
    eventually("the engine holds what is listed, and nothing else", async || {
        let (mut listed, mut there) = (lb.rep().await, engine.containers());
        listed.sort();
        there.sort();
        (listed == there).then_some(())
    })
    .await;
}

/// Kills one after the other: each is out of rotation within `out`, and N are ready within `limit`.
pub async fn kills_are_healed(lb: &Lb, out: Duration, limit: Duration) {
    for round in 1..=5 {
        let name = lb.rep().await[0].clone();
        let began = Instant::now();
        let killed = tokio::spawn({
            let name = name.clone();
            async move { kill(&name).await }
        });
        eventually("the victim is replaced", async || (!lb.rep().await.contains(&name)).then_some(())).await;
        let replaced = began.elapsed();
        killed.await.unwrap();
        lb.until_ready().await;
        let ready = began.elapsed();
        println!("figure: docker kill, round {round}: replaced after {replaced:.1?}, 3 ready after {ready:.1?}");
        assert!(replaced < out, "out of rotation after {replaced:?}");
        assert!(ready < limit, "N ready after {ready:?}");
    }
}

/// Everything that may happen to a container happens under load, and no request fails.
pub async fn nothing_is_lost(lb: &Lb) {
    let load = Load::on(lb, 32);
    for harm in [&["kill"][..], &["rm", "-f"], &["stop", "-t", "5"], &["pause"], &["kill", "-s", "TERM"]] {
        load.more(100).await;
        let name = lb.rep().await[0].clone();
        let began = Instant::now();
        let mut args = harm.to_vec();
        args.push(&name);
        docker_ok(&args);
        eventually("the victim is replaced", async || (!lb.rep().await.contains(&name)).then_some(())).await;
        let replaced = began.elapsed();
        assert!(replaced < Duration::from_secs(3), "docker {harm:?}: still listed after {replaced:?}");
        lb.until_ready().await;
        println!("figure: docker {} under load: 3 ready after {:.1?}", harm.join(" "), began.elapsed());
        load.more(100).await;
    }
    for _ in 0..3 {
        assert_eq!(lb.change("POST", "/add", r#"{"n":2}"#).await.0, 200);
        load.more(100).await;
        assert_eq!(lb.change("DELETE", "/rm", r#"{"n":2}"#).await.0, 200);
        load.more(100).await;
    }
    let outcome = load.stop().await;
    println!(
        "figure: {} requests meanwhile, {} failed, the slowest took {:.1?}",
        outcome.requests,
        outcome.failures.len(),
        outcome.slowest
    );
    outcome.assert_nothing_lost();
}

/// A container that is paused is out of rotation at once, and back when it goes on. Heartbeats must be rare, so that only the
/// engine's event can tell.
pub async fn a_pause_is_noticed(lb: &Lb) {
    let name = lb.rep().await[0].clone();
    let load = Load::on(lb, 16);
    load.more(100).await;
    docker_ok(&["pause", &name]);
    let state = async |wanted: &str| (lb.replicas().await[0]["state"] == wanted).then_some(());
    let ((), took) = eventually("it is unready", || state("unready")).await;
    assert!(took < Duration::from_millis(500), "{took:?} after docker pause had returned");
    load.more(100).await;
    let outcome = load.stop().await;
    outcome.assert_nothing_lost();
    // Nobody ends the frozen one, so its requests have gone elsewhere before their time was up.
    assert!(outcome.slowest < Duration::from_secs(5), "{:?}", outcome.slowest);
    assert_eq!(lb.rep().await[0], name, "one failed heartbeat replaces nobody");
    docker_ok(&["unpause", &name]);
    eventually("it is ready again", || state("ready")).await;
}
