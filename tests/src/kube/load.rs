//! A thin client in a pod of its own, which is asked through a file and answers in its log: what happens to the node's
//! kubelet meanwhile does not reach it.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use ringmail_lab::ignite::{Progress, Verified};

use super::{grid::Grid, place::Place, stage::VERSION};

/// The cache of a scenario.
const CACHE: &str = "keys";

/// A ring that has lost a node may hold an operation for as long as it needs to notice.
const ANSWERS_WITHIN: Duration = Duration::from_secs(120);

/// Longer than Ignite needs to give up a dead node, so that an operation fails by Ignite's decision and not by ours.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How often an operation is tried again, a tenth of a second apart, before it counts as failed. Where a node leaves, Ignite's own
/// client may fail one that another node would have answered.
const REPEATS: u32 = 20;

/// A thin client.
pub struct GridLoad<'a> {
    place: &'a Place<'a>,
    pod: String,
    asked: Cell<u32>,
}

impl<'a> GridLoad<'a> {
    /// Starts a pod `client` that puts and gets on all nodes of a grid without a pause, with `keys` keys to find again.
    pub fn on(place: &'a Place<'a>, grid: &Grid<'_>, nodes: usize, keys: u64) -> Result<Self> {
        let client = Self::start(place, "client")?;
        client.connect(&grid.addresses(nodes))?;
        client.begin(keys)?;
        Ok(client)
    }

    /// Starts the pod.
    pub fn start(place: &'a Place<'a>, pod: &str) -> Result<Self> {
        place.apply(&format!(
            r#"apiVersion: v1
kind: Pod
metadata: {{name: {pod}, labels: {{app: {pod}}}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: docker.io/ringmail/ignite-test:{VERSION}
    command: [bash, -c, "touch /tmp/asked; tail -f /tmp/asked | ignite-load"]
    resources: {{requests: {{cpu: 5m, memory: 128Mi}}}}
"#
        ))?;
        place.ready(pod)?;
        Ok(Self { place, pod: pod.to_owned(), asked: Cell::new(0) })
    }

    /// Connects to these addresses (`host:port`, separated by commas) and to every node it learns of. A node that it could not
    /// reach three times would be left alone for 30 s otherwise: in a ring whose nodes are replaced faster than that, with or
    /// without a mesh, it would soon have none to ask.
    pub fn connect(&self, addresses: &str) -> Result<()> {
        let timeout = REQUEST_TIMEOUT.as_millis();
        self.ask(&format!("connect addresses={addresses} timeout={timeout} throttled=0")).map(drop)
    }

    /// Makes the cache, fills it with `keys` keys, and starts the continuous load.
    pub fn begin(&self, keys: u64) -> Result<()> {
        self.ask(&format!("create cache={CACHE} backups=1"))?;
        self.ask(&format!("fill cache={CACHE} count={keys}"))?;
        self.ask(&format!("run cache={CACHE} threads=2 keys=100 bytes=512 repeats={REPEATS}")).map(drop)
    }

    /// What the continuous load has done so far; the slowest operation is counted anew from here.
    pub fn mark(&self) -> Result<Progress> {
        Progress::parse(&self.ask("mark")?)
    }

    /// Ends the load and checks that every filled key and every acknowledged put is there.
    pub fn finish(&self, keys: u64) -> Result<Progress> {
        let progress = Progress::parse(&self.ask("halt")?)?;
        for question in ["check".to_owned(), format!("verify cache={CACHE} count={keys}")] {
            let verified = Verified::parse(&self.ask(&question)?)?;
            if verified.lost > 0 || verified.corrupt > 0 || verified.found == 0 {
                bail!("{question}: {verified:?} after {progress:?}");
            }
        }
        Ok(progress)
    }

    /// The pod.
    pub fn pod(&self) -> &str {
        &self.pod
    }

    fn ask(&self, request: &str) -> Result<String> {
        let number = self.asked.get() + 1;
        self.asked.set(number);
        self.place.sh(&self.pod, "main", &format!("echo '{number} {request}' >>/tmp/asked"))?;
        let prefix = format!("REPLY {number} ");
        let until = Instant::now() + ANSWERS_WITHIN;
        while Instant::now() < until {
            let log = self.place.kubectl(&["logs", &self.pod, "-c", "main", "--tail=100"])?;
            if let Some(reply) = log.lines().find_map(|line| line.strip_prefix(&prefix)) {
                let answer = reply.strip_prefix("OK");
                return answer
                    .map(|text| text.trim().to_owned())
                    .with_context(|| format!("{request}: {reply}"));
            }
        }
        bail!("{} has not answered {request} within {ANSWERS_WITHIN:?}", self.pod)
    }
}
