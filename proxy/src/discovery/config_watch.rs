//! The configuration file, watched: settings that can change while running do, and the others are named.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info, warn};

use crate::{
    config::{Config, Sources, System},
    watched_file::WatchedFiles,
};

/// How often the file is looked at: two looks stay well below a second.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Bytes of the file: a few dozen settings, with room for comments and lists.
const MAX_FILE: usize = 1024 * 1024;

/// Applies the settings that may change while running.
pub type ApplyHot = Box<dyn Fn(&Config) + Send>;

/// Watches the configuration file.
pub struct ConfigWatch {
    file: PathBuf,
    watched: WatchedFiles,
    environment: Vec<(String, String)>,
    system: System,
    running: Arc<Config>,
    reported: Vec<&'static str>,
    apply: ApplyHot,
}

impl ConfigWatch {
    /// Watches `file`, from which `running` was read; `apply` is called with each later state of it.
    pub fn new(file: PathBuf, running: Arc<Config>, apply: ApplyHot) -> Self {
        let environment = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
            .collect();
        let watched = WatchedFiles::new(vec![file.clone()], MAX_FILE);
        let system = System::read();
        Self { file, watched, environment, system, running, reported: Vec::new(), apply }
    }

    /// Runs for ever.
    pub async fn run(mut self) {
        let mut tick = interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.look();
        }
    }

    fn look(&mut self) {
        match self.watched.poll() {
            Some(Ok(contents)) => {
                let content = contents.first().map_or(&[][..], |content| content.as_slice());
                self.read(&String::from_utf8_lossy(content));
            }
            Some(Err(error)) => error!(%error, "configuration not read: what runs stays"),
            None => {}
        }
    }

    fn read(&mut self, text: &str) {
        let sources =
            Sources { file: &self.file, text, environment: &self.environment, system: &self.system };
        let newer = match Config::from_sources(&sources) {
            Ok(loaded) => loaded.config,
            Err(error) => {
                for fault in error.faults() {
                    error!(%fault, "configuration refused: what runs stays");
                }
                return;
            }
        };
        (self.apply)(&newer);
        let cold = self.running.restart_needed(&newer);
        if cold != self.reported && !cold.is_empty() {
            warn!(
                settings = cold.join(", "),
                "changed in the configuration file, and needs a restart to take effect"
            );
        }
        if cold.is_empty() && !self.reported.is_empty() {
            info!("the configuration file is again what runs");
        }
        self.reported = cold;
    }
}

#[cfg(test)]
mod tests;
