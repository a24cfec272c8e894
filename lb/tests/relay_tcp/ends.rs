//! How connections end: by one side and then the other, by a reset, by time, or because a server leaves.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc};

use crate::support::control::Control;
use crate::support::server::{TcpServer, Visit, count, names, until_refused};
use crate::support::wire::{assert_same, noise};
use crate::support::{LIMIT, Lb, eventually};

/// What a server has read of a connection, and how that ended.
type Heard = (Vec<u8>, std::io::Result<()>);

/// A server that does as `first` says, then reads to the end and reports.
async fn listening<F, Fut>(lb: &Lb, first: F) -> (TcpServer, Control, mpsc::UnboundedReceiver<Heard>)
where
    F: Fn(TcpStream) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = TcpStream> + Send + 'static,
{
    let (heard, hears) = mpsc::unbounded_channel();
    let server = TcpServer::start(move |stream| {
        let (first, heard) = (first.clone(), heard.clone());
        async move {
            let mut stream = first(stream).await;
            let mut all = Vec::new();
            let end = stream.read_to_end(&mut all).await.map(drop);
            let _ = heard.send((all, end));
        }
    })
    .await;
    let mut control = Control::connect(lb, server.ip()).await;
    control.register("tcp", server.addr.port(), 50_000).await;
    (server, control, hears)
}

async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, what).await.expect("in time")
}

#[tokio::test]
async fn a_client_that_has_ended_still_gets_the_whole_answer() {
    let lb = Lb::relaying(&[]);
    let body = Arc::new(noise(1_000_000));
    let answer = Arc::clone(&body);
    let server = TcpServer::start(move |mut stream| {
        let answer = Arc::clone(&answer);
        async move {
            let mut request = Vec::new();
            stream.read_to_end(&mut request).await.unwrap();
            stream.write_all(&request).await.unwrap();
            stream.write_all(&answer).await.unwrap();
        }
    })
    .await;
    let mut control = Control::connect(&lb, server.ip()).await;
    control.register("tcp", server.addr.port(), 50_000).await;
    let mut client = TcpStream::connect(lb.relay(50_000)).await.unwrap();
    client.write_all(b"everything?").await.unwrap();
    client.shutdown().await.unwrap();
    let mut got = Vec::new();
    in_time(client.read_to_end(&mut got)).await.unwrap();
    assert_same(&got, &[b"everything?", &body[..]].concat());
}

#[tokio::test]
async fn a_server_that_has_ended_still_hears_everything() {
    let lb = Lb::relaying(&[]);
    let (_server, _control, mut hears) = listening(&lb, |mut stream| async {
        stream.write_all(b"bye").await.unwrap();
        stream.shutdown().await.unwrap();
        stream
    })
    .await;
    let mut client = TcpStream::connect(lb.relay(50_000)).await.unwrap();
    let mut got = Vec::new();
    in_time(client.read_to_end(&mut got)).await.unwrap();
    assert_eq!(got, b"bye");
    let body = noise(1_000_000);
    client.write_all(&body).await.unwrap();
    client.shutdown().await.unwrap();
    let (heard, end) = in_time(hears.recv()).await.unwrap();
    assert_same(&heard, &body);
    assert!(end.is_ok());
    lb.until_counted("tcp", 50_000, "connections", 0).await;
}

#[tokio::test]
async fn a_reset_is_passed_on_as_a_reset_either_way() {
    let lb = Lb::relaying(&[]);
    let (server, mut control, mut hears) = listening(&lb, |mut stream| async {
        stream.write_all(b"x").await.unwrap();
        stream
    })
    .await;
    let mut client = TcpStream::connect(lb.relay(50_000)).await.unwrap();
    assert_eq!(in_time(client.read_u8()).await.unwrap(), b'x');
    client.set_zero_linger().unwrap();
    drop(client);
    let (_, end) = in_time(hears.recv()).await.unwrap();
    assert_eq!(end.expect_err("not an end like any other").kind(), ErrorKind::ConnectionReset);
    control.unregister("tcp", server.addr.port(), 50_000).await;

    let resetting = TcpServer::start(|mut stream| async move {
        stream.read_u8().await.unwrap();
        stream.set_zero_linger().unwrap();
    })
    .await;
    let mut control = Control::connect(&lb, resetting.ip()).await;
    control.register("tcp", resetting.addr.port(), 50_000).await;
    let mut client = TcpStream::connect(lb.relay(50_000)).await.unwrap();
    client.write_all(b"x").await.unwrap();
    let error = in_time(client.read_u8()).await.expect_err("not an end like any other");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    lb.until_counted("tcp", 50_000, "connections", 0).await;
}

