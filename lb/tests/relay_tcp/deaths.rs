//! Servers that are killed, and a balancer that is told to end.

use std::io::Write;
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::support::control::{Control, connect, own_ip, registration};
use crate::support::server::{TcpServer, Visit, count, greet_and_echo, is_refused, names, until_refused};
use crate::support::{LIMIT, Lb, SOON, eventually};

/// Tells [`server_process`] what to do.
const ORDER: &str = "RINGKEEPER_TEST_SERVER";

/// A server that greets with "process" and is registered for port 50000, as a process of its own. It ends with the test.
async fn process(lb: &Lb) -> Child {
    let ip = own_ip();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "deaths::server_process", "--nocapture"])
        .env(ORDER, format!("{ip} {}", lb.control()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let registered = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.ends_with("registered") {
                return;
            }
        }
        panic!("the server process has ended");
    };
    tokio::time::timeout(LIMIT, registered).await.expect("it registers");
    // Nobody reads the rest; there is none before its end.
    child.stdout = Some(lines.into_inner().into_inner());
    child
}

/// Not a test by itself: what [`process`] runs.
#[tokio::test]
#[ignore = "a server of other tests, which start it as a process of its own"]
async fn server_process() {
    let Ok(order) = std::env::var(ORDER) else { return };
    let (ip, control) = order.split_once(' ').unwrap();
    let (ip, control): (Ipv4Addr, std::net::SocketAddr) = (ip.parse().unwrap(), control.parse().unwrap());
    let server = TcpServer::start_at((ip, 0).into(), |stream| greet_and_echo(stream, "process\n".into())).await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((ip, 0).into()).unwrap();
    let mut channel = socket.connect(control).await.unwrap();
    channel.write_all(registration("tcp", server.addr.port(), 50_000).to_string().as_bytes()).await.unwrap();
    let mut lines = BufReader::new(channel).lines();
    let reply = lines.next_line().await.unwrap().unwrap();
    assert!(reply.contains("successful"), "{reply}");
    println!("registered");
    // It ends with the test that started it, at the latest.
    let ended = tokio::task::spawn_blocking(|| std::io::Read::read(&mut std::io::stdin(), &mut [0]));
    let _ = ended.await;
}

fn kill_nine(child: &Child) -> Instant {
    let pid = Pid::from_raw(child.id().expect("it lives") as i32);
    let killed = Instant::now();
    kill(pid, Signal::SIGKILL).unwrap();
    killed
}

#[tokio::test]
async fn a_killed_server_gets_nothing_more_and_clients_of_others_notice_nothing() {
    let lb = Lb::relaying(&[]);
    let child = process(&lb).await;
    let (b, _b_control) = TcpServer::registered(&lb, "B", 50_000).await;
    let served = names(lb.relay(50_000), 4).await;
    assert_eq!((count(&served, "process"), count(&served, "B")), (2, 2));
    let mut cut = Visit::to(lb.relay(50_000)).await.unwrap();
    let mut kept = Visit::to(lb.relay(50_000)).await.unwrap();
    assert_eq!((&*cut.name, &*kept.name), ("process", "B"));

    let killed = kill_nine(&child);
    lb.until_logged("(ring 1): its server has gone; tcp/50000 has 1 replica left").await;
    assert!(killed.elapsed() < SOON, "known after {:?}", killed.elapsed());
    // Within 100 ms no connection goes to it any more; a client that was let in while it died may have been cut off.
    let mut after = Vec::new();
    let mut pace = tokio::time::interval(Duration::from_millis(5));
    while killed.elapsed() < 2 * SOON {
        pace.tick().await;
        let began = killed.elapsed();
        after.push((began, Visit::to(lb.relay(50_000)).await.map(|visit| visit.name)));
    }
    let late: Vec<_> = after.iter().filter(|(began, _)| *began >= SOON).collect();
    assert!(late.len() > 10, "only {} in {SOON:?}", late.len());
    let wrong: Vec<_> = late.iter().filter(|(_, name)| !matches!(name, Ok(name) if name == "B")).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    let lost = after.iter().filter(|(_, name)| name.is_err()).count();
    println!("figure: after a kill -9 {lost} of {} new connections were lost", after.len());
    assert!(kept.is_alive().await, "the other's client");
    assert!(!cut.is_alive().await);
    drop(cut);
    let alone = async || lb.port("tcp", 50_000).await.filter(|port| port["replicas"].as_array().unwrap().len() == 1);
    let (port, _) = eventually("nothing is left of it", alone).await;
    assert_eq!(port["replicas"][0]["addr"], b.addr.to_string());
}

