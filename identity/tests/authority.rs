//! An authority that signs whatever it is told to, good or hostile.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SignatureAlgorithm, date_time_ymd,
};
use ringmail_identity::{CertificateDer, TrustBundle, TrustDomain, UnixTime};

pub(crate) const ID: &str = "spiffe://cluster.local/ns/ring/sa/ignite";

const OID_SAN: &[u64] = &[2, 5, 29, 17];

/// The tag of a URI among the general names, as DER writes it.
pub(crate) const URI: u8 = 0x86;
/// The tag of an e-mail address.
pub(crate) const EMAIL: u8 = 0x81;
/// The tag of a DNS name.
pub(crate) const DNS: u8 = 0x82;

/// An authority's certificate with its key.
pub(crate) struct Authority {
    pub(crate) der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn root(name: &str) -> Self {
        Self::root_with(name, &rcgen::PKCS_ECDSA_P256_SHA256, |_| {})
    }

    pub(crate) fn root_with(
        name: &str,
        algorithm: &'static SignatureAlgorithm,
        edit: impl FnOnce(&mut CertificateParams),
    ) -> Self {
        let mut params = authority_profile(name);
        edit(&mut params);
        let key = KeyPair::generate_for(algorithm).unwrap();
        let der = params.self_signed(&key).unwrap().der().clone();
        Self { der, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn intermediate(&self, name: &str, edit: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = authority_profile(name);
        edit(&mut params);
        let key = KeyPair::generate().unwrap();
        let der = self.sign(&params, &key);
        Self { der, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn sign(
        &self,
        params: &CertificateParams,
        key: &impl PublicKeyData,
    ) -> CertificateDer<'static> {
        params.signed_by(key, &self.issuer).unwrap().der().clone()
    }

    /// Istio's leaf for [`ID`] on a new P-256 key, edited.
    pub(crate) fn leaf(&self, edit: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let mut params = leaf_profile(ID);
        edit(&mut params);
        self.sign(&params, &KeyPair::generate().unwrap())
    }

    pub(crate) fn bundle(&self) -> TrustBundle {
        bundle([self])
    }
}

/// The bundle of `cluster.local` with those roots.
pub(crate) fn bundle<'a>(roots: impl IntoIterator<Item = &'a Authority>) -> TrustBundle {
    TrustBundle::new(trust_domain(), roots.into_iter().map(|root| root.der.clone()).collect()).unwrap()
}

pub(crate) fn trust_domain() -> TrustDomain {
    "cluster.local".parse().unwrap()
}

/// A time at which everything made here is valid unless it was edited.
pub(crate) fn noon() -> UnixTime {
    unix(date_time_ymd(2026, 1, 2).unix_timestamp())
}

pub(crate) fn unix(seconds: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds.try_into().unwrap()))
}

/// What Istio's authority writes into a leaf: an empty subject, hence a critical SAN.
pub(crate) fn leaf_profile(id: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = date_time_ymd(2026, 1, 2) - Duration::from_secs(120);
    params.not_after = date_time_ymd(2026, 1, 3);
    params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn authority_profile(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, name);
    params.not_before = date_time_ymd(2025, 1, 1);
    params.not_after = date_time_ymd(2035, 1, 1);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// One DER element of at most 64 KiB.
pub(crate) fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    let header = match content.len() {
        0..=127 => vec![tag, length[1]],
        128..=255 => vec![tag, 0x81, length[1]],
        _ => vec![tag, 0x82, length[0], length[1]],
    };
    [header, content.to_vec()].concat()
}

/// A critical SAN extension of names given as tag and bytes, which no library would agree to write.
pub(crate) fn raw_san(names: &[(u8, &[u8])]) -> CustomExtension {
    let names: Vec<u8> = names.iter().flat_map(|(tag, bytes)| der(*tag, bytes)).collect();
    let mut extension = CustomExtension::from_oid_content(OID_SAN, der(0x30, &names));
    extension.set_criticality(true);
    extension
}

/// The public key info of an RSA key of that many bits that is nobody's.
pub(crate) fn rsa_spki(bits: usize) -> Vec<u8> {
    let mut modulus = vec![0xff; bits.div_ceil(8)];
    if bits.is_multiple_of(8) {
        // An integer whose highest bit is set would be negative.
        modulus.insert(0, 0);
    } else {
        modulus[0] >>= 8 - bits % 8;
    }
    let key = der(0x30, &[der(0x02, &modulus), der(0x02, &[1, 0, 1])].concat());
    let oid = [0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 0x05, 0];
    der(0x30, &[der(0x30, &oid), der(0x03, &[vec![0], key].concat())].concat())
}
