//! Everything that is registered, opened, relayed and dropped is shown: by the API, a table, the metrics and the log.

use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::control::{Control, Encoding, Raw, registration};
use crate::support::server::{TcpServer, UdpServer, Visit, exchange, names, talker};
use crate::support::{Lb, eventually};

fn lb(args: &[&str]) -> Output {
    let clean = std::env::vars().filter(|(name, _)| !name.starts_with("LB_") && name != "RUST_LOG");
    Command::new(env!("CARGO_BIN_EXE_lb")).args(args).env_clear().envs(clean).output().expect("lb runs")
}

/// What `lb relays` prints; it must succeed.
fn relays(balancer: &Lb, further: &[&str]) -> String {
    let admin = balancer.admin.to_string();
    let output = lb(&[&["relays", "--admin-listen", &admin], further].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The words of each line of a table.
fn rows(table: &str) -> Vec<Vec<String>> {
    // Columns are two blanks apart; what is in one has single ones.
    let words =
        |line: &str| line.split("  ").map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect();
    table.lines().map(words).collect()
}

#[tokio::test]
async fn the_api_the_table_and_the_metrics_show_every_port_and_replica() {
    let lb = Lb::relaying(&[]);
    assert_eq!(lb.relays().await, Vec::<Value>::new());
    assert!(relays(&lb, &[]).contains("No port is relayed"), "{}", relays(&lb, &[]));
    assert_eq!(relays(&lb, &["--json"]).trim(), "[]");

    let (a, b, u) = (TcpServer::named("A").await, TcpServer::named("B").await, UdpServer::named("U").await);
    let mut a_control = Control::connect(&lb, a.ip()).await;
    a_control.register_with("tcp", a.addr.port(), 50_000, json!({"weight": 3})).await;
    let mut b_control = Control::connect_as(&lb, b.ip(), Encoding::MessagePack).await;
    b_control.register("tcp", b.addr.port(), 50_000).await;
    b_control.register_with("tcp", b.addr.port(), 50_001, json!({"priority": 7})).await;
    let mut u_control = Control::connect(&lb, u.ip()).await;
    u_control.register_with("udp", u.addr.port(), 20_000, json!({"affinity": "flow"})).await;
    let mut visit = Visit::to(lb.relay(50_000)).await.unwrap();
    assert!(visit.is_alive().await);
    assert_eq!(exchange(&talker(lb.relay(20_000)).await, b"12345").await.unwrap(), b"U");
    b_control.say(json!({"cmd": "hello", "state": "bad"}));
    lb.until_state("tcp", 50_001, b.addr, "unready").await;
    // What went through is counted when it has gone.
    lb.until_counted("tcp", 50_000, "bytes_down", 6).await;

    let shown = lb.relays().await;
    let of = |relay: &Value| (relay["protocol"].clone(), relay["relay_port"].clone());
    let order: Vec<_> = shown.iter().map(of).collect();
    assert_eq!(order, [(json!("tcp"), json!(50_000)), (json!("tcp"), json!(50_001)), (json!("udp"), json!(20_000))]);
    let expected = json!({
        "protocol": "tcp", "relay_port": 50_000, "addr": lb.relay(50_000).to_string(), "state": "open",
        "affinity": null, "connections": 1, "flows": 0, "accepted": 1, "unserved": 0, "bytes_up": 4, "bytes_down": 6,
        "datagrams_up": 0, "datagrams_down": 0, "dropped": 0, "evicted": 0,
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&shown[0][key], value, "{key}");
    }
    let udp = &shown[2];
    assert_eq!((&udp["affinity"], &udp["flows"], &udp["accepted"]), (&json!("flow"), &json!(1), &json!(1)));
    assert_eq!((&udp["datagrams_up"], &udp["bytes_up"], &udp["datagrams_down"]), (&json!(1), &json!(5), &json!(1)));
    let replica = &shown[0]["replicas"][0];
    for (key, value) in json!({
        "id": 1, "addr": a.addr.to_string(), "state": "ready", "reason": null, "in_flight": 1, "served": 1, "failed": 0,
        "weight": 3, "priority": 0,
    })
    .as_object()
    .unwrap()
    {
        assert_eq!(&replica[key], value, "{key}");
    }
    assert!(humantime_like(replica["registered_at"].as_str().unwrap()), "{replica}");
    let other = &shown[0]["replicas"][1];
    assert_eq!((&other["id"], &other["state"], &other["weight"]), (&json!(2), &json!("unready"), &json!(1)));
    assert_eq!(shown[1]["replicas"][0]["priority"], 7);

    let as_json: Value = serde_json::from_str(&relays(&lb, &["--json"])).unwrap();
    assert_eq!(as_json, Value::Array(shown));
    let table = relays(&lb, &[]);
    let rows = rows(&table);
    assert_eq!(rows[0][..3], ["RELAY", "STATE", "REPLICA"], "{table}");
    let (a, b, u) = (a.addr.to_string(), b.addr.to_string(), u.addr.to_string());
    assert_eq!(rows[1], ["tcp/50000", "open", &a, "1", "ready", "3", "1", "1", "0"], "{table}");
    assert_eq!(rows[2], [&*b, "2", "unready", "1", "0", "0", "0"], "{table}");
    assert_eq!(rows[3], ["tcp/50001", "open", &b, "1", "unready", "1 (priority 7)", "0", "0", "0"], "{table}");
    assert_eq!(rows[4], ["udp/20000", "open, by flow", &u, "1", "ready", "1", "1", "1", "0"], "{table}");

    for (metric, value) in [
        (r#"ringkeeper_relay_open{protocol="tcp",relay_port="50000"}"#.to_owned(), 1.0),
        (r#"ringkeeper_relay_connections{protocol="tcp",relay_port="50000"}"#.into(), 1.0),
        (r#"ringkeeper_relay_accepted_total{protocol="tcp",relay_port="50000"}"#.into(), 1.0),
        (r#"ringkeeper_relay_bytes_up_total{protocol="tcp",relay_port="50000"}"#.into(), 4.0),
        (r#"ringkeeper_relay_flows{protocol="udp",relay_port="20000"}"#.into(), 1.0),
        (r#"ringkeeper_relay_datagrams_down_total{protocol="udp",relay_port="20000"}"#.into(), 1.0),
        (format!(r#"ringkeeper_relay_replica_ready{{addr="{a}",protocol="tcp",relay_port="50000"}}"#), 1.0),
        (format!(r#"ringkeeper_relay_replica_ready{{addr="{b}",protocol="tcp",relay_port="50000"}}"#), 0.0),
        (format!(r#"ringkeeper_relay_replica_served_total{{addr="{a}",protocol="tcp",relay_port="50000"}}"#), 1.0),
        (r#"ringkeeper_control_replies_total{error="0"}"#.into(), 4.0),
        ("ringkeeper_control_connections".into(), 3.0),
    ] {
        assert_eq!(lb.metric(&metric).await, value, "{metric}");
    }
}

/// `2025-01-31T12:34:56.789Z`
fn humantime_like(text: &str) -> bool {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    shape == "0000-00-00T00:00:00.000Z"
}

#[tokio::test]
async fn a_port_is_shown_as_closed_while_connections_to_its_last_replica_go_on() {
    let lb = Lb::relaying(&[]);
    let (server, mut control) = TcpServer::registered(&lb, "A", 50_000).await;
    let mut open = Visit::to(lb.relay(50_000)).await.unwrap();
    control.unregister("tcp", server.addr.port(), 50_000).await;
    let port = lb.port("tcp", 50_000).await.unwrap();
    assert_eq!((&port["state"], &port["connections"]), (&json!("closed"), &json!(1)));
    let replica = &port["replicas"][0];
    assert_eq!((&replica["state"], &replica["in_flight"]), (&json!("draining"), &json!(1)));
    assert_eq!(rows(&relays(&lb, &[]))[1][1], "closed");
    assert_eq!(lb.metric(r#"ringkeeper_relay_open{protocol="tcp",relay_port="50000"}"#).await, 0.0);
    // Registered again meanwhile, it is one port with two replicas.
    control.register("tcp", server.addr.port(), 50_000).await;
    let port = lb.port("tcp", 50_000).await.unwrap();
    assert_eq!((&port["state"], port["replicas"].as_array().unwrap().len()), (&json!("open"), 2));
    assert!(open.is_alive().await);
    drop(open);
    let one = async || (lb.port("tcp", 50_000).await?["replicas"].as_array()?.len() == 1).then_some(());
    eventually("the connection and with it the old one are gone", one).await;
}

#[tokio::test]
async fn without_a_balancer_the_table_says_so() {
    let mut balancer = Lb::relaying(&[]);
    let admin = balancer.admin.to_string();
    balancer.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(balancer.ended().await.success());
    for args in [&["relays", "--admin-listen", &*admin][..], &["relays", "--json", "--admin-listen", &admin]] {
        let output = lb(args);
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains("no balancer") && message.contains(&admin), "{message}");
        assert!(output.stdout.is_empty());
    }
    let output = lb(&["relays", "--admin-listen", "off"]);
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && message.contains("admin_listen is off"), "{message}");
    // Without a control channel there is nothing to relay, which is no error.
    let plain = Lb::start(&["--replicas", "0"]);
    assert_eq!(plain.relays().await, Vec::<Value>::new());
    assert!(relays(&plain, &[]).contains("--control-listen"));
}

#[tokio::test]
async fn each_change_is_a_line_of_the_log() {
    let lb = Lb::relaying(&[]);
    let (a, b) = (TcpServer::named("A").await, TcpServer::named("B").await);
    let mut a_control = Control::connect(&lb, a.ip()).await;
    a_control.register("tcp", a.addr.port(), 50_000).await;
    lb.until_logged(&format!("replica {} (ring 1) is registered for tcp/50000, which is open now", a.addr)).await;
    let mut b_control = Raw::connect_from(&lb, b.ip(), Encoding::MessagePack).await;
    b_control.done(&registration("tcp", b.addr.port(), 50_000)).await;
    lb.until_logged(&format!("replica {} (ring 2) is registered for tcp/50000, which has 2 replicas now", b.addr))
        .await;
    b_control.refused(&registration("tcp", b.addr.port(), 50_000), 3, &[]).await;
    lb.until_logged("refused: ").await;
    a_control.say(json!({"cmd": "hello", "state": "on\nfire"}));
    lb.until_logged("(ring 1) of tcp/50000 is out of rotation: its server says that it is 'on\\nfire'").await;
    a_control.say(json!({"cmd": "hello", "state": "good"}));
    lb.until_logged("(ring 1) of tcp/50000 is back in rotation").await;
    let b_addr = b.addr;
    b.stop().await;
    // Traffic finds out that nobody listens any more.
    let found = async || {
        names(lb.relay(50_000), 1).await;
        lb.log().iter().any(|line| line.contains("nobody answers at its port")).then_some(())
    };
    eventually("B is found out", found).await;
    let _b = TcpServer::named_at(b_addr, "B").await;
    lb.until_logged(&format!("replica {b_addr} (ring 2) of tcp/50000 is back in rotation")).await;
    drop(b_control);
    lb.until_logged(&format!("replica {b_addr} (ring 2): its server has gone; tcp/50000 has 1 replica left")).await;
    a_control.unregister("tcp", a.addr.port(), 50_000).await;
    let last = format!("replica {} (ring 1) is unregistered; tcp/50000 is closed, it was the last one", a.addr);
    lb.until_logged(&last).await;
    let taken = tokio::net::TcpListener::bind(lb.relay(50_002)).await.unwrap();
    a_control.ask(registration("tcp", 30_000, 50_002)).await;
    lb.until_logged("tcp/50002 can't be opened: Address already in use").await;
    drop(taken);
}

#[test]
fn check_does_not_print_the_token() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lb.toml");
    std::fs::write(&file, "control_token = \"open sesame\"\n").unwrap();
    for args in [
        &["check", "--control-listen", "127.0.0.1:0", "--control-token", "open sesame"][..],
        &["check", "--config", file.to_str().unwrap()],
        // Nor when something else is wrong.
        &["check", "--control-token", "open sesame", "--control-dialect", "pirate"],
    ] {
        let output = lb(args);
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains("control_token") || said.contains("control-dialect"), "{said}");
        assert!(!said.contains("sesame"), "{said}");
    }
}
