//! What a replica is told of the client and of the way of a request: forwarding fields, their look-alikes, IDs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests fail by panicking, and say what they measured"
)]
#![allow(clippy::disallowed_methods, reason = "tests read the environment that they pass on")]

mod support;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use support::client::Client;
use support::replica::{Replica, ready, response};
use support::wire::{field, fields};
use support::{Lb, server};

/// The head that a replica gets when a client at `from` sends these fields.
async fn arrives(replica: &Replica, lb: &Lb, from: Ipv4Addr, sent: &str) -> String {
    let mut client = Client::connect_from(lb, from).await;
    let answer = client.ask(&format!("GET /x HTTP/1.1\r\nHost: shop.example\r\n{sent}\r\n")).await;
    assert_eq!(answer.status(), 200, "{sent}: {}", answer.text());
    replica.requests().pop().unwrap()
}

/// All values of a list field, whichever lines they are on.
fn list(head: &str, name: &str) -> String {
    fields(head, name).join(", ")
}

const GIVEN: &str = "X-Forwarded-For: 203.0.113.9\r\nx-forwarded-for: 198.51.100.2, 10.0.0.1\r\nX-FORWARDED-PROTO: https\r\n\
                     X-Forwarded-Host: public.example\r\nForwarded: for=203.0.113.9;proto=https\r\n";

const LOCAL: Ipv4Addr = Ipv4Addr::LOCALHOST;
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

fn assert_overwritten(head: &str, peer: &str) {
    assert_eq!(fields(head, "x-forwarded-for"), [peer], "{head}");
    assert_eq!(fields(head, "x-forwarded-proto"), ["http"], "{head}");
    assert_eq!(fields(head, "x-forwarded-host"), ["shop.example"], "{head}");
    assert!(!head.contains("203.0.113.9") && !head.contains("public.example"), "{head}");
}

fn assert_kept(head: &str, peer: &str) {
    assert_eq!(list(head, "x-forwarded-for"), format!("203.0.113.9, 198.51.100.2, 10.0.0.1, {peer}"), "{head}");
    assert_eq!(fields(head, "x-forwarded-proto"), ["https"], "{head}");
    assert_eq!(fields(head, "x-forwarded-host"), ["public.example"], "{head}");
    let forwarded = format!("for=203.0.113.9;proto=https, for={peer};proto=http");
    assert_eq!(list(head, "forwarded"), forwarded, "{head}");
    assert_eq!(fields(head, "host"), ["shop.example"], "{head}");
}

#[tokio::test]
async fn nobody_is_trusted_unless_listed() {
    let replica = Replica::start(response("200 OK", "", "yes")).await;
    for args in [&[][..], &["--trusted-proxies", "10.0.0.0/8, 127.0.0.3,::1"]] {
        let lb = ready(&[&replica], args).await;
        for (from, peer) in [(LOCAL, "127.0.0.1"), (OTHER, "127.0.0.2")] {
            assert_overwritten(&arrives(&replica, &lb, from, GIVEN).await, peer);
            assert_overwritten(&arrives(&replica, &lb, from, "").await, peer);
        }
    }
}

#[tokio::test]
async fn a_trusted_proxys_fields_are_kept_and_added_to() {
    let replica = Replica::start(response("200 OK", "", "yes")).await;
    let lb = ready(&[&replica], &["--trusted-proxies", "127.0.0.0/8"]).await;
    for (from, peer) in [(LOCAL, "127.0.0.1"), (OTHER, "127.0.0.2")] {
        assert_kept(&arrives(&replica, &lb, from, GIVEN).await, peer);
        // One that says nothing is the client itself.
        assert_overwritten(&arrives(&replica, &lb, from, "").await, peer);
    }
}

#[tokio::test]
async fn trust_goes_by_the_address_of_the_peer() {
    let replica = Replica::start(response("200 OK", "", "yes")).await;
    let lb = ready(&[&replica], &["--trusted-proxies", "127.0.0.2"]).await;
    assert_overwritten(&arrives(&replica, &lb, LOCAL, GIVEN).await, "127.0.0.1");
    assert_kept(&arrives(&replica, &lb, OTHER, GIVEN).await, "127.0.0.2");
}

