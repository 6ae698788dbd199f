//! Files that others replace while the CA runs.
//!
//! They are compared by content. That sees every way a file can be replaced (written in place, renamed
//! over, a folder swapped behind a symbolic link) and costs a few reads. What was refused is judged
//! again without having changed, because the cause may lie outside the files.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};

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
}

/// A digest of each file. One that cannot be read is as good as absent; whoever loads it says why.
type Sight = Vec<Option<[u8; 32]>>;

/// Files that are judged together.
pub(crate) struct Followed {
    paths: Vec<PathBuf>,
    judged: Option<Sight>,
    again: Option<Instant>,
    fault: Option<String>,
}

impl Followed {
    /// Follows `paths`.
    pub(crate) fn new(paths: Vec<PathBuf>) -> Self {
        let judged = Some(sight(&paths));
        Self { paths, judged, again: None, fault: None }
    }

    /// Takes nothing for known: the next look finds a change.
    pub(crate) fn forget(&mut self) {
        self.judged = None;
    }

    /// Looks once, and says whether the files are to be judged now.
    pub(crate) fn look(&mut self, now: Instant) -> Option<Due> {
        let sight = Some(sight(&self.paths));
        if sight != self.judged {
            self.judged = sight;
            self.again = None;
            self.fault = None;
            return Some(Due::Changed);
        }
        self.again.take_if(|at| now >= *at).map(|_| Due::Again)
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

    #[test]
    fn what_was_refused_is_judged_again_until_it_is_not_and_the_same_fault_is_no_news() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("roots.pem");
        let start = Instant::now();
        let mut followed = Followed::new(vec![path.clone()]);
        fs::write(&path, "early").unwrap();
        assert_eq!(followed.look(start), Some(Due::Changed));
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
    fn a_change_is_judged_at_once_and_its_fault_is_news() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("roots.pem");
        let start = Instant::now();
        let mut followed = Followed::new(vec![path.clone()]);
        for content in ["one", "two"] {
            fs::write(&path, content).unwrap();
            assert_eq!(followed.look(start), Some(Due::Changed));
            assert!(followed.refused(start, "no certificate".to_owned()));
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(followed.look(start), Some(Due::Changed));
        assert_eq!(followed.look(start + RETRY), None);
    }
}
