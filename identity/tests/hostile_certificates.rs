//! The table of hostile certificates. Each differs from a good leaf in one way and is refused with a
//! reason of its own; a reason without a row fails the last test.

use std::collections::BTreeSet;

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P521_SHA512, PKCS_ED25519, PKCS_ML_DSA_44, SanType,
    SubjectPublicKeyInfo, date_time_ymd,
};
use ringmail_identity::{
    CertificateDer, MAX_CERTIFICATE_LEN, PeerError, PeerReason, TrustBundle, UnixTime, Usage, VerifiedPeer,
};

use crate::authority::{
    Authority, DNS, EMAIL, ID, URI, bundle, der, leaf_profile, noon, raw_san, rsa_spki, unix,
};

const OID_BASIC_CONSTRAINTS: &[u64] = &[2, 5, 29, 19];
const OID_KEY_USAGE: &[u64] = &[2, 5, 29, 15];
const OID_NAME_CONSTRAINTS: &[u64] = &[2, 5, 29, 30];
const OID_EXTENDED_KEY_USAGE: &[u64] = &[2, 5, 29, 37];
/// An extension that nobody knows.
const OID_UNKNOWN: &[u64] = &[1, 3, 6, 1, 4, 1, 99_999, 1];

struct Mesh {
    root: Authority,
    expired_root: Authority,
    future_root: Authority,
    quantum_root: Authority,
    bundle: TrustBundle,
}

impl Mesh {
    fn new() -> Self {
        let p256 = &PKCS_ECDSA_P256_SHA256;
        let root = Authority::root("cluster.local");
        let expired_root =
            Authority::root_with("expired", p256, |params| params.not_after = date_time_ymd(2025, 6, 1));
        let future_root =
            Authority::root_with("future", p256, |params| params.not_before = date_time_ymd(2027, 1, 1));
        let quantum_root = Authority::root_with("quantum", &PKCS_ML_DSA_44, |_| {});
        let bundle = bundle([&root, &expired_root, &future_root, &quantum_root]);
        Self { root, expired_root, future_root, quantum_root, bundle }
    }

    fn verdict(&self, peer: &Peer) -> Result<VerifiedPeer, PeerError> {
        self.bundle.verify(&peer.chain, peer.usage, peer.now)
    }
}

struct Peer {
    chain: Vec<CertificateDer<'static>>,
    usage: Usage,
    now: UnixTime,
}

impl Peer {
    fn with(chain: impl IntoIterator<Item = CertificateDer<'static>>) -> Self {
        Self { chain: chain.into_iter().collect(), usage: Usage::Client, now: noon() }
    }
}

struct Case {
    name: &'static str,
    peer: fn(&Mesh) -> Peer,
    expected: PeerReason,
}

/// A client whose leaf was edited.
fn leaf(mesh: &Mesh, edit: impl FnOnce(&mut CertificateParams)) -> Peer {
    Peer::with([mesh.root.leaf(edit)])
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn critical(oid: &[u64], content: Vec<u8>) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(oid, content);
    extension.set_criticality(true);
    extension
}

/// A public key of that many bits that is nobody's: it only has to look like one.
fn rsa_public_key(bits: usize) -> SubjectPublicKeyInfo {
    SubjectPublicKeyInfo::from_der(&rsa_spki(bits)).unwrap()
}

