//! A watched directory of YAML files: what is in it, seen cheaply, and read as a whole.
//!
//! A look lists names, inodes, sizes and times and reads nothing. Symbolic links are followed, so the
//! swap of links by which a mounted ConfigMap changes is a change of every file. Hidden entries are
//! passed over: the kubelet keeps its versions there, and editors their unfinished work.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use ringmail_policy::MAX_TEXT_BYTES;

use crate::watched_file::{FileError, read_bounded};

/// Files in the directory: one per resource of a large cluster, and few enough to list five times a second.
pub(crate) const MAX_FILES: usize = 4096;

/// How long nothing must have changed for a single look to be enough: a data plane that starts again
/// after a crash must not keep connections waiting for a second one.
const SETTLED: Duration = Duration::from_secs(2);

const EXTENSIONS: [&str; 2] = ["yaml", "yml"];

/// Why the directory is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DirectoryError {
    /// It, or an entry of it, cannot be looked at.
    #[error("{path}: {source}", path = path.display())]
    Look {
        /// What.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file cannot be read.
    #[error(transparent)]
    Read(#[from] FileError),
    /// The files are not text.
    #[error("{path}: byte {at} is not utf-8, expected yaml", path = path.display())]
    NotText {
        /// Which file.
        path: PathBuf,
        /// Where.
        at: usize,
    },
    /// More files than anybody means.
    #[error("{path}: more than {MAX_FILES} files, expected at most that", path = path.display())]
    TooManyFiles {
        /// The directory.
        path: PathBuf,
    },
    /// More text than the policies of a cluster.
    #[error("{path}: more than {MAX_TEXT_BYTES} bytes in all, expected at most that", path = path.display())]
    TooMuchText {
        /// The directory.
        path: PathBuf,
    },
}

/// What tells one state of the directory from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sight(Vec<Entry>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    path: PathBuf,
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds of the last change of content, and of content or attributes: the second
    /// also sees a content that was put in place together with its old time.
    modified: (i64, i64),
    changed: (i64, i64),
}

/// What one look found.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) sight: Sight,
    /// Whether nothing has changed for a while, so that no second look is needed to know it complete.
    pub(crate) settled: bool,
}

/// One file's name and text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Text {
    pub(crate) name: String,
    pub(crate) text: String,
}

/// Looks once.
pub(crate) fn look(directory: &Path) -> Result<Look, DirectoryError> {
    let failed = |path: &Path, source| DirectoryError::Look { path: path.to_owned(), source };
    let mut entries = Vec::new();
    let own = fs::metadata(directory).map_err(|source| failed(directory, source))?;
    let mut newest = (own.ctime(), own.ctime_nsec());
    for entry in fs::read_dir(directory).map_err(|source| failed(directory, source))? {
        let path = entry.map_err(|source| failed(directory, source))?.path();
        if !is_meant(&path) {
            continue;
        }
        let metadata = fs::metadata(&path).map_err(|source| failed(&path, source))?;
        if !metadata.is_file() {
            continue;
        }
        if entries.len() == MAX_FILES {
            return Err(DirectoryError::TooManyFiles { path: directory.to_owned() });
        }
        newest = newest.max((metadata.ctime(), metadata.ctime_nsec()));
        entries.push(Entry {
            path,
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        });
    }
    entries.sort();
    Ok(Look { sight: Sight(entries), settled: is_old(newest, SystemTime::now()) })
}

/// Whether a time of the file system is safely past. Where its clock and ours differ, it may not look so.
fn is_old((seconds, nanos): (i64, i64), now: SystemTime) -> bool {
    let since_epoch = u64::try_from(seconds).ok().zip(u32::try_from(nanos).ok());
    let Some((seconds, nanos)) = since_epoch else { return false };
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanos));
    time.and_then(|time| now.duration_since(time).ok()).is_some_and(|age| age >= SETTLED)
}

