use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const TIMES: Lifetimes = Lifetimes { root: Duration::from_secs(3600 * 300), leaf: HOUR, overlap: HOUR };
const NAME: &str = "ringmail-control.ringmail-system.svc";

fn now() -> SystemTime {
    // Certificates keep whole seconds.
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// Whether an API server with this bundle takes the leaf.
fn is_verified(leaf: &Leaf, bundle: &str, at: SystemTime) -> bool {
    let mut roots = RootCertStore::empty();
    for pem in Pem::iter_from_buffer(bundle.as_bytes()) {
        roots.add(CertificateDer::from(pem.unwrap().contents)).unwrap();
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let certificate = CertificateDer::from(leaf.certificate.clone());
    let name = ServerName::try_from(NAME).unwrap();
    let at = UnixTime::since_unix_epoch(at.duration_since(SystemTime::UNIX_EPOCH).unwrap());
    verifier.verify_server_cert(&certificate, &[], &name, &[], at).is_ok()
}

fn names() -> Vec<String> {
    vec![NAME.to_owned()]
}

#[test]
fn what_is_written_is_what_is_read() {
    let mut ca = InjectorCa::create(now(), TIMES).unwrap();
    for at in [0, 200, 202, 500] {
        if let Some(next) = ca.step(now() + HOUR * at, TIMES).unwrap() {
            ca = next;
        }
        assert!(InjectorCa::read(&ca.data()).unwrap() == ca, "after {at} h");
    }
}

/// An API server may be one overlap behind with the roots, and meet a certificate until it ends.
#[test]
fn a_rotation_never_meets_an_api_server_that_does_not_know_the_root() {
    let mut ca = InjectorCa::create(now(), TIMES).unwrap();
    let mut signers = vec![ca.signer().to_owned()];
    let mut past: Vec<(SystemTime, String, Leaf)> = Vec::new();
    let mut most_roots = 0;
    for minutes in (0..300 * 60 * 2).step_by(20) {
        let at = now() + Duration::from_secs(minutes * 60);
        if let Some(next) = ca.step(at, TIMES).unwrap() {
            ca = next;
        }
        let leaf = ca.leaf(&names(), at, TIMES).unwrap();
        past.retain(|(made, _, leaf)| at < *made + TIMES.overlap || at < leaf.not_after);
        past.push((at, ca.bundle(), leaf));
        let (_, bundle, leaf) = past.last().unwrap();
        for (made, old_bundle, old_leaf) in &past {
            assert!(is_verified(leaf, old_bundle, at), "after {minutes} min, the roots of {made:?}");
            assert!(is_verified(old_leaf, bundle, at), "after {minutes} min, the certificate of {made:?}");
        }
        most_roots = most_roots.max(ca.bundle.len());
        if signers.last().map(String::as_str) != Some(ca.signer()) {
            signers.push(ca.signer().to_owned());
        }
    }
    assert!(signers.len() >= 3, "{} roots signed in twice a root's life", signers.len());
    assert_eq!((most_roots, ca.bundle.len()), (2, 1));
}

#[test]
fn an_authority_that_ended_while_nobody_looked_is_replaced_at_once() {
    let ca = InjectorCa::create(now(), TIMES).unwrap();
    let after = now() + TIMES.root + HOUR;
    let next = ca.step(after, TIMES).unwrap().expect("a new root");
    assert!(is_verified(&next.leaf(&names(), after, TIMES).unwrap(), &next.bundle(), after));
    assert_eq!(next.step(after, TIMES).unwrap(), None);
}

#[test]
fn a_secret_that_holds_something_else_is_told_by_key() {
    let (ca, other) = (InjectorCa::create(now(), TIMES).unwrap(), InjectorCa::create(now(), TIMES).unwrap());
    let with = |key: &str, bytes: &[u8]| {
        let mut data = ca.data();
        data.insert(key.to_owned(), ByteString(bytes.to_vec()));
        data
    };
    let without = |key: &str| {
        let mut data = ca.data();
        data.remove(key);
        data
    };
    let twice = ca.bundle().repeat(2);
    for (data, key) in [
        (without("tls.crt"), "tls.crt"),
        (without("tls.key"), "tls.key"),
        (without("ca.crt"), "ca.crt"),
        (with("tls.crt", b"\xff"), "tls.crt"),
        (with("tls.crt", b""), "tls.crt"),
        (with("tls.crt", twice.as_bytes()), "tls.crt"),
        (with("tls.key", other.current.key.as_bytes()), "tls.crt"),
        (with("tls.key", b"-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n"), "tls.key"),
        (with("ca.crt", other.bundle().as_bytes()), "ca.crt"),
        (with("ca.crt", ca.bundle().repeat(9).as_bytes()), "ca.crt"),
        (with("next.crt", other.bundle().as_bytes()), "next.key"),
    ] {
        match InjectorCa::read(&data) {
            Err(CaError::Malformed { key: named, .. }) => assert_eq!(named, key),
            other => panic!("{key}: {other:?}"),
        }
    }
}
