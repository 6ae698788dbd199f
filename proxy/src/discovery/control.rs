//! Discovery from a server: one stream of Istio's workload discovery, asked for what is dialled.
//!
//! - `held`: what the server has said, and what follows from it; pure.
//! - `asked`: which addresses are asked for, within a bound.
//! - `stream`: one session with the server.
//!
//! What was said stays in force while the server is away, and across a crash of the data plane. A sidecar asks for
//! its own addresses, for those that its application dials, and for those it is dialled from: what it holds does
//! not grow with the cluster.

mod asked;
mod held;
mod stream;

use std::{net::IpAddr, sync::Arc, time::Duration};

use prost::Message;
use ringmail_policy::Report;
use ringmail_xds::discovery::DeltaDiscoveryResponse;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tracing::{error, info, warn};

use super::{SnapshotSender, Status, mesh};
use crate::{
    config::Config, control_plane::Server, credentials::KeepBytes, outside::random, snapshot::Snapshot,
};
use held::{Fault, Held, Own};
use stream::{Session, SessionError};

/// The first retry is quick: most failures are a server that is just starting.
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// The longest pause between retries. New addresses wait for the server, for a few seconds each.
const RETRY_MAX: Duration = Duration::from_secs(3);
/// Spread of a retry, as a share of the pause: proxies that lost a server together must not return together.
const RETRY_SPREAD: f64 = 0.5;
/// How often what is held is handed over to be kept, where it has changed.
const KEEP_EVERY: Duration = Duration::from_secs(1);
/// Reports and refusals that get a line of their own in the log; the status counts them all.
const LINES_LOGGED: usize = 10;

/// What an earlier process held, as it is kept: an answer for each type.
#[derive(Clone, PartialEq, Message)]
struct Kept {
    #[prost(message, repeated, tag = "1")]
    answers: Vec<DeltaDiscoveryResponse>,
}

/// Discovery from a server; see the module.
pub(super) struct Control {
    server: Server,
    node: String,
    held: Held,
    snapshots: SnapshotSender,
    status: Arc<Status>,
    questions: mpsc::Receiver<IpAddr>,
    keep: Option<KeepBytes>,
    version: u64,
    reports: Vec<Report>,
    unkept: bool,
}

impl Control {
    pub(super) fn new(
        config: &Arc<Config>,
        snapshots: SnapshotSender,
        status: Arc<Status>,
        questions: mpsc::Receiver<IpAddr>,
    ) -> Self {
        let address = config.pod_addresses.first().map(ToString::to_string).unwrap_or_default();
        let (pod, namespace) = (&config.pod_name, &config.namespace);
        Self {
            server: Server::discovery(config),
            node: format!("sidecar~{address}~{pod}.{namespace}~{namespace}.svc.cluster.local"),
            held: Held::new(mesh(config), Own::of(config)),
            snapshots,
            status,
            questions,
            keep: None,
            version: 0,
            reports: Vec::new(),
            unkept: false,
        }
    }

    /// Begins with what an earlier process held.
    pub(super) fn resuming(mut self, kept: Option<&[u8]>) -> Self {
        let Some(kept) = kept else { return self };
        match Kept::decode(kept) {
            Ok(kept) => {
                for answer in &kept.answers {
                    self.held.ask_again(answer);
                    for fault in self.held.apply(answer) {
                        warn!(%fault, "kept discovery is not taken up in full");
                    }
                }
                self.publish();
            }
            Err(error) => warn!(%error, "kept discovery is not taken up"),
        }
        self
    }

    /// Hands what is held to `keep`, to be kept for a later process.
    pub(super) fn keeping(mut self, keep: Option<KeepBytes>) -> Self {
        self.keep = keep;
        self
    }

    /// Runs for ever: one session after the other.
    pub(super) async fn run(mut self) {
        let mut pause = RETRY_FIRST;
        loop {
            let began = Instant::now();
            let error = self.session().await;
            let lost = self.status.link().is_up();
            self.status.link_down(error.to_string());
            if lost {
                warn!(%error, lasted = ?began.elapsed(), "discovery: session ended, what is known stays; look at ringmail-control if it does not come back");
                pause = RETRY_FIRST;
            } else {
                warn!(%error, retry_in = ?pause, "discovery: no session, what is known stays; look at ringmail-control and at the way to it");
            }
            let end = Instant::now() + pause.mul_f64(1.0 + RETRY_SPREAD * random());
            self.rest(end).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    /// Takes questions until `end`: they go out with the next session.
    async fn rest(&mut self, end: Instant) {
        let over = sleep(end - Instant::now());
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut over => return,
                Some(address) = self.questions.recv() => {
                    self.held.ask(address);
                }
            }
        }
    }

    /// One session, to its end.
    async fn session(&mut self) -> SessionError {
        let mut session = match Session::open(&self.server, &self.node, &self.held).await {
            Ok(session) => session,
            Err(error) => return error,
        };
        let mut keep = interval(KEEP_EVERY);
        keep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                answer = session.answer() => match answer {
                    Ok(answer) => self.take(&mut session, &answer),
                    Err(error) => return error,
                },
                Some(address) = self.questions.recv() => {
                    let change = self.held.ask(address);
                    self.unkept |= !change.is_empty();
                    session.subscribe(&change);
                }
                _ = keep.tick() => self.keep(),
            }
        }
    }

    fn take(&mut self, session: &mut Session, answer: &DeltaDiscoveryResponse) {
        if !self.status.link().is_up() {
            info!(server = %self.server, "discovery: session established");
        }
        self.status.link_up();
        let faults = self.held.apply(answer);
        session.acknowledge(answer, &faults);
        if !faults.is_empty() {
            for fault in &faults {
                self.status.refuse(fault.reason());
            }
            for fault in faults.iter().take(LINES_LOGGED) {
                let reason = fault.reason().as_str();
                error!(reason, %fault, "discovery: refused, what was known before stays");
            }
            self.status.reject(shown(&faults, "\n"));
        }
        self.publish();
    }

    fn publish(&mut self) {
        if !self.held.take_changed() {
            return;
        }
        self.unkept = true;
        match self.held.complete() {
            Ok(inbound) => {
                self.version += 1;
                self.tell_new(inbound.reports());
                let outbound = Arc::clone(self.held.outbound());
                self.status.apply(self.version, self.reports.clone());
                self.snapshots.send_replace(Some(Arc::new(Snapshot {
                    version: self.version,
                    inbound,
                    outbound,
                })));
            }
            // Once there was a complete set, the last one stays.
            Err(incomplete) => self.status.wait(incomplete.to_string()),
        }
    }

    fn tell_new(&mut self, reports: &[Report]) {
        let fresh: Vec<_> = reports.iter().filter(|report| !self.reports.contains(report)).collect();
        for report in fresh.iter().take(LINES_LOGGED) {
            warn!(%report, "policy not honoured as written");
        }
        self.reports = reports.to_vec();
    }

    /// Only what changed is worth the copy.
    fn keep(&mut self) {
        let Some(keep) = self.keep.as_ref().filter(|_| self.unkept) else { return };
        keep(&Kept { answers: self.held.answers() }.encode_to_vec());
        self.unkept = false;
    }
}

/// The first of many faults, and how many more there are.
fn shown(faults: &[Fault], between: &str) -> String {
    let mut texts: Vec<String> = faults.iter().take(LINES_LOGGED).map(ToString::to_string).collect();
    if let more @ 1.. = faults.len().saturating_sub(LINES_LOGGED) {
        texts.push(format!("and {more} more"));
    }
    texts.join(between)
}

#[cfg(test)]
mod tests;
