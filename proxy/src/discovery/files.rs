//! Policy and workloads from a watched directory of YAML, compiled into one snapshot that is swapped whole.
//!
//! - `directory`: what lies in it, and its text.
//!
//! A missing policy means "allow", so nothing is ever applied by halves: a state of the directory counts
//! once two looks in a row saw it (or it is older than any unfinished work), all of its files are read together, and a fault in one refuses them
//! all. Then the last good snapshot stays. A directory that is not there is not an empty one: before the
//! first snapshot the proxy is not ready, and after it the last one stays.

mod directory;

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ringmail_policy::{Inbound, Outbound, Pod, Report, Resources, Settings};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info, warn};

use super::{SnapshotSender, Status, mesh};
use crate::{config::Config, snapshot::Snapshot};
use directory::{DirectoryError, Sight, Text};

/// How often the directory is looked at: two looks and the reading stay well below a second.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Faults of one state that get a line of their own in the log, and so many reports; the status has them all.
const LINES_LOGGED: usize = 10;

/// Watches a directory and publishes snapshots; see the module.
#[derive(Debug)]
pub(super) struct Files {
    directory: PathBuf,
    settings: Settings,
    pod: Pod,
    snapshots: SnapshotSender,
    status: Arc<Status>,
    version: u64,
    seen: Option<Result<Sight, String>>,
    judged: Option<Result<Sight, String>>,
    unread: Option<String>,
    in_force: Option<Sight>,
    read: Read,
}

/// Reads what a look saw.
type Read = fn(&Path, &Sight) -> Result<Vec<Text>, DirectoryError>;

impl Files {
    /// The directory that the settings name.
    pub(super) fn new(config: &Config, snapshots: SnapshotSender, status: Arc<Status>) -> Self {
        let settings = mesh(config);
        let pod = Pod {
            namespace: config.namespace.clone(),
            labels: config.labels.clone(),
            service_account: config.service_account.clone(),
            addresses: config.pod_addresses.clone(),
        };
        Self::watching(config.policy_dir.clone(), settings, pod, snapshots, status)
    }

    fn watching(
        directory: PathBuf,
        settings: Settings,
        pod: Pod,
        snapshots: SnapshotSender,
        status: Arc<Status>,
    ) -> Self {
        Self {
            directory,
            settings,
            pod,
            snapshots,
            status,
            version: 0,
            seen: None,
            judged: None,
            unread: None,
            in_force: None,
            read: directory::read,
        }
    }

    /// Runs for ever.
    pub(super) async fn run(mut self) {
        let mut tick = interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.look();
        }
    }

    /// Looks once, and judges what two looks in a row saw.
    fn look(&mut self) {
        let (now, settled) = match directory::look(&self.directory) {
            Ok(look) => (Ok(look.sight), look.settled),
            Err(error) => (Err(error.to_string()), false),
        };
        let stable = settled || self.seen.as_ref() == Some(&now);
        self.seen = Some(now.clone());
        if !stable || self.judged.as_ref() == Some(&now) {
            return;
        }
        match &now {
            Ok(sight) if self.in_force.as_ref() == Some(sight) => self.status.restored(),
            Ok(sight) => match (self.read)(&self.directory, sight) {
                Ok(texts) if self.still(sight) => self.compile(&texts, sight),
                // It changed while it was read: the next looks will see it settle.
                Ok(_) => return,
                // Said of the system, not of the files: without any change the next look may read them.
                Err(error @ DirectoryError::Read(_)) => return self.not_read(error.to_string()),
                Err(
                    error @ (DirectoryError::Look { .. }
                    | DirectoryError::NotText { .. }
                    | DirectoryError::TooManyFiles { .. }
                    | DirectoryError::TooMuchText { .. }),
                ) => self.refuse(&[error.to_string()]),
            },
            Err(error) => self.refuse(std::slice::from_ref(error)),
        }
        self.unread = None;
        self.judged = Some(now);
    }

    /// Tells that a file cannot be read, once while it is so.
    fn not_read(&mut self, error: String) {
        if self.unread.as_ref() != Some(&error) {
            self.refuse(std::slice::from_ref(&error));
            self.unread = Some(error);
        }
    }

    fn still(&self, sight: &Sight) -> bool {
        directory::look(&self.directory).is_ok_and(|now| now.sight == *sight)
    }

    fn compile(&mut self, texts: &[Text], sight: &Sight) {
        let documents = texts.iter().map(|text| (text.name.as_str(), text.text.as_str()));
        let resources = match Resources::parse(documents) {
            Ok(resources) => resources,
            Err(faults) => {
                let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
                return self.refuse(&faults);
            }
        };
        let snapshot = Snapshot {
            version: self.version + 1,
            inbound: Arc::new(Inbound::compile(&resources, &self.settings, &self.pod)),
            outbound: Arc::new(Outbound::compile_for(&resources, &self.settings, &self.pod)),
        };
        let reports = [resources.reports(), snapshot.inbound.reports(), snapshot.outbound.reports()].concat();
        self.tell_new(&reports);
        self.version = snapshot.version;
        self.in_force = Some(sight.clone());
        self.status.apply(self.version, reports);
        self.snapshots.send_replace(Some(Arc::new(snapshot)));
        info!(version = self.version, files = texts.len(), "policy applied");
    }

    fn tell_new(&self, reports: &[Report]) {
        let told: HashSet<String> = self.status.reports().iter().map(ToString::to_string).collect();
        let mut fresh = reports.iter().map(ToString::to_string).filter(|report| !told.contains(report));
        for report in fresh.by_ref().take(LINES_LOGGED) {
            warn!(report, "policy not honoured as written");
        }
        let more = fresh.count();
        if more > 0 {
            warn!(more, "policy not honoured as written: more reports than are listed; /config_dump has all");
        }
    }

    fn refuse(&self, faults: &[String]) {
        let consequence =
            if self.version == 0 { "not ready without a policy" } else { "the last good one stays" };
        for fault in faults.iter().take(LINES_LOGGED) {
            error!(fault, consequence, "policy refused");
        }
        if faults.len() > LINES_LOGGED {
            error!(more = faults.len() - LINES_LOGGED, "policy refused: more faults than are listed");
        }
        self.status.reject(faults.join("\n"));
    }
}

#[cfg(test)]
mod tests;
