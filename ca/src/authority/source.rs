//! Where the authority comes from, and how it is read again when its files change.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use ringmail_identity::TrustDomain;
use rustls_pki_types::CertificateDer;

use super::mounted::{self, MountedError};
use super::self_signed::{StateError, StateFolder};
use super::{Authority, AuthorityError, Parts, certificates};
use crate::cluster::{Content, RootSecret, SecretFeed, have_one_in_common};

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
    /// The Secret is gone, or holds no usable root.
    #[error("{secret}: {error}")]
    Secret {
        /// The Secret.
        secret: String,
        /// What is wrong.
        error: String,
    },
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
    /// A Secret that others fill, under the names of a mounted folder.
    Secret(SecretFeed),
    /// The Secret of our own root.
    RootSecret(SecretFeed),
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

    /// A Secret that others fill.
    pub(crate) fn secret(feed: SecretFeed, extra_roots: Option<PathBuf>, trust_domain: TrustDomain) -> Self {
        Self { place: Place::Secret(feed), extra_roots, trust_domain }
    }

    /// The Secret of the self-signed root, opened already.
    pub(crate) fn root_secret(
        feed: SecretFeed,
        extra_roots: Option<PathBuf>,
        trust_domain: TrustDomain,
    ) -> Self {
        Self { place: Place::RootSecret(feed), extra_roots, trust_domain }
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
        let assemble = |parts: &Parts| Authority::assemble(parts, &extra, &self.trust_domain, now);
        Ok(match &self.place {
            Place::Mounted(folder) => assemble(&mounted::read(folder)?)?,
            Place::Secret(feed) => assemble(&mounted::read_secret(feed.origin(), content(feed)?.as_ref())?)?,
            Place::RootSecret(feed) => {
                let parts =
                    RootSecret::read(content(feed)?.as_ref()).and_then(|root| root.parts(feed.origin()));
                assemble(
                    &parts.map_err(|error| LoadError::Secret { secret: feed.origin().to_owned(), error })?,
                )?
            }
            Place::SelfSigned(parts) => assemble(parts)?,
        })
    }

    /// Whether `next` may take the place of `last`. Our own root is rotated by overlap: a Secret without any
    /// root of the bundle in force was put back or replaced by mistake.
    pub(crate) fn check_change(&self, last: &Authority, next: &Authority) -> Result<(), LoadError> {
        match &self.place {
            Place::RootSecret(feed) if !have_one_in_common(last.roots(), next.roots()) => {
                Err(LoadError::Secret {
                    secret: feed.origin().to_owned(),
                    error: "it has no root in common with the bundle in force".to_owned(),
                })
            }
            Place::RootSecret(_) | Place::Secret(_) | Place::Mounted(_) | Place::SelfSigned(_) => Ok(()),
        }
    }

    /// The Secret whose change calls for another [`Source::load`].
    pub(crate) fn feed(&self) -> Option<SecretFeed> {
        match &self.place {
            Place::Secret(feed) | Place::RootSecret(feed) => Some(feed.clone()),
            Place::Mounted(_) | Place::SelfSigned(_) => None,
        }
    }

    /// The files whose change calls for another [`Source::load`].
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files = match &self.place {
            Place::Mounted(folder) => mounted::files(folder),
            Place::Secret(_) | Place::RootSecret(_) | Place::SelfSigned(_) => Vec::new(),
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

fn content(feed: &SecretFeed) -> Result<Arc<Content>, LoadError> {
    feed.content().ok_or_else(|| LoadError::Secret {
        secret: feed.origin().to_owned(),
        error: "there is no such secret".to_owned(),
    })
}
