//! The public endpoints, row by row, over real sockets, with real child processes as replicas.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests fail by panicking, and say what they measured"
)]
#![allow(clippy::disallowed_methods, reason = "tests read the environment that they pass on")]

mod support;

use support::{Lb, lives, names, server};

const ERROR: &str = r#"{"message":"<Error> "#;

/// Status and message of a refused change; it must have changed nothing.
async fn refused(lb: &Lb, method: &str, path: &str, body: &str) -> (u16, String) {
    let before = lb.rep().await;
    let (status, answer) = lb.change(method, path, body).await;
    assert!(answer.starts_with(ERROR) && answer.ends_with(r#"","status":"failure"}"#), "{answer}");
    assert_eq!(lb.rep().await, before, "{path} {body} changed something");
    (status, answer)
}

#[tokio::test]
async fn rep_add_and_rm_answer_as_written() {
    let lb = Lb::ready(&[]).await;
    let response = lb.client.get(lb.url("/rep")).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/json");
    let body = response.text().await.unwrap();
    assert_eq!(body, r#"{"message":{"N":3,"replicas":["S1","S2","S3"]},"status":"successful"}"#);

    let (status, body) = lb.change("POST", "/add", r#"{"n":4,"hostnames":["S5","S4","S10","S11"]}"#).await;
    let expected = r#"{"message":{"N":7,"replicas":["S1","S2","S3","S5","S4","S10","S11"]},"status":"successful"}"#;
    assert_eq!((status, body.as_str()), (200, expected));

    let (status, body) = lb.change("DELETE", "/rm", r#"{"n":3,"hostnames":["S5","S4"]}"#).await;
    assert_eq!(status, 200);
    let left = names(&body);
    assert_eq!(left.len(), 4);
    assert!(!left.contains(&"S5".to_owned()) && !left.contains(&"S4".to_owned()), "{left:?}");
    assert_eq!(lb.rep().await, left);

    let (status, body) = lb.change("POST", "/rm", r#"{"n":1}"#).await;
    assert_eq!((status, names(&body).len()), (200, 3));
    let (status, body) = lb.change("POST", "/add", r#"{"n":2,"hostnames":["web-1"]}"#).await;
    let grown = names(&body);
    assert_eq!((status, grown.len(), grown[3].as_str()), (200, 5, "web-1"));
    assert_eq!(grown[4].len(), 5, "a generated name: {grown:?}");
    // All that was answered is true: those that are listed are ready, those that were removed are gone.
    let replicas = lb.replicas().await;
    assert_eq!(replicas.len(), 5);
    assert!(replicas.iter().all(|replica| replica["state"] == "ready"), "{replicas:?}");
}

#[tokio::test]
async fn home_names_the_replica_and_every_one_gets_requests() {
    let lb = Lb::ready(&[]).await;
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 3 {
        let (status, body) = lb.get("/home").await;
        assert_eq!(status, 200);
        let id = body
            .strip_prefix(r#"{"message":"Hello from Server: "#)
            .and_then(|rest| rest.strip_suffix(r#"","status":"successful"}"#));
        seen.insert(id.unwrap_or_else(|| panic!("{body}")).to_owned());
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["S1", "S2", "S3"]);
}

#[tokio::test]
async fn bad_changes_get_the_contracts_errors_and_change_nothing() {
    let lb = Lb::ready(&["--max-replicas", "20"]).await;
    let (status, body) = refused(&lb, "POST", "/add", r#"{"n":2,"hostnames":["S5","S4","S10","S11"]}"#).await;
    let expected =
        r#"{"message":"<Error> Length of hostname list is more than newly added instances","status":"failure"}"#;
    assert_eq!((status, body.as_str()), (400, expected));
    let (status, body) = refused(&lb, "DELETE", "/rm", r#"{"n":2,"hostnames":["S5","S4","S10","S11"]}"#).await;
    let expected =
        r#"{"message":"<Error> Length of hostname list is more than removable instances","status":"failure"}"#;
    assert_eq!((status, body.as_str()), (400, expected));

    for (method, path, body, wrong) in [
        ("DELETE", "/rm", r#"{"n":4}"#, "n is 4, more than the 3 replicas"),
        ("DELETE", "/rm", r#"{"n":1,"hostnames":["S9"]}"#, "'S9' is not a replica; there are S1, S2, S3"),
        ("DELETE", "/rm", r#"{"n":2,"hostnames":["S1","S1"]}"#, "'S1' is given twice"),
        ("POST", "/add", r#"{"n":1,"hostnames":["S2"]}"#, "'S2' is in use"),
        ("POST", "/add", r#"{"n":2,"hostnames":["S4","S4"]}"#, "'S4' is given twice"),
        ("POST", "/add", r#"{"n":18}"#, "max_replicas = 20"),
        ("POST", "/add", r#"{"n":54}"#, "the 56 that the ring can hold (512 slots / 9 virtual nodes)"),
        ("POST", "/add", r#"{"n":18446744073709551615}"#, "the 56 that the ring can hold"),
        ("POST", "/add", r#"{"hostnames":["S4"]}"#, "n is missing"),
        ("POST", "/add", r#"{"n":0}"#, "n is 0; expected a whole number from 1 to 20"),
        ("POST", "/add", r#"{"n":-2}"#, "n is -2"),
        ("POST", "/add", r#"{"n":1.5}"#, "n is 1.5"),
        ("DELETE", "/rm", r#"{"n":"2"}"#, r#"n is \"2\""#),
        ("POST", "/add", r#"{"n":1,"hostnames":["a/b"]}"#, "2 to 63 characters"),
        ("POST", "/add", r#"{"n":1,"hostnames":["x"]}"#, "2 to 63 characters"),
        ("POST", "/add", r#"{"n":1,"hosts":["S4"]}"#, "unknown field 'hosts'; allowed: n, hostnames"),
        ("POST", "/add", "n=1", "not JSON"),
        ("DELETE", "/rm", "", "not JSON"),
    ] {
        let (status, answer) = refused(&lb, method, path, body).await;
        assert_eq!(status, 400, "{path} {body}: {answer}");
        assert!(answer.contains(wrong), "{path} {body}: {answer}");
    }
}

#[tokio::test]
async fn a_body_that_is_too_long_gets_413_and_another_method_405() {
    let lb = Lb::ready(&[]).await;
    let long = format!(r#"{{"n":1,"hostnames":["{}"]}}"#, "a".repeat(64 * 1024));
    let (status, answer) = refused(&lb, "POST", "/add", &long).await;
    assert!(status == 413 && answer.contains("65536 bytes"), "{status} {answer}");
    for (path, method, allowed) in [
        ("/rep", "POST", "GET, HEAD"),
        ("/rep", "DELETE", "GET, HEAD"),
        ("/add", "GET", "POST"),
        ("/add", "DELETE", "POST"),
        ("/rm", "GET", "DELETE, POST"),
        ("/rm", "PUT", "DELETE, POST"),
    ] {
        let response = lb.client.request(method.parse().unwrap(), lb.url(path)).send().await.unwrap();
        assert_eq!(response.status(), 405, "{method} {path}");
        assert_eq!(response.headers()["allow"], allowed, "{method} {path}");
        let body = response.text().await.unwrap();
        assert!(body.starts_with(ERROR) && body.contains("failure"), "{body}");
    }
    // Only the exact paths are the balancer's own.
    assert_eq!(lb.get("/rep/").await.0, 400);
    assert!(lb.get("/rep?x=1").await.1.contains("successful"));
}

#[tokio::test]
async fn a_body_that_does_not_come_is_a_408() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let lb = Lb::ready(&["--replicas", "1"]).await;
    let mut stream = tokio::net::TcpStream::connect(lb.addr).await.unwrap();
    stream.write_all(b"POST /add HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{\"n\":").await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(support::LIMIT, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn an_unknown_path_gets_the_assignments_error_or_the_replicas_own() {
    let lb = Lb::ready(&[]).await;
    let expected = r#"{"message":"<Error> '/other' endpoint does not exist in server replicas","status":"failure"}"#;
    assert_eq!(lb.get("/other?q=1").await, (400, expected.into()));
    let pass = Lb::ready(&["--not-found", "pass"]).await;
    let (status, body) = pass.get("/other?q=1").await;
    assert!(status == 404 && body.contains("'/other' endpoint does not exist in this server"), "{status} {body}");
}

#[tokio::test]
async fn a_start_that_fails_is_a_500_with_the_reason_and_is_taken_back() {
    let command =
        format!("sh -c 'case {{hostname}} in BAD*) echo out of tea >&2; exit 7;; esac; exec {}'", server().display());
    let lb = Lb::ready(&["--server-command", &command]).await;
    let before: Vec<u64> = pids(&lb).await;
    let (status, answer) = refused(&lb, "POST", "/add", r#"{"n":3,"hostnames":["GOOD1","BAD1","GOOD2"]}"#).await;
    assert_eq!(status, 500);
    assert!(answer.contains("exited with status 7: out of tea"), "{answer}");
    assert_eq!(pids(&lb).await, before, "those started for it are gone");
    // The names are free again.
    assert_eq!(lb.change("POST", "/add", r#"{"n":1,"hostnames":["GOOD1"]}"#).await.0, 200);
}

async fn pids(lb: &Lb) -> Vec<u64> {
    let replicas = lb.replicas().await;
    replicas.iter().map(|replica| replica["runtime_id"].as_str().unwrap().parse().unwrap()).collect()
}

#[tokio::test]
async fn changes_from_many_clients_at_once_fit_together() {
    let lb = std::sync::Arc::new(Lb::ready(&["--replicas", "8"]).await);
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..8 {
        let lb = std::sync::Arc::clone(&lb);
        clients.spawn(async move {
            for round in 0..4 {
                let name = format!("C{client}-{round}");
                let (status, body) = lb.change("POST", "/add", &format!(r#"{{"n":1,"hostnames":["{name}"]}}"#)).await;
                assert_eq!(status, 200, "{body}");
                assert!(names(&body).contains(&name), "{name} was added, but: {body}");
                let (status, body) = lb.change("DELETE", "/rm", &format!(r#"{{"n":1,"hostnames":["{name}"]}}"#)).await;
                assert_eq!(status, 200, "{body}");
                assert!(!names(&body).contains(&name), "{name} was removed, but: {body}");
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    let left = lb.rep().await;
    assert_eq!(left, ["S1", "S2", "S3", "S4", "S5", "S6", "S7", "S8"]);
}

#[tokio::test]
async fn the_ring_holds_56_replicas_and_no_57th() {
    let lb = Lb::ready(&["--replicas", "56"]).await;
    assert_eq!(lb.rep().await.len(), 56);
    let (status, answer) = refused(&lb, "POST", "/add", r#"{"n":1}"#).await;
    assert_eq!(status, 400);
    assert!(answer.contains("56 + 1 replicas are more than the 56 that the ring can hold"), "{answer}");
    // Room for one again, and the number that became free is taken.
    assert_eq!(lb.change("DELETE", "/rm", r#"{"n":1,"hostnames":["S20"]}"#).await.0, 200);
    assert_eq!(lb.change("POST", "/add", r#"{"n":1,"hostnames":["again"]}"#).await.0, 200);
    let replicas = lb.replicas().await;
    assert_eq!(replicas.iter().find(|replica| replica["hostname"] == "again").unwrap()["id"], 20);
}

#[tokio::test]
async fn all_replicas_can_go_and_come_back() {
    let lb = Lb::ready(&["--replicas", "2"]).await;
    let started = pids(&lb).await;
    let (status, body) = lb.change("DELETE", "/rm", r#"{"n":2}"#).await;
    assert_eq!((status, names(&body).len()), (200, 0));
    assert!(started.iter().all(|pid| !lives(*pid as u32)), "they have ended by the time of the answer");
    let response = lb.client.get(lb.url("/home")).send().await.unwrap();
    assert_eq!((response.status().as_u16(), &response.headers()["retry-after"]), (503, &"1".parse().unwrap()));
    let expected = r#"{"message":"<Error> no server replica is ready","status":"failure"}"#;
    assert_eq!(response.text().await.unwrap(), expected);
    assert_eq!(lb.change("POST", "/add", r#"{"n":1}"#).await.0, 200);
    assert_eq!(lb.get("/home").await.0, 200);
}

#[tokio::test]
async fn a_fixed_membership_says_why_it_cannot_change() {
    let replica = support::replica::Replica::start(support::replica::response("200 OK", "", "x")).await;
    let members = format!("one={}", replica.addr);
    let lb = Lb::ready(&["--runtime", "static", "--members", &members]).await;
    assert_eq!(lb.rep().await, ["one"]);
    for (method, path) in [("POST", "/add"), ("DELETE", "/rm")] {
        let (status, answer) = refused(&lb, method, path, r#"{"n":1}"#).await;
        assert!(status == 400 && answer.contains("static runtime has a fixed list of members"), "{status} {answer}");
    }
}

#[tokio::test]
async fn the_admin_listener_shows_the_fleet_and_the_ring() {
    let lb = Lb::ready(&[]).await;
    let page = |path: &'static str| {
        let request = lb.client.get(lb.admin_url(path));
        async move { request.send().await.unwrap() }
    };
    assert_eq!(page("/healthz").await.status(), 200);
    let replicas = lb.replicas().await;
    for (replica, number) in replicas.iter().zip(1..) {
        assert_eq!((&replica["id"], replica["hostname"].as_str()), (&number.into(), Some(&*format!("S{number}"))));
        assert_eq!(
            (&replica["state"], &replica["weight"], &replica["priority"]),
            (&"ready".into(), &1.into(), &0.into())
        );
        assert!(replica["addr"].as_str().unwrap().starts_with("127.0.0.1:"), "on loopback: {replica}");
        let pid: u32 = replica["runtime_id"].as_str().unwrap().parse().unwrap();
        assert!(lives(pid));
        let started = humantime::parse_rfc3339(replica["started_at"].as_str().unwrap()).unwrap();
        assert!(started.elapsed().unwrap() < support::LIMIT);
        for number in ["in_flight", "served", "failed", "generation"] {
            assert!(replica[number].is_u64(), "{number}: {replica}");
        }
    }
    let ring: serde_json::Value = page("/api/v1/ring").await.json().await.unwrap();
    assert_eq!((&ring["slots"], &ring["vnodes"]), (&512.into(), &9.into()));
    assert_eq!((&ring["hash"], &ring["probing"]), (&"assignment".into(), &"linear".into()));
    assert_eq!(ring["occupied"].as_array().unwrap().len(), 27);
    assert_eq!(ring["occupied"][0], serde_json::json!([26, 1]));
    assert!((ring["shares"]["S1"].as_f64().unwrap() - 0.8437).abs() < 0.0001, "{ring}");
    assert_eq!(page("/api/v1/relays").await.text().await.unwrap(), "[]");
    let metrics = page("/metrics").await;
    assert!(metrics.headers()["content-type"].to_str().unwrap().starts_with("text/plain"));
    for _ in 0..10 {
        lb.get("/home").await;
    }
    assert_eq!(lb.metric(r#"ringkeeper_responses_total{class="2xx"}"#).await, 10.0);
    assert_eq!(lb.metric("ringkeeper_replicas_desired").await, 3.0);
    let served: u64 = lb.replicas().await.iter().map(|replica| replica["served"].as_u64().unwrap()).sum();
    assert_eq!(served, 10);
}

#[tokio::test]
async fn readyz_says_what_is_missing() {
    let lb = Lb::start(&["--server-command", "sh -c 'echo no database >&2; exit 3'"]);
    lb.until_logged("exited with status 3: no database, replaced by").await;
    let (reason, _) = support::eventually("the reason", async || {
        let response = lb.client.get(lb.admin_url("/readyz")).send().await.unwrap();
        assert_eq!(response.status(), 503);
        let reason = response.text().await.unwrap();
        reason.contains("no database").then_some(reason)
    })
    .await;
    assert!(reason.starts_with("0 of 3 replicas are ready: "), "{reason}");
    // The same back-off that the log tells is in the status.
    support::eventually("back-off in the status", async || {
        lb.replicas().await.iter().any(|replica| replica["launch_at"].is_string()).then_some(())
    })
    .await;
    assert_eq!(lb.get("/home").await.0, 503);
}

#[tokio::test]
async fn a_replicas_place_on_the_ring_is_kept_while_it_is_not_there() {
    let command = format!("sh -c 'case {{hostname}} in S2|S3) exec {};; *) exit 1;; esac'", server().display());
    let lb = Lb::start(&["--server-command", &command]);
    support::eventually("the two that can start are ready", async || {
        let ready = lb.replicas().await.iter().filter(|replica| replica["state"] == "ready").count();
        (ready == 2).then_some(())
    })
    .await;
    let response = lb.client.get(lb.admin_url("/api/v1/ring")).send().await.unwrap();
    let ring: serde_json::Value = response.json().await.unwrap();
    assert_eq!(ring["occupied"].as_array().unwrap().len(), 27, "{ring}");
    assert_eq!(
        (&ring["occupied"][0], &ring["occupied"][1]),
        (&serde_json::json!([26, 1]), &serde_json::json!([29, 1]))
    );
    let shares: f64 = ring["shares"].as_object().unwrap().values().map(|share| share.as_f64().unwrap()).sum();
    assert!((shares - 1.0).abs() < 1e-9, "{ring}");
    // Its keys go on to the next ones.
    for _ in 0..50 {
        assert_eq!(lb.get("/home").await.0, 200);
    }
}
