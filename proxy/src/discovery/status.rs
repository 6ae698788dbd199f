//! What admin and metrics may know of discovery: what was applied, what was refused, what is not as written, and
//! whether the server is there.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use ringmail_policy::Report;

/// Why the last look at the directory led to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoveryError {
    /// What is wrong and what was expected, one line for each fault.
    pub text: String,
    /// When it was seen first.
    pub at: SystemTime,
}

/// Why a resource that the server sent was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusedResource {
    /// Its name is said more than once in one answer.
    Duplicate,
    /// A field does not say what is needed.
    Field,
    /// It is larger than a resource may be, or there is no room for more.
    Limit,
    /// It is of another network.
    Network,
    /// It claims an address at which no other pod can be.
    Nowhere,
    /// It is of a type that was not asked for.
    Type,
    /// Its bytes are not what its type says.
    Unreadable,
}

impl RefusedResource {
    /// Every reason.
    pub const ALL: [Self; 7] = [
        Self::Duplicate,
        Self::Field,
        Self::Limit,
        Self::Network,
        Self::Nowhere,
        Self::Type,
        Self::Unreadable,
    ];

    /// The word of the log and the label of the metric.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Duplicate => "duplicate",
            Self::Field => "field",
            Self::Limit => "limit",
            Self::Network => "network",
            Self::Nowhere => "nowhere",
            Self::Type => "type",
            Self::Unreadable => "unreadable",
        }
    }
}

#[derive(Debug, Default)]
struct Book {
    last_error: Option<DiscoveryError>,
    rejected: u64,
    stale: bool,
    applied: u64,
    reports: Vec<Report>,
    refused: [u64; RefusedResource::ALL.len()],
    link: Link,
}

/// The session with a server of discovery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Link {
    /// There is none, for this reason, since then.
    Down {
        /// Why.
        error: String,
        /// Since when.
        since: SystemTime,
    },
    /// Discovery has no server, or has not tried yet.
    #[default]
    None,
    /// There is one, since then.
    Up {
        /// Since when.
        since: SystemTime,
    },
}

impl Link {
    /// Whether the server is there.
    pub fn is_up(&self) -> bool {
        matches!(self, Self::Up { .. })
    }
}

/// The books of discovery; its loop is the only writer.
#[derive(Debug, Default)]
pub struct Status {
    book: Mutex<Book>,
}

impl Status {
    /// Why the directory as it is now is not in force, until a snapshot of it is.
    pub fn last_error(&self) -> Option<DiscoveryError> {
        self.book().last_error.clone()
    }

    /// How many states of the directory were refused.
    pub fn rejected(&self) -> u64 {
        self.book().rejected
    }

    /// Whether what was said last was refused and the last good set stays.
    pub fn is_stale(&self) -> bool {
        self.book().stale
    }

    /// How many snapshots were applied: the version of the one in force.
    pub fn applied(&self) -> u64 {
        self.book().applied
    }

    /// What of the snapshot in force is not honoured as written.
    pub fn reports(&self) -> Vec<Report> {
        self.book().reports.clone()
    }

    /// The session with the server.
    pub fn link(&self) -> Link {
        self.book().link.clone()
    }

    /// Resources refused so far, one entry per reason of [`RefusedResource::ALL`], zeros included.
    pub fn refused(&self) -> Vec<(RefusedResource, u64)> {
        RefusedResource::ALL.into_iter().zip(self.book().refused).collect()
    }

    pub(crate) fn refuse(&self, reason: RefusedResource) {
        let mut book = self.book();
        if let Some(at) = RefusedResource::ALL.iter().position(|known| *known == reason) {
            book.refused[at] += 1;
        }
    }

    pub(crate) fn link_up(&self) {
        let mut book = self.book();
        if !book.link.is_up() {
            book.link = Link::Up { since: SystemTime::now() };
        }
    }

    pub(crate) fn link_down(&self, error: String) {
        let mut book = self.book();
        let since = match &book.link {
            Link::Down { since, .. } => *since,
            Link::None | Link::Up { .. } => SystemTime::now(),
        };
        book.last_error = Some(DiscoveryError { text: error.clone(), at: SystemTime::now() });
        book.link = Link::Down { error, since };
    }

    /// Notes what is waited for; nothing was refused.
    pub(crate) fn wait(&self, text: String) {
        self.book().last_error = Some(DiscoveryError { text, at: SystemTime::now() });
    }

    pub(crate) fn apply(&self, version: u64, reports: Vec<Report>) {
        let mut book = self.book();
        book.last_error = None;
        book.stale = false;
        book.applied = version;
        book.reports = reports;
    }

    pub(crate) fn reject(&self, text: String) {
        let mut book = self.book();
        book.rejected += 1;
        book.stale = true;
        book.last_error = Some(DiscoveryError { text, at: SystemTime::now() });
    }

    pub(crate) fn restored(&self) {
        let mut book = self.book();
        book.last_error = None;
        book.stale = false;
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Counts and texts only: after a panic in another holder they are still the best known.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
