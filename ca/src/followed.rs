//! Files, and a Secret, that others replace while the CA runs.
//!
//! Files are compared by content. That sees every way a file can be replaced (written in place, renamed
//! over, a folder swapped behind a symbolic link) and costs a few reads. New content counts once two looks
//! in a row saw it, so that a half-written file is not taken for a whole one. What was refused is judged
//! again without having changed, because the cause may lie outside the files.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};

use crate::cluster::SecretFeed;

/// From one look to the next. A change is seen at the second look after it, so it is in force well within
/// a second; and whoever writes a file in several parts rarely pauses for longer.
pub(crate) const LOOK: Duration = Duration::from_millis(250);
/// How often content that was refused is judged again without having changed: a certificate that is not
/// valid yet becomes so, and a disk that failed may answer.
const RETRY: Duration = Duration::from_secs(5);

/// Why files are to be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// They hold what was refused a while ago.
    Again,
    /// They hold something else than what was judged last.
    Changed,
    /// They were not judged since the start.
    Unknown,
}

/// A digest of each file. One that cannot be read is as good as absent; whoever loads it says why.
type Sight = Vec<Option<[u8; 32]>>;

/// Files, and a Secret, that are judged together.
pub(crate) struct Followed {
    paths: Vec<PathBuf>,
    secret: Option<SecretFeed>,
    seen: Option<Sight>,
    judged: Option<Sight>,
    again: Option<Instant>,
    fault: Option<String>,
}

impl Followed {
    /// Follows `paths`. What they held when they were read at the start is not known here, so they are
    /// due as soon as they stand still.
    pub(crate) fn new(paths: Vec<PathBuf>) -> Self {
        Self { paths, secret: None, seen: None, judged: None, again: None, fault: None }
    }

    /// With a Secret beside the files.
    pub(crate) fn with_secret(self, secret: Option<SecretFeed>) -> Self {
        Self { secret, ..self }
    }

    /// Looks once, and says whether the files are to be judged now.
    pub(crate) fn look(&mut self, now: Instant) -> Option<Due> {
        if self.moved() {
            return None;
        }
        if self.seen == self.judged {
            return self.again.take_if(|at| now >= *at).map(|_| Due::Again);
        }
        let due = if self.judged.is_none() { Due::Unknown } else { Due::Changed };
        self.judged.clone_from(&self.seen);
        self.again = None;
        self.fault = None;
        Some(due)
    }

    /// Looks again, and says whether the files hold something else than a moment ago.
    fn moved(&mut self) -> bool {
        let mut sight = sight(&self.paths);
        sight.extend(self.secret.as_ref().map(SecretFeed::sight));
        let sight = Some(sight);
        let moved = sight != self.seen;
        self.seen = sight;
        moved
    }

    /// Whether the files changed while they were read. What was read is then to be dropped: they are due
    /// again once they stand still.
    pub(crate) fn moved_while_read(&mut self) -> bool {
        let moved = self.moved();
        if moved {
            self.judged = None;
        }
        moved
    }

    /// Notes that they were refused for `fault`, and says whether that is news.
    pub(crate) fn refused(&mut self, now: Instant, fault: String) -> bool {
        self.again = Some(now + RETRY);
        let news = self.fault.as_ref() != Some(&fault);
        self.fault = Some(fault);
        news
    }

    /// The paths, for people.
    pub(crate) fn names(&self) -> String {
        self.paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(" ")
    }
}

fn sight(paths: &[PathBuf]) -> Sight {
    paths.iter().map(|path| content(path)).collect()
}

fn content(path: &Path) -> Option<[u8; 32]> {
    digest(&SHA256, &std::fs::read(path).ok()?).as_ref().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A file that is followed, and judged as it stands.
    fn followed(content: &str, start: Instant) -> (tempfile::TempDir, PathBuf, Followed) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("roots.pem");
        fs::write(&path, content).unwrap();
        let mut followed = Followed::new(vec![path.clone()]);
        assert_eq!(followed.look(start), None);
        assert_eq!(followed.look(start), Some(Due::Unknown), "it may have changed since it was read");
        (folder, path, followed)
    }

    /// Looks until the files are due: the second look that sees the same.
    fn settle(followed: &mut Followed, now: Instant) -> Option<Due> {
        assert_eq!(followed.look(now), None);
        followed.look(now)
    }

    #[test]
    fn a_file_seen_between_two_writes_is_not_judged() {
        let start = Instant::now();
        let (_folder, path, mut followed) = followed("old", start);
        fs::write(&path, "new").unwrap();
        assert_eq!(followed.look(start), None);
        fs::write(&path, "new old").unwrap();
        assert_eq!(settle(&mut followed, start), Some(Due::Changed));
        assert_eq!(settle(&mut followed, start), None, "once is enough");
        fs::remove_file(&path).unwrap();
        assert_eq!(followed.look(start), None);
        fs::write(&path, "new old").unwrap();
        assert_eq!(settle(&mut followed, start), None, "what was judged is back");
    }

    #[test]
    fn what_changed_while_it_was_read_is_due_again_whatever_it_holds_then() {
        let start = Instant::now();
        let (_folder, path, mut followed) = followed("old", start);
        fs::write(&path, "new").unwrap();
        assert_eq!(settle(&mut followed, start), Some(Due::Changed));
        assert!(!followed.moved_while_read());
        fs::write(&path, "half").unwrap();
        assert!(followed.moved_while_read());
        fs::write(&path, "new").unwrap();
        assert_eq!(settle(&mut followed, start), Some(Due::Unknown));
    }

    #[test]
    fn what_was_refused_is_judged_again_until_it_is_not_and_the_same_fault_is_no_news() {
        let start = Instant::now();
        let (_folder, path, mut followed) = followed("", start);
        fs::write(&path, "early").unwrap();
        assert_eq!(settle(&mut followed, start), Some(Due::Changed));
        assert!(followed.refused(start, "not valid yet".to_owned()));
        assert_eq!(followed.look(start + RETRY / 2), None);
        assert_eq!(followed.look(start + RETRY), Some(Due::Again));
        assert!(!followed.refused(start + RETRY, "not valid yet".to_owned()));
        assert_eq!(followed.look(start + RETRY * 2), Some(Due::Again));
        assert!(followed.refused(start + RETRY * 2, "expired".to_owned()), "another fault");
        assert_eq!(followed.look(start + RETRY * 3), Some(Due::Again));
        assert_eq!(followed.look(start + RETRY * 9), None, "it was not refused again");
    }

    #[test]
    fn a_change_is_judged_without_waiting_and_its_fault_is_news() {
        let start = Instant::now();
        let (_folder, path, mut followed) = followed("", start);
        for content in ["one", "two"] {
            fs::write(&path, content).unwrap();
            assert_eq!(settle(&mut followed, start), Some(Due::Changed));
            assert!(followed.refused(start, "no certificate".to_owned()));
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(settle(&mut followed, start), Some(Due::Changed));
        assert_eq!(followed.look(start + RETRY), None);
    }
}
