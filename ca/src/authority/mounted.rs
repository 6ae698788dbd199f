//! A signing key mounted as a folder, under the file names that the field's tools write.
//!
//! Two conventions exist: Istio's `cacerts` and the Secret of a cert-manager certificate. Which one
//! a folder holds is decided by what is in it; a folder with parts of both is refused, because
//! guessing which key was meant is not for us.

use std::io;
use std::path::{Path, PathBuf};

use super::{Parts, certificates, private_key};

const CACERTS: Convention = Convention {
    signer: "ca-cert.pem",
    key: "ca-key.pem",
    roots: "root-cert.pem",
    chain: Some("cert-chain.pem"),
};
const CERT_MANAGER: Convention =
    Convention { signer: "tls.crt", key: "tls.key", roots: "ca.crt", chain: None };

struct Convention {
    signer: &'static str,
    key: &'static str,
    roots: &'static str,
    /// May be missing when the signer's own file carries the chain.
    chain: Option<&'static str>,
}

impl Convention {
    fn required(&self) -> [&'static str; 3] {
        [self.signer, self.key, self.roots]
    }

    fn begun(&self, folder: &Path) -> bool {
        self.required().iter().any(|name| folder.join(name).exists())
    }
}

/// Why a mounted folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MountedError {
    /// Files of both conventions are there.
    #[error("{}: holds files of both conventions: expected either {{ca-cert.pem, ca-key.pem, root-cert.pem, cert-chain.pem}} or {{tls.crt, tls.key, ca.crt}}", .0.display())]
    Ambiguous(PathBuf),
    /// A file holds something else.
    #[error("{}: {error}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: String,
    },
    /// No file of any convention is there.
    #[error("{}: no CA in it: expected {{ca-cert.pem, ca-key.pem, root-cert.pem, cert-chain.pem}} or {{tls.crt, tls.key, ca.crt}}", .0.display())]
    Empty(PathBuf),
    /// A file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's word.
        error: io::Error,
    },
}

/// Every file whose change may mean a new CA.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let both = [&CACERTS, &CERT_MANAGER];
    both.iter().flat_map(|c| c.required().into_iter().chain(c.chain)).map(|name| folder.join(name)).collect()
}

/// Reads the folder under whichever convention it follows.
pub(crate) fn read(folder: &Path) -> Result<Parts, MountedError> {
    let folder = &generation(folder);
    let convention = match (CACERTS.begun(folder), CERT_MANAGER.begun(folder)) {
        (true, false) => CACERTS,
        (false, true) => CERT_MANAGER,
        (true, true) => return Err(MountedError::Ambiguous(folder.to_path_buf())),
        (false, false) => return Err(MountedError::Empty(folder.to_path_buf())),
    };
    let mut chain = read_as(&folder.join(convention.signer), certificates)?;
    if let Some(path) = convention.chain.map(|name| folder.join(name)).filter(|path| path.exists()) {
        chain.extend(read_as(&path, certificates)?);
    }
    let roots = read_as(&folder.join(convention.roots), certificates)?;
    let key = read_as(&folder.join(convention.key), private_key)?;
    Ok(Parts { origin: folder.display().to_string(), chain, key, roots })
}

/// A mounted Secret is swapped as a whole behind `..data`; reading inside the resolved folder keeps
/// the files of one generation together.
fn generation(folder: &Path) -> PathBuf {
    folder.join("..data").canonicalize().unwrap_or_else(|_| folder.to_path_buf())
}

fn read_as<T>(path: &Path, parse: fn(&[u8]) -> Result<T, String>) -> Result<T, MountedError> {
    let text = std::fs::read(path).map_err(|error| MountedError::Read { path: path.to_path_buf(), error })?;
    parse(&text).map_err(|error| MountedError::Content { path: path.to_path_buf(), error })
}
