//! The leaves that a mesh really has are accepted, and the edges of every limit are inside.

use rcgen::{
    CertificateParams, CustomExtension, DnType, KeyIdMethod, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519, PKCS_RSA_SHA256, SanType, SerialNumber,
    date_time_ymd,
};
use ringmail_identity::{
    CertificateDer, MAX_CERTIFICATE_LEN, PeerReason, PrivateKey, RootId, TrustBundle, Usage, VerifiedPeer,
};

use crate::authority::{
    Authority, DNS, ID, URI, bundle, der, leaf_profile, noon, raw_san, trust_domain, unix,
};

const RSA_2048: &[u8] = include_bytes!("keys/rsa-2048-pkcs8.pem");

/// Accepted on both sides of a handshake.
fn accept(bundle: &TrustBundle, chain: &[CertificateDer<'_>]) -> VerifiedPeer {
    let client = bundle.verify(chain, Usage::Client, noon()).unwrap();
    assert_eq!(bundle.verify(chain, Usage::Server, noon()).unwrap(), client);
    client
}

#[test]
fn istio_leaves_are_accepted_on_rsa_2048_and_on_p256() {
    let root = Authority::root("cluster.local");
    for key in [PrivateKey::from_pem(RSA_2048).unwrap(), PrivateKey::generate().unwrap()] {
        let peer = accept(&root.bundle(), &[root.sign(&leaf_profile(ID), &key)]);
        assert_eq!(peer.id.as_str(), ID);
        assert_eq!(peer.root, RootId::of(&root.der));
        assert_eq!(peer.not_after, unix(date_time_ymd(2026, 1, 3).unix_timestamp()));
    }
}

#[test]
fn spire_leaves_are_accepted_under_an_intermediate_with_the_trust_domains_id() {
    let root = Authority::root("SPIRE");
    let spire = root.intermediate("SPIRE", |params| {
        params.distinguished_name.push(DnType::CountryName, "US");
        params.subject_alt_names = vec![SanType::URI("spiffe://cluster.local".try_into().unwrap())];
        params.use_authority_key_identifier_extension = true;
    });
    let leaf = spire.leaf(|params| {
        params.distinguished_name.push(DnType::CountryName, "US");
        params.distinguished_name.push(DnType::OrganizationName, "SPIRE");
        // The x500UniqueIdentifier that SPIRE writes beside them.
        params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 45]), "4f6c1c");
        params.subject_alt_names =
            vec![SanType::URI("spiffe://cluster.local/ring/node-1".try_into().unwrap())];
        params.key_usages.push(KeyUsagePurpose::KeyAgreement);
        params.use_authority_key_identifier_extension = true;
        params.key_identifier_method = KeyIdMethod::Sha256;
    });
    let peer = accept(&root.bundle(), &[leaf, spire.der]);
    assert_eq!(peer.id.path(), "/ring/node-1");
    assert_eq!((peer.id.namespace(), peer.id.service_account()), (None, None));
}

#[test]
fn dns_names_beside_the_id_are_nobodys_identity() {
    let root = Authority::root("cluster.local");
    let server = root.leaf(|params| {
        for name in ["ringmail-control.ringmail-system.svc", "localhost"] {
            params.subject_alt_names.insert(0, SanType::DnsName(name.try_into().unwrap()));
        }
    });
    assert_eq!(accept(&root.bundle(), &[server]).id.as_str(), ID);
    let wishful = root.leaf(|params| {
        params.subject_alt_names.clear();
        let admin = b"spiffe://cluster.local/ns/kube-system/sa/admin";
        params.custom_extensions.push(raw_san(&[(DNS, admin), (URI, ID.as_bytes()), (DNS, admin)]));
    });
    assert_eq!(accept(&root.bundle(), &[wishful]).id.as_str(), ID);
}

#[test]
fn authorities_may_sign_with_every_algorithm_of_the_list() {
    let algorithms = [
        &PKCS_ECDSA_P256_SHA256,
        &PKCS_ECDSA_P384_SHA384,
        &PKCS_ECDSA_P521_SHA512,
        &PKCS_ED25519,
        &PKCS_RSA_SHA256,
    ];
    for algorithm in algorithms {
        let root = Authority::root_with("cluster.local", algorithm, |_| {});
        assert_eq!(accept(&root.bundle(), &[root.leaf(|_| {})]).id.as_str(), ID, "{algorithm:?}");
    }
}

#[test]
fn three_certificates_are_accepted_and_the_root_among_them_is_not_needed() {
    let root = Authority::root("cluster.local");
    let middle = root.intermediate("middle", |_| {});
    let lower = middle.intermediate("lower", |_| {});
    accept(&root.bundle(), &[lower.leaf(|_| {}), lower.der.clone(), middle.der.clone()]);
    accept(&root.bundle(), &[middle.leaf(|_| {}), middle.der, root.der.clone()]);
}

#[test]
fn a_certificate_of_exactly_the_largest_size_is_accepted_and_one_byte_more_is_not() {
    let root = Authority::root("cluster.local");
    let padded = |len: usize| {
        let mut padding = len - 600;
        // A signature's length varies by a few bytes: sign again until the sum is right.
        for _ in 0..1000 {
            let leaf = root.leaf(|params| pad(params, padding));
            if leaf.len() == len {
                return leaf;
            }
            padding = padding + len - leaf.len();
        }
        panic!("no certificate of {len} bytes");
    };
    accept(&root.bundle(), &[padded(MAX_CERTIFICATE_LEN)]);
    let verdict = root.bundle().verify(&[padded(MAX_CERTIFICATE_LEN + 1)], Usage::Client, noon());
    assert_eq!(verdict.unwrap_err().reason(), PeerReason::CertificateTooLarge);
}