#[tokio::test]
async fn the_port_of_a_killed_server_is_closed_at_once_and_open_again_with_the_next() {
    let lb = Lb::relaying(&[]);
    for round in 1..=3 {
        let child = process(&lb).await;
        assert_eq!(names(lb.relay(50_000), 2).await, ["process"; 2], "open again");
        let killed = kill_nine(&child);
        until_refused(lb.relay(50_000)).await;
        let took = killed.elapsed();
        println!("figure: round {round}: closed {:.1} ms after a kill -9", took.as_secs_f64() * 1000.0);
        // Required is 100 ms.
        assert!(took < SOON, "closed after {took:?}");
    }
}

#[tokio::test]
async fn the_port_of_a_server_that_hangs_up_is_closed_at_once() {
    let lb = Lb::relaying(&[]);
    let server = TcpServer::named("A").await;
    let mut channel = connect(&lb, server.ip()).await;
    channel.write_all(registration("tcp", server.addr.port(), 50_000).to_string().as_bytes()).await.unwrap();
    tokio::time::timeout(LIMIT, channel.read_u8()).await.expect("a reply").unwrap();
    assert_eq!(names(lb.relay(50_000), 1).await, ["A"]);
    // Rather than closed it is reset, as by a machine that has forgotten all about it.
    channel.set_zero_linger().unwrap();
    let gone = Instant::now();
    drop(channel);
    until_refused(lb.relay(50_000)).await;
    assert!(gone.elapsed() < SOON, "closed after {:?}", gone.elapsed());
}

#[tokio::test]
async fn a_signal_lets_open_connections_finish_and_refuses_new_ones() {
    let mut lb = Lb::relaying(&[]);
    let (_server, _control) = TcpServer::registered(&lb, "A", 50_000).await;
    let mut open = Visit::to(lb.relay(50_000)).await.unwrap();
    lb.signal(Signal::SIGTERM);
    until_refused(lb.relay(50_000)).await;
    // Longer than any look at who is still there.
    let refused = Instant::now();
    while refused.elapsed() < Duration::from_millis(300) {
        assert!(open.is_alive().await);
    }
    open.stream.write_all(b"last words").await.unwrap();
    open.stream.shutdown().await.unwrap();
    let (rest, end) = open.end().await;
    assert!(rest == b"last words" && end.is_ok(), "{end:?}");
    assert!(lb.ended().await.success());
}

#[tokio::test]
async fn a_signal_waits_for_open_connections_no_longer_than_the_drain_timeout() {
    let mut lb = Lb::relaying(&["--drain-timeout", "500ms"]);
    let (_server, _control) = TcpServer::registered(&lb, "A", 50_000).await;
    let mut open = Visit::to(lb.relay(50_000)).await.unwrap();
    let began = Instant::now();
    lb.signal(Signal::SIGTERM);
    assert!(lb.ended().await.success());
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(500) && took < Duration::from_secs(5), "{took:?}");
    assert!(!open.is_alive().await);
}

#[tokio::test]
async fn a_signal_loses_nobody_who_has_just_connected() {
    let mut lb = Lb::relaying(&[]);
    let (_server, _control) = TcpServer::registered(&lb, "A", 50_000).await;
    // Some of them are not accepted yet when the signal comes, and none has a server.
    let clients: Vec<_> = (0..200)
        .map(|_| {
            let mut stream = std::net::TcpStream::connect(lb.relay(50_000)).unwrap();
            stream.write_all(b"x").unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            stream
        })
        .collect();
    lb.signal(Signal::SIGTERM);
    for stream in clients {
        stream.set_nonblocking(true).unwrap();
        let mut answer = Vec::new();
        let read = TcpStream::from_std(stream).unwrap().read_to_end(&mut answer).await;
        assert_eq!(answer, b"A\nx", "{read:?}");
    }
    assert!(lb.ended().await.success());
}

#[tokio::test]
async fn a_balancer_that_is_ending_registers_nobody() {
    let mut lb = Lb::relaying(&[]);
    let (server, mut control) = TcpServer::registered(&lb, "A", 50_000).await;
    let other = TcpServer::named("B").await;
    let mut other_control = Control::connect(&lb, other.ip()).await;
    // Its own port will do for the balancer to have heard of it.
    other_control.register("tcp", other.addr.port(), 50_001).await;
    let mut open = Visit::to(lb.relay(50_000)).await.unwrap();
    lb.signal(Signal::SIGTERM);
    until_refused(lb.relay(50_000)).await;
    // Neither for a port that is new nor for one that was open: nobody would serve there.
    for port in [50_000, 50_002] {
        let reply = other_control.ask(registration("tcp", other.addr.port(), port)).await;
        assert!(reply["error"] == 7 && reply["msg"] == "the balancer is stopping", "{reply}");
        assert!(is_refused(lb.relay(port)).await);
    }
    // To leave is always possible.
    control.unregister("tcp", server.addr.port(), 50_000).await;
    assert!(open.is_alive().await);
    drop(open);
    assert!(lb.ended().await.success());
}
