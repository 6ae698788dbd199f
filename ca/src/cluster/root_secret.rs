//! The self-signed root as the content of a Secret. Pure.
//!
//! `tls.crt` and `tls.key` sign, `ca.crt` holds every root of the bundle. During a rotation there is a
//! second pair: `next.*` is trusted and does not sign yet, `previous.*` has signed and is still trusted.
//! All of it is one object, so that no replica can see one half of a step.

use std::collections::BTreeMap;
use std::time::SystemTime;

use k8s_openapi::ByteString;
use ringmail_identity::TrustDomain;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use crate::authority::{Authority, Parts, certificate_pem, certificates, private_key, self_signed, unique};

/// The data of a Secret.
pub(crate) type Content = BTreeMap<String, ByteString>;

const SIGNING: &str = "tls";
const NEXT: &str = "next";
const PREVIOUS: &str = "previous";
const ROOTS: &str = "ca.crt";
/// Before the keys of content that was set aside.
const DAMAGED: &str = "damaged-";

/// A root that can sign.
#[derive(Clone)]
pub(crate) struct Root {
    pub(crate) certificate: CertificateDer<'static>,
    key_pem: Zeroizing<Vec<u8>>,
}

/// How far a rotation has come.
#[derive(Clone)]
pub(crate) enum Rotation {
    /// There is none.
    Settled,
    /// A new root is trusted; the old one signs.
    Trusted(Root),
    /// The new root signs; this old one is still trusted.
    Signed(Root),
}

/// The content of the Secret, read and found whole.
#[derive(Clone)]
pub(crate) struct RootSecret {
    pub(crate) signing: Root,
    pub(crate) rotation: Rotation,
    /// Every root of the bundle.
    pub(crate) roots: Vec<CertificateDer<'static>>,
}

impl Root {
    /// A new one.
    pub(crate) fn new(trust_domain: &TrustDomain, now: SystemTime) -> Result<Self, String> {
        let (certificate, key) =
            self_signed::self_signed_root(trust_domain, now).map_err(|e| e.to_string())?;
        Ok(Self { certificate, key_pem: Zeroizing::new(key.serialize_pem().into_bytes()) })
    }

    fn read(content: &Content, name: &str) -> Result<Option<Self>, String> {
        let (certificate, key) = (format!("{name}.crt"), format!("{name}.key"));
        match (content.get(&certificate), content.get(&key)) {
            (None, None) => Ok(None),
            (Some(_), None) => Err(format!("{certificate} is there without {key}")),
            (None, Some(_)) => Err(format!("{key} is there without {certificate}")),
            (Some(pem), Some(key_pem)) => {
                let mut found = certificates(&pem.0).map_err(|e| format!("{certificate}: {e}"))?;
                if found.len() != 1 {
                    return Err(format!("{certificate}: {} certificates: expected one", found.len()));
                }
                private_key(&key_pem.0).map_err(|e| format!("{key}: {e}"))?;
                Ok(found
                    .pop()
                    .map(|certificate| Self { certificate, key_pem: Zeroizing::new(key_pem.0.clone()) }))
            }
        }
    }

    fn write(&self, content: &mut Content, name: &str) {
        let certificate = ByteString(certificate_pem(&self.certificate).into_bytes());
        content.insert(format!("{name}.crt"), certificate);
        content.insert(format!("{name}.key"), ByteString(self.key_pem.to_vec()));
    }

    fn key(&self) -> Result<Zeroizing<PrivateKeyDer<'static>>, String> {
        private_key(&self.key_pem)
    }
}

impl RootSecret {
    /// A first root.
    pub(crate) fn first(trust_domain: &TrustDomain, now: SystemTime) -> Result<Self, String> {
        let signing = Root::new(trust_domain, now)?;
        let roots = vec![signing.certificate.clone()];
        Ok(Self { signing, rotation: Rotation::Settled, roots })
    }

    /// Reads and checks the form. Whether the key can sign is proved by [`RootSecret::prove`].
    pub(crate) fn read(content: &Content) -> Result<Self, String> {
        let signing = Root::read(content, SIGNING)?.ok_or("tls.crt and tls.key are not there")?;
        let rotation = match (Root::read(content, NEXT)?, Root::read(content, PREVIOUS)?) {
            (None, None) => Rotation::Settled,
            (Some(next), None) => Rotation::Trusted(next),
            (None, Some(previous)) => Rotation::Signed(previous),
            (Some(_), Some(_)) => return Err("both next.crt and previous.crt are there".to_owned()),
        };
        let pem = content.get(ROOTS).ok_or("ca.crt is not there")?;
        let roots = certificates(&pem.0).map_err(|e| format!("{ROOTS}: {e}"))?;
        let mut secret = Self { signing, rotation, roots };
        if let Some(missing) = secret.pairs().find(|(_, root)| !secret.roots.contains(&root.certificate)) {
            return Err(format!("{ROOTS} lacks the certificate of {}.crt", missing.0));
        }
        secret.roots = unique(&secret.roots);
        Ok(secret)
    }

    /// The data of the Secret. What else was in it stays, so that nothing set aside is lost.
    pub(crate) fn write(&self, content: &mut Content) {
        content.retain(|key, _| key.starts_with(DAMAGED));
        for (name, root) in self.pairs() {
            root.write(content, name);
        }
        let roots: String = self.roots.iter().map(|root| certificate_pem(root)).collect();
        content.insert(ROOTS.to_owned(), ByteString(roots.into_bytes()));
    }

