//! Where the authority comes from, and how it is read again when its files change.

use std::path::PathBuf;
use std::time::SystemTime;

use ringmail_identity::TrustDomain;
use rustls_pki_types::CertificateDer;

use super::mounted::{self, MountedError};
use super::self_signed::{StateError, StateFolder};
use super::{Authority, AuthorityError, Parts, certificates};

/// Why no authority could be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The parts do not make a CA.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The file of further roots cannot be used.
    #[error("extra roots: {0}")]
    ExtraRoots(String),
    /// The mounted folder cannot be used.
    #[error(transparent)]
    Mounted(#[from] MountedError),
    /// The state folder cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
}

impl LoadError {
    /// The text without the time at which the verifier said it: the same fault found again reads the same.
    pub(crate) fn without_time(&self) -> String {
        if let Self::Authority(AuthorityError::LeafRefused { origin, error }) = self {
            return format!("{origin}: {}", error.reason().as_str());
        }
        self.to_string()
    }
}

/// A place that holds the signing key.
#[derive(Debug)]
enum Place {
    Mounted(PathBuf),
    /// The root in the state folder is ours alone: it is read once.
    SelfSigned(Box<Parts>),
}

/// The signing key's place and the roots that join its bundle.
#[derive(Debug)]
pub struct Source {
    place: Place,
    extra_roots: Option<PathBuf>,
    trust_domain: TrustDomain,
}

impl Source {
    /// A folder mounted by others.
    pub fn mounted(folder: PathBuf, extra_roots: Option<PathBuf>, trust_domain: TrustDomain) -> Self {
        Self { place: Place::Mounted(folder), extra_roots, trust_domain }
    }

    /// The self-signed root of `state`, made now where that is allowed.
    pub fn self_signed(
        state: &StateFolder,
        extra_roots: Option<PathBuf>,
        trust_domain: TrustDomain,
        now: SystemTime,
    ) -> Result<Self, StateError> {
        let parts = state.open(&trust_domain, now)?;
        Ok(Self { place: Place::SelfSigned(Box::new(parts)), extra_roots, trust_domain })
    }

    /// Reads and proves what is there now.
    pub fn load(&self, now: SystemTime) -> Result<Authority, LoadError> {
        let extra = self.read_extra_roots()?;
        Ok(match &self.place {
            Place::Mounted(folder) => {
                Authority::assemble(&mounted::read(folder)?, &extra, &self.trust_domain, now)?
            }
            Place::SelfSigned(parts) => Authority::assemble(parts, &extra, &self.trust_domain, now)?,
        })
    }

    /// The files whose change calls for another [`Source::load`].
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files = match &self.place {
            Place::Mounted(folder) => mounted::files(folder),
            Place::SelfSigned(_) => Vec::new(),
        };
        files.extend(self.extra_roots.clone());
        files
    }

    fn read_extra_roots(&self) -> Result<Vec<CertificateDer<'static>>, LoadError> {
        let Some(path) = &self.extra_roots else { return Ok(Vec::new()) };
        let text = std::fs::read(path)
            .map_err(|e| LoadError::ExtraRoots(format!("cannot read {}: {e}", path.display())))?;
        certificates(&text).map_err(|e| LoadError::ExtraRoots(format!("{}: {e}", path.display())))
    }
}
