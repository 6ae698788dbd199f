//! A root made here, once, and kept in the state folder.
//!
//! The certificate and its key live in one file, `root.pem`, so that no crash can leave one without
//! the other. `root-cert.pem` beside it is the public certificate: it is what tells a folder that
//! lost its key from one that never had any. A root that cannot be read is never replaced unless
//! the operator says so, and then the old one stays in the bundle.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::fcntl::{Flock, FlockArg};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use ringmail_identity::TrustDomain;
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use super::{Authority, AuthorityError, Parts, certificate_pem, certificates, private_key};
use crate::issue;
use crate::persist::{self, PUBLIC_MODE, PersistError, SECRET_MODE};

const ROOT: &str = "root.pem";
const ROOT_CERTIFICATE: &str = "root-cert.pem";
const OLD_ROOTS: &str = "old-roots.pem";
const LOCK: &str = ".lock";
/// Ten years of 365 days, as long as the self-signed roots of the field.
const ROOT_LIFETIME: Duration = Duration::from_hours(87_600);

/// What an empty state folder means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstRoot {
    /// A first start: a root is made.
    Create,
    /// A lost volume: the start is refused.
    Existing,
}

/// The folder that keeps the root.
#[derive(Clone, Debug)]
pub struct StateFolder {
    /// Its path; it is made when missing.
    pub path: PathBuf,
    /// What an empty folder means.
    pub first_root: FirstRoot,
    /// Allows a new root in the place of one that is lost or damaged.
    pub bootstrap_new_root: bool,
}

/// Why the state folder does not yield a root.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The root's file is there but holds no usable root.
    #[error("{}: {error}; restore the file, or give --bootstrap-new-root to make a new root beside the old one", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: String,
    },
    /// The folder had a root once.
    #[error("{}: the root is gone, but {trace} shows there was one; restore it, or give --bootstrap-new-root to make a new root", path.display())]
    Lost {
        /// The root's file.
        path: PathBuf,
        /// What shows it.
        trace: &'static str,
    },
    /// The folder is empty and must not be.
    #[error("{}: no root in it, and --self-signed-root is existing; restore it, or set create for a first start", .0.display())]
    Missing(PathBuf),
    /// A file cannot be written.
    #[error(transparent)]
    Persist(#[from] PersistError),
    /// A file cannot be read or locked.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's word.
        error: io::Error,
    },
    /// A new root could not be made.
    #[error("a new root could not be made: {0}")]
    Signing(String),
}

impl StateFolder {
    /// Reads the root, or makes it where that is allowed.
    pub(crate) fn open(&self, trust_domain: &TrustDomain, now: SystemTime) -> Result<Parts, StateError> {
        persist::ensure_secret_folder(&self.path)?;
        let _only_one = self.lock()?;
        match self.read_root() {
            Ok(Some(parts)) => self.keep(parts, trust_domain, now),
            Ok(None) => self.first(trust_domain, now),
            Err(damage) if self.bootstrap_new_root => self.replace(&damage, trust_domain, now),
            Err(damage) => Err(damage),
        }
    }

    fn keep(&self, parts: Parts, trust_domain: &TrustDomain, now: SystemTime) -> Result<Parts, StateError> {
        let usable = Authority::assemble(&parts, &[], trust_domain, now);
        match usable.map_err(|error| self.damaged(&error)).and_then(|_| self.check_certificate(&parts)) {
            Ok(()) => {
                if self.bootstrap_new_root {
                    tracing::warn!("--bootstrap-new-root has no effect: the root is intact");
                }
                warn_of_readers(&self.root());
                Ok(parts)
            }
            Err(damage) if self.bootstrap_new_root => self.replace(&damage, trust_domain, now),
            Err(damage) => Err(damage),
        }
    }

    fn damaged(&self, error: &AuthorityError) -> StateError {
        StateError::Damaged { path: self.root(), error: error.to_string() }
    }

    /// The public copy must name the same root; after a crash between the two it is made again.
    fn check_certificate(&self, parts: &Parts) -> Result<(), StateError> {
        let path = self.path.join(ROOT_CERTIFICATE);
        match read(&path)? {
            None => self.publish_certificate(parts),
            Some(text) => {
                let known =
                    certificates(&text).map_err(|error| StateError::Damaged { path: path.clone(), error })?;
                if known.first() == parts.chain.first() {
                    return Ok(());
                }
                let error = format!("holds another root than {}", path.display());
                Err(StateError::Damaged { path: self.root(), error })
            }
        }
    }

    fn first(&self, trust_domain: &TrustDomain, now: SystemTime) -> Result<Parts, StateError> {
        let trace = [ROOT_CERTIFICATE, OLD_ROOTS].into_iter().find(|name| self.path.join(name).exists());
        match trace {
            Some(_) if self.bootstrap_new_root => {
                tracing::warn!("the root is gone: making a new one");
                self.remember_old_root()?;
                self.create(trust_domain, now)
            }
            Some(trace) => Err(StateError::Lost { path: self.root(), trace }),
            None if self.first_root == FirstRoot::Create || self.bootstrap_new_root => {
                self.create(trust_domain, now)
            }
            None => Err(StateError::Missing(self.path.clone())),
        }
    }

