//! What is answered to a request, and when.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Response, StatusCode};
use tokio::sync::Semaphore;

use crate::settings::Trial;

/// What the server has, by path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Home,
    Heartbeat,
}

impl Endpoint {
    pub(crate) fn of(path: &str) -> Option<Self> {
        match path {
            "/home" => Some(Self::Home),
            "/heartbeat" | "/heatbeat" => Some(Self::Heartbeat),
            _ => None,
        }
    }
}

/// What the server answers with.
pub(crate) struct Answers {
    /// Rendered once at the start.
    home: Bytes,
    service_time: Duration,
    /// Places for requests that are served, if they are limited. Who waits for one gets it in the order of coming.
    places: Option<Semaphore>,
    crash_path: Option<String>,
}

impl Answers {
    pub(crate) fn new(server_id: &str, trial: Trial) -> Self {
        Self {
            home: message(&format!("Hello from Server: {server_id}"), "successful"),
            service_time: trial.service_time,
            places: trial.concurrency.map(Semaphore::new),
            crash_path: trial.crash_path,
        }
    }

    /// Dropped before it is done, it frees its place.
    pub(crate) async fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if self.crash_path.as_deref() == Some(path) {
            tracing::warn!("crashing, as {method} {path} is a request to CRASH_PATH");
            // Process 1 of a container ignores the SIGABRT; then an instruction that faults ends it (exit status 139).
            std::process::abort();
        }
        let Some(endpoint) = Endpoint::of(path) else {
            let text = format!("<Error> '{path}' endpoint does not exist in this server");
            return json(StatusCode::NOT_FOUND, message(&text, "failure"));
        };
        if method != Method::GET && method != Method::HEAD {
            let text = format!("<Error> {method} is not allowed on '{path}', only GET and HEAD are");
            let mut refused = json(StatusCode::METHOD_NOT_ALLOWED, message(&text, "failure"));
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        match endpoint {
            Endpoint::Heartbeat => Response::new(Full::default()),
            Endpoint::Home => {
                self.serve().await;
                json(StatusCode::OK, self.home.clone())
            }
        }
    }

    /// The work of a request: none, but it takes its time.
    async fn serve(&self) {
        let _place = match &self.places {
            // It is never closed, so there is always a place in the end.
            Some(places) => places.acquire().await.ok(),
            None => None,
        };
        if !self.service_time.is_zero() {
            tokio::time::sleep(self.service_time).await;
        }
    }
}

/// `{"message":…,"status":…}`, keys in this order.
fn message(text: &str, status: &str) -> Bytes {
    let text = serde_json::Value::from(text);
    Bytes::from(format!(r#"{{"message":{text},"status":"{status}"}}"#))
}

fn json(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::task::JoinSet;
    use tokio::time::Instant;

    use super::*;

    const SERVICE_TIME: Duration = Duration::from_millis(50);

    fn answers(concurrency: Option<usize>) -> Arc<Answers> {
        Arc::new(Answers::new("S1", Trial { service_time: SERVICE_TIME, concurrency, crash_path: None }))
    }

    /// Asks for `/home` so many times at once. Gives the number and the time of each, in the order of their answers.
    async fn homes(answers: &Arc<Answers>, count: usize) -> Vec<(usize, Duration)> {
        let (began, mut asked, mut done) = (Instant::now(), JoinSet::new(), Vec::new());
        for number in 0..count {
            let answers = Arc::clone(answers);
            asked.spawn(async move {
                assert_eq!(answers.answer(&Method::GET, "/home").await.status(), 200);
                (number, began.elapsed())
            });
        }
        while let Some(one) = asked.join_next().await {
            done.push(one.unwrap());
        }
        done
    }

    // The clock stands still but for sleeps, so times are exact (the timer counts whole milliseconds).
    fn rounded(times: &[(usize, Duration)]) -> Vec<(usize, u128)> {
        times.iter().map(|(number, time)| (*number, time.as_millis() / 50)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_all_are_served_at_once() {
        let mut times = rounded(&homes(&answers(None), 100).await);
        times.sort_unstable();
        assert_eq!(times, (0..100).map(|number| (number, 1)).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_are_served_at_a_time_and_the_others_wait_in_order() {
        assert_eq!(rounded(&homes(&answers(Some(1)), 4).await), [(0, 1), (1, 2), (2, 3), (3, 4)]);
        let mut times = rounded(&homes(&answers(Some(2)), 4).await);
        times.sort_unstable();
        assert_eq!(times, [(0, 1), (1, 1), (2, 2), (3, 2)]);
    }

    #[tokio::test(start_paused = true)]
    async fn only_home_waits() {
        let answers = answers(Some(1));
        let busy = tokio::spawn({
            let answers = Arc::clone(&answers);
            async move { homes(&answers, 3).await }
        });
        tokio::task::yield_now().await;
        let began = Instant::now();
        for (method, path, status) in [
            (Method::GET, "/heartbeat", 200),
            (Method::GET, "/heatbeat", 200),
            (Method::GET, "/crash", 404),
            (Method::POST, "/home", 405),
        ] {
            assert_eq!(answers.answer(&method, path).await.status(), status, "{method} {path}");
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert!(!busy.is_finished());
        assert_eq!(busy.await.unwrap().len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_frees_the_place() {
        let answers = answers(Some(1));
        let mut asked = JoinSet::new();
        for _ in 0..10 {
            let answers = Arc::clone(&answers);
            asked.spawn(async move { answers.answer(&Method::GET, "/home").await });
        }
        // One is served by now, nine wait.
        tokio::task::yield_now().await;
        assert_eq!(answers.places.as_ref().unwrap().available_permits(), 0);
        asked.shutdown().await;
        assert_eq!(rounded(&homes(&answers, 1).await), [(0, 1)]);
    }
}
