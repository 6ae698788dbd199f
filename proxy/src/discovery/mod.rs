//! What policy and discovery decide, as snapshots that are swapped whole.
//!
//! - `files`: from a watched directory of YAML, everything at once.
//! - `control`: from a server of workload discovery, which is asked for the addresses that are dialled.
//! - `status`: what others may know.
//! - `config_watch`: the configuration file, watched beside it.

pub mod config_watch;
mod control;
mod files;
mod status;

use std::{net::IpAddr, sync::Arc};

use ringmail_policy::Settings;
use tokio::sync::{mpsc, watch};

use crate::{
    config::{Config, DiscoverySource},
    credentials::KeepBytes,
    snapshot::Snapshot,
};
use control::Control;
use files::Files;
pub use status::{DiscoveryError, Link, RefusedResource, Status};

/// The sending end of discovery.
pub type SnapshotSender = watch::Sender<Option<Arc<Snapshot>>>;

/// Questions that wait for discovery to take them. Each connection to a new address asks one.
const MAX_QUESTIONS: usize = 1024;

/// The way for connections to ask about an address that no snapshot has an answer for.
#[derive(Clone, Debug)]
pub struct Asker {
    questions: Option<mpsc::Sender<IpAddr>>,
    status: Arc<Status>,
}

impl Asker {
    /// Nobody to ask: everything that there is to know is in the snapshot.
    pub fn nobody() -> Self {
        Self { questions: None, status: Arc::default() }
    }

    /// Asks. The answer comes with a later snapshot.
    pub fn ask(&self, address: IpAddr) {
        if let Some(questions) = &self.questions {
            // With so many waiting, one more would be answered too late; the connection says that it waited.
            let _ = questions.try_send(address);
        }
    }

    /// Whether somebody is there who can answer soon.
    pub fn is_answered(&self) -> bool {
        self.questions.is_some() && self.status.link().is_up()
    }

    /// Why answers are waited for in vain, where that is so.
    pub fn trouble(&self) -> Option<String> {
        self.status.last_error().map(|error| error.text)
    }
}

/// Discovery as the settings say, and the way to ask it.
pub struct Discovery {
    from: From,
    asker: Asker,
}

enum From {
    Control(Box<Control>),
    Files(Box<Files>),
}

impl Discovery {
    /// Discovery that publishes to `snapshots`. `kept` is what an earlier process handed to its `keep`.
    pub fn new(
        config: &Arc<Config>,
        snapshots: SnapshotSender,
        status: Arc<Status>,
        kept: Option<&[u8]>,
        keep: Option<KeepBytes>,
    ) -> Self {
        match config.discovery {
            DiscoverySource::Control => {
                let (questions, asked) = mpsc::channel(MAX_QUESTIONS);
                let asker = Asker { questions: Some(questions), status: Arc::clone(&status) };
                let control = Control::new(config, snapshots, status, asked);
                Self { from: From::Control(Box::new(control.resuming(kept).keeping(keep))), asker }
            }
            DiscoverySource::Files => Self {
                from: From::Files(Box::new(Files::new(config, snapshots, status))),
                asker: Asker::nobody(),
            },
        }
    }

    /// The way to ask.
    pub fn asker(&self) -> Asker {
        self.asker.clone()
    }

    /// Runs for ever.
    pub async fn run(self) {
        match self.from {
            From::Control(control) => control.run().await,
            From::Files(files) => files.run().await,
        }
    }
}

/// What holds for the mesh, as the settings say.
fn mesh(config: &Config) -> Settings {
    Settings {
        trust_domain: config.trust_domain.clone(),
        trust_domain_aliases: config.trust_domain_aliases.clone(),
        root_namespace: config.root_namespace.clone(),
        mesh_ranges: config.mesh_ranges.clone(),
    }
}
