//! Roots that a CA has mounted, as cert-manager would put them there, so that a scenario can rotate them.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use ringmail_lab::mesh::MeshFiles;
use rustls::pki_types::CertificateDer;

/// A self-signed root with its key.
#[derive(Debug)]
pub struct Root(CertifiedIssuer<'static, KeyPair>);

impl Root {
    /// A new one of this name.
    pub fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Ok(Self(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    /// Its certificate.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Its certificate as bytes.
    pub fn der(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    /// What signs in its name.
    pub fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.0
    }

    /// Puts it where the CA has its signing key from, all files at once, as a mounted Secret changes: a link
    /// to a folder is replaced.
    pub fn mount(&self, files: &MeshFiles) -> Result<()> {
        let place = files.ca_mount();
        let generation = format!("..{}", fs::read_dir(&place).map_or(0, Iterator::count));
        let real = place.join(&generation);
        fs::create_dir_all(&real).with_context(|| format!("make {}", real.display()))?;
        for (name, text) in
            [("tls.crt", self.pem()), ("tls.key", self.0.key().serialize_pem()), ("ca.crt", self.pem())]
        {
            fs::write(real.join(name), text)?;
            let link = place.join(name);
            if fs::symlink_metadata(&link).is_err() {
                std::os::unix::fs::symlink(Path::new("..data").join(name), link)?;
            }
        }
        let next = place.join("..data_next");
        std::os::unix::fs::symlink(&generation, &next)?;
        fs::rename(next, place.join("..data")).context("swap the mounted key")
    }
}

/// Lets the CA's bundle carry these roots beside the one that signs.
pub fn trust(files: &MeshFiles, roots: &[&Root]) -> Result<()> {
    let file = files.extra_roots();
    let partial = file.with_extension("partial");
    let text: String = roots.iter().map(|root| root.pem()).collect();
    fs::write(&partial, text).with_context(|| format!("write {}", partial.display()))?;
    fs::rename(partial, file).context("swap the extra roots")
}