#[rustfmt::skip]
const PATHS: &[Case] = &[
    Case { name: "no certificate", expected: PeerReason::NoCertificate, peer: |_| Peer::with([]) },
    Case { name: "four certificates", expected: PeerReason::ChainTooLong, peer: |mesh| {
        let root = &mesh.root.der;
        Peer::with([mesh.root.leaf(|_| {}), root.clone(), root.clone(), root.clone()])
    } },
    Case { name: "a certificate over the size limit", expected: PeerReason::CertificateTooLarge, peer: |mesh| leaf(mesh, |params| {
        params.custom_extensions.push(CustomExtension::from_oid_content(OID_UNKNOWN, der(0x04, &[0; MAX_CERTIFICATE_LEN])));
    }) },
    Case { name: "an intermediate over the size limit", expected: PeerReason::CertificateTooLarge, peer: |mesh| {
        Peer::with([mesh.root.leaf(|_| {}), CertificateDer::from(vec![0x30; MAX_CERTIFICATE_LEN + 1])])
    } },
    Case { name: "no bytes", expected: PeerReason::Malformed, peer: |_| Peer::with([CertificateDer::from(vec![])]) },
    Case { name: "bytes that are no certificate", expected: PeerReason::Malformed, peer: |_| Peer::with([CertificateDer::from(vec![0x30; 512])]) },
    Case { name: "cut short", expected: PeerReason::Malformed, peer: |mesh| {
        let leaf = mesh.root.leaf(|_| {});
        Peer::with([CertificateDer::from(leaf[..leaf.len() - 1].to_vec())])
    } },
    Case { name: "a byte after the end", expected: PeerReason::Malformed, peer: |mesh| {
        Peer::with([CertificateDer::from([&mesh.root.leaf(|_| {}), &[0u8][..]].concat())])
    } },
    Case { name: "expired a second ago", expected: PeerReason::Expired, peer: |mesh| {
        Peer { now: unix(date_time_ymd(2026, 1, 3).unix_timestamp() + 1), ..leaf(mesh, |_| {}) }
    } },
    Case { name: "valid in a second", expected: PeerReason::NotYetValid, peer: |mesh| {
        Peer { now: unix(date_time_ymd(2026, 1, 2).unix_timestamp() - 121), ..leaf(mesh, |_| {}) }
    } },
    Case { name: "an expired intermediate", expected: PeerReason::Expired, peer: |mesh| {
        let middle = mesh.root.intermediate("middle", |params| params.not_after = date_time_ymd(2025, 2, 1));
        Peer::with([middle.leaf(|_| {}), middle.der])
    } },
    Case { name: "a foreign root", expected: PeerReason::UnknownIssuer, peer: |_| Peer::with([Authority::root("foreign").leaf(|_| {})]) },
    Case { name: "a foreign root, presented too", expected: PeerReason::UnknownIssuer, peer: |_| {
        let foreign = Authority::root("foreign");
        Peer::with([foreign.leaf(|_| {}), foreign.der])
    } },
    Case { name: "an intermediate left out", expected: PeerReason::UnknownIssuer, peer: |mesh| {
        Peer::with([mesh.root.intermediate("middle", |_| {}).leaf(|_| {})])
    } },
    Case { name: "a foreign root of our root's name", expected: PeerReason::BadSignature, peer: |_| {
        Peer::with([Authority::root("cluster.local").leaf(|_| {})])
    } },
    Case { name: "a flipped bit of the signature", expected: PeerReason::BadSignature, peer: |mesh| {
        let mut forged = mesh.root.leaf(|_| {}).to_vec();
        *forged.last_mut().unwrap() ^= 1;
        Peer::with([CertificateDer::from(forged)])
    } },
    Case { name: "a signature algorithm that is not accepted", expected: PeerReason::SignatureAlgorithm, peer: |mesh| {
        Peer::with([mesh.quantum_root.leaf(|_| {})])
    } },
    Case { name: "a root that has expired", expected: PeerReason::RootOutsideValidity, peer: |mesh| Peer::with([mesh.expired_root.leaf(|_| {})]) },
    Case { name: "a root that is not valid yet", expected: PeerReason::RootOutsideValidity, peer: |mesh| Peer::with([mesh.future_root.leaf(|_| {})]) },
    Case { name: "signed by a leaf", expected: PeerReason::IssuerNotAuthority, peer: |mesh| {
        let workload = mesh.root.intermediate("workload", |params| params.is_ca = IsCa::ExplicitNoCa);
        Peer::with([workload.leaf(|_| {}), workload.der])
    } },
    Case { name: "signed by an authority without keyCertSign", expected: PeerReason::IssuerNotAuthority, peer: |mesh| {
        let middle = mesh.root.intermediate("middle", |params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature]);
        Peer::with([middle.leaf(|_| {}), middle.der])
    } },
    Case { name: "an authority under one that allows none", expected: PeerReason::PathTooLong, peer: |mesh| {
        let middle = mesh.root.intermediate("middle", |params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
        let lower = middle.intermediate("lower", |_| {});
        Peer::with([lower.leaf(|_| {}), lower.der, middle.der])
    } },
    Case { name: "an authority for other names only", expected: PeerReason::NameConstraint, peer: |mesh| {
        let permitted = der(0xa0, &der(0x30, &der(URI, b"elsewhere.example")));
        let middle = mesh.root.intermediate("middle", |params| {
            params.custom_extensions.push(critical(OID_NAME_CONSTRAINTS, der(0x30, &permitted)));
        });
        Peer::with([middle.leaf(|_| {}), middle.der])
    } },
    Case { name: "an authority for servers only, used by a client", expected: PeerReason::WrongExtendedKeyUsage, peer: |mesh| {
        let middle = mesh.root.intermediate("middle", |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
        Peer::with([middle.leaf(|_| {}), middle.der])
    } },
    Case { name: "an unknown critical extension", expected: PeerReason::UnsupportedCriticalExtension, peer: |mesh| leaf(mesh, |params| {
        params.custom_extensions.push(critical(OID_UNKNOWN, der(0x05, &[])));
    }) },
];

#[rustfmt::skip]
const LEAVES: &[Case] = &[
    Case { name: "the CA bit", expected: PeerReason::CaCertificate, peer: |mesh| leaf(mesh, |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }) },
    Case { name: "the root itself as a leaf", expected: PeerReason::CaCertificate, peer: |mesh| Peer::with([mesh.root.der.clone()]) },
    Case { name: "basic constraints that cannot be read", expected: PeerReason::Malformed, peer: |mesh| leaf(mesh, |params| {
        params.is_ca = IsCa::NoCa;
        params.custom_extensions.push(critical(OID_BASIC_CONSTRAINTS, der(0x04, b"?")));
    }) },
    Case { name: "no key usage", expected: PeerReason::KeyUsageMissing, peer: |mesh| leaf(mesh, |params| params.key_usages.clear()) },
    Case { name: "key usage that is not critical", expected: PeerReason::KeyUsageNotCritical, peer: |mesh| leaf(mesh, |params| {
        params.key_usages.clear();
        params.custom_extensions.push(CustomExtension::from_oid_content(OID_KEY_USAGE, der(0x03, &[5, 0xa0])));
    }) },
    Case { name: "key usage that cannot be read", expected: PeerReason::Malformed, peer: |mesh| leaf(mesh, |params| {
        params.key_usages.clear();
        params.custom_extensions.push(critical(OID_KEY_USAGE, der(0x04, b"?")));
    }) },
    Case { name: "no digitalSignature", expected: PeerReason::NoDigitalSignature, peer: |mesh| leaf(mesh, |params| {
        params.key_usages = vec![KeyUsagePurpose::KeyEncipherment];
    }) },
    Case { name: "keyCertSign", expected: PeerReason::KeyUsageSigns, peer: |mesh| leaf(mesh, |params| params.key_usages.push(KeyUsagePurpose::KeyCertSign)) },
    Case { name: "cRLSign", expected: PeerReason::KeyUsageSigns, peer: |mesh| leaf(mesh, |params| params.key_usages.push(KeyUsagePurpose::CrlSign)) },
    Case { name: "no extended key usage", expected: PeerReason::ExtendedKeyUsageMissing, peer: |mesh| leaf(mesh, |params| params.extended_key_usages.clear()) },
    Case { name: "an empty extended key usage", expected: PeerReason::ExtendedKeyUsageMissing, peer: |mesh| leaf(mesh, |params| {
        params.extended_key_usages.clear();
        params.custom_extensions.push(CustomExtension::from_oid_content(OID_EXTENDED_KEY_USAGE, der(0x30, &[])));
    }) },
    Case { name: "a client with a server's usage", expected: PeerReason::WrongExtendedKeyUsage, peer: |mesh| leaf(mesh, |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    }) },
    Case { name: "a server with a client's usage", expected: PeerReason::WrongExtendedKeyUsage, peer: |mesh| Peer {
        usage: Usage::Server,
        ..leaf(mesh, |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth])
    } },
    Case { name: "usage for signing code", expected: PeerReason::WrongExtendedKeyUsage, peer: |mesh| leaf(mesh, |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    }) },
    Case { name: "usage for anything", expected: PeerReason::WrongExtendedKeyUsage, peer: |mesh| leaf(mesh, |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any];
    }) },
    Case { name: "no SAN", expected: PeerReason::NoUriSan, peer: |mesh| leaf(mesh, |params| params.subject_alt_names.clear()) },
    Case { name: "the identity as a common name", expected: PeerReason::NoUriSan, peer: |mesh| leaf(mesh, |params| {
        params.subject_alt_names.clear();
        params.distinguished_name.push(rcgen::DnType::CommonName, ID);
    }) },
    Case { name: "the identity as a DNS name", expected: PeerReason::NoUriSan, peer: |mesh| leaf(mesh, |params| {
        params.subject_alt_names.clear();
        params.custom_extensions.push(raw_san(&[(DNS, ID.as_bytes())]));
    }) },
    Case { name: "two URIs", expected: PeerReason::SeveralUriSans, peer: |mesh| leaf(mesh, |params| {
        params.subject_alt_names.push(uri("spiffe://cluster.local/ns/ring/sa/admin"));
    }) },
    Case { name: "one URI twice", expected: PeerReason::SeveralUriSans, peer: |mesh| leaf(mesh, |params| params.subject_alt_names.push(uri(ID))) },
    Case { name: "a second URI of another scheme", expected: PeerReason::SeveralUriSans, peer: |mesh| leaf(mesh, |params| params.subject_alt_names.push(uri("https://ring.example"))) },
    Case { name: "a second URI that is not text", expected: PeerReason::SeveralUriSans, peer: |mesh| leaf(mesh, |params| {
        params.subject_alt_names.clear();
        params.custom_extensions.push(raw_san(&[(URI, ID.as_bytes()), (URI, &[0xff])]));
    }) },
    Case { name: "two SAN extensions", expected: PeerReason::Malformed, peer: |mesh| leaf(mesh, |params| {
        params.custom_extensions.push(raw_san(&[(URI, ID.as_bytes())]));
    }) },
    Case { name: "a URI in a constructed encoding", expected: PeerReason::Malformed, peer: |mesh| leaf(mesh, |params| {
        params.subject_alt_names.clear();
        params.custom_extensions.push(raw_san(&[(URI | 0x20, ID.as_bytes())]));
    }) },
    Case { name: "a URI and an IP address", expected: PeerReason::OtherSan, peer: |mesh| leaf(mesh, |params| {
        params.subject_alt_names.push(SanType::IpAddress([10, 0, 0, 1].into()));
    }) },
    Case { name: "a URI and an e-mail address", expected: PeerReason::OtherSan, peer: |mesh| leaf(mesh, |params| {
        params.subject_alt_names.push(SanType::Rfc822Name("root@ring.example".try_into().unwrap()));
    }) },
    Case { name: "a URI and an e-mail address that is not text", expected: PeerReason::OtherSan, peer: |mesh| leaf(mesh, |params| {
        params.subject_alt_names.clear();
        params.custom_extensions.push(raw_san(&[(URI, ID.as_bytes()), (EMAIL, &[0xff])]));
    }) },
    Case { name: "a URI of another trust domain under our root", expected: PeerReason::ForeignTrustDomain, peer: |mesh| leaf(mesh, |params| {
        params.subject_alt_names = vec![uri("spiffe://elsewhere.example/ns/ring/sa/ignite")];
    }) },
    Case { name: "a trust domain that begins like ours", expected: PeerReason::ForeignTrustDomain, peer: |mesh| leaf(mesh, |params| {
        params.subject_alt_names = vec![uri("spiffe://cluster.local.elsewhere/ns/ring/sa/ignite")];
    }) },
    Case { name: "a trust domain that ends like ours", expected: PeerReason::ForeignTrustDomain, peer: |mesh| leaf(mesh, |params| {
        params.subject_alt_names = vec![uri("spiffe://evil.cluster.local/ns/ring/sa/ignite")];
    }) },
    Case { name: "an RSA key of 1024 bits", expected: PeerReason::KeyAlgorithm, peer: |mesh| Peer::with([mesh.root.sign(&leaf_profile(ID), &rsa_public_key(1024))]) },
    Case { name: "an RSA key of 16384 bits", expected: PeerReason::KeyAlgorithm, peer: |mesh| Peer::with([mesh.root.sign(&leaf_profile(ID), &rsa_public_key(16_384))]) },
    Case { name: "a key on P-521", expected: PeerReason::KeyAlgorithm, peer: |mesh| {
        Peer::with([mesh.root.sign(&leaf_profile(ID), &KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512).unwrap())])
    } },
    Case { name: "an Ed25519 key", expected: PeerReason::KeyAlgorithm, peer: |mesh| {
        Peer::with([mesh.root.sign(&leaf_profile(ID), &KeyPair::generate_for(&PKCS_ED25519).unwrap())])
    } },
];

