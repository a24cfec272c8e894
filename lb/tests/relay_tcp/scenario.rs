//! What the source documents demonstrate, step by step.

use std::net::Ipv4Addr;
use std::time::Instant;

use serde_json::{Value, json};
use tokio::net::{TcpListener, UdpSocket};

use crate::support::control::{Control, Encoding, Raw, registration};
use crate::support::server::{
    TcpServer, UdpServer, Visit, count, is_refused, names, talker, until_refused, until_udp_is_refused, voices,
};
use crate::support::{Lb, SOON, eventually};

/// Ports with what is behind them, as `tcp/50000: 127.0.0.1:30000 127.0.0.1:40000`, without the address.
async fn opened(lb: &Lb) -> Vec<String> {
    let name = |relay: &Value| {
        let number = |addr: &Value| addr.as_str().unwrap().rsplit(':').next().unwrap().to_owned();
        let replicas = relay["replicas"].as_array().unwrap().iter().map(|replica| number(&replica["addr"]));
        let replicas = replicas.collect::<Vec<_>>().join(" ");
        format!("{}/{} {}: {replicas}", relay["protocol"].as_str().unwrap(), relay["relay_port"], relay["state"])
    };
    lb.relays().await.iter().map(name).collect()
}

#[tokio::test]
async fn the_documents_scenario_step_by_step() {
    // 1. The balancer runs; nothing but its control channel is open. All is on one machine.
    let lb = Lb::relaying(&[]);
    let std::net::IpAddr::V4(host) = lb.control().ip() else { unreachable!() };
    let (tcp, udp) = (lb.relay(50_000), lb.relay(20_000));
    assert!(is_refused(tcp).await && opened(&lb).await.is_empty());

    // 2. Two TCP servers and one UDP server register, each over a connection of its own.
    let first = TcpServer::named_at((host, 30_000).into(), "30000").await;
    let second = TcpServer::named_at((host, 40_000).into(), "40000").await;
    let echo = UdpServer::start_at((host, 17_000).into(), |_| b"17000".into()).await;
    let join = async |protocol: &str, port, relay_port| {
        let mut control = Control::connect_as(&lb, host, Encoding::MessagePack).await;
        control.register(protocol, port, relay_port).await;
        control
    };
    let mut first_control = join("tcp", 30_000, 50_000).await;
    let second_control = join("tcp", 40_000, 50_000).await;
    let echo_control = join("udp", 17_000, 20_000).await;

    // 3. Bind result: both ports are open, and nobody else can have them.
    assert_eq!(opened(&lb).await, [r#"tcp/50000 "open": 30000 40000"#, r#"udp/20000 "open": 17000"#]);
    let taken = |error: std::io::Error| error.kind() == std::io::ErrorKind::AddrInUse;
    assert!(TcpListener::bind(tcp).await.is_err_and(taken) && UdpSocket::bind(udp).await.is_err_and(taken));

    // 4. Eleven TCP requests: in turn, six and five.
    let served = names(tcp, 11).await;
    assert_eq!((count(&served, "30000"), count(&served, "40000")), (6, 5), "{served:?}");
    assert!(served.windows(2).all(|two| two[0] != two[1]), "{served:?}");

    // 5. Eleven UDP requests to the one there is; with a second one, six and five.
    let client = talker(udp).await;
    assert_eq!(voices(&client, 11).await, ["17000"; 11]);
    let other_echo = UdpServer::start_at((host, 15_000).into(), |_| b"15000".into()).await;
    let mut other_control = join("udp", 15_000, 20_000).await;
    let heard = voices(&client, 11).await;
    assert_eq!(count(&heard, "17000").abs_diff(count(&heard, "15000")), 1, "{heard:?}");
    assert!(heard.windows(2).all(|two| two[0] != two[1]), "{heard:?}");

    // 6. One unregisters; another server still uses the port, so it is kept.
    first_control.unregister("tcp", 30_000, 50_000).await;
    assert_eq!(names(tcp, 5).await, ["40000"; 5]);
    other_control.unregister("udp", 15_000, 20_000).await;
    assert_eq!(voices(&client, 5).await, ["17000"; 5]);

    // 7. The last one is terminated: its control channel closes, and so does the port.
    let gone = Instant::now();
    drop((second, second_control));
    until_refused(tcp).await;
    assert!(gone.elapsed() < SOON, "after {:?}", gone.elapsed());
    let gone = Instant::now();
    drop(echo_control);
    until_udp_is_refused(udp).await;
    assert!(gone.elapsed() < SOON, "after {:?}", gone.elapsed());
    eventually("nothing is left", async || opened(&lb).await.is_empty().then_some(())).await;

    // 8. Registered again: open.
    first_control.register("tcp", 30_000, 50_000).await;
    other_control.register("udp", 15_000, 20_000).await;
    assert_eq!(names(tcp, 2).await, ["30000"; 2]);
    assert_eq!(voices(&talker(udp).await, 2).await, ["15000"; 2]);
    drop((first, echo, other_echo));
}

#[tokio::test]
async fn the_port_of_the_last_server_is_closed_when_its_unregistration_is_confirmed() {
    let lb = Lb::relaying(&[]);
    let server = TcpServer::named("A").await;
    let mut control = Raw::connect_from(&lb, server.ip(), Encoding::Json).await;
    let on = registration("tcp", server.addr.port(), 50_000);
    let mut off = on.clone();
    off["cmd"] = json!("unregister");
    for _ in 0..20 {
        control.done(&on).await;
        assert_eq!(Visit::to(lb.relay(50_000)).await.unwrap().name, "A", "open once that is confirmed");
        control.done(&off).await;
        assert!(is_refused(lb.relay(50_000)).await);
    }
}

#[tokio::test]
async fn a_port_is_open_on_the_relay_address_only() {
    let lb = Lb::relaying(&[]);
    let (_server, _control) = TcpServer::registered(&lb, "A", 50_000).await;
    assert!(is_refused((Ipv4Addr::LOCALHOST, lb.control().port()).into()).await);
    let elsewhere = crate::support::control::own_ip();
    assert!(is_refused((elsewhere, 50_000).into()).await);
    assert_eq!(names(lb.relay(50_000), 1).await, ["A"]);
}
