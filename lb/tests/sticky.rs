//! Sticky sessions: who a client is kept at, what moves it, and on which responses the cookie is.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests fail by panicking, and say what they measured"
)]
#![allow(clippy::disallowed_methods, reason = "tests read the environment that they pass on")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use lb::pin::PinKey;
use lb::replica::Hostname;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::client::{Client, Response};
use support::conn::Conn;
use support::replica::{Answer, Replica, balance, ready, response};
use support::wire::{assert_same, fields, noise};
use support::{Lb, eventually};

const STICKY: &[&str] = &["--policy", "round-robin", "--sticky", "sid"];
const SECRET: &str = "a secret that tests know";

/// The value of the session's cookie that a response sets, if it does, and how.
fn cookie_with(response: &Response, end: &str) -> Option<String> {
    let set: Vec<_> =
        fields(&response.head, "set-cookie").into_iter().filter(|value| value.starts_with("sid=")).collect();
    assert!(set.len() <= 1, "set more than once: {}", response.head);
    let (value, attributes) = set.first()?.strip_prefix("sid=").unwrap().split_once(';').unwrap();
    assert!(value.len() == 32 && value.bytes().all(|byte| b"0123456789abcdef".contains(&byte)), "{}", response.head);
    assert_eq!(attributes, format!(" Path=/; HttpOnly; SameSite=Lax{end}"));
    Some(value.to_owned())
}

fn cookie(response: &Response) -> Option<String> {
    cookie_with(response, "")
}

fn request(method: &str, target: &str, cookie: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: a\r\nCookie: theme=dark; sid={cookie}\r\n\r\n")
}

/// A visitor with a connection and a cookie, as a browser has them.
struct Visitor {
    client: Client,
    cookie: String,
}

impl Visitor {
    async fn new(lb: &Lb) -> Self {
        Self { client: Client::connect(lb).await, cookie: String::new() }
    }

    /// Asks for this, keeps the cookie, and says who has answered, and whether the cookie is a new one.
    async fn get(&mut self, target: &str) -> (String, bool) {
        let response = self.client.ask(&request("GET", target, &self.cookie)).await;
        assert_eq!(response.status(), 200, "{}{}", response.head, response.text());
        let new = cookie(&response);
        let is_new = new.is_some();
        if let Some(new) = new {
            assert_ne!(new, self.cookie, "the same once more");
            self.cookie = new;
        }
        (response.text(), is_new)
    }

    /// So many requests, all answered by one replica, which they are kept at already.
    async fn stays(&mut self, target: &str, requests: usize) -> String {
        let mut names = BTreeSet::new();
        for _ in 0..requests {
            let (name, is_new) = self.get(target).await;
            assert!(!is_new, "moved to {name}");
            names.insert(name);
        }
        assert_eq!(names.len(), 1, "{names:?}");
        names.pop_first().unwrap()
    }
}

/// Replicas that answer with their number, from 1.
async fn named(n: usize) -> Vec<Replica> {
    let mut replicas = Vec::new();
    for number in 1..=n {
        replicas.push(Replica::start(response("200 OK", "", &number.to_string())).await);
    }
    replicas
}

async fn over(replicas: &[Replica], args: &[&str]) -> Lb {
    ready(&replicas.iter().collect::<Vec<_>>(), &[STICKY, args].concat()).await
}

#[tokio::test]
async fn a_session_stays_and_clients_without_one_are_spread() {
    let lb = Lb::ready(STICKY).await;
    let mut visitors = Vec::new();
    let mut replicas = BTreeMap::<String, String>::new();
    for _ in 0..9 {
        let mut visitor = Visitor::new(&lb).await;
        let (name, is_new) = visitor.get("/home").await;
        assert!(is_new);
        assert_eq!(replicas.entry(visitor.cookie.clone()).or_insert_with(|| name.clone()), &name);
        visitors.push((visitor, name));
    }
    assert_eq!(replicas.values().collect::<BTreeSet<_>>().len(), 3, "{replicas:?}");
    assert_eq!(replicas.len(), 3, "one cookie for each replica, whoever is kept there");
    let (visitor, name) = &mut visitors[0];
    assert_eq!(&visitor.stays("/home", 100).await, name);
    // Beside others, too.
    for (visitor, name) in &mut visitors {
        assert_eq!(&visitor.stays("/home", 5).await, name);
    }
}

