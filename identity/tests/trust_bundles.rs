//! Trust bundles: what is a root, and what a bundle's PEM may hold.

use rcgen::{KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, date_time_ymd};
use ringmail_identity::{BundleError, CertificateDer, MAX_ROOTS, PemError, RootId, TrustBundle};

use crate::authority::{Authority, bundle, trust_domain, unix};

fn refused(roots: Vec<CertificateDer<'static>>) -> BundleError {
    TrustBundle::new(trust_domain(), roots).unwrap_err()
}

#[test]
fn a_bundle_tells_its_roots_in_order_and_survives_its_pem() {
    let [one, two] = ["one", "two"].map(Authority::root);
    let bundle = bundle([&one, &two]);
    let read = TrustBundle::from_pem(trust_domain(), bundle.to_pem().as_bytes()).unwrap();
    assert_eq!(read.to_pem(), bundle.to_pem());
    for (root, authority) in read.roots().iter().zip([&one, &two]) {
        assert_eq!(root.der, authority.der);
        assert_eq!(root.id, RootId::of(&authority.der));
        assert_eq!(root.not_after, unix(date_time_ymd(2035, 1, 1).unix_timestamp()));
        assert!(read.contains(&root.id));
    }
    assert_eq!(read.roots()[0].subject, "O=one");
    assert!(!read.contains(&RootId::of(&Authority::root("three").der)));
}

#[test]
fn a_root_id_is_the_sha_256_of_the_certificate_in_hex() {
    const OF_ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let id = RootId::of(&CertificateDer::from(b"abc".to_vec()));
    assert_eq!(id.to_string(), OF_ABC);
    assert_eq!(format!("{id:?}"), format!("RootId({OF_ABC})"));
    let digits: String = id.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(digits, OF_ABC);
}

#[test]
fn debug_of_a_bundle_names_its_roots_and_shows_no_certificate() {
    let shown = format!("{:?}", Authority::root("one").bundle());
    assert_eq!(
        shown,
        "TrustBundle { trust_domain: TrustDomain(cluster.local), aliases: [], roots: [\"O=one\"] }"
    );
}

#[test]
fn text_around_the_blocks_is_passed_over_and_a_root_given_twice_counts_once() {
    let root = Authority::root("one");
    let pem = root.bundle().to_pem();
    let commented = format!("# the old one\r\n{pem}\nsubject=one\n{pem}");
    let read = TrustBundle::from_pem(trust_domain(), commented.as_bytes()).unwrap();
    assert_eq!(read.roots().len(), 1);
}

#[test]
fn a_certificate_that_may_not_sign_is_no_root() {
    let leaf = refused(vec![Authority::root("one").leaf(|_| {})]);
    assert!(matches!(leaf, BundleError::NotAnAuthority { root: 1, .. }), "{leaf}");

    let root = Authority::root("one");
    let mute = Authority::root_with("mute", &PKCS_ECDSA_P256_SHA256, |params| {
        params.key_usages = vec![KeyUsagePurpose::CrlSign];
    });
    let error = refused(vec![root.der, mute.der]);
    assert!(matches!(error, BundleError::NotAnAuthority { root: 2, .. }), "{error}");
    assert!(error.to_string().contains("O=mute"), "{error}");
}

#[test]
fn a_bundle_holds_at_least_one_root_and_not_too_many() {
    assert!(matches!(refused(vec![]), BundleError::Empty { .. }));
    let roots: Vec<_> = (0..=MAX_ROOTS).map(|n| Authority::root(&n.to_string()).der).collect();
    assert!(TrustBundle::new(trust_domain(), roots[1..].to_vec()).is_ok());
    assert!(matches!(refused(roots), BundleError::TooManyRoots { count, .. } if count == MAX_ROOTS + 1));
}

#[test]
fn a_broken_root_is_named_by_its_place() {
    let error = refused(vec![Authority::root("one").der, CertificateDer::from(vec![0x30, 0])]);
    assert!(matches!(error, BundleError::Malformed { root: 2, .. }), "{error}");
}

#[test]
fn a_private_key_among_the_roots_is_refused() {
    let pem = [Authority::root("one").bundle().to_pem().as_bytes(), include_bytes!("keys/ec-p384-pkcs8.pem")]
        .concat();
    let error = TrustBundle::from_pem(trust_domain(), &pem).unwrap_err();
    assert!(
        matches!(error, BundleError::Pem { source: PemError::UnexpectedBlock { block: 2, .. }, .. }),
        "{error}"
    );
}

#[test]
fn pem_without_a_certificate_or_cut_short_is_refused() {
    let error = TrustBundle::from_pem(trust_domain(), b"nothing").unwrap_err();
    assert!(matches!(error, BundleError::Pem { source: PemError::NoCertificate, .. }), "{error}");

    let pem = Authority::root("one").bundle().to_pem();
    let twice = format!("{pem}{}", &pem[..pem.len() / 2]);
    let error = TrustBundle::from_pem(trust_domain(), twice.as_bytes()).unwrap_err();
    assert!(
        matches!(error, BundleError::Pem { source: PemError::Malformed { block: 2, .. }, .. }),
        "{error}"
    );
}