fn pad(params: &mut CertificateParams, len: usize) {
    let unknown = [1, 3, 6, 1, 4, 1, 99_999, 1];
    params.custom_extensions.push(CustomExtension::from_oid_content(&unknown, der(0x04, &vec![0; len])));
}

#[test]
fn a_leaf_is_accepted_in_its_first_and_its_last_second() {
    let root = Authority::root("cluster.local");
    let leaf = [root.leaf(|_| {})];
    let first = date_time_ymd(2026, 1, 2).unix_timestamp() - 120;
    let last = date_time_ymd(2026, 1, 3).unix_timestamp();
    for second in [first, last] {
        root.bundle().verify(&leaf, Usage::Client, unix(second)).unwrap();
    }
}

#[test]
fn a_root_is_rotated_by_overlap_though_both_have_one_name() {
    let [old, new] = ["cluster.local", "cluster.local"].map(Authority::root);
    let (old_leaf, new_leaf) = ([old.leaf(|_| {})], [new.leaf(|_| {})]);

    let overlap = bundle([&old, &new]);
    assert_eq!(accept(&overlap, &old_leaf).root, RootId::of(&old.der));
    assert_eq!(accept(&overlap, &new_leaf).root, RootId::of(&new.der));

    let after = bundle([&new]);
    assert!(!after.contains(&RootId::of(&old.der)));
    accept(&after, &new_leaf);
    let verdict = after.verify(&old_leaf, Usage::Client, noon());
    assert_eq!(verdict.unwrap_err().reason(), PeerReason::BadSignature);
}

#[test]
fn an_expired_root_does_not_stand_in_the_way_of_its_successor() {
    let expired = Authority::root_with("cluster.local", &PKCS_ECDSA_P256_SHA256, |params| {
        params.not_after = date_time_ymd(2025, 6, 1);
    });
    let current = Authority::root("cluster.local");
    let peer = accept(&bundle([&expired, &current]), &[current.leaf(|_| {})]);
    assert_eq!(peer.root, RootId::of(&current.der));
}

#[test]
fn a_bundle_of_another_trust_domain_with_the_same_root_refuses_the_leaf() {
    let root = Authority::root("cluster.local");
    let elsewhere = TrustBundle::new("elsewhere.example".parse().unwrap(), vec![root.der.clone()]).unwrap();
    let verdict = elsewhere.verify(&[root.leaf(|_| {})], Usage::Client, noon());
    assert_eq!(verdict.unwrap_err().reason(), PeerReason::ForeignTrustDomain);
    assert_eq!(root.bundle().trust_domain(), &trust_domain());
}

#[test]
fn a_leaf_of_an_alias_is_accepted_and_keeps_its_own_name() {
    let root = Authority::root("cluster.local");
    let leaf_of = |domain: &str| {
        let id = format!("spiffe://{domain}/ns/ignite/sa/node");
        root.leaf(|params| params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())])
    };
    let aliases = ["old.example", "older.example"].map(|alias| alias.parse().unwrap());
    let bundle = root.bundle().with_aliases(&aliases);
    assert_eq!(bundle.trust_domain(), &trust_domain(), "an alias is no name of our own");
    for domain in ["cluster.local", "old.example", "older.example"] {
        let peer = accept(&bundle, &[leaf_of(domain)]);
        assert_eq!(peer.id.trust_domain(), domain);
    }
    for domain in ["old.example.org", "xold.example", "elsewhere.example"] {
        let error = bundle.verify(&[leaf_of(domain)], Usage::Server, noon()).unwrap_err();
        assert_eq!(error.reason(), PeerReason::ForeignTrustDomain, "{domain}");
        let text = error.to_string();
        assert!(text.ends_with("expected cluster.local or old.example or older.example"), "{text}");
    }
    let strict = root.bundle().verify(&[leaf_of("old.example")], Usage::Client, noon());
    assert_eq!(strict.unwrap_err().reason(), PeerReason::ForeignTrustDomain);
}

#[test]
fn an_alias_vouches_for_nobody_without_a_root() {
    let [root, other] = ["cluster.local", "old.example"].map(Authority::root);
    let bundle = root.bundle().with_aliases(&["old.example".parse().unwrap()]);
    let id = "spiffe://old.example/ns/ignite/sa/node";
    let leaf = other.leaf(|params| params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())]);
    let verdict = bundle.verify(&[leaf], Usage::Client, noon());
    assert_eq!(verdict.unwrap_err().reason(), PeerReason::UnknownIssuer);
}

#[test]
fn a_serial_number_is_hex_without_the_sign_byte() {
    let root = Authority::root("cluster.local");
    for (serial, shown) in [(&[0x80, 0x01][..], "8001"), (&[0x0a], "0a"), (&[0], "00")] {
        let leaf = root.leaf(|params| params.serial_number = Some(SerialNumber::from_slice(serial)));
        assert_eq!(accept(&root.bundle(), &[leaf]).serial, shown);
    }
}