/// What a URI SAN may say to no avail. All of these are bytes of one URI in an otherwise good leaf.
fn hostile_ids() -> Vec<(&'static str, Vec<u8>, PeerReason)> {
    let long_domain = format!("spiffe://{}/ns/ring/sa/ignite", "a".repeat(256));
    let text = |name, id: &str, reason| (name, id.as_bytes().to_vec(), reason);
    vec![
        text("a wildcard for a segment", "spiffe://cluster.local/ns/ring/sa/*", PeerReason::IdWildcard),
        text("a wildcard trust domain", "spiffe://*.local/ns/ring/sa/ignite", PeerReason::IdWildcard),
        text("NUL", "spiffe://cluster.local/ns/ring/sa/ignite\0.evil", PeerReason::IdControlByte),
        text("NUL at the end", "spiffe://cluster.local/ns/ring/sa/ignite\0", PeerReason::IdControlByte),
        text("NUL in the trust domain", "spiffe://cluster.local\0.evil/ns/a/sa/b", PeerReason::IdControlByte),
        text("a line feed", "spiffe://cluster.local/ns/ring/sa/a\nb", PeerReason::IdControlByte),
        text(
            "an upper-case trust domain",
            "spiffe://Cluster.local/ns/ring/sa/ignite",
            PeerReason::IdUpperCase,
        ),
        text("an upper-case scheme", "SPIFFE://cluster.local/ns/ring/sa/ignite", PeerReason::IdNotSpiffe),
        text("another scheme", "https://cluster.local/ns/ring/sa/ignite", PeerReason::IdNotSpiffe),
        text("no text", "", PeerReason::IdNotSpiffe),
        text("`..`", "spiffe://cluster.local/ns/ring/sa/../sa/admin", PeerReason::IdDotSegment),
        text("`.`", "spiffe://cluster.local/ns/./sa/ignite", PeerReason::IdDotSegment),
        text("`%2e`", "spiffe://cluster.local/ns/ring/sa/%2e%2e/sa/admin", PeerReason::IdPercentEncoding),
        text("`%2f`", "spiffe://cluster.local/ns/ring%2fsa/ignite", PeerReason::IdPercentEncoding),
        text("4 KiB", &format!("{ID}{}", "a".repeat(4096)), PeerReason::IdTooLong),
        text("2049 bytes", &format!("{ID}{}", "a".repeat(2049 - ID.len())), PeerReason::IdTooLong),
        text("a trust domain of 256 bytes", &long_domain, PeerReason::IdTrustDomainTooLong),
        text("an internationalised name", "spiffe://clüster.local/ns/ring/sa/ignite", PeerReason::IdNotAscii),
        text("a look-alike letter", "spiffe://cluster.local/ns/ring/sa/іgnite", PeerReason::IdNotAscii),
        ("bytes that are not UTF-8", [ID.as_bytes(), &[0xff]].concat(), PeerReason::IdNotAscii),
        text("a port", "spiffe://cluster.local:443/ns/ring/sa/ignite", PeerReason::IdPort),
        text("user information", "spiffe://admin@cluster.local/ns/ring/sa/ignite", PeerReason::IdUserInfo),
        text(
            "a user with a password",
            "spiffe://a:b@cluster.local/ns/ring/sa/ignite",
            PeerReason::IdUserInfo,
        ),
        text("a query", "spiffe://cluster.local/ns/ring/sa/ignite?admin", PeerReason::IdQuery),
        text("a query for a path", "spiffe://cluster.local?/ns/ring/sa/ignite", PeerReason::IdQuery),
        text("a fragment", "spiffe://cluster.local/ns/ring/sa/ignite#admin", PeerReason::IdFragment),
        text("no trust domain", "spiffe:///ns/ring/sa/ignite", PeerReason::IdEmptyTrustDomain),
        text("no path", "spiffe://cluster.local", PeerReason::IdNoPath),
        text("a slash for a path", "spiffe://cluster.local/", PeerReason::IdTrailingSlash),
        text("a slash at the end", "spiffe://cluster.local/ns/ring/sa/ignite/", PeerReason::IdTrailingSlash),
        text("an empty segment", "spiffe://cluster.local/ns//sa/ignite", PeerReason::IdEmptySegment),
        text("a space", "spiffe://cluster.local/ns/ring/sa/a b", PeerReason::IdForbiddenByte),
        text("a backslash", "spiffe://cluster.local/ns/ring\\sa/ignite", PeerReason::IdForbiddenByte),
        text("a space before it", " spiffe://cluster.local/ns/ring/sa/ignite", PeerReason::IdNotSpiffe),
    ]
}

