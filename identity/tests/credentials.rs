//! SVIDs: what joins a chain and a key, what is refused, and what they say of themselves.

use proptest::prelude::*;
use rcgen::{ExtendedKeyUsagePurpose, date_time_ymd};
use ringmail_identity::{
    CertificateDer, ChainLimit, KeyError, LeafError, PemError, PrivateKey, SpiffeId, Svid, SvidError, Usage,
};

use crate::authority::{Authority, ID, leaf_profile, noon, unix};

/// A leaf with its key, edited.
fn issued(
    root: &Authority,
    edit: impl FnOnce(&mut rcgen::CertificateParams),
) -> (CertificateDer<'static>, PrivateKey) {
    let key = PrivateKey::generate().unwrap();
    let mut params = leaf_profile(ID);
    edit(&mut params);
    (root.sign(&params, &key), key)
}

#[test]
fn an_svid_tells_whose_it_is_and_how_long_it_lasts() {
    let root = Authority::root("cluster.local");
    let (leaf, key) = issued(&root, |params| params.serial_number = Some(0xabc_u64.into()));
    let svid = Svid::new(vec![leaf.clone(), root.der], key).unwrap();
    assert_eq!(svid.id().as_str(), ID);
    assert_eq!(svid.serial(), "0abc");
    assert_eq!(svid.not_before(), unix(date_time_ymd(2026, 1, 2).unix_timestamp() - 120));
    assert_eq!(svid.not_after(), unix(date_time_ymd(2026, 1, 3).unix_timestamp()));
    assert_eq!(svid.chain()[0], leaf);
    let shown = format!("{svid:?}");
    assert!(
        shown.contains(ID) && shown.contains("2026-01-03T00:00:00Z") && shown.contains("redacted"),
        "{shown}"
    );
}

#[test]
fn a_key_of_another_leaf_is_refused() {
    let root = Authority::root("cluster.local");
    let (leaf, _) = issued(&root, |_| {});
    for other in [
        PrivateKey::generate().unwrap(),
        PrivateKey::from_pem(include_bytes!("keys/rsa-2048-pkcs8.pem")).unwrap(),
    ] {
        let error = Svid::new(vec![leaf.clone()], other).unwrap_err();
        assert!(matches!(error, SvidError::KeyMismatch { .. }), "{error}");
        assert!(error.to_string().contains(ID));
    }
}

#[test]
fn a_leaf_that_peers_would_refuse_is_refused_at_once() {
    let root = Authority::root("cluster.local");
    let (leaf, key) = issued(&root, |params| params.key_usages.clear());
    let error = Svid::new(vec![leaf], key).unwrap_err();
    assert!(matches!(error, SvidError::Leaf(LeafError::KeyUsageMissing)), "{error}");

    let error = Svid::new(vec![root.der.clone()], PrivateKey::generate().unwrap()).unwrap_err();
    assert!(matches!(error, SvidError::Leaf(LeafError::CaCertificate)), "{error}");

    let trailing = CertificateDer::from([&root.leaf(|_| {})[..], &[0]].concat());
    let error = Svid::new(vec![trailing], PrivateKey::generate().unwrap()).unwrap_err();
    assert!(matches!(error, SvidError::Leaf(LeafError::Malformed { .. })), "{error}");
}

#[test]
fn a_leaf_for_one_side_only_is_refused() {
    let root = Authority::root("cluster.local");
    for (purpose, allowed) in [
        (ExtendedKeyUsagePurpose::ClientAuth, "client authentication alone"),
        (ExtendedKeyUsagePurpose::ServerAuth, "server authentication alone"),
        (ExtendedKeyUsagePurpose::CodeSigning, "neither client nor server authentication"),
    ] {
        let (leaf, key) = issued(&root, |params| params.extended_key_usages = vec![purpose]);
        let error = Svid::new(vec![leaf], key).unwrap_err();
        assert!(matches!(error, SvidError::Usage { .. }), "{error}");
        let text = format!("leaf of {ID} allows {allowed}, expected client and server authentication");
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn a_chain_outside_the_limits_is_refused() {
    let root = Authority::root("cluster.local");
    let key = || PrivateKey::generate().unwrap();
    let error = Svid::new(vec![], key()).unwrap_err();
    assert!(matches!(error, SvidError::Limit(ChainLimit::Empty)), "{error}");
    let error = Svid::new(vec![root.der; 4], key()).unwrap_err();
    assert!(matches!(error, SvidError::Limit(ChainLimit::ChainTooLong { count: 4 })), "{error}");
}

#[test]
fn broken_pem_says_whether_the_chain_or_the_key_is_at_fault() {
    let root = Authority::root("cluster.local");
    let (leaf, key) = issued(&root, |_| {});
    let svid = Svid::new(vec![leaf], key).unwrap();
    let (chain, key) = (svid.chain_pem(), svid.key().to_pem());

    let error = Svid::from_pem(b"", key.as_bytes()).unwrap_err();
    assert!(matches!(error, SvidError::ChainPem(PemError::NoCertificate)), "{error}");
    assert!(error.to_string().starts_with("certificate chain: "), "{error}");

    let error = Svid::from_pem(key.as_bytes(), key.as_bytes()).unwrap_err();
    assert!(matches!(error, SvidError::ChainPem(PemError::UnexpectedBlock { block: 1, .. })), "{error}");

    let error = Svid::from_pem(chain.as_bytes(), chain.as_bytes()).unwrap_err();
    assert!(matches!(error, SvidError::Key(KeyError::Pem(PemError::NoKey))), "{error}");
    assert!(error.to_string().starts_with("private key: "), "{error}");

    let cut = &chain.as_bytes()[..chain.len() / 2];
    let error = Svid::from_pem(cut, key.as_bytes()).unwrap_err();
    assert!(matches!(error, SvidError::ChainPem(PemError::Malformed { block: 1, .. })), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn an_svid_survives_its_pem_and_its_own_bundle_accepts_it(
        namespace in "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", account in "[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?"
    ) {
        let root = Authority::root("cluster.local");
        let id = SpiffeId::for_service_account(root.bundle().trust_domain(), &namespace, &account).unwrap();
        let key = PrivateKey::generate().unwrap();
        let svid = Svid::new(vec![root.sign(&leaf_profile(id.as_str()), &key)], key).unwrap();

        let read = Svid::from_pem(svid.chain_pem().as_bytes(), svid.key().to_pem().as_bytes()).unwrap();
        prop_assert_eq!(read.id(), &id);
        prop_assert_eq!(read.chain(), svid.chain());
        prop_assert_eq!(read.key().der(), svid.key().der());
        prop_assert_eq!(read.chain_pem(), svid.chain_pem());
        for side in [Usage::Client, Usage::Server] {
            let peer = root.bundle().verify(read.chain(), side, noon()).unwrap();
            prop_assert_eq!(&peer.id, &id);
            prop_assert_eq!(&peer.serial, read.serial());
            prop_assert_eq!(peer.not_after, read.not_after());
        }
    }
}
