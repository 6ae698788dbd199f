//! A signing key in a mounted folder or in a Secret, under the file names that the field's tools write.
//!
//! Two conventions exist: Istio's `cacerts` and the Secret of a cert-manager certificate. Which one
//! a place holds is decided by what is in it; a place with parts of both is refused, because
//! guessing which key was meant is not for us.

use std::io;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{Parts, certificates, private_key};
use crate::cluster::Content;

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

    fn begun(&self, place: &Place<'_>) -> bool {
        self.required().into_iter().any(|name| place.has(name))
    }
}

/// Where the files are; in errors each is a path.
enum Place<'a> {
    Folder(PathBuf),
    Secret(PathBuf, &'a Content),
}

impl Place<'_> {
    fn path(&self) -> &Path {
        match self {
            Self::Folder(path) | Self::Secret(path, _) => path,
        }
    }

    fn has(&self, name: &str) -> bool {
        match self {
            Self::Folder(folder) => folder.join(name).exists(),
            Self::Secret(_, content) => content.contains_key(name),
        }
    }

    /// What was read may be a key: it is wiped when it is dropped.
    fn read(&self, name: &str) -> io::Result<Zeroizing<Vec<u8>>> {
        match self {
            Self::Folder(folder) => std::fs::read(folder.join(name)).map(Zeroizing::new),
            Self::Secret(_, content) => {
                let value = content.get(name).map(|value| Zeroizing::new(value.0.clone()));
                value.ok_or_else(|| io::ErrorKind::NotFound.into())
            }
        }
    }

    fn read_as<T>(&self, name: &str, parse: fn(&[u8]) -> Result<T, String>) -> Result<T, MountedError> {
        let path = self.path().join(name);
        match self.read(name) {
            Ok(text) => parse(&text).map_err(|error| MountedError::Content { path, error }),
            Err(error) => Err(MountedError::Read { path, error }),
        }
    }
}

/// Why a mounted folder or a Secret cannot be used.
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
    parts(&Place::Folder(generation(folder)))
}

/// Reads the content of the Secret called `origin`.
pub(crate) fn read_secret(origin: &str, content: &Content) -> Result<Parts, MountedError> {
    parts(&Place::Secret(origin.into(), content))
}

fn parts(place: &Place<'_>) -> Result<Parts, MountedError> {
    let convention = match (CACERTS.begun(place), CERT_MANAGER.begun(place)) {
        (true, false) => CACERTS,
        (false, true) => CERT_MANAGER,
        (true, true) => return Err(MountedError::Ambiguous(place.path().to_path_buf())),
        (false, false) => return Err(MountedError::Empty(place.path().to_path_buf())),
    };
    let mut chain = place.read_as(convention.signer, certificates)?;
    if let Some(name) = convention.chain.filter(|name| place.has(name)) {
        chain.extend(place.read_as(name, certificates)?);
    }
    let roots = place.read_as(convention.roots, certificates)?;
    let key = place.read_as(convention.key, private_key)?;
    Ok(Parts { origin: place.path().display().to_string(), chain, key, roots })
}

/// A mounted Secret is swapped as a whole behind `..data`; reading inside the resolved folder keeps
/// the files of one generation together.
fn generation(folder: &Path) -> PathBuf {
    folder.join("..data").canonicalize().unwrap_or_else(|_| folder.to_path_buf())
}
