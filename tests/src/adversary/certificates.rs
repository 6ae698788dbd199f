//! The table of hostile certificates: what each is, and what a sidecar calls it whose client shows it, and whose server.
//!
//! The rules are tried one by one where they are written, in `identity/tests`; what is tried here is that they hold
//! on the wire, whole, in both directions.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ED25519, PublicKeyData, SanType, date_time_ymd,
};
use rustls::{
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer},
    sign::CertifiedKey,
};

use crate::{roots::Root, world::SERVICE_ACCOUNT};

const OID_SAN: &[u64] = &[2, 5, 29, 17];
const OID_NAME_CONSTRAINTS: &[u64] = &[2, 5, 29, 30];
/// The tags of a URI and of a DNS name among general names.
const URI: u8 = 0x86;
const DNS: u8 = 0x82;

/// What a sidecar says of a peer that it takes.
pub const TAKEN: &str = "complete";

/// One certificate, with the reason for which a sidecar refuses it.
pub struct Case {
    /// What is wrong with it.
    pub name: &'static str,
    /// Its maker.
    pub make: fn(&Forger) -> Result<CertifiedKey>,
    /// The reason where a client shows it.
    pub of_client: &'static str,
    /// And where a server does.
    pub of_server: &'static str,
}

/// Whoever has the mesh's own root, and others.
pub struct Forger<'a> {
    root: &'a Root,
    foreign: Root,
    /// Of the mesh's root's name.
    namesake: Root,
}

impl<'a> Forger<'a> {
    /// With the root that the mesh trusts.
    ///
    /// # Errors
    /// Only where no key can be made.
    pub fn new(root: &'a Root, name: &str) -> Result<Self> {
        Ok(Self { root, foreign: Root::new("foreign")?, namesake: Root::new(name)? })
    }

    /// What the mesh would give to a workload of the service account.
    ///
    /// # Errors
    /// Only where it cannot be signed.
    pub fn of(&self, service_account: &str) -> Result<CertifiedKey> {
        self.named(&format!("spiffe://cluster.local/ns/ignite/sa/{service_account}"))
    }

    fn named(&self, id: &str) -> Result<CertifiedKey> {
        self.with_names(&[(URI, id.as_bytes())])
    }

    fn with_names(&self, names: &[(u8, &[u8])]) -> Result<CertifiedKey> {
        self.leaf(|params| {
            params.subject_alt_names.clear();
            params.custom_extensions.push(names_extension(names));
        })
    }

    /// A good leaf, edited.
    fn leaf(&self, edit: impl FnOnce(&mut CertificateParams)) -> Result<CertifiedKey> {
        signed(edit, self.root.issuer(), &[])
    }
}

/// An authority below a root.
struct Authority {
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn below(issuer: &Issuer<'_, KeyPair>, edit: impl FnOnce(&mut CertificateParams)) -> Result<Self> {
        Self::with_key(issuer, KeyPair::generate()?, edit)
    }

    fn with_key(
        issuer: &Issuer<'_, KeyPair>,
        key: KeyPair,
        edit: impl FnOnce(&mut CertificateParams),
    ) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::OrganizationName, "between");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        edit(&mut params);
        let der = params.signed_by(&key, issuer)?.der().clone();
        Ok(Self { der, issuer: Issuer::new(params, key) })
    }
}

