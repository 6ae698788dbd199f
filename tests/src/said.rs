//! What sidecars say of themselves: metrics, connections and the access log, read as an operator would.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ringmail_lab::{network::Pod, sidecar::Sidecar};
use serde_json::Value;

/// The text of a sidecar's metrics.
pub fn metrics(sidecar: &Sidecar, pod: &Pod) -> Result<String> {
    let answer = sidecar.admin(pod, "/stats/prometheus")?;
    ensure!(answer.status == 200, "metrics of {}: {answer:?}", sidecar.pod());
    Ok(answer.body)
}

/// The sum of a metric over all its series that carry every one of `labels`, each `name="value"`.
pub fn sum(metrics: &str, name: &str, labels: &[&str]) -> f64 {
    metrics
        .lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
        .filter(|line| labels.iter().all(|label| line.contains(label)))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        // A sum of nothing would be a zero with a sign.
        .fold(0.0, |sum, value| sum + value)
}

/// How often connections of a sidecar ended for `reason`, in either direction.
pub fn ended(sidecar: &Sidecar, pod: &Pod, reason: &str) -> Result<f64> {
    let label = format!("reason=\"{reason}\"");
    Ok(sum(&metrics(sidecar, pod)?, "ringmail_connections_closed_total", &[&label]))
}

/// How long an end may be counted after the peer has seen it.
const COUNTED_WITHIN: Duration = Duration::from_secs(5);

/// How often connections of a sidecar ended for `reason` once it is as often as expected, or what it stays at.
pub fn ended_in_the_end(sidecar: &Sidecar, pod: &Pod, reason: &str, expected: f64) -> Result<f64> {
    let deadline = Instant::now() + COUNTED_WITHIN;
    loop {
        let seen = ended(sidecar, pod, reason)?;
        if seen >= expected || Instant::now() > deadline {
            return Ok(seen);
        }
        sleep(Duration::from_millis(20));
    }
}

/// How many connections of a sidecar ended in a direction, for whatever reason.
pub fn ended_in_all(sidecar: &Sidecar, pod: &Pod, direction: &str) -> Result<f64> {
    let label = format!("direction=\"{direction}\"");
    Ok(sum(&metrics(sidecar, pod)?, "ringmail_connections_closed_total", &[&label]))
}

/// The live connections of a sidecar.
pub fn connections(sidecar: &Sidecar, pod: &Pod) -> Result<Vec<Value>> {
    let answer = sidecar.admin(pod, "/connections")?;
    let value: Value = serde_json::from_str(&answer.body).context("read /connections")?;
    let list = value.as_array().or_else(|| value["connections"].as_array());
    list.cloned().with_context(|| format!("no list of connections in {}", answer.body))
}

/// How long a line of the access log may come after the metric that counts it: a thread of its own writes it.
const LINE_IS_WRITTEN_WITHIN: Duration = Duration::from_secs(5);

/// Lines of the access log that hold every one of `parts`; none once they could have been written.
pub fn access_lines(sidecar: &Sidecar, parts: &[&str]) -> Vec<String> {
    let until = Instant::now() + LINE_IS_WRITTEN_WITHIN;
    loop {
        let lines = lines_with(&sidecar.log_text(), parts);
        if !lines.is_empty() || Instant::now() > until {
            return lines;
        }
        sleep(Duration::from_millis(50));
    }
}

fn lines_with(log: &str, parts: &[&str]) -> Vec<String> {
    log.lines().filter(|line| parts.iter().all(|part| line.contains(part))).map(str::to_owned).collect()
}

/// How many connections the log tells of, by reason: of each that has a line, and of those that a sum counts.
pub fn told(log: &str) -> BTreeMap<String, u64> {
    let mut told = BTreeMap::new();
    for (_, reason, _) in log.lines().filter_map(of_connection) {
        *told.entry(reason).or_default() += 1;
    }
    let sums = log.lines().filter_map(|line| line.split_once(" reasons=\"")?.1.split_once('"'));
    for part in sums.flat_map(|(sum, _)| sum.split(", ")) {
        if let Some((reason, count)) = part.split(' ').next_back().and_then(|part| part.split_once('=')) {
            *told.entry(reason.to_owned()).or_default() += count.parse::<u64>().unwrap_or_default();
        }
    }
    told
}

/// The source and the reason of a connection that has ended, if the line is of one.
pub fn of_connection(line: &str) -> Option<(SocketAddr, String, &str)> {
    let value = |key: &str| {
        line.split(' ').find_map(|part| part.strip_prefix(key).map(|rest| rest.trim_matches('"').to_owned()))
    };
    Some((value("src.addr=")?.parse().ok()?, value("reason=")?, line))
}