/// Reads what a look saw, in the order of the names.
pub(crate) fn read(directory: &Path, sight: &Sight) -> Result<Vec<Text>, DirectoryError> {
    let mut left = MAX_TEXT_BYTES;
    let mut texts = Vec::with_capacity(sight.0.len());
    for Entry { path, .. } in &sight.0 {
        let content = read_bounded(path, left).map_err(|error| match error {
            FileError::TooLarge { .. } => DirectoryError::TooMuchText { path: directory.to_owned() },
            FileError::Read { .. } => DirectoryError::Read(error),
        })?;
        left -= content.len();
        let text = str::from_utf8(&content)
            .map_err(|error| DirectoryError::NotText { path: path.clone(), at: error.valid_up_to() })?;
        texts.push(Text { name: path.display().to_string(), text: text.to_owned() });
    }
    Ok(texts)
}

fn is_meant(path: &Path) -> bool {
    let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    let yaml = path.extension().is_some_and(|extension| EXTENSIONS.iter().any(|known| extension == *known));
    yaml && !hidden
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let texts = read(directory, &look(directory).unwrap().sight).unwrap();
        texts.into_iter().map(|text| text.name.rsplit('/').next().unwrap().to_owned()).collect()
    }

    #[test]
    fn yaml_files_are_read_in_the_order_of_their_names_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.yml", "a.yaml", ".hidden.yaml", "c.json", "yaml", "d.yaml~"] {
            fs::write(dir.path().join(name), "x: 1").unwrap();
        }
        fs::create_dir(dir.path().join("sub.yaml")).unwrap();
        assert_eq!(names(dir.path()), ["a.yaml", "b.yml"]);
    }

    #[test]
    fn a_look_sees_a_change_of_content_of_the_same_size_and_a_file_put_in_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yaml");
        fs::write(&path, "x: 1").unwrap();
        let first = look(dir.path()).unwrap().sight;
        assert_eq!(first, look(dir.path()).unwrap().sight);
        // Times of files are as coarse as the kernel's tick.
        std::thread::sleep(Duration::from_millis(20));
        fs::write(&path, "x: 2").unwrap();
        let second = look(dir.path()).unwrap().sight;
        assert_ne!(first, second);
        let other = dir.path().join("new");
        fs::write(&other, "x: 3").unwrap();
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        fs::File::options().append(true).open(&other).unwrap().set_modified(time).unwrap();
        fs::rename(&other, &path).unwrap();
        assert_ne!(second, look(dir.path()).unwrap().sight);
    }

    #[test]
    fn a_missing_directory_and_a_link_to_nowhere_are_errors_that_name_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("policy");
        assert!(look(&missing).unwrap_err().to_string().contains("policy: No such file"));
        std::os::unix::fs::symlink("nowhere", dir.path().join("a.yaml")).unwrap();
        assert!(look(dir.path()).unwrap_err().to_string().contains("a.yaml: No such file"));
    }

    #[test]
    fn what_changed_long_ago_is_settled_and_what_changed_now_or_later_is_not() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        assert!(is_old((999_998, 0), now));
        assert!(!is_old((999_998, 1), now));
        assert!(!is_old((1_000_001, 0), now));
        assert!(!is_old((-1, 0), now));
    }

    #[test]
    fn bytes_that_are_no_text_are_refused_with_their_place() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.yaml"), b"x: \xff").unwrap();
        let sight = look(dir.path()).unwrap().sight;
        let error = read(dir.path(), &sight).unwrap_err().to_string();
        assert!(error.ends_with("a.yaml: byte 3 is not utf-8, expected yaml"), "{error}");
    }

    #[test]
    fn more_files_or_more_text_than_the_bounds_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let half = vec![b'#'; MAX_TEXT_BYTES / 2 + 1];
        fs::write(dir.path().join("a.yaml"), &half).unwrap();
        fs::write(dir.path().join("b.yaml"), &half).unwrap();
        let sight = look(dir.path()).unwrap().sight;
        assert!(matches!(read(dir.path(), &sight), Err(DirectoryError::TooMuchText { .. })));
        for number in 0..MAX_FILES {
            fs::write(dir.path().join(format!("{number}.yml")), "").unwrap();
        }
        assert!(matches!(look(dir.path()), Err(DirectoryError::TooManyFiles { .. })));
    }
}
