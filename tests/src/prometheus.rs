//! A real Prometheus in a network namespace, with the alert rules, that scrapes what can be reached from there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    process::{Command, Output},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use ringmail_lab::{
    http,
    netns::Namespace,
    process::{Child, Launch, wait_until},
};
use serde_json::Value;

use crate::alerts;

/// Where a sidecar has its metrics.
const SIDECAR_PORT: u16 = 15020;
/// Where CA and control have theirs.
const SYSTEM_PORT: u16 = 15014;
/// Where Prometheus listens, for whoever is in its namespace.
const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);
/// It replays nothing, so it is there within a second; on a loaded machine later.
const READY_DEADLINE: Duration = Duration::from_secs(30);
/// Between two questions about what fires.
const LOOKS_EVERY: Duration = Duration::from_millis(200);
/// For one question.
const ASK_DEADLINE: Duration = Duration::from_secs(5);

/// What is scraped in a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// A sidecar.
    Sidecar,
    /// CA or control.
    System,
}

/// A pod that is scraped.
#[derive(Clone, Debug)]
pub struct Target {
    /// What is in it.
    pub job: Job,
    /// The label `pod`.
    pub pod: String,
    /// Where it is.
    pub ip: IpAddr,
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
pub struct Prometheus<'a> {
    home: &'a Namespace,
    child: Child,
}

impl<'a> Prometheus<'a> {
    /// Starts it in `home` and waits until it is ready. It scrapes and judges every `interval`.
    pub fn start(home: &'a Namespace, targets: &[Target], interval: Duration, folder: &Path) -> Result<Self> {
        let data = folder.join("prometheus");
        fs::create_dir_all(&data)?;
        let config = folder.join("prometheus.yaml");
        fs::write(&config, configuration(targets, interval)?)?;
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg(format!("--web.listen-address={ADDRESS}"));
        let launch = Launch::new("prometheus", folder.join("prometheus.log"));
        let child =
            Child::spawn(home, &mut command, &launch).context("the Debian package prometheus has it")?;
        let started = Self { home, child };
        wait_until(READY_DEADLINE, "Prometheus is ready", || {
            let answer = http::get(home, ADDRESS, "/-/ready", ASK_DEADLINE)?;
            ensure!(answer.status == 200, "it says {}", answer.status);
            Ok(Some(()))
        })
        .with_context(|| started.child.log_tail())?;
        Ok(started)
    }

    /// What fires now.
    pub fn firing(&self) -> Result<BTreeSet<Firing>> {
        let alerts = self.ask("/api/v1/alerts")?;
        let alerts = alerts["alerts"].as_array().context("no list of alerts")?.clone();
        let firing = alerts.into_iter().filter(|alert| alert["state"] == "firing");
        Ok(firing.map(|alert| firing_of(&alert["labels"])).collect())
    }

    /// What has fired at any time within the last `seconds`.
    pub fn has_fired(&self, seconds: u64) -> Result<BTreeSet<Firing>> {
        let query = format!("last_over_time(ALERTS%7Balertstate=%22firing%22%7D%5B{seconds}s%5D)");
        let answer = self.ask(&format!("/api/v1/query?query={query}"))?;
        let series = answer["result"].as_array().context("no result")?.clone();
        Ok(series.iter().map(|series| firing_of(&series["metric"])).collect())
    }

    /// How many targets were scraped at the last try.
    pub fn scraped(&self) -> Result<usize> {
        let targets = self.ask("/api/v1/targets")?;
        let targets = targets["activeTargets"].as_array().context("no targets")?.clone();
        Ok(targets.iter().filter(|target| target["health"] == "up").count())
    }

    fn ask(&self, path: &str) -> Result<Value> {
        let answer = http::get(self.home, ADDRESS, path, ASK_DEADLINE)?;
        ensure!(answer.status == 200, "{path}: {answer:?}");
        let mut answer: Value = serde_json::from_str(&answer.body).with_context(|| path.to_owned())?;
        Ok(answer["data"].take())
    }
}

/// What is to fire: the alert, the pod that it is about, and when its fault began.
#[derive(Debug, Default)]
pub struct Expected(BTreeMap<Firing, Instant>);

impl Expected {
    /// One more.
    pub fn expect(&mut self, alert: &str, pod: Option<&str>, since: Instant) {
        self.0.insert(Firing { alert: alert.to_owned(), pod: pod.map(str::to_owned) }, since);
    }

    /// The alerts.
    pub fn names(&self) -> impl Iterator<Item = String> {
        self.0.keys().map(|firing| firing.alert.clone())
    }

    /// Waits until all have fired, and answers the longest time that one of them took.
    ///
    /// # Errors
    /// Where one does not fire `within` its time.
    pub fn fire(mut self, prometheus: &Prometheus<'_>, within: Duration) -> Result<Duration> {
        let mut slowest = Duration::ZERO;
        while !self.0.is_empty() {
            let firing = prometheus.firing()?;
            for (alert, since) in self.0.extract_if(.., |alert, _| firing.contains(alert)) {
                let took = since.elapsed();
                println!("{alert:?} after {took:?}");
                slowest = slowest.max(took);
            }
            let late = self.0.iter().find(|(_, since)| since.elapsed() > within);
            ensure!(late.is_none(), "{late:?} does not fire; {firing:?} do");
            sleep(LOOKS_EVERY);
        }
        ensure!(slowest < within, "the slowest took {slowest:?}");
        Ok(slowest)
    }
}

fn firing_of(labels: &Value) -> Firing {
    let word = |name: &str| labels[name].as_str().map(str::to_owned);
    Firing { alert: word("alertname").unwrap_or_default(), pod: word("pod") }
}

fn configuration(targets: &[Target], interval: Duration) -> Result<String> {
    let every = format!("{}s", interval.as_secs());
    let mut text = format!(
        "global: {{scrape_interval: {every}, evaluation_interval: {every}}}\n\
         rule_files: ['{}']\n\
         scrape_configs:\n",
        alerts::file().canonicalize()?.display()
    );
    for (name, job, port, path) in [
        ("sidecars", Job::Sidecar, SIDECAR_PORT, "/stats/prometheus"),
        ("system", Job::System, SYSTEM_PORT, "/metrics"),
    ] {
        writeln!(text, "- job_name: {name}\n  metrics_path: {path}\n  static_configs:")?;
        for target in targets.iter().filter(|target| target.job == job) {
            let address = SocketAddr::new(target.ip, port);
            writeln!(text, "  - {{targets: ['{address}'], labels: {{pod: {}}}}}", target.pod)?;
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