/// A good leaf, edited, on a new key, with what is shown above it.
fn signed(
    edit: impl FnOnce(&mut CertificateParams),
    issuer: &Issuer<'_, KeyPair>,
    above: &[&CertificateDer<'static>],
) -> Result<CertifiedKey> {
    let key = KeyPair::generate()?;
    let leaf = leaf_of(&key, edit, issuer)?;
    let chain = std::iter::once(leaf).chain(above.iter().map(|der| (*der).clone())).collect();
    with_key(chain, &key)
}

fn leaf_of(
    key: &impl PublicKeyData,
    edit: impl FnOnce(&mut CertificateParams),
    issuer: &Issuer<'_, KeyPair>,
) -> Result<CertificateDer<'static>> {
    let mut params = CertificateParams::default();
    let id = format!("spiffe://cluster.local/ns/ignite/sa/{SERVICE_ACCOUNT}");
    params.subject_alt_names = vec![SanType::URI(id.as_str().try_into()?)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    edit(&mut params);
    Ok(params.signed_by(key, issuer)?.der().clone())
}

fn with_key(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Result<CertifiedKey> {
    let key = PrivateKeyDer::try_from(key.serialize_der()).ok().context("a private key")?;
    Ok(CertifiedKey::new(chain, any_supported_type(&key)?))
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let bytes: Vec<u8> = length.into_iter().skip_while(|byte| *byte == 0).collect();
    let header = match content.len() {
        0..=127 => vec![tag, length[7]],
        _ => [&[tag, 0x80 | u8::try_from(bytes.len()).unwrap_or(4)], &bytes[..]].concat(),
    };
    [header, content.to_vec()].concat()
}

fn names_extension(names: &[(u8, &[u8])]) -> CustomExtension {
    let names: Vec<u8> = names.iter().flat_map(|(tag, bytes)| der(*tag, bytes)).collect();
    CustomExtension::from_oid_content(OID_SAN, der(0x30, &names))
}

const fn both(name: &'static str, reason: &'static str, make: fn(&Forger) -> Result<CertifiedKey>) -> Case {
    Case { name, make, of_client: reason, of_server: reason }
}

/// Of whom: row A3.
#[rustfmt::skip]
pub const DOMAINS: &[Case] = &[
    both("another trust domain under the same root", "certificate_foreign_trust_domain", |forger| forger.named("spiffe://elsewhere.example/ns/ignite/sa/ignite")),
];

/// By whom: row A4.
#[rustfmt::skip]
pub const ROOTS: &[Case] = &[
    both("a foreign root", "certificate_unknown_issuer", |forger| signed(|_| {}, forger.foreign.issuer(), &[])),
    both("a foreign root, presented too", "certificate_unknown_issuer", |forger| signed(|_| {}, forger.foreign.issuer(), &[&forger.foreign.der()])),
    both("a foreign root of our root's name", "certificate_bad_signature", |forger| signed(|_| {}, forger.namesake.issuer(), &[])),
];

/// Until when: row A5.
#[rustfmt::skip]
pub const ENDED: &[Case] = &[
    both("expired", "certificate_expired", |forger| forger.leaf(|params| params.not_after = date_time_ymd(2025, 1, 1))),
    both("expired before it was valid", "certificate_malformed", |forger| forger.leaf(|params| {
        params.not_before = date_time_ymd(2099, 1, 1);
        params.not_after = params.not_before - Duration::from_secs(1);
    })),
];

/// From when on: row A6.
#[rustfmt::skip]
pub const EARLY: &[Case] = &[
    both("not valid yet", "certificate_not_yet_valid", |forger| forger.leaf(|params| params.not_before = date_time_ymd(2099, 1, 1))),
];

/// For what: row A7.
#[rustfmt::skip]
pub const PURPOSES: &[Case] = &[
    both("a good one", TAKEN, |forger| forger.of(SERVICE_ACCOUNT)),
    both("no extended key usage", "certificate_no_extended_key_usage", |forger| forger.leaf(|params| params.extended_key_usages.clear())),
    both("usage for signing code", "certificate_wrong_extended_key_usage", |forger| forger.leaf(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning])),
    Case { name: "usage for servers", of_client: "certificate_wrong_extended_key_usage", of_server: TAKEN, make: |forger| forger.leaf(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]) },
    Case { name: "usage for clients", of_client: TAKEN, of_server: "certificate_wrong_extended_key_usage", make: |forger| forger.leaf(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]) },
    both("the CA bit", "certificate_is_ca", |forger| forger.leaf(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))),
    both("no key usage", "certificate_no_key_usage", |forger| forger.leaf(|params| params.key_usages.clear())),
    both("no digitalSignature", "certificate_no_digital_signature", |forger| forger.leaf(|params| params.key_usages = vec![KeyUsagePurpose::KeyEncipherment])),
    both("keyCertSign", "certificate_key_usage_signs", |forger| forger.leaf(|params| params.key_usages.push(KeyUsagePurpose::KeyCertSign))),
    both("an Ed25519 key", "certificate_key_refused", |forger| {
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        with_key(vec![leaf_of(&key, |_| {}, forger.root.issuer())?], &key)
    }),
    both("somebody's certificate without the key", "handshake_failed", |forger| {
        let (theirs, own) = (KeyPair::generate()?, KeyPair::generate()?);
        with_key(vec![leaf_of(&theirs, |_| {}, forger.root.issuer())?], &own)
    }),
];

