//! The metrics page: what the data path counts, and the fleet as it is at this moment.

use prometheus::{CounterVec, Encoder, GaugeVec, Opts, Registry, TextEncoder};

use crate::supervisor::{State, Status};

/// Prometheus text of `registry` and `status`.
pub(super) fn render(registry: &Registry, status: &Status) -> Result<String, prometheus::Error> {
    let fleet = Registry::new();
    let gauge = |name: &str, help: &str, labels: &[&str]| {
        let gauge = GaugeVec::new(Opts::new(name, help), labels)?;
        fleet.register(Box::new(gauge.clone()))?;
        Ok::<_, prometheus::Error>(gauge)
    };
    let counter = |name: &str, help: &str, labels: &[&str]| {
        let counter = CounterVec::new(Opts::new(name, help), labels)?;
        fleet.register(Box::new(counter.clone()))?;
        Ok::<_, prometheus::Error>(counter)
    };
    let of_replica = &["hostname", "ring_id"];
    let up = gauge("ringkeeper_replica_ready", "1 for a replica in rotation.", of_replica)?;
    let in_flight = gauge("ringkeeper_replica_in_flight", "Requests that a replica is answering.", of_replica)?;
    let served = counter("ringkeeper_replica_served_total", "Responses that a replica gave.", of_replica)?;
    let failed = counter("ringkeeper_replica_failed_total", "Tries on a replica that failed.", of_replica)?;
    let replicas = gauge("ringkeeper_replicas", "Replicas by state.", &["state"])?;
    let desired = gauge("ringkeeper_replicas_desired", "The desired number of replicas.", &[])?;
    let replaced = counter("ringkeeper_replicas_replaced_total", "Replicas that failed and were replaced.", &[])?;
    desired.with_label_values::<&str>(&[]).set(status.listing.n as f64);
    replaced.with_label_values::<&str>(&[]).inc_by(status.replaced as f64);
    for state in [State::Starting, State::Ready, State::Unready, State::Draining] {
        let count = status.members.iter().filter(|member| member.view.state == state).count();
        replicas.with_label_values(&[state.to_string().as_str()]).set(count as f64);
    }
    for member in &status.members {
        let Some(replica) = &member.replica else { continue };
        let (hostname, ring_id) = (replica.hostname.as_str(), replica.id.to_string());
        let labels = &[hostname, ring_id.as_str()];
        up.with_label_values(labels).set(f64::from(u8::from(replica.is_ready())));
        in_flight.with_label_values(labels).set(f64::from(replica.in_flight()));
        served.with_label_values(labels).inc_by(replica.served() as f64);
        failed.with_label_values(labels).inc_by(replica.failed() as f64);
    }
    let mut families = registry.gather();
    families.extend(fleet.gather());
    let mut page = Vec::new();
    TextEncoder::new().encode(&families, &mut page)?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}