    /// Each step leaves a folder that either still refuses to start or holds a whole root.
    fn replace(
        &self,
        damage: &StateError,
        trust_domain: &TrustDomain,
        now: SystemTime,
    ) -> Result<Parts, StateError> {
        tracing::warn!(error = damage.to_string(), "making a new root in the place of a damaged one");
        self.remember_old_root()?;
        persist::set_aside(&self.root(), &self.free_name())?;
        self.create(trust_domain, now)
    }

    /// Moves the public certificate of the old root to the list that stays in the bundle.
    fn remember_old_root(&self) -> Result<(), StateError> {
        let certificate = self.path.join(ROOT_CERTIFICATE);
        let mut old = self.old_roots().unwrap_or_default();
        // The damaged file itself may still hold a readable certificate, even another one.
        for path in [&certificate, &self.root()] {
            if let Some(text) = read(path)? {
                old.extend(certificates(&text).unwrap_or_default());
            }
        }
        let pem: String = super::unique(&old).iter().map(|c| certificate_pem(c)).collect();
        persist::publish(&self.path.join(OLD_ROOTS), pem.as_bytes(), PUBLIC_MODE)?;
        Ok(persist::remove(&certificate)?)
    }

    fn create(&self, trust_domain: &TrustDomain, now: SystemTime) -> Result<Parts, StateError> {
        let (certificate, key) =
            self_signed_root(trust_domain, now).map_err(|e| StateError::Signing(e.to_string()))?;
        let key = Zeroizing::new(key.serialize_pem());
        let text = Zeroizing::new([&certificate_pem(&certificate)[..], &key[..]].concat());
        persist::publish(&self.root(), text.as_bytes(), SECRET_MODE)?;
        tracing::info!(path = %self.root().display(), "a new self-signed root was made");
        let parts = self.read_root()?.ok_or_else(|| StateError::Missing(self.path.clone()))?;
        self.publish_certificate(&parts)?;
        Ok(parts)
    }

    fn publish_certificate(&self, parts: &Parts) -> Result<(), StateError> {
        let pem: String = parts.chain.iter().map(|c| certificate_pem(c)).collect();
        Ok(persist::publish(&self.path.join(ROOT_CERTIFICATE), pem.as_bytes(), PUBLIC_MODE)?)
    }

    fn read_root(&self) -> Result<Option<Parts>, StateError> {
        let path = self.root();
        let Some(text) = read(&path)? else { return Ok(None) };
        let damaged = |error: String| StateError::Damaged { path: path.clone(), error };
        let chain = certificates(&text).map_err(damaged)?;
        let key = private_key(&text).map_err(damaged)?;
        let mut roots = chain.clone();
        roots.extend(self.old_roots()?);
        Ok(Some(Parts { origin: path.display().to_string(), chain, key, roots }))
    }

    fn old_roots(&self) -> Result<Vec<CertificateDer<'static>>, StateError> {
        let path = self.path.join(OLD_ROOTS);
        let text = read(&path)?.filter(|text| !text.is_empty());
        text.map_or(Ok(Vec::new()), |text| {
            certificates(&text).map_err(|error| StateError::Damaged { path: path.clone(), error })
        })
    }

    fn root(&self) -> PathBuf {
        self.path.join(ROOT)
    }

    fn free_name(&self) -> PathBuf {
        let mut names = (1u32..).map(|n| self.path.join(format!("{ROOT}.damaged-{n}")));
        names.find(|path| !path.exists()).unwrap_or_else(|| self.path.join("root.pem.damaged"))
    }

    /// Two processes that start at once on one folder must end with one root.
    fn lock(&self) -> Result<Flock<File>, StateError> {
        let path = self.path.join(LOCK);
        let unread = |error: io::Error| StateError::Read { path: path.clone(), error };
        let mut options = OpenOptions::new();
        let file =
            options.write(true).create(true).truncate(false).mode(SECRET_MODE).open(&path).map_err(unread)?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| unread(errno.into()))
    }
}

/// What was read may be a key: it is wiped when it is dropped.
fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, StateError> {
    match std::fs::read(path) {
        Ok(text) => Ok(Some(Zeroizing::new(text))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StateError::Read { path: path.to_path_buf(), error }),
    }
}

/// Only a warning: volumes with a group of their own widen the mode of every file.
fn warn_of_readers(path: &Path) {
    if let Ok(metadata) = std::fs::metadata(path)
        && metadata.permissions().mode() & 0o077 != 0
    {
        let mode = format!("{:o}", metadata.permissions().mode() & 0o777);
        tracing::warn!(path = %path.display(), mode, "the root's private key can be read by others");
    }
}

/// A new root of this trust domain with its key.
pub(crate) fn self_signed_root(
    trust_domain: &TrustDomain,
    now: SystemTime,
) -> Result<(CertificateDer<'static>, KeyPair), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, trust_domain.to_string());
    params.distinguished_name.push(DnType::CommonName, "ringmail root");
    params.subject_alt_names = vec![SanType::URI(format!("spiffe://{trust_domain}").try_into()?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(issue::random_serial()?);
    params.not_before = (now - issue::BACKDATE).into();
    params.not_after = (now + ROOT_LIFETIME).into();
    Ok((params.self_signed(&key)?.into(), key))
}