#[tokio::test]
async fn an_end_in_good_order_is_passed_on_as_one_either_way() {
    let lb = Lb::relaying(&[]);
    let (_server, _control, mut hears) = listening(&lb, |stream| async { stream }).await;
    let mut client = TcpStream::connect(lb.relay(50_000)).await.unwrap();
    client.write_all(b"all").await.unwrap();
    client.shutdown().await.unwrap();
    let (heard, end) = in_time(hears.recv()).await.unwrap();
    assert!(heard == b"all" && end.is_ok(), "{end:?}");
    // The server has closed when it had heard all.
    assert_eq!(in_time(client.read(&mut [0; 1])).await.unwrap(), 0);
}

#[tokio::test]
async fn a_connection_on_which_nothing_moves_is_closed_and_a_busy_one_is_not() {
    let lb = Lb::relaying(&["--relay-idle-timeout", "500ms"]);
    let (_server, _control) = TcpServer::registered(&lb, "A", 50_000).await;
    let mut busy = Visit::to(lb.relay(50_000)).await.unwrap();
    let mute = TcpServer::start(|mut stream| async move { drop(stream.read_u8().await) }).await;
    let mut control = Control::connect(&lb, mute.ip()).await;
    control.register("tcp", mute.addr.port(), 50_001).await;
    let began = Instant::now();
    let mut idle = Visit::to(lb.relay(50_000)).await.unwrap();
    // On this one nothing has ever moved.
    let mut silent = TcpStream::connect(lb.relay(50_001)).await.unwrap();
    let ends = async {
        let ((_, end), silence) = tokio::join!(idle.end(), in_time(silent.read_u8()));
        assert!(end.is_err(), "the client sees that something is missing");
        assert_eq!(silence.unwrap_err().kind(), ErrorKind::ConnectionReset);
    };
    tokio::pin!(ends);
    loop {
        tokio::select! {
            () = &mut ends => break,
            alive = busy.is_alive() => assert!(alive),
        }
    }
    let took = began.elapsed();
    // Deadlines are kept to the tick, 50 ms.
    assert!(took >= Duration::from_millis(450) && took < Duration::from_secs(5), "{took:?}");
    lb.until_counted("tcp", 50_000, "connections", 1).await;
    assert!(busy.is_alive().await);
}

#[tokio::test]
async fn one_way_is_enough_to_keep_a_connection() {
    let lb = Lb::relaying(&["--relay-idle-timeout", "300ms"]);
    let server = TcpServer::start(|mut stream| async move {
        let mut pace = tokio::time::interval(Duration::from_millis(20));
        while stream.write_all(b".").await.is_ok() {
            pace.tick().await;
        }
    })
    .await;
    let mut control = Control::connect(&lb, server.ip()).await;
    control.register("tcp", server.addr.port(), 50_000).await;
    let mut client = TcpStream::connect(lb.relay(50_000)).await.unwrap();
    // Three times as long as it might be idle.
    for _ in 0..45 {
        in_time(client.read_u8()).await.expect("it goes on");
    }
}

