//! The texts of a policy directory, chosen and ordered as the proxy does: `*.yaml` and `*.yml` by name, hidden ones left out.

use std::fs;
use std::path::{Path, PathBuf};

use ringmail_policy::MAX_TEXT_BYTES;

/// One file's name and text.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) name: String,
    pub(super) text: String,
}

/// Why there are no texts.
#[derive(Debug, thiserror::Error)]
pub(super) enum PolicyFilesError {
    #[error("{path}: cannot be read: {cause}", path = path.display())]
    Read { path: PathBuf, cause: std::io::Error },
    #[error("{path}: more than {MAX_TEXT_BYTES} bytes in all, expected at most that", path = path.display())]
    TooMuchText { path: PathBuf },
}

/// Reads all of them.
pub(super) fn read(directory: &Path) -> Result<Vec<Text>, PolicyFilesError> {
    let failed = |path: &Path, cause| PolicyFilesError::Read { path: path.to_owned(), cause };
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(|cause| failed(directory, cause))? {
        let path = entry.map_err(|cause| failed(directory, cause))?.path();
        let metadata = || fs::metadata(&path).map_err(|cause| failed(&path, cause));
        if is_meant(&path) && metadata()?.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    let mut left = MAX_TEXT_BYTES as u64;
    let mut texts = Vec::with_capacity(paths.len());
    for path in paths {
        let size = fs::metadata(&path).map_err(|cause| failed(&path, cause))?.len();
        left = left
            .checked_sub(size)
            .ok_or_else(|| PolicyFilesError::TooMuchText { path: directory.to_owned() })?;
        let text = fs::read_to_string(&path).map_err(|cause| failed(&path, cause))?;
        texts.push(Text { name: path.display().to_string(), text });
    }
    Ok(texts)
}

fn is_meant(path: &Path) -> bool {
    let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    !hidden && path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}
