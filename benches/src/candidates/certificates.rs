//! The peers' certificates: a leaf for each pod, P-256, signed by one root, as `ringmail-ca` makes them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};

/// The identity in both leaves, as Istio and Ringmail write it.
pub(crate) const SPIFFE_ID: &str = "spiffe://cluster.local/ns/ignite/sa/bench";

/// The same as Linkerd writes it.
pub(super) const LINKERD_NAME: &str = "bench.ignite.serviceaccount.identity.linkerd.cluster.local";

/// Longer than any run.
const LIFETIME: Duration = Duration::days(1);

/// Clocks of proxies do not differ here, but a certificate that begins this second is refused by some.
const BACKDATED: Duration = Duration::hours(1);

/// The name that a leaf carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    /// [`SPIFFE_ID`].
    Spiffe,
    /// [`LINKERD_NAME`].
    Linkerd,
}

/// The files of one pod's identity, readable for everyone.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// The root, PEM.
    pub(crate) root: PathBuf,
    /// The leaf, PEM.
    pub(crate) certificate: PathBuf,
    /// Its key, PKCS#8 in PEM.
    pub(crate) key: PathBuf,
    /// Leaf and key in one, PEM.
    pub(super) both: PathBuf,
    /// The leaf, DER.
    pub(super) certificate_der: PathBuf,
    /// The folder of all of them, with the key in DER as `key.p8` and a request as `csr.der`, as Linkerd calls them.
    pub(super) folder: PathBuf,
}

/// A root that lives as long as a place.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "bench root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        validity(&mut params);
        Ok(Self(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    /// Makes the identity of a pod in a folder of its own.
    pub(crate) fn issue(&self, folder: &Path, naming: Naming) -> Result<Identity> {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![match naming {
            Naming::Spiffe => SanType::URI(SPIFFE_ID.try_into()?),
            Naming::Linkerd => SanType::DnsName(LINKERD_NAME.try_into()?),
        }];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let request = params.serialize_request(&key)?;
        validity(&mut params);
        let leaf = params.signed_by(&key, &self.0)?;
        let file = |name: &str, bytes: &[u8]| -> Result<PathBuf> {
            let path = folder.join(name);
            fs::write(&path, bytes).with_context(|| format!("write {}", path.display()))?;
            Ok(path)
        };
        file("key.p8", key.serialized_der())?;
        file("csr.der", request.der())?;
        Ok(Identity {
            root: file("root.pem", self.0.pem().as_bytes())?,
            certificate: file("leaf.pem", leaf.pem().as_bytes())?,
            key: file("key.pem", key.serialize_pem().as_bytes())?,
            both: file("both.pem", (leaf.pem() + &key.serialize_pem()).as_bytes())?,
            certificate_der: file("leaf.der", leaf.der())?,
            folder: folder.to_owned(),
        })
    }
}

fn validity(params: &mut CertificateParams) {
    let now = OffsetDateTime::now_utc();
    params.not_before = now - BACKDATED;
    params.not_after = now + LIFETIME;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_complete_on_disk() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new().unwrap();
        for naming in [Naming::Spiffe, Naming::Linkerd] {
            let identity = authority.issue(&folder.path().join(format!("{naming:?}")), naming).unwrap();
            let both = fs::read_to_string(&identity.both).unwrap();
            assert!(both.contains("BEGIN CERTIFICATE") && both.contains("BEGIN PRIVATE KEY"), "{both}");
            for der in ["leaf.der", "key.p8", "csr.der"] {
                assert_eq!(fs::read(identity.folder.join(der)).unwrap()[0], 0x30, "{der}");
            }
        }
    }
}