async fn set(lb: &Lb, hostname: &str, body: &str) {
    let request = lb.client.patch(lb.admin_url(&format!("/api/v1/replicas/{hostname}"))).body(body.to_owned());
    assert_eq!(request.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_replica_of_weight_zero_keeps_its_sessions_and_gets_no_others() {
    let lb = Lb::ready(STICKY).await;
    let mut visitor = Visitor::new(&lb).await;
    let (name, _) = visitor.get("/home").await;
    set(&lb, who(&name), r#"{"weight":0}"#).await;
    assert_eq!(visitor.stays("/home", 20).await, name);
    for _ in 0..6 {
        assert_ne!(Visitor::new(&lb).await.get("/home").await.0, name);
    }
    // Nor does another's priority move it.
    set(&lb, who(&name), r#"{"weight":1}"#).await;
    for other in lb.rep().await.iter().filter(|other| *other != who(&name)) {
        set(&lb, other, r#"{"priority":9}"#).await;
    }
    assert_eq!(visitor.stays("/home", 20).await, name);
}

async fn pids(lb: &Lb) -> BTreeMap<String, Pid> {
    let replicas = lb.replicas().await;
    let pid = |replica: &serde_json::Value| Pid::from_raw(replica["runtime_id"].as_str().unwrap().parse().unwrap());
    replicas.iter().map(|replica| (replica["hostname"].as_str().unwrap().to_owned(), pid(replica))).collect()
}

/// Who of them has said this.
fn who(greeting: &str) -> &str {
    greeting.split("Server: ").nth(1).unwrap().split('"').next().unwrap()
}

#[tokio::test]
async fn a_session_moves_when_its_replica_dies_and_for_no_other_reason() {
    let lb = Lb::ready(STICKY).await;
    let mut visitor = Visitor::new(&lb).await;
    let (first, _) = visitor.get("/home").await;
    kill(pids(&lb).await[who(&first)], Signal::SIGKILL).unwrap();
    let second = loop {
        // It may answer once more, before it is dead.
        let (name, is_new) = visitor.get("/home").await;
        if is_new {
            break name;
        }
        assert_eq!(name, first);
    };
    assert_ne!(second, first);
    lb.until_ready().await;
    assert_eq!(visitor.stays("/home", 20).await, second);

    let others: Vec<_> = pids(&lb).await.into_iter().filter(|(name, _)| name != who(&second)).collect();
    assert_eq!(others.len(), 2);
    for (name, pid) in others {
        kill(pid, Signal::SIGKILL).unwrap();
        eventually("it is replaced", async || (!lb.rep().await.contains(&name)).then_some(())).await;
        lb.until_ready().await;
        assert_eq!(visitor.stays("/home", 20).await, second);
    }
    // Neither do those who come and go on purpose.
    assert_eq!(lb.change("POST", "/add", r#"{"n":1,"hostnames":["S9"]}"#).await.0, 200);
    assert_eq!(visitor.stays("/home", 20).await, second);
    assert_eq!(lb.change("DELETE", "/rm", r#"{"n":1,"hostnames":["S9"]}"#).await.0, 200);
    assert_eq!(visitor.stays("/home", 20).await, second);
}

#[tokio::test]
async fn a_failed_try_moves_the_session_within_the_request() {
    let (good, bad) = (Replica::start(response("200 OK", "", "good")).await, Replica::start(Answer::Close).await);
    let args = ["--sticky-secret", SECRET, "--retry-budget", "off"];
    let lb = ready(&[&good, &bad], &[STICKY, &args].concat()).await;
    let pinned_to_bad = pin(SECRET, "S2", bad.addr);
    for n in 1..=5 {
        let mut visitor = Visitor { client: Client::connect(&lb).await, cookie: pinned_to_bad.clone() };
        assert_eq!(visitor.get("/x").await, ("good".into(), true));
        assert_eq!(visitor.cookie, pin(SECRET, "S1", good.addr));
        assert_eq!(bad.requests().len(), n, "it was asked first");
        assert_eq!(visitor.stays("/x", 3).await, "good");
    }
    // What is not repeated tells nobody where to go: its answer is the balancer's own.
    let mut client = Client::connect(&lb).await;
    let response = client.ask(&request("POST", "/x", &pinned_to_bad)).await;
    assert_eq!((response.status(), cookie(&response)), (502, None));
}

fn pin(secret: &str, hostname: &str, addr: SocketAddr) -> String {
    let key = PinKey::secret(secret.as_bytes(), "");
    format!("{:032x}", key.pin(&Hostname::new(hostname).unwrap(), &addr.to_string()))
}

#[tokio::test]
async fn forged_cookies_choose_nobody() {
    let replicas = named(3).await;
    let lb = over(&replicas, &["--sticky-secret", SECRET]).await;
    let (hostnames, addrs) = (["S1", "S2", "S3"], replicas.iter().map(|replica| replica.addr));
    let mut forged: Vec<String> = vec![
        String::new(),
        "0".repeat(32),
        "f".repeat(32),
        "1".into(),
        // The right one, but not as it was given out.
        pin(SECRET, "S1", replicas[0].addr).to_uppercase(),
        format!("\"{}\"", pin(SECRET, "S1", replicas[0].addr)),
        format!("{}0", pin(SECRET, "S1", replicas[0].addr)),
        format!("{:032x}", PinKey::public("").pin(&Hostname::new("S1").unwrap(), &replicas[0].addr.to_string())),
        pin(SECRET, "S1", replicas[1].addr),
    ];
    forged.extend(hostnames.map(str::to_owned));
    forged.extend(addrs.clone().map(|addr| addr.to_string()));
    forged.extend(
        hostnames.iter().zip(addrs.clone()).map(|(name, addr)| pin("another secret of this length", name, addr)),
    );
    for cookie in forged {
        let (mut given, mut names) = (BTreeSet::new(), BTreeSet::new());
        for _ in 0..3 {
            let mut visitor = Visitor { client: Client::connect(&lb).await, cookie: cookie.clone() };
            let (name, is_new) = visitor.get("/x").await;
            assert!(is_new, "{cookie}");
            names.insert(name);
            given.insert(visitor.cookie);
        }
        assert_eq!((names.len(), given.len()), (3, 3), "{cookie}: each goes where its turn is");
    }
    for ((number, name), addr) in (1..).zip(hostnames).zip(addrs) {
        let mut visitor = Visitor { client: Client::connect(&lb).await, cookie: pin(SECRET, name, addr) };
        assert_eq!(visitor.stays("/x", 5).await, number.to_string(), "the real one of {name}");
    }
}

const WARNING: &str = "sticky sessions end with this balancer, as no sticky_secret is set";

#[tokio::test]
async fn sessions_outlive_a_balancer_if_there_is_a_secret() {
    let replicas = named(3).await;
    for (args, survive) in [(&["--sticky-secret", SECRET][..], true), (&[], false)] {
        let mut lb = over(&replicas, args).await;
        let mut sessions = Vec::new();
        for _ in 0..6 {
            let mut visitor = Visitor::new(&lb).await;
            let (name, _) = visitor.get("/x").await;
            sessions.push((visitor.cookie, name));
        }
        let warnings = lb.log().iter().filter(|line| line.contains(WARNING)).count();
        assert_eq!(warnings, usize::from(!survive), "{:?}", lb.log());
        // Another one beside it with the same secret knows them as well.
        let beside = over(&replicas, args).await;
        lb.signal(Signal::SIGKILL);
        lb.ended().await;
        let again = over(&replicas, args).await;
        for lb in [beside, again] {
            for (cookie, name) in &sessions {
                let mut visitor = Visitor { client: Client::connect(&lb).await, cookie: cookie.clone() };
                if survive {
                    assert_eq!(&visitor.stays("/x", 5).await, name);
                } else {
                    assert!(visitor.get("/x").await.1);
                }
            }
        }
    }
}

#[tokio::test]
async fn a_connection_can_carry_requests_of_several_users() {
    let replicas = named(3).await;
    let lb = over(&replicas, &["--sticky-secret", SECRET]).await;
    let pins: Vec<_> =
        ["S1", "S2", "S3"].iter().zip(&replicas).map(|(name, replica)| pin(SECRET, name, replica.addr)).collect();
    let mut client = Client::connect(&lb).await;
    let order = [0, 1, 2, 2, 1, 0, 1, 1, 0, 2];
    for at in order {
        let response = client.ask(&request("GET", "/x", &pins[at])).await;
        assert_eq!((response.text(), cookie(&response)), ((at + 1).to_string(), None));
    }
    // All at once, and one without a cookie among them.
    let mut all: String = order.iter().map(|at| request("GET", "/x", &pins[*at])).collect();
    all.insert_str(0, "GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    client.send(all).await;
    let first = client.response().await;
    let number: usize = first.text().parse().unwrap();
    assert_eq!(cookie(&first), Some(pins[number - 1].clone()));
    for at in order {
        let response = client.response().await;
        assert_eq!((response.text(), cookie(&response)), ((at + 1).to_string(), None));
    }
    // The first of several counts, in whatever field it is.
    let several = format!(
        "GET /x HTTP/1.1\r\nHost: a\r\nCookie: a=1\r\nCookie: b=2; sid={}\r\nCookie: sid={}\r\n\r\n",
        pins[2], pins[0]
    );
    let response = client.ask(&several).await;
    assert_eq!((response.text(), cookie(&response)), ("3".into(), None));
}

/// Answers each path in a way of its own.
async fn many_ways(mut conn: Conn) {
    while let Some(head) = conn.request().await {
        let Some(body) = conn.body(&head).await else { return };
        let path = head.split(' ').nth(1).unwrap().trim_start_matches('/').to_owned();
        let answer: Vec<u8> = match path.as_str() {
            "plain" => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".into(),
            "chunked" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-t\r\n\r\n2\r\nok\r\n0\r\nx-t: 1\r\n\r\n".into(),
            "head" => "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n".into(),
            "204" => "HTTP/1.1 204 No Content\r\n\r\n".into(),
            "304" => "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n".into(),
            "404" => "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone".into(),
            "500" => "HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n".into(),
            "hints" => "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".into(),
            "own" => "HTTP/1.1 200 OK\r\nSet-Cookie: theme=dark; Path=/\r\nContent-Length: 2\r\nSET-COOKIE: lang=en\r\n\r\nok".into(),
            "close" => "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok".into(),
            "large" => [b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", &noise(1_000_000)[..]].concat(),
            "echo" => {
                [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.bytes.len()).as_bytes(), &body.bytes].concat()
            }
            _ => "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: Test/1\r\n\r\ngreeting".into(),
        };
        if !conn.send(answer).await || path == "close" {
            return;
        }
    }
}

#[tokio::test]
async fn the_cookie_is_on_final_responses_of_replicas_and_changes_nothing_else() {
    let replica = Replica::scripted(many_ways).await;
    let lb = over(std::slice::from_ref(&replica), &["--not-found", "pass"]).await;
    let mut pinned = Visitor::new(&lb).await;
    assert!(pinned.get("/plain").await.1);
    for (method, path, status, body) in [
        ("GET", "plain", 200, "ok"),
        ("GET", "chunked", 200, "ok"),
        ("HEAD", "head", 200, ""),
        ("GET", "204", 204, ""),
        ("GET", "304", 304, ""),
        ("GET", "404", 404, "gone"),
        ("GET", "500", 500, ""),
        ("GET", "hints", 200, "ok"),
        ("GET", "own", 200, "ok"),
        ("GET", "close", 200, "ok"),
    ] {
        let mut heads = Vec::new();
        for value in ["", &pinned.cookie] {
            let mut client = Client::connect(&lb).await;
            client.send(request(method, &format!("/{path}"), value)).await;
            let response = client.response_to(method).await;
            assert_eq!((response.status(), &*response.text()), (status, body), "{path}");
            assert_eq!(cookie(&response), value.is_empty().then(|| pinned.cookie.clone()), "{path}: {}", response.head);
            assert!(
                response.interim.iter().all(|head| fields(head, "set-cookie").is_empty()),
                "{:?}",
                response.interim
            );
            assert_eq!(response.interim.len(), usize::from(path == "hints"));
            if path == "chunked" {
                assert_eq!(response.trailers, ["x-t: 1"]);
            }
            let kept = fields(&response.head, "set-cookie").into_iter().filter(|value| !value.starts_with("sid="));
            let expected: &[_] = if path == "own" { &["theme=dark; Path=/", "lang=en"] } else { &[] };
            assert_eq!(kept.collect::<Vec<_>>(), expected);
            let mut lines: Vec<_> = response.head.lines().filter(|line| !line.contains("sid=")).collect();
            lines.sort_unstable_by_key(|line| line.to_lowercase());
            heads.push(lines.join("\n").to_lowercase());
            // The connection goes on.
            let next = client.ask(&request("GET", "/plain", &pinned.cookie)).await;
            assert_eq!((next.text(), cookie(&next)), ("ok".into(), None), "behind {path}");
        }
        assert_eq!(heads[0], heads[1], "{path}");
    }
    let mut client = Client::connect(&lb).await;
    let large = client.get("/large").await;
    assert_eq!(cookie(&large), Some(pinned.cookie.clone()));
    assert_same(&large.body, &noise(1_000_000));
    let old = client.ask("GET /chunked HTTP/1.0\r\n\r\n").await;
    assert_eq!((old.text(), cookie(&old)), ("ok".into(), Some(pinned.cookie.clone())), "to a client of HTTP/1.0");
    let mut client = Client::connect(&lb).await;
    let posted = client.ask("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").await;
    assert_eq!((posted.text(), cookie(&posted)), ("hello".into(), Some(pinned.cookie)));
}

#[tokio::test]
async fn an_upgrade_sets_the_cookie_and_is_kept_at_its_replica() {
    let (one, two) = (Replica::scripted(many_ways).await, Replica::scripted(many_ways).await);
    let lb = ready(&[&one, &two], &[STICKY, &["--sticky-secret", SECRET]].concat()).await;
    let upgrade = |cookie: &str| {
        format!("GET /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: Test/1\r\nCookie: sid={cookie}\r\n\r\n")
    };
    let mut given = BTreeSet::new();
    for _ in 0..2 {
        let mut client = Client::connect(&lb).await;
        let response = client.ask(&upgrade("")).await;
        assert_eq!(response.status(), 101, "{}", response.head);
        assert!(response.connection("upgrade") && response.field("upgrade") == Some("Test/1"), "{}", response.head);
        given.insert(cookie(&response).expect("a cookie"));
        client.until("greeting").await;
    }
    assert_eq!(given, [("S1", &one), ("S2", &two)].map(|(name, replica)| pin(SECRET, name, replica.addr)).into());
    let before = two.requests().len();
    for _ in 0..5 {
        let mut client = Client::connect(&lb).await;
        let response = client.ask(&upgrade(&pin(SECRET, "S2", two.addr))).await;
        assert_eq!((response.status(), cookie(&response)), (101, None), "{}", response.head);
        client.until("greeting").await;
    }
    assert_eq!(two.requests().len(), before + 5);
}

#[tokio::test]
async fn the_balancers_own_answers_set_no_cookie() {
    let replica = Replica::scripted(many_ways).await;
    let lb = over(std::slice::from_ref(&replica), &[]).await;
    let mut client = Client::connect(&lb).await;
    for (target, status) in [("/404", 400), ("/rep", 200), ("/plain", 200)] {
        let response = client.get(target).await;
        assert_eq!((response.status(), cookie(&response).is_some()), (status, target == "/plain"), "{target}");
    }
    let nobody = support::replica::nobody().await;
    let lb = balance(&[nobody], STICKY).await;
    let response = Client::connect(&lb).await.get("/plain").await;
    assert_eq!((response.status(), cookie(&response)), (503, None));
}

#[tokio::test]
async fn the_cookie_is_secure_if_a_trusted_proxy_says_so() {
    let replicas = named(1).await;
    for (trusted, end) in [(&["--trusted-proxies", "127.0.0.1"][..], "; Secure"), (&[], "")] {
        let lb = over(&replicas, trusted).await;
        let mut client = Client::connect(&lb).await;
        let response = client.ask("GET /x HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\n\r\n").await;
        assert!(cookie_with(&response, end).is_some());
        assert!(cookie(&client.get("/x").await).is_some());
    }
}

#[tokio::test]
async fn without_the_setting_there_are_no_sessions() {
    let replicas = named(3).await;
    let lb = ready(&replicas.iter().collect::<Vec<_>>(), &["--policy", "round-robin", "--sticky-secret", SECRET]).await;
    let mut client = Client::connect(&lb).await;
    let mut names = BTreeSet::new();
    for _ in 0..3 {
        let response = client.ask(&request("GET", "/x", &pin(SECRET, "S1", replicas[0].addr))).await;
        assert!(response.field("set-cookie").is_none(), "{}", response.head);
        names.insert(response.text());
    }
    assert_eq!(names.len(), 3);
}