/// What it calls itself: row A8.
#[rustfmt::skip]
pub const NAMES: &[Case] = &[
    both("no URI", "certificate_no_uri_san", |forger| forger.leaf(|params| params.subject_alt_names.clear())),
    both("two URIs", "certificate_several_uri_sans", |forger| forger.leaf(|params| params.subject_alt_names.extend(uri("spiffe://cluster.local/ns/ignite/sa/admin")))),
    both("the identity as a common name", "certificate_no_uri_san", |forger| forger.leaf(|params| {
        params.subject_alt_names.clear();
        params.distinguished_name.push(DnType::CommonName, "spiffe://cluster.local/ns/ignite/sa/ignite");
    })),
    both("the identity as a DNS name", "certificate_no_uri_san", |forger| forger.with_names(&[(DNS, b"spiffe://cluster.local/ns/ignite/sa/ignite")])),
    both("a DNS name beside the identity, which nobody looks at", TAKEN, |forger| forger.with_names(&[(DNS, b"admin.example"), (URI, b"spiffe://cluster.local/ns/ignite/sa/ignite")])),
    both("an IP address beside the identity", "certificate_other_san", |forger| forger.leaf(|params| params.subject_alt_names.push(SanType::IpAddress([10, 77, 0, 1].into())))),
    both("a wildcard", "spiffe_id_wildcard", |forger| forger.named("spiffe://cluster.local/ns/ignite/sa/*")),
    both("NUL", "spiffe_id_control_byte", |forger| forger.named("spiffe://cluster.local/ns/ignite/sa/ignite\0.evil")),
    both("an upper-case trust domain", "spiffe_id_upper_case", |forger| forger.named("spiffe://Cluster.local/ns/ignite/sa/ignite")),
    both("an upper-case scheme", "spiffe_id_not_spiffe", |forger| forger.named("SPIFFE://cluster.local/ns/ignite/sa/ignite")),
    both("`..`", "spiffe_id_dot_segment", |forger| forger.named("spiffe://cluster.local/ns/ignite/sa/x/../ignite")),
    both("`%2e`", "spiffe_id_percent_encoding", |forger| forger.named("spiffe://cluster.local/ns/ignite/sa/%2e%2e/ignite")),
    both("4 KiB", "spiffe_id_too_long", |forger| forger.named(&format!("spiffe://cluster.local/ns/ignite/sa/{}", "a".repeat(4096)))),
    both("an internationalised name", "spiffe_id_not_ascii", |forger| forger.named("spiffe://clüster.local/ns/ignite/sa/ignite")),
    both("a port", "spiffe_id_port", |forger| forger.named("spiffe://cluster.local:443/ns/ignite/sa/ignite")),
    both("user information", "spiffe_id_user_info", |forger| forger.named("spiffe://admin@cluster.local/ns/ignite/sa/ignite")),
    both("a query", "spiffe_id_query", |forger| forger.named("spiffe://cluster.local/ns/ignite/sa/ignite?sa=admin")),
    both("a fragment", "spiffe_id_fragment", |forger| forger.named("spiffe://cluster.local/ns/ignite/sa/ignite#admin")),
];

