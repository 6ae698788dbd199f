//! A real Prometheus in a pod, with the alert rules, that scrapes what runs in the others.

use std::{
    collections::BTreeSet,
    fmt::Write,
    fs,
    net::SocketAddr,
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use ringmail_lab::{
    http,
    network::Pod,
    process::{Child, Launch, wait_until},
};
use serde_json::Value;

use crate::alerts;

/// Where a sidecar has its metrics.
const SIDECAR_PORT: u16 = 15020;
/// Where the CA has its own.
const CA_PORT: u16 = 15014;
/// Where Prometheus listens.
const PORT: u16 = 9090;
/// It replays nothing, so it is there within a second; on a loaded machine later.
const READY_DEADLINE: Duration = Duration::from_secs(30);
/// For one question.
const ASK_DEADLINE: Duration = Duration::from_secs(5);

/// What is scraped in a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A CA.
    Ca,
    /// A sidecar.
    Sidecar,
}

/// An alert that fires.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Firing {
    /// Its name.
    pub alert: String,
    /// The pod that it is about, where it is about one.
    pub pod: Option<String>,
}

/// A running Prometheus. Dropping it kills it.
#[derive(Debug)]
pub struct Prometheus {
    address: SocketAddr,
    child: Child,
}

impl Prometheus {
    /// Starts it in `home` and waits until it is ready. It scrapes and judges every `interval`.
    pub fn start(home: &Pod, targets: &[(&Pod, Target)], interval: Duration, folder: &Path) -> Result<Self> {
        let data = folder.join("prometheus");
        fs::create_dir_all(&data)?;
        let config = folder.join("prometheus.yaml");
        fs::write(&config, configuration(targets, interval)?)?;
        let address = SocketAddr::new(home.ip(), PORT);
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg(format!("--web.listen-address={address}"));
        let launch = Launch::new("prometheus", folder.join("prometheus.log"));
        let child = home.spawn(&mut command, &launch).context("the Debian package prometheus has it")?;
        let started = Self { address, child };
        wait_until(READY_DEADLINE, "Prometheus is ready", || {
            let answer = http::get(home.namespace(), address, "/-/ready", ASK_DEADLINE)?;
            ensure!(answer.status == 200, "it says {}", answer.status);
            Ok(Some(()))
        })
        .with_context(|| started.child.log_tail())?;
        Ok(started)
    }

    /// What fires now.
    pub fn firing(&self, home: &Pod) -> Result<BTreeSet<Firing>> {
        let alerts = self.ask(home, "/api/v1/alerts")?;
        let alerts = alerts["alerts"].as_array().context("no list of alerts")?.clone();
        let firing = alerts.into_iter().filter(|alert| alert["state"] == "firing");
        Ok(firing.map(|alert| firing_of(&alert["labels"])).collect())
    }

    /// What has fired at any time within the last `seconds`.
    pub fn has_fired(&self, home: &Pod, seconds: u64) -> Result<BTreeSet<Firing>> {
        let query = format!("last_over_time(ALERTS%7Balertstate=%22firing%22%7D%5B{seconds}s%5D)");
        let answer = self.ask(home, &format!("/api/v1/query?query={query}"))?;
        let series = answer["result"].as_array().context("no result")?.clone();
        Ok(series.iter().map(|series| firing_of(&series["metric"])).collect())
    }

    /// How many targets were scraped at the last try.
    pub fn scraped(&self, home: &Pod) -> Result<usize> {
        let targets = self.ask(home, "/api/v1/targets")?;
        let targets = targets["activeTargets"].as_array().context("no targets")?.clone();
        Ok(targets.iter().filter(|target| target["health"] == "up").count())
    }

    fn ask(&self, home: &Pod, path: &str) -> Result<Value> {
        let answer = http::get(home.namespace(), self.address, path, ASK_DEADLINE)?;
        ensure!(answer.status == 200, "{path}: {answer:?}");
        let mut answer: Value = serde_json::from_str(&answer.body).with_context(|| path.to_owned())?;
        Ok(answer["data"].take())
    }
}

fn firing_of(labels: &Value) -> Firing {
    let word = |name: &str| labels[name].as_str().map(str::to_owned);
    Firing { alert: word("alertname").unwrap_or_default(), pod: word("pod") }
}

fn configuration(targets: &[(&Pod, Target)], interval: Duration) -> Result<String> {
    let every = format!("{}s", interval.as_secs());
    let mut text = format!(
        "global: {{scrape_interval: {every}, evaluation_interval: {every}}}\n\
         rule_files: ['{}']\n\
         scrape_configs:\n",
        alerts::file().canonicalize()?.display()
    );
    for (job, kind, port, path) in [
        ("sidecars", Target::Sidecar, SIDECAR_PORT, "/stats/prometheus"),
        ("cas", Target::Ca, CA_PORT, "/metrics"),
    ] {
        writeln!(text, "- job_name: {job}\n  metrics_path: {path}\n  static_configs:")?;
        for (pod, _) in targets.iter().filter(|(_, of)| *of == kind) {
            let address = SocketAddr::new(pod.ip(), port);
            writeln!(text, "  - {{targets: ['{address}'], labels: {{pod: {}}}}}", pod.name())?;
        }
    }
    Ok(text)
}

/// Runs promtool; the error is what it said.
pub fn promtool(arguments: &[&str]) -> Result<String> {
    let Output { status, stdout, stderr } = Command::new("promtool")
        .args(arguments)
        .output()
        .context("promtool, which the Debian package prometheus has")?;
    let said = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    if !status.success() {
        bail!("promtool {arguments:?}: {said}");
    }
    Ok(said)
}