#[tokio::test]
async fn what_is_open_lives_on_when_its_server_unregisters_and_is_cut_when_it_takes_too_long() {
    let lb = Lb::relaying(&["--drain-timeout", "600ms"]);
    let (a, mut a_control) = TcpServer::registered(&lb, "A", 50_000).await;
    let mut quick = Visit::to(lb.relay(50_000)).await.unwrap();
    let mut slow = Visit::to(lb.relay(50_000)).await.unwrap();
    let (_b, _b_control) = TcpServer::registered(&lb, "B", 50_000).await;
    a_control.unregister("tcp", a.addr.port(), 50_000).await;
    let left = Instant::now();
    // From the moment of the confirmation on nothing new goes there.
    let accepted = a.accepted();
    assert_eq!(names(lb.relay(50_000), 6).await, ["B"; 6]);
    assert_eq!(a.accepted(), accepted);
    assert!(quick.is_alive().await && slow.is_alive().await);
    quick.stream.shutdown().await.unwrap();
    let (rest, end) = quick.end().await;
    assert!(rest.is_empty() && end.is_ok(), "whoever ends in time ends in good order: {end:?}");
    assert_eq!(lb.member("tcp", 50_000, a.addr).await.unwrap()["state"], "draining");
    let (_, end) = slow.end().await;
    let took = left.elapsed();
    assert!(end.is_err(), "the client sees that something is missing");
    assert!(took >= Duration::from_millis(550) && took < Duration::from_secs(5), "cut after {took:?}");
    lb.until_logged("of tcp/50000 has left, what it still had under way (1)").await;
    eventually("it is gone", async || lb.member("tcp", 50_000, a.addr).await.is_none().then_some(())).await;
}

#[tokio::test]
async fn what_is_open_on_a_port_that_is_closed_lives_on_for_the_same_time() {
    let lb = Lb::relaying(&["--drain-timeout", "600ms"]);
    let (a, a_control) = TcpServer::registered(&lb, "A", 50_000).await;
    let mut quick = Visit::to(lb.relay(50_000)).await.unwrap();
    let mut slow = Visit::to(lb.relay(50_000)).await.unwrap();
    let left = Instant::now();
    drop(a_control);
    until_refused(lb.relay(50_000)).await;
    assert!(quick.is_alive().await && slow.is_alive().await);
    quick.stream.shutdown().await.unwrap();
    assert!(quick.end().await.1.is_ok());
    // Another server opens the port again, which the old one's connection does not touch.
    let (_b, _b_control) = TcpServer::registered(&lb, "B", 50_000).await;
    assert_eq!(count(&names(lb.relay(50_000), 3).await, "B"), 3);
    assert!(slow.end().await.1.is_err());
    let took = left.elapsed();
    assert!(took >= Duration::from_millis(550) && took < Duration::from_secs(5), "cut after {took:?}");
    drop(a);
}

#[tokio::test]
async fn a_server_that_takes_nothing_holds_its_client_back_and_loses_nothing() {
    let body = noise(32 * 1024 * 1024);
    let lb = Lb::relaying(&[]);
    let gate = Arc::new(Mutex::new(()));
    let held = Arc::clone(&gate).lock_owned().await;
    let (_server, _control, mut hears) = listening(&lb, move |stream| {
        let gate = Arc::clone(&gate);
        async move {
            drop(gate.lock().await);
            stream
        }
    })
    .await;
    let client = TcpStream::connect(lb.relay(50_000)).await.unwrap();
    // Whatever fits into the sockets on the way; not all of it.
    let mut sent = 0;
    loop {
        match client.try_write(&body[sent..]) {
            Ok(bytes) => sent += bytes,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let writable = tokio::time::timeout(Duration::from_millis(300), client.writable()).await;
                if writable.is_err() {
                    break;
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(sent < body.len(), "the balancer hoards {sent} bytes");
    drop(held);
    let (mut reader, mut writer) = client.into_split();
    in_time(writer.write_all(&body[sent..])).await.unwrap();
    writer.shutdown().await.unwrap();
    let (heard, end) = in_time(hears.recv()).await.unwrap();
    assert_same(&heard, &body);
    assert!(end.is_ok() && in_time(reader.read(&mut [0; 1])).await.unwrap() == 0);
}