/// What is made to be expensive, or to be read in two ways: row A19.
#[rustfmt::skip]
pub const SHAPES: &[Case] = &[
    both("a chain of 21", "certificate_chain_too_long", |forger| {
        let mut authorities = vec![Authority::below(forger.root.issuer(), |_| {})?];
        for _ in 1..20 {
            let last = authorities.last().context("the first")?;
            authorities.push(Authority::below(&last.issuer, |_| {})?);
        }
        let last = authorities.last().context("the last")?;
        let above: Vec<_> = authorities.iter().rev().map(|authority| &authority.der).collect();
        signed(|_| {}, &last.issuer, &above)
    }),
    both("10,000 names in 40 KB", "certificate_too_large", |forger| forger.with_names(&vec![(DNS, &b"ab"[..]); 10_000])),
    both("10,000 names in 300 KB", "handshake_failed", |forger| forger.with_names(&vec![(DNS, &[b'a'; 28][..]); 10_000])),
    both("4,000 names in 16 KB, and no identity among them", "certificate_no_uri_san", |forger| forger.with_names(&vec![(DNS, &b"a"[..]); 4_000])),
    both("an authority for other names only", "certificate_name_constraint", |forger| {
        let permitted = der(0xa0, &der(0x30, &der(URI, b"elsewhere.example")));
        let between = Authority::below(forger.root.issuer(), |params| {
            let mut constraint = CustomExtension::from_oid_content(OID_NAME_CONSTRAINTS, der(0x30, &permitted));
            constraint.set_criticality(true);
            params.custom_extensions.push(constraint);
        })?;
        signed(|_| {}, &between.issuer, &[&between.der])
    }),
    both("an authority that a foreign root has signed too, by the foreign way", "certificate_unknown_issuer", |forger| {
        let between = Authority::below(forger.foreign.issuer(), |_| {})?;
        signed(|_| {}, &between.issuer, &[&between.der])
    }),
    both("an authority that a foreign root has signed too, by both ways", TAKEN, |forger| {
        let key = KeyPair::generate()?;
        let same = KeyPair::try_from(key.serialize_der())?;
        let ours = Authority::with_key(forger.root.issuer(), key, |_| {})?;
        let theirs = Authority::with_key(forger.foreign.issuer(), same, |_| {})?;
        signed(|_| {}, &ours.issuer, &[&theirs.der, &ours.der])
    }),
    both("two authorities that have signed each other", "certificate_unknown_issuer", |forger| {
        let key = KeyPair::generate()?;
        let same = KeyPair::try_from(key.serialize_der())?;
        let named = |params: &mut CertificateParams| params.distinguished_name.push(DnType::CommonName, "other");
        let first = Authority::with_key(forger.foreign.issuer(), key, |_| {})?;
        let second = Authority::below(&first.issuer, named)?;
        let first_again = Authority::with_key(&second.issuer, same, |_| {})?;
        signed(|_| {}, &second.issuer, &[&second.der, &first_again.der])
    }),
    both("two extensions of names", "certificate_malformed", |forger| forger.leaf(|params| {
        params.custom_extensions.push(names_extension(&[(URI, b"spiffe://cluster.local/ns/ignite/sa/admin")]));
    })),
    both("bytes that are no certificate", "certificate_malformed", |_| with_key(vec![CertificateDer::from(vec![0x30; 512])], &KeyPair::generate()?)),
    both("a certificate cut short", "certificate_malformed", |forger| {
        let key = KeyPair::generate()?;
        let whole = leaf_of(&key, |_| {}, forger.root.issuer())?;
        with_key(vec![CertificateDer::from(whole[..whole.len() - 1].to_vec())], &key)
    }),
];

fn uri(text: &str) -> Option<SanType> {
    Some(SanType::URI(text.try_into().ok()?))
}

/// As a handshake shows it.
///
/// # Errors
/// Only where it cannot be made.
pub fn made(case: &Case, forger: &Forger) -> Result<Arc<CertifiedKey>> {
    (case.make)(forger).map(Arc::new).with_context(|| case.name)
}
