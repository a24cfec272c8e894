//! What a crowd of idle clients costs in memory.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests fail by panicking, and say what they measured"
)]
#![allow(clippy::disallowed_methods, reason = "tests read the environment that they pass on")]

mod support;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;

use support::Lb;
use support::control::{Control, own_ip};
use support::server::{TcpServer, UdpServer, Visit, exchange, talker_from};

const CONNECTIONS: u64 = 5_000;
const FLOWS: u64 = 10_000;
/// Kilobytes that they may take in all.
const MOST: u64 = 60 * 1024;
/// Open files of the balancer and of the test besides those.
const OTHER_FILES: u64 = 500;

fn resident(lb: &Lb) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", lb.pid())).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    resident.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test]
async fn five_thousand_idle_connections_and_ten_thousand_flows_take_less_than_60_mb() {
    // The balancer needs two descriptors for a connection and one for a flow, the test two for a connection.
    let wanted = 2 * CONNECTIONS + FLOWS + OTHER_FILES;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    // Whoever may raise the limit has it raised; the balancer inherits it.
    let files =
        if most >= wanted || setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted).is_ok() { wanted } else { most };
    setrlimit(Resource::RLIMIT_NOFILE, files, most.max(files)).unwrap();
    let share = |count: u64| count * (files - OTHER_FILES) / (wanted - OTHER_FILES);
    let (connections, flows, allowed) = (share(CONNECTIONS), share(FLOWS), share(MOST));
    if files < wanted {
        println!(
            "NOT RUN in full: five_thousand_idle_connections_and_ten_thousand_flows_take_less_than_60_mb: it needs \
             {wanted} open files, and this system allows {most} (ulimit -Hn); done with {connections} connections and \
             {flows} flows in {} MB",
            allowed / 1024
        );
    }
    let lb = Lb::relaying(&["--relay-max-connections", "10000", "--relay-max-flows", "20000"]);
    let (tcp, _tcp_control) = TcpServer::registered(&lb, "A", 50_000).await;
    let udp = UdpServer::echo().await;
    let mut udp_control = Control::connect(&lb, udp.ip()).await;
    udp_control.register_with("udp", udp.addr.port(), 20_000, json!({"affinity": "flow"})).await;
    let before = resident(&lb);

    let mut clients = Vec::new();
    for _ in 0..connections {
        let mut client = Visit::to(lb.relay(50_000)).await.unwrap();
        assert!(client.is_alive().await);
        clients.push(client);
    }
    let with_connections = resident(&lb);
    // A flow stays when its client's socket has gone; ports are used again only when those of one address are closed.
    let mut left = flows;
    while left > 0 {
        let (ip, some) = (own_ip(), left.min(250));
        let mut sockets = Vec::new();
        for number in 0..some {
            let client = talker_from((ip, 0).into(), lb.relay(20_000)).await;
            let datagram = number.to_string().into_bytes();
            assert_eq!(exchange(&client, &datagram).await.unwrap(), datagram);
            sockets.push(client);
        }
        left -= some;
    }
    assert_eq!(lb.port("tcp", 50_000).await.unwrap()["connections"], connections);
    let port = lb.port("udp", 20_000).await.unwrap();
    assert_eq!((&port["flows"], &port["evicted"]), (&flows.into(), &0.into()));
    let all = resident(&lb);
    let mb = |kib: u64| kib as f64 / 1024.0;
    println!(
        "figure: {:.1} MB resident with {connections} idle relayed connections and {flows} UDP flows ({:.1} MB with the \
         connections only, {:.1} MB without either)",
        mb(all),
        mb(with_connections),
        mb(before)
    );
    assert!(all < allowed, "{all} KiB resident, and {allowed} are allowed");
    assert!(clients[0].is_alive().await && tcp.accepted() as u64 == connections);
}
