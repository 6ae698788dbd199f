//! Files that survive a crash at any point.
//!
//! A file is either its old content or its new content in full, never a part of one: it is written
//! under a temporary name in the same folder, flushed, renamed over the final name, and the folder
//! itself is flushed, so that a published name is still there after a power cut.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Mode of everything that holds a private key.
pub(crate) const SECRET_MODE: u32 = 0o600;
/// Mode of what everybody may read.
pub(crate) const PUBLIC_MODE: u32 = 0o644;
const SECRET_DIR_MODE: u32 = 0o700;

/// Why a file could not be published.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} {}: {source}", path.display())]
pub struct PersistError {
    step: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn fault(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PersistError {
    let path = path.to_path_buf();
    move |source| PersistError { step, path, source }
}

/// Replaces `path` by `content` with `mode`. On an error the old file is untouched.
pub(crate) fn publish(path: &Path, content: &[u8], mode: u32) -> Result<(), PersistError> {
    let folder = folder_of(path);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(".{name}.tmp"));
    write_new(&temporary, content, mode).inspect_err(|_| {
        // A half-written temporary file is of no use, and on a full disk its room is.
        let _ = fs::remove_file(&temporary);
    })?;
    fs::rename(&temporary, path).map_err(fault("publish", path))?;
    sync_folder(folder)
}

/// Renames `from` to `to` in the same folder, durably.
pub(crate) fn set_aside(from: &Path, to: &Path) -> Result<(), PersistError> {
    fs::rename(from, to).map_err(fault("set aside", from))?;
    sync_folder(folder_of(to))
}

/// Removes `path` durably; a file that is not there is fine.
pub(crate) fn remove(path: &Path) -> Result<(), PersistError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(fault("remove", path)(e)),
        Ok(()) => sync_folder(folder_of(path)),
    }
}

/// Makes `folder` and its parents when missing, closed to others, durably.
pub(crate) fn ensure_secret_folder(folder: &Path) -> Result<(), PersistError> {
    ensure_folder(folder, sync_folder)
}

/// Hands each folder that got a new one inside to `sync`: only then is the new one there after a power cut.
fn ensure_folder(
    folder: &Path,
    mut sync: impl FnMut(&Path) -> Result<(), PersistError>,
) -> Result<(), PersistError> {
    let missing: Vec<_> =
        folder.ancestors().take_while(|f| !f.as_os_str().is_empty() && !f.is_dir()).collect();
    for folder in missing.into_iter().rev() {
        match DirBuilder::new().mode(SECRET_DIR_MODE).create(folder) {
            // Made by another process just now, which may not have flushed it yet.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
            made => made.map_err(fault("create folder", folder))?,
        }
        sync(folder_of(folder))?;
    }
    Ok(())
}

fn write_new(path: &Path, content: &[u8], mode: u32) -> Result<(), PersistError> {
    // A file left by a crash may have another mode, so it is never written into.
    remove(path)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(fault("create", path))?;
    file.write_all(content).map_err(fault("write", path))?;
    file.sync_all().map_err(fault("flush", path))
}

fn sync_folder(folder: &Path) -> Result<(), PersistError> {
    File::open(folder).and_then(|f| f.sync_all()).map_err(fault("flush folder", folder))
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_published_file_has_its_content_and_mode_and_leaves_no_temporary_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("root.pem");
        fs::write(folder.path().join(".root.pem.tmp"), "left by a crash, world readable").unwrap();
        publish(&path, b"one", SECRET_MODE).unwrap();
        publish(&path, b"two", SECRET_MODE).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn every_folder_that_got_a_new_one_inside_is_flushed() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("var").join("state");
        let flushed = || {
            let mut flushed = Vec::new();
            ensure_folder(&state, |folder| {
                flushed.push(folder.to_path_buf());
                Ok(())
            })
            .unwrap();
            flushed
        };
        assert_eq!(flushed(), [folder.path().to_path_buf(), folder.path().join("var")]);
        assert_eq!(fs::metadata(&state).unwrap().permissions().mode() & 0o777, SECRET_DIR_MODE);
        assert!(flushed().is_empty(), "nothing is new");
    }

    #[test]
    fn a_folder_below_a_file_cannot_be_made() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        for state in [file.join("state"), file] {
            let error = ensure_secret_folder(&state).unwrap_err().to_string();
            assert!(error.starts_with("cannot create folder"), "{error}");
        }
    }

    #[test]
    fn a_refused_write_names_the_path_and_keeps_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("root.pem");
        publish(&path, b"old", SECRET_MODE).unwrap();
        // A folder in the place of the temporary file makes the write fail, also for root.
        fs::create_dir(folder.path().join(".root.pem.tmp")).unwrap();
        let error = publish(&path, b"new", SECRET_MODE).unwrap_err().to_string();
        assert!(error.contains(".root.pem.tmp"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }
}
