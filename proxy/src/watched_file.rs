//! Files that are watched by what they hold, not by events.
//!
//! A mounted ConfigMap changes by a swap of symbolic links, an editor by a rename, a script by writing
//! in place: only the content tells all three apart from nothing. A set of files counts as changed once
//! two looks in a row saw the same new content, so that a half-written file is not taken for a new one.

use std::{
    fs::File,
    hash::{BuildHasher, RandomState},
    io::Read,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

/// Why a file's content is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// It cannot be opened or read.
    #[error("{path}: {source}", path = path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is larger than anything that could be meant.
    #[error("{path}: more than {limit} bytes, expected at most that", path = path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// The limit in bytes.
        limit: usize,
    },
}

/// Reads a file of at most `limit` bytes. The buffer wipes itself, because some files are keys.
pub(crate) fn read_bounded(path: &Path, limit: usize) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let failed = |source| FileError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    // Room for all of it and one byte more from the start: a buffer that grows leaves copies behind.
    let room = usize::try_from(size).unwrap_or(limit).min(limit) + 1;
    let mut content = Zeroizing::new(Vec::with_capacity(room));
    file.take(limit as u64 + 1).read_to_end(&mut content).map_err(failed)?;
    if content.len() > limit {
        return Err(FileError::TooLarge { path: path.to_owned(), limit });
    }
    Ok(content)
}

/// What one look saw: a hash of the contents, or the error in words. Its key is this process's own, so nobody can write
/// a content that passes for another; and two that do by chance are one in 2^64.
type Sight = Result<u64, String>;

/// The contents of a set of files, in the order of their paths.
pub(crate) type Contents = Vec<Zeroizing<Vec<u8>>>;

/// A set of files that belong together; see the module.
#[derive(Debug)]
pub(crate) struct WatchedFiles {
    paths: Vec<PathBuf>,
    limit: usize,
    hasher: RandomState,
    seen: Option<Sight>,
    delivered: Option<Sight>,
}

impl WatchedFiles {
    /// Watches `paths`, each of at most `limit` bytes.
    pub(crate) fn new(paths: Vec<PathBuf>, limit: usize) -> Self {
        Self { paths, limit, hasher: RandomState::new(), seen: None, delivered: None }
    }

    /// Looks once. Yields each new content, and each new error, once: at the second look that sees it.
    pub(crate) fn poll(&mut self) -> Option<Result<Contents, FileError>> {
        let contents: Result<Contents, FileError> =
            self.paths.iter().map(|path| read_bounded(path, self.limit)).collect();
        let sight = match &contents {
            Ok(contents) => {
                let contents: Vec<&[u8]> = contents.iter().map(|content| content.as_slice()).collect();
                Ok(self.hasher.hash_one(contents))
            }
            Err(error) => Err(error.to_string()),
        };
        let stable = self.seen.as_ref() == Some(&sight);
        self.seen = Some(sight);
        if stable && self.seen != self.delivered {
            self.delivered.clone_from(&self.seen);
            return Some(contents);
        }
        None
    }

    /// Yields what is there once more, also where it has not changed.
    pub(crate) fn deliver_again(&mut self) {
        self.delivered = None;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn texts(polled: Option<Result<Contents, FileError>>) -> Vec<String> {
        let contents = polled.expect("nothing was delivered").unwrap();
        contents.iter().map(|content| String::from_utf8(content.to_vec()).unwrap()).collect()
    }

    #[test]
    fn a_content_is_delivered_once_and_at_the_second_look() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, "one").unwrap();
        let mut watched = WatchedFiles::new(vec![path.clone()], 10);
        assert!(watched.poll().is_none());
        assert_eq!(texts(watched.poll()), ["one"]);
        assert!(watched.poll().is_none());
        fs::write(&path, "tw").unwrap();
        assert!(watched.poll().is_none());
        fs::write(&path, "two").unwrap();
        assert!(watched.poll().is_none(), "a file that is still growing");
        assert_eq!(texts(watched.poll()), ["two"]);
    }

    #[test]
    fn files_that_belong_together_are_delivered_together() {
        let dir = tempfile::tempdir().unwrap();
        let paths = vec![dir.path().join("cert"), dir.path().join("key")];
        fs::write(&paths[0], "cert").unwrap();
        let mut watched = WatchedFiles::new(paths.clone(), 10);
        watched.poll();
        let error = watched.poll().expect("the error is delivered").unwrap_err();
        assert!(error.to_string().contains("key: No such file"), "{error}");
        assert!(watched.poll().is_none(), "an error is delivered once");
        fs::write(&paths[1], "key").unwrap();
        watched.poll();
        assert_eq!(texts(watched.poll()), ["cert", "key"]);
    }

    #[test]
    fn a_swap_of_symbolic_links_is_a_change() {
        let dir = tempfile::tempdir().unwrap();
        for (version, text) in [("v1", "old"), ("v2", "new")] {
            fs::create_dir(dir.path().join(version)).unwrap();
            fs::write(dir.path().join(version).join("f"), text).unwrap();
        }
        let data = dir.path().join("..data");
        std::os::unix::fs::symlink("v1", &data).unwrap();
        let mut watched = WatchedFiles::new(vec![data.join("f")], 10);
        watched.poll();
        assert_eq!(texts(watched.poll()), ["old"]);
        let next = dir.path().join("..next");
        std::os::unix::fs::symlink("v2", &next).unwrap();
        fs::rename(&next, &data).unwrap();
        watched.poll();
        assert_eq!(texts(watched.poll()), ["new"]);
    }

    #[test]
    fn a_file_above_the_limit_is_refused_and_one_at_the_limit_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, [b'x'; 10]).unwrap();
        assert_eq!(read_bounded(&path, 10).unwrap().len(), 10);
        fs::write(&path, [b'x'; 11]).unwrap();
        assert!(matches!(read_bounded(&path, 10), Err(FileError::TooLarge { limit: 10, .. })));
    }
}
