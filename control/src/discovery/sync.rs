//! Which watches have been listed: before all have, nobody may be told that there is nobody.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// What is known of one watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Watch {
    pub(crate) listed: bool,
    pub(crate) fault: Option<String>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    watches: Mutex<BTreeMap<&'static str, Watch>>,
}

impl Watches {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Watch>> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the watch of this kind.
    pub(crate) fn expect(&self, kind: &'static str) {
        self.lock().entry(kind).or_default();
    }

    /// The watch of this kind has been listed, and all that it listed is in the world.
    pub(crate) fn listed(&self, kind: &'static str) {
        self.lock().entry(kind).or_default().listed = true;
    }

    /// Why the watch of this kind has failed last; nothing once it goes on. Answers whether that is news.
    pub(crate) fn fault(&self, kind: &'static str, fault: Option<String>) -> bool {
        let mut watches = self.lock();
        let watch = watches.entry(kind).or_default();
        let news = watch.fault != fault;
        watch.fault = fault;
        news
    }

    /// Why nobody can be served yet.
    pub(crate) fn missing(&self) -> Option<String> {
        let watches = self.lock();
        let missing = watches.iter().filter(|(_, watch)| !watch.listed);
        let texts: Vec<_> = missing
            .map(|(kind, watch)| match &watch.fault {
                Some(fault) => format!("{kind} ({fault})"),
                None => (*kind).to_owned(),
            })
            .collect();
        (!texts.is_empty()).then(|| format!("the cluster is not known yet: {}", texts.join(", ")))
    }
}