#[tokio::test]
async fn look_alikes_of_managed_fields_are_dropped_whoever_sends_them() {
    const LOOK_ALIKES: [&str; 9] = [
        "X_Forwarded_For: 6.6.6.6",
        "X-Forwarded_For: 6.6.6.6",
        "x_forwarded-proto: https",
        "X_FORWARDED_HOST: evil",
        "X_Request_Id: evil",
        "Content_Length: 6",
        "TRANSFER_ENCODING: chunked",
        "Transfer_Encoding: gzip",
        "X_Own: stays",
    ];
    let replica = Replica::start(response("200 OK", "", "yes")).await;
    for args in [&[][..], &["--trusted-proxies", "127.0.0.0/8"]] {
        let lb = ready(&[&replica], args).await;
        let head = arrives(&replica, &lb, LOCAL, &(LOOK_ALIKES.join("\r\n") + "\r\n")).await;
        let underscored: Vec<_> = head.lines().filter(|line| line.split(':').next().unwrap().contains('_')).collect();
        assert_eq!(underscored.len(), 1, "{head}");
        assert_eq!(fields(&head, "x_own"), ["stays"], "{head}");
        assert_eq!(fields(&head, "x-forwarded-for"), ["127.0.0.1"], "{head}");
        assert!(field(&head, "content-length").is_none() && field(&head, "transfer-encoding").is_none(), "{head}");
    }
}

#[tokio::test]
async fn fields_that_connection_names_go_and_those_that_frame_or_route_stay() {
    let replica = Replica::mirror().await;
    let lb = ready(&[&replica], &[]).await;
    let mut client = Client::connect(&lb).await;
    let answer = client
        .ask(
            "POST /x HTTP/1.1\r\nHost: shop.example\r\nConnection: x-one, Content-Length\r\nX-One: 1\r\nX-Two: 2\r\n\
             connection:X-TWO ,,host, x-forwarded-for,x-request-id, close-not\r\nContent-Length: 2\r\nX-Three: 3\r\n\
             Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic abc\r\n\
             TE: trailers\r\nAccept: */*\r\n\r\nhi",
        )
        .await;
    assert_eq!(answer.text(), "POST /x hi");
    let head = replica.requests().pop().unwrap();
    let mut names: Vec<_> =
        head.lines().skip(1).filter_map(|line| line.split_once(':')).map(|(name, _)| name).collect();
    assert!(names[0].eq_ignore_ascii_case("host"), "Host comes first: {head}");
    names.sort_unstable_by_key(|name| name.to_lowercase());
    let names: Vec<_> = names.iter().map(|name| name.to_lowercase()).collect();
    let ours = ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-request-id", "x-three"];
    assert_eq!(names[..3], ["accept", "content-length", "host"], "{head}");
    assert_eq!(names[3..], ours, "{head}");
}

#[tokio::test]
async fn a_bodys_length_cannot_be_named_away_by_connection() {
    let replica = Replica::mirror().await;
    let lb = ready(&[&replica], &[]).await;
    let mut client = Client::connect(&lb).await;
    for framed in ["Content-Length: 2\r\n\r\nhi", "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"] {
        let connection = "Connection: content-length, transfer-encoding, host, keep-alive\r\n";
        let answer = client.ask(&format!("POST /x HTTP/1.1\r\nHost: a\r\n{connection}{framed}")).await;
        assert_eq!((answer.status(), answer.text().as_str()), (200, "POST /x hi"), "{framed:?}");
        assert_eq!(fields(&replica.requests().pop().unwrap(), "host"), ["a"]);
    }
}

#[tokio::test]
async fn the_balancer_does_not_name_itself() {
    let replica = Replica::start(response("200 OK", "server: own\r\n", "yes")).await;
    let lb = ready(&[&replica], &[]).await;
    let head = arrives(&replica, &lb, LOCAL, "").await;
    assert_eq!(field(&head, "via"), None, "{head}");
    let head = arrives(&replica, &lb, LOCAL, "Via: 1.1 another\r\n").await;
    assert_eq!(fields(&head, "via"), ["1.1 another"], "{head}");
    let answer = Client::connect(&lb).await.get("/x").await;
    assert_eq!((answer.field("via"), answer.field("server")), (None, Some("own")), "{}", answer.head);
}

