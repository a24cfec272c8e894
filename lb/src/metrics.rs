//! Metrics of the data path: handles that are made once and passed in, no global.
//!
//! Counters are atomics shared by the cores; incrementing one takes no lock. Metrics of the replicas are not kept here but
//! read from their own cells when somebody asks.

use prometheus::core::Metric;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Upper bounds of the latency histogram, seconds.
pub const LATENCY_BOUNDS: &[f64] =
    &[0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// What the proxy counts.
#[derive(Debug, Clone)]
pub struct ProxyMetrics {
    /// Responses by class of status, 1xx to 5xx, replicas' and the balancer's own errors.
    responses: [IntCounter; 5],
    /// Seconds from a request's header to its response's header.
    pub duration: Histogram,
    /// Tries on another replica.
    pub retries: IntCounter,
    /// Tries that the retry budget had nothing left for.
    pub retries_denied: IntCounter,
    /// Open tunnels.
    upgrades: IntGauge,
    /// Requests that no replica was ready for.
    pub unserved: IntCounter,
    /// Open client connections.
    pub connections: IntGauge,
    /// Client connections accepted.
    pub accepted: IntCounter,
    /// Connections opened to replicas.
    pub connects: IntCounter,
}

impl ProxyMetrics {
    /// Metrics that are shown by `registry`.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name, help| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let responses = IntCounterVec::new(
            Opts::new("ringkeeper_responses_total", "Responses to proxied requests by class of status."),
            &["class"],
        )?;
        registry.register(Box::new(responses.clone()))?;
        let duration = Histogram::with_opts(
            HistogramOpts::new(
                "ringkeeper_response_seconds",
                "Time from the end of a request's header to the start of its response.",
            )
            .buckets(LATENCY_BOUNDS.to_vec()),
        )?;
        registry.register(Box::new(duration.clone()))?;
        let connections = IntGauge::new("ringkeeper_client_connections", "Open client connections.")?;
        registry.register(Box::new(connections.clone()))?;
        let upgrades =
            IntGauge::new("ringkeeper_upgrades", "Open connections that have switched to another protocol.")?;
        registry.register(Box::new(upgrades.clone()))?;
        Ok(Self {
            upgrades,
            retries_denied: counter("ringkeeper_retries_denied_total", "Retries that the retry budget did not allow.")?,
            responses: ["1xx", "2xx", "3xx", "4xx", "5xx"].map(|class| responses.with_label_values(&[class])),
            duration,
            retries: counter("ringkeeper_retries_total", "Tries of a request on another replica.")?,
            unserved: counter("ringkeeper_unserved_total", "Requests that no replica was ready for.")?,
            connections,
            accepted: counter("ringkeeper_client_connections_total", "Client connections accepted.")?,
            connects: counter("ringkeeper_replica_connections_total", "Connections opened to replicas.")?,
        })
    }

    /// Responses by latency, cumulative, by the bounds of [`LATENCY_BOUNDS`] and one without.
    pub fn latencies(&self) -> Vec<u64> {
        let metric = self.duration.metric();
        let histogram = metric.get_histogram();
        let mut counts: Vec<_> = histogram.get_bucket().iter().map(|bucket| bucket.cumulative_count()).collect();
        counts.truncate(LATENCY_BOUNDS.len());
        counts.push(histogram.get_sample_count());
        counts
    }

    /// Counts a response by its status code.
    #[inline]
    pub fn response(&self, status: u16) {
        let class = usize::from(status / 100).clamp(1, 5);
        self.responses[class - 1].inc();
    }

    /// Counts a tunnel until the guard is dropped.
    pub fn count_upgrade(&self) -> impl Drop + use<> {
        self.upgrades.inc();
        Counted(self.upgrades.clone())
    }
}

/// What a balancer shows of its link to the agent.
#[derive(Debug, Clone)]
pub struct LinkMetrics {
    /// 1 while the agent is heard.
    pub connected: IntGauge,
    /// Which of the agent's states is known.
    pub epoch: IntGauge,
}

impl LinkMetrics {
    /// Metrics that are shown by `registry`.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name, help| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        Ok(Self {
            connected: gauge("ringkeeper_agent_connected", "1 while the agent is heard.")?,
            epoch: gauge("ringkeeper_agent_epoch", "Which of the agent's states is served; 0 before the first.")?,
        })
    }
}

/// What the control channel counts.
#[derive(Debug, Clone)]
pub struct ControlMetrics {
    connections: IntGauge,
    messages: IntCounterVec,
    refused: IntCounterVec,
}

impl ControlMetrics {
    /// Metrics that are shown by `registry`.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let connections = IntGauge::new("ringkeeper_control_connections", "Open control connections.")?;
        let messages = IntCounterVec::new(
            Opts::new("ringkeeper_control_replies_total", "Replies to servers by error code, 0 for success."),
            &["error"],
        )?;
        let refused = IntCounterVec::new(
            Opts::new("ringkeeper_control_refused_total", "Control connections that were refused, by reason."),
            &["reason"],
        )?;
        registry.register(Box::new(connections.clone()))?;
        registry.register(Box::new(messages.clone()))?;
        registry.register(Box::new(refused.clone()))?;
        Ok(Self { connections, messages, refused })
    }

    /// Counts a reply with this error code.
    pub fn message(&self, error: &str) {
        self.messages.with_label_values(&[error]).inc();
    }

    /// Counts a connection that was refused.
    pub fn refused(&self, reason: &str) {
        self.refused.with_label_values(&[reason]).inc();
    }

    /// Counts a connection until the guard is dropped.
    pub fn count_connection(&self) -> impl Drop + use<> {
        self.connections.inc();
        Counted(self.connections.clone())
    }
}

/// Counts something until dropped.
struct Counted(IntGauge);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
