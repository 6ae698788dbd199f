//! What the sidecar of a pod says of itself, asked as the guides ask.

use anyhow::{Context, Result};

use super::place::Place;
use crate::said;

/// The name of a sidecar that Istio's label asked for.
pub const ISTIO_PROXY: &str = "istio-proxy";

/// The text of the sidecar's metrics.
pub fn text(place: &Place, pod: &str) -> Result<String> {
    place.sh(pod, ISTIO_PROXY, "curl -s localhost:15000/stats/prometheus")
}

/// The sum of a metric over all series that carry every one of `labels`, each `name="value"`.
pub fn sum(place: &Place, pod: &str, name: &str, labels: &[&str]) -> Result<f64> {
    Ok(said::sum(&text(place, pod)?, name, labels))
}

/// How many connections were opened with this `connection_security_policy`, as one side counted them.
pub fn opened(place: &Place, pod: &str, reporter: &str, security: &str) -> Result<f64> {
    let labels = [format!("reporter=\"{reporter}\""), format!("connection_security_policy=\"{security}\"")];
    let labels: Vec<_> = labels.iter().map(String::as_str).collect();
    sum(place, pod, "istio_tcp_connections_opened_total", &labels)
}

/// How many connections this pod's side sent or took in plaintext, in the words of its access log.
pub fn in_plaintext(place: &Place, pod: &str, direction: &str) -> Result<usize> {
    let log = place.kubectl(&["logs", pod, "-c", ISTIO_PROXY])?;
    let direction = format!("direction={direction} ");
    Ok(log.lines().filter(|line| is_plaintext(line, &direction)).count())
}

fn is_plaintext(line: &str, direction: &str) -> bool {
    line.contains(direction)
        && line.contains(" protection=")
        && !line.contains(" protection=mutual_tls ")
        && !line.contains(" protection=undecided ")
}

/// How many bytes of its application this pod's side sent in plaintext, in the words of its access log.
pub fn bytes_in_plaintext(place: &Place, pod: &str) -> Result<u64> {
    let log = place.kubectl(&["logs", pod, "-c", ISTIO_PROXY])?;
    let sent = |line: &str| line.split(" bytes_recv=").nth(1)?.split(' ').next()?.parse::<u64>().ok();
    let lines = log.lines().filter(|line| is_plaintext(line, "direction=outbound "));
    lines.map(|line| sent(line).with_context(|| format!("{pod}: no bytes_recv in {line}"))).sum()
}

/// How many connections to a peer of this principal were opened in mutual TLS, as this pod counted them.
pub fn opened_to(place: &Place, pod: &str, principal: &str) -> Result<f64> {
    let labels = [
        "reporter=\"source\"",
        "connection_security_policy=\"mutual_tls\"",
        &format!("destination_principal=\"{principal}\""),
    ];
    sum(place, pod, "istio_tcp_connections_opened_total", &labels)
}

/// How often connections ended for `reason`.
pub fn ended(place: &Place, pod: &str, reason: &str) -> Result<f64> {
    sum(place, pod, "ringmail_connections_closed_total", &[&format!("reason=\"{reason}\"")])
}
