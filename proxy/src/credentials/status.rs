//! What admin and metrics may know of the credentials: how the last attempts went, and when the next is.
//!
//! The renewal loop is the only writer. Errors are counted by a closed set of reasons, so that the
//! metric's series are known beforehand and an alert can name one.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

/// Why an attempt to get or renew credentials failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RefreshErrorReason {
    /// No TCP connection to the CA: its name does not resolve, or it refuses or does not answer.
    CaUnreachable,
    /// No TLS session with the CA: another name, another root, or not TLS 1.3.
    CaTls,
    /// The CA did not answer within the deadline.
    Deadline,
    /// The CA refused this workload's token or request.
    Denied,
    /// The CA answered with an error of its own.
    CaFailed,
    /// The bearer token cannot be read.
    Token,
    /// The file of the CA's roots cannot be read or holds no root.
    Roots,
    /// A file of the identity cannot be read.
    Files,
    /// No key or signing request could be made.
    Key,
    /// What was handed out is not a certificate chain with roots, or does not belong to the key.
    Malformed,
    /// The certificate names somebody else.
    WrongIdentity,
    /// The certificate does not verify under our own trust bundle.
    Untrusted,
}

impl RefreshErrorReason {
    /// Every reason, in the order of the documentation.
    pub const ALL: [Self; 12] = [
        Self::CaUnreachable,
        Self::CaTls,
        Self::Deadline,
        Self::Denied,
        Self::CaFailed,
        Self::Token,
        Self::Roots,
        Self::Files,
        Self::Key,
        Self::Malformed,
        Self::WrongIdentity,
        Self::Untrusted,
    ];

    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CaUnreachable => "ca_unreachable",
            Self::CaTls => "ca_tls",
            Self::Deadline => "deadline",
            Self::Denied => "denied",
            Self::CaFailed => "ca_failed",
            Self::Token => "token",
            Self::Roots => "roots",
            Self::Files => "files",
            Self::Key => "key",
            Self::Malformed => "malformed",
            Self::WrongIdentity => "wrong_identity",
            Self::Untrusted => "untrusted",
        }
    }

    /// What it means and where to look, for the reference page.
    pub const fn doc(self) -> &'static str {
        match self {
            Self::CaUnreachable => {
                "no TCP connection to the CA: look at `ca_address`, DNS and network policies"
            }
            Self::CaTls => "the CA's certificate is not for `ca_server_name` or not under `ca_root_file`",
            Self::Deadline => "the CA accepted the connection but did not answer in time",
            Self::Denied => {
                "the CA refused the token in `token_file` or the request: the CA's audit line says why"
            }
            Self::CaFailed => "the CA answered with an error of its own: see its log",
            Self::Token => "`token_file` cannot be read or is empty",
            Self::Roots => "`ca_root_file` cannot be read or holds no root certificate",
            Self::Files => "`cert_file`, `key_file` or `bundle_file` cannot be read",
            Self::Key => "no key or signing request could be made",
            Self::Malformed => "what was handed out is not a chain with roots, or its key does not match",
            Self::WrongIdentity => "the certificate is for another identity than the settings say",
            Self::Untrusted => {
                "the certificate does not verify under the roots it came with: expired, not yet valid, or another root"
            }
        }
    }
}

/// The last failure.
#[derive(Clone, Debug)]
pub struct RefreshError {
    /// Which kind.
    pub reason: RefreshErrorReason,
    /// What happened, in words.
    pub text: String,
    /// When.
    pub at: SystemTime,
}

impl fmt::Display for RefreshError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason.as_str(), self.text)
    }
}

#[derive(Debug, Default)]
struct Book {
    last_error: Option<RefreshError>,
    refreshes_ok: u64,
    errors: [u64; RefreshErrorReason::ALL.len()],
    last_refresh: Option<SystemTime>,
    clock_skew: Option<f64>,
    next_attempt: Option<SystemTime>,
}

/// The books of the renewal loop; see the module.
#[derive(Debug, Default)]
pub struct Status {
    book: Mutex<Book>,
}

