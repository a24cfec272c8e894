//! The metrics page: what the data path counts, and the fleet as it is at this moment.

use prometheus::{CounterVec, Encoder, GaugeVec, Opts, Registry, TextEncoder};

use crate::registry;
use crate::relay::Counted;
use crate::supervisor::{State, Status};

/// Prometheus text of `registry`, `status` and `relays`.
pub(super) fn render(
    registry: &Registry,
    status: &Status,
    relays: &registry::Status,
    balancers: Option<(usize, usize, u64)>,
    publications: u64,
) -> Result<String, prometheus::Error> {
    let fleet = Registry::new();
    show_relays(&fleet, relays)?;
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
    let weight = gauge("ringkeeper_replica_weight", "A replica's weight, 0 for no new requests.", of_replica)?;
    let priority = gauge("ringkeeper_replica_priority", "A replica's priority.", of_replica)?;
    let replicas = gauge("ringkeeper_replicas", "Replicas by state.", &["state"])?;
    let desired = gauge("ringkeeper_replicas_desired", "The desired number of replicas.", &[])?;
    let replaced = counter("ringkeeper_replicas_replaced_total", "Replicas that failed and were replaced.", &[])?;
    let published = counter("ringkeeper_publications_total", "Changes of the membership that were published.", &[])?;
    published.with_label_values::<&str>(&[]).inc_by(publications as f64);
    let spares = gauge("ringkeeper_spares_ready", "Spares that could take over now.", &[])?;
    let ready_spares = status.members.iter().filter(|member| member.view.spare && member.view.state == State::Ready);
    spares.with_label_values::<&str>(&[]).set(ready_spares.count() as f64);
    if let Some((connected, current, epoch)) = balancers {
        let number = |name: &str, help: &str, value: f64| {
            gauge(name, help, &[]).map(|gauge| gauge.with_label_values::<&str>(&[]).set(value))
        };
        number("ringkeeper_balancers", "Balancers that are connected.", connected as f64)?;
        number("ringkeeper_balancers_current", "Balancers that serve the present state.", current as f64)?;
        number("ringkeeper_epoch", "Which of its states the agent is in.", epoch as f64)?;
    }
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
        weight.with_label_values(labels).set(f64::from(replica.weight()));
        priority.with_label_values(labels).set(f64::from(replica.priority()));
    }
    let mut families = registry.gather();
    families.extend(fleet.gather());
    let mut page = Vec::new();
    TextEncoder::new().encode(&families, &mut page)?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

fn show_relays(page: &Registry, relays: &registry::Status) -> Result<(), prometheus::Error> {
    type Value = fn(&Counted) -> u64;
    const GAUGES: [(&str, &str, Value); 2] = [
        ("connections", "Open connections of clients.", |counted| counted.connections),
        ("flows", "Flows of datagrams.", |counted| counted.flows),
    ];
    const COUNTERS: [(&str, &str, Value); 8] = [
        ("accepted", "Connections accepted, or flows begun.", |counted| counted.accepted),
        ("unserved", "Connections, or datagrams, that no replica took.", |counted| counted.unserved),
        ("bytes_up", "Bytes from clients to replicas.", |counted| counted.bytes_up),
        ("bytes_down", "Bytes from replicas to clients.", |counted| counted.bytes_down),
        ("datagrams_up", "Datagrams from clients to replicas.", |counted| counted.datagrams_up),
        ("datagrams_down", "Datagrams from replicas to clients.", |counted| counted.datagrams_down),
        ("dropped", "Datagrams that could not be sent.", |counted| counted.dropped),
        ("evicted", "Flows that ended to make room for others.", |counted| counted.evicted),
    ];
    let of_port = &["protocol", "relay_port"];
    let of_replica = &["protocol", "relay_port", "addr"];
    let gauge = |name: String, help: &str, labels: &[&str]| {
        let gauge = GaugeVec::new(Opts::new(name, help), labels)?;
        page.register(Box::new(gauge.clone()))?;
        Ok::<_, prometheus::Error>(gauge)
    };
    let counter = |name: String, help: &str, labels: &[&str]| {
        let counter = CounterVec::new(Opts::new(name, help), labels)?;
        page.register(Box::new(counter.clone()))?;
        Ok::<_, prometheus::Error>(counter)
    };
    let labelled = |port: &registry::PortStatus| [port.port.key.protocol.to_string(), port.port.key.port.to_string()];
    for (name, help, value) in GAUGES {
        let gauge = gauge(format!("ringkeeper_relay_{name}"), help, of_port)?;
        for port in &relays.ports {
            let [protocol, number] = labelled(port);
            gauge.with_label_values(&[&protocol, &number]).set(value(&port.port.counted()) as f64);
        }
    }
    for (name, help, value) in COUNTERS {
        let counter = counter(format!("ringkeeper_relay_{name}_total"), help, of_port)?;
        for port in &relays.ports {
            let [protocol, number] = labelled(port);
            counter.with_label_values(&[&protocol, &number]).inc_by(value(&port.port.counted()) as f64);
        }
    }
    let open = gauge("ringkeeper_relay_open".into(), "1 for a port that is open.", of_port)?;
    let ready = gauge("ringkeeper_relay_replica_ready".into(), "1 for a replica in rotation.", of_replica)?;
    let busy = gauge("ringkeeper_relay_replica_in_flight".into(), "Connections, or flows, of a replica.", of_replica)?;
    let served =
        counter("ringkeeper_relay_replica_served_total".into(), "Connections, or datagrams, it got.", of_replica)?;
    let failed =
        counter("ringkeeper_relay_replica_failed_total".into(), "Connections, or datagrams, it refused.", of_replica)?;
    for port in &relays.ports {
        let [protocol, number] = labelled(port);
        open.with_label_values(&[&protocol, &number]).set(f64::from(u8::from(port.open)));
        for status in &port.replicas {
            let (replica, addr) = (&status.replica, status.replica.addr.to_string());
            let labels = &[&protocol, &number, &addr];
            ready.with_label_values(labels).set(f64::from(u8::from(replica.is_ready())));
            busy.with_label_values(labels).set(f64::from(replica.in_flight()));
            served.with_label_values(labels).inc_by(replica.served() as f64);
            failed.with_label_values(labels).inc_by(replica.failed() as f64);
        }
    }
    Ok(())
}
