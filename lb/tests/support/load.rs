//! Clients that send GETs without pause, and note everything that is not a 200.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{Lb, eventually};

/// Load that is on until [`Load::stop`].
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    failures: Arc<Mutex<Vec<String>>>,
    slowest: Arc<Mutex<Duration>>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    pub requests: u64,
    pub failures: Vec<String>,
    pub slowest: Duration,
}

impl Load {
    /// `concurrency` clients on `/home`, each with its own connection.
    pub fn on(lb: &Lb, concurrency: usize) -> Self {
        let (stop, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (failures, slowest) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<Mutex<Duration>>::default());
        let clients = (0..concurrency)
            .map(|_| {
                let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
                let (failures, slowest) = (Arc::clone(&failures), Arc::clone(&slowest));
                let url = lb.url("/home");
                tokio::spawn(async move {
                    let client = reqwest::Client::builder().no_proxy().timeout(super::LIMIT).build().expect("a client");
                    while !stop.load(Ordering::Relaxed) {
                        let began = Instant::now();
                        let failure = match client.get(&url).send().await {
                            Ok(response) => {
                                let status = response.status();
                                match response.text().await {
                                    Ok(body) if status == 200 && body.contains("Hello from Server") => None,
                                    Ok(body) => Some(format!("{status}: {body}")),
                                    Err(error) => Some(format!("{status}, then {error:?}")),
                                }
                            }
                            Err(error) => Some(format!("{error:?}")),
                        };
                        let mut slowest = slowest.lock().unwrap();
                        *slowest = began.elapsed().max(*slowest);
                        failures.lock().unwrap().extend(failure);
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        Self { stop, done, failures, slowest, clients }
    }

    /// Waits until this many more requests are done, so that whatever has happened had its chance to hurt.
    pub async fn more(&self, requests: u64) {
        let until = self.done.load(Ordering::Relaxed) + requests;
        eventually("the load goes on", async || (self.done.load(Ordering::Relaxed) >= until).then_some(())).await;
    }

    pub async fn stop(self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.expect("no panic");
        }
        let failures = std::mem::take(&mut *self.failures.lock().unwrap());
        let slowest = *self.slowest.lock().unwrap();
        Outcome { requests: self.done.load(Ordering::Relaxed), failures, slowest }
    }
}

impl Outcome {
    pub fn assert_nothing_lost(&self) {
        assert!(self.failures.is_empty(), "{} of {} failed: {:#?}", self.failures.len(), self.requests, self.failures);
        assert!(self.requests > 0);
    }
}