#[tokio::test]
async fn a_request_has_one_id_the_clients_own_if_that_is_sound() {
    let replica = Replica::start(response("200 OK", "", "yes")).await;
    let lb = ready(&[&replica], &[]).await;
    let (longest, longer) = ("i".repeat(128), "i".repeat(129));
    for kept in ["a", "0123-ABC_~!\"#$%&'()*+,./:;<=>?@[]^`{|}\\", &longest] {
        let head = arrives(&replica, &lb, LOCAL, &format!("X-Request-ID: {kept}\r\n")).await;
        assert_eq!(fields(&head, "x-request-id"), [kept], "{head}");
    }
    let mut made = BTreeSet::new();
    for unsound in
        ["X-Request-Id:\r\n", "X-Request-Id: a b\r\n", "X-Request-Id: a\tb\r\n", "X-Request-Id: \u{e4}\r\n", ""]
            .iter()
            .map(|line| (*line).to_owned())
            .chain([format!("X-Request-Id: {longer}\r\n")])
    {
        let head = arrives(&replica, &lb, LOCAL, &unsound).await;
        let [id] = fields(&head, "x-request-id")[..] else { panic!("{unsound}: {head}") };
        assert!(id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{unsound}: {head}");
        made.insert(id.to_owned());
    }
    assert_eq!(made.len(), 6, "each has its own: {made:?}");
    let head = arrives(&replica, &lb, LOCAL, "X-Request-Id: one\r\nX-Request-Id: two\r\n").await;
    assert_eq!(fields(&head, "x-request-id").len(), 1, "{head}");
}

/// Three replicas that answer with their number, and what is needed to be placed by the client's address alone.
async fn placed_by_address(trusted: &str) -> ([Replica; 3], Lb) {
    let replicas = [
        Replica::start(response("200 OK", "", "0")).await,
        Replica::start(response("200 OK", "", "1")).await,
        Replica::start(response("200 OK", "", "2")).await,
    ];
    let members: Vec<_> = replicas.iter().collect();
    let args = ["--hash", "xxh3", "--hash-key", "client-ip", "--bound", "off", "--trusted-proxies", trusted];
    let lb = ready(&members, &args).await;
    (replicas, lb)
}

async fn placed(client: &mut Client, forwarded_for: &str) -> String {
    client.ask(&format!("GET /x HTTP/1.1\r\nHost: a\r\n{forwarded_for}\r\n")).await.text()
}

#[tokio::test]
async fn the_address_that_places_a_request_is_the_nearest_one_that_is_not_trusted() {
    let (_replicas, lb) = placed_by_address("127.0.0.0/8,10.0.0.0/8").await;
    let mut client = Client::connect(&lb).await;
    let mut used = BTreeSet::new();
    for n in 1..=40 {
        let ip = format!("203.0.113.{n}");
        let place = placed(&mut client, &format!("X-Forwarded-For: {ip}\r\n")).await;
        for same in [
            // Whatever stands further left was said by somebody who is not trusted.
            format!("X-Forwarded-For: 198.51.100.{n}, {ip}\r\n"),
            format!("X-Forwarded-For: unknown,, {ip}\r\n"),
            format!("X-Forwarded-For: 10.0.0.9, {ip}, 10.0.0.1, 127.0.0.9\r\n"),
            format!("X-Forwarded-For: 198.51.100.{n}\r\nX-Forwarded-For: {ip}\r\nX-Forwarded-For: 10.1.2.3\r\n"),
        ] {
            assert_eq!(placed(&mut client, &same).await, place, "{same}");
        }
        used.insert(place);
    }
    assert_eq!(used.len(), 3, "addresses spread");
}

#[tokio::test]
async fn what_an_untrusted_client_says_of_its_address_places_nothing() {
    let (_replicas, lb) = placed_by_address("10.0.0.0/8").await;
    let mut client = Client::connect(&lb).await;
    let place = placed(&mut client, "").await;
    for n in 1..=40 {
        assert_eq!(placed(&mut client, &format!("X-Forwarded-For: 203.0.113.{n}\r\n")).await, place);
    }
}

#[test]
fn a_list_of_trusted_proxies_that_cannot_be_read_stops_the_start() {
    server();
    for bad in ["nobody", "10.0.0.0/33", "10.0.0.0/", "10.0.0/8", "::1/129", "10.0.0.1,proxy.example"] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_lb"));
        let output = command.args(["check", "--trusted-proxies", bad]).output().expect("lb runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(64), "{bad}: {said}");
        assert!(said.contains("trusted-proxies") || said.contains("trusted_proxies"), "{bad}: {said}");
        assert!(!said.contains("unexpected argument"), "{said}");
    }
}