/// Every row: name, verdict and the reason expected.
fn verdicts(mesh: &Mesh) -> Vec<(&'static str, Result<VerifiedPeer, PeerError>, PeerReason)> {
    let certificates =
        PATHS.iter().chain(LEAVES).map(|case| (case.name, mesh.verdict(&(case.peer)(mesh)), case.expected));
    let ids = hostile_ids().into_iter().map(|(name, id, expected)| {
        let peer = leaf(mesh, |params| {
            params.subject_alt_names.clear();
            params.custom_extensions.push(raw_san(&[(URI, &id)]));
        });
        (name, mesh.verdict(&peer), expected)
    });
    certificates.chain(ids).collect()
}

#[test]
fn every_hostile_certificate_is_refused_with_its_own_reason() {
    let mesh = Mesh::new();
    let good = leaf(&mesh, |params| {
        params.subject_alt_names.clear();
        params.custom_extensions.push(raw_san(&[(URI, ID.as_bytes())]));
    });
    assert_eq!(mesh.verdict(&good).unwrap().id.as_str(), ID, "the leaf that the rows are edited from");

    let wrong: Vec<String> = verdicts(&mesh)
        .into_iter()
        .filter(|(_, verdict, expected)| verdict.as_ref().map_err(PeerError::reason) != Err(*expected))
        .map(|(name, verdict, expected)| format!("{name}: expected {expected:?}, got {verdict:?}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_refusal_says_in_one_short_printable_line_what_was_read() {
    for (name, verdict, _) in verdicts(&Mesh::new()) {
        let text = verdict.unwrap_err().to_string();
        assert!(text.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{name}: {text:?}");
        assert!(text.len() < 600, "{name}: {} bytes", text.len());
        assert!(!text.ends_with('.'), "{name}: {text}");
        assert!(!text.starts_with(|first: char| first.is_ascii_uppercase()), "{name}: {text}");
    }
}

#[test]
fn a_refusal_names_the_issuer_and_the_usage_that_were_read() {
    let mesh = Mesh::new();
    let texts = [
        ("a foreign root", "no root of cluster.local is the issuer \"O=foreign\""),
        (
            "a foreign root of our root's name",
            "signature does not verify under the key of the issuer named, \"O=cluster.local\"",
        ),
        (
            "a client with a server's usage",
            "extended key usage does not allow client authentication, it allows \"1.3.6.1.5.5.7.3.1\"",
        ),
        (
            "a server with a client's usage",
            "extended key usage does not allow server authentication, it allows \"1.3.6.1.5.5.7.3.2\"",
        ),
    ];
    let verdicts = verdicts(&mesh);
    for (row, text) in texts {
        let (_, verdict, _) = verdicts.iter().find(|(name, _, _)| *name == row).unwrap();
        assert_eq!(verdict.as_ref().unwrap_err().to_string(), text, "{row}");
    }
}

#[test]
fn every_reason_has_a_word_and_a_meaning_of_its_own() {
    let words: BTreeSet<&str> = PeerReason::ALL.iter().map(|reason| reason.as_str()).collect();
    let meanings: BTreeSet<&str> = PeerReason::ALL.iter().map(|reason| reason.doc()).collect();
    assert_eq!((words.len(), meanings.len()), (PeerReason::ALL.len(), PeerReason::ALL.len()));
    assert!(
        words.iter().all(|word| word.starts_with("certificate_") || word.starts_with("spiffe_id_")),
        "{words:?}"
    );
    assert!(meanings.iter().all(|meaning| meaning.contains(' ')), "{meanings:?}");
}

#[test]
fn every_reason_has_a_hostile_certificate() {
    let rows = PATHS.iter().chain(LEAVES).map(|case| case.expected);
    let seen: BTreeSet<PeerReason> =
        rows.chain(hostile_ids().into_iter().map(|(_, _, reason)| reason)).collect();
    let unseen: Vec<&PeerReason> = PeerReason::ALL.iter().filter(|reason| !seen.contains(reason)).collect();
    // What is left over is the path verifier's budget, which a chain within the limits cannot exhaust.
    assert_eq!(unseen, [&PeerReason::PathRefused]);
}