impl Status {
    /// The last failure, until a success clears it.
    pub fn last_error(&self) -> Option<RefreshError> {
        self.book().last_error.clone()
    }

    /// How often new credentials were published. A change of the bundle alone does not count.
    pub fn refreshes_ok(&self) -> u64 {
        self.book().refreshes_ok
    }

    /// Failures so far, one entry per reason of [`RefreshErrorReason::ALL`], zeros included.
    pub fn errors(&self) -> Vec<(RefreshErrorReason, u64)> {
        RefreshErrorReason::ALL.into_iter().zip(self.book().errors).collect()
    }

    /// By how many seconds the own clock was ahead of the CA's when the last certificate came; negative where it was
    /// behind. Nothing where no certificate came from a CA.
    pub fn clock_skew(&self) -> Option<f64> {
        self.book().clock_skew
    }

    pub(crate) fn skewed(&self, seconds: f64) {
        self.book().clock_skew = Some(seconds);
    }

    /// When credentials were last published.
    pub fn last_refresh(&self) -> Option<SystemTime> {
        self.book().last_refresh
    }

    /// When the source is asked next, where a time is set.
    pub fn next_attempt(&self) -> Option<SystemTime> {
        self.book().next_attempt
    }

    pub(crate) fn succeeded(&self, at: SystemTime, next_attempt: Option<SystemTime>) {
        let mut book = self.book();
        book.last_error = None;
        book.refreshes_ok += 1;
        book.last_refresh = Some(at);
        book.next_attempt = next_attempt;
    }

    pub(crate) fn failed(&self, error: RefreshError, next_attempt: Option<SystemTime>) {
        let mut book = self.book();
        if let Some(at) = RefreshErrorReason::ALL.iter().position(|reason| *reason == error.reason) {
            book.errors[at] += 1;
        }
        book.last_error = Some(error);
        book.next_attempt = next_attempt;
    }

    /// Forgets the last error where it was of this kind: its cause is gone, whatever the source does.
    pub(crate) fn repaired(&self, reason: RefreshErrorReason) {
        self.book().last_error.take_if(|error| error.reason == reason);
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Counts and texts only: after a panic in another holder they are still the best known.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_listed_once_and_counts_in_its_own_place() {
        let status = Status::default();
        for (times, reason) in (1..).zip(RefreshErrorReason::ALL) {
            for _ in 0..times {
                let error = RefreshError { reason, text: "x".to_owned(), at: SystemTime::UNIX_EPOCH };
                status.failed(error, None);
            }
        }
        for (times, (reason, count)) in (1..).zip(status.errors()) {
            assert_eq!(count, times, "{}", reason.as_str());
        }
        let mut words: Vec<_> = RefreshErrorReason::ALL.iter().map(|reason| reason.as_str()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), RefreshErrorReason::ALL.len());
    }

    #[test]
    fn a_success_clears_the_last_error_but_not_the_counts() {
        let status = Status::default();
        let error = RefreshError {
            reason: RefreshErrorReason::Denied,
            text: "unauthenticated: token expired".to_owned(),
            at: SystemTime::UNIX_EPOCH,
        };
        status.failed(error, None);
        assert_eq!(status.last_error().unwrap().to_string(), "denied: unauthenticated: token expired");
        status.succeeded(SystemTime::UNIX_EPOCH, None);
        assert!(status.last_error().is_none());
        assert_eq!(status.errors().iter().map(|(_, count)| count).sum::<u64>(), 1);
        assert_eq!(status.refreshes_ok(), 1);
    }

    #[test]
    fn a_repair_clears_the_last_error_of_its_own_kind_alone() {
        let status = Status::default();
        let error = RefreshError {
            reason: RefreshErrorReason::Roots,
            text: String::new(),
            at: SystemTime::UNIX_EPOCH,
        };
        status.failed(error, None);
        status.repaired(RefreshErrorReason::Files);
        assert!(status.last_error().is_some());
        status.repaired(RefreshErrorReason::Roots);
        assert!(status.last_error().is_none());
    }
}