    /// What an authority is made of: the signing root first in the bundle.
    pub(crate) fn parts(&self, origin: &str) -> Result<Parts, String> {
        self.parts_with(origin, &self.signing)
    }

    /// Proves that each pair can sign and verifies under the bundle.
    pub(crate) fn prove(
        &self,
        origin: &str,
        trust_domain: &TrustDomain,
        now: SystemTime,
    ) -> Result<(), String> {
        for (_, root) in self.pairs() {
            let parts = self.parts_with(origin, root)?;
            Authority::assemble(&parts, &[], trust_domain, now).map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    fn parts_with(&self, origin: &str, root: &Root) -> Result<Parts, String> {
        let roots = unique(std::iter::once(&root.certificate).chain(&self.roots));
        let (origin, chain) = (origin.to_owned(), vec![root.certificate.clone()]);
        Ok(Parts { origin, chain, key: root.key()?, roots })
    }

    fn pairs(&self) -> impl Iterator<Item = (&'static str, &Root)> {
        let other = match &self.rotation {
            Rotation::Settled => None,
            Rotation::Trusted(root) => Some((NEXT, root)),
            Rotation::Signed(root) => Some((PREVIOUS, root)),
        };
        std::iter::once((SIGNING, &self.signing)).chain(other)
    }
}

/// Puts damaged content aside under other names, so that a new root loses nothing that could be mended.
pub(crate) fn set_aside(content: &mut Content) {
    let damaged: Vec<_> = content.keys().filter(|key| !key.starts_with(DAMAGED)).cloned().collect();
    for key in damaged {
        if let Some(value) = content.remove(&key) {
            content.insert(format!("{DAMAGED}{key}"), value);
        }
    }
}

/// Every certificate that can still be read in `content`, whatever else is wrong with it.
pub(crate) fn readable_certificates(content: &Content) -> Vec<CertificateDer<'static>> {
    let names =
        [format!("{SIGNING}.crt"), format!("{NEXT}.crt"), format!("{PREVIOUS}.crt"), ROOTS.to_owned()];
    let pem = names.iter().filter_map(|name| content.get(name));
    let found: Vec<_> = pem.flat_map(|pem| certificates(&pem.0).unwrap_or_default()).collect();
    unique(&found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn td() -> TrustDomain {
        "cluster.local".parse().unwrap()
    }

    fn content(secret: &RootSecret) -> Content {
        let mut content = Content::new();
        secret.write(&mut content);
        content
    }

    #[test]
    fn what_is_written_is_read_again() {
        let now = SystemTime::now();
        let mut secret = RootSecret::first(&td(), now).unwrap();
        let next = Root::new(&td(), now).unwrap();
        secret.roots.push(next.certificate.clone());
        secret.rotation = Rotation::Trusted(next.clone());
        let read = RootSecret::read(&content(&secret)).unwrap();
        read.prove("secret", &td(), now).unwrap();
        assert_eq!(read.roots, secret.roots);
        assert!(matches!(read.rotation, Rotation::Trusted(root) if root.certificate == next.certificate));
        assert_eq!(read.signing.key_pem, secret.signing.key_pem);
    }

    type Damage = fn(&mut Content);

    #[test]
    fn every_damage_has_its_reason() {
        let now = SystemTime::now();
        let whole = content(&RootSecret::first(&td(), now).unwrap());
        let damage: [(&str, Damage); 10] = [
            ("tls.crt and tls.key are not there", Content::clear),
            ("tls.crt is there without tls.key", |c| drop(c.remove("tls.key"))),
            ("tls.key is there without tls.crt", |c| drop(c.remove("tls.crt"))),
            ("ca.crt is not there", |c| drop(c.remove("ca.crt"))),
            ("tls.crt: no certificate in it", |c| {
                drop(c.insert("tls.crt".to_owned(), ByteString::default()))
            }),
            ("tls.key: no private key in it", |c| {
                drop(c.insert("tls.key".to_owned(), ByteString::default()))
            }),
            ("tls.key: no private key in it: block", |c| {
                let key = c.get_mut("tls.key").unwrap();
                key.0.truncate(key.0.len() - 40);
            }),
            ("ca.crt lacks the certificate of tls.crt", |c| {
                let other = content(&RootSecret::first(&td(), SystemTime::now()).unwrap());
                c.insert("ca.crt".to_owned(), other["ca.crt"].clone());
            }),
            ("both next.crt and previous.crt", |c| {
                for name in ["next", "previous"] {
                    for part in ["crt", "key"] {
                        let value = c[&format!("tls.{part}")].clone();
                        c.insert(format!("{name}.{part}"), value);
                    }
                }
            }),
            ("does not belong to certificate", |c| {
                let other = content(&RootSecret::first(&td(), SystemTime::now()).unwrap());
                c.insert("tls.key".to_owned(), other["tls.key"].clone());
            }),
        ];
        for (expected, damage) in damage {
            let mut content = whole.clone();
            damage(&mut content);
            let read = RootSecret::read(&content);
            let error = read.and_then(|secret| secret.prove("secret", &td(), now)).unwrap_err();
            assert!(error.contains(expected), "{expected}: {error}");
        }
    }

    #[test]
    fn damaged_content_is_kept_aside() {
        let mut content = content(&RootSecret::first(&td(), SystemTime::now()).unwrap());
        let key = content["tls.key"].clone();
        set_aside(&mut content);
        RootSecret::first(&td(), SystemTime::now()).unwrap().write(&mut content);
        assert_eq!(content["damaged-tls.key"], key);
        assert_ne!(content["tls.key"], key);
        RootSecret::read(&content).unwrap();
    }
}
