//! What a caller gets: its own identity, on its own key, verifiable with what came along.

use std::time::Instant;

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, RsaKeySize, SanType,
};
use ringmail_ca::messages::IstioCertificateRequest;
use ringmail_identity::TrustBundle;
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::support::{Ca, IDENTITY, TOKEN, ask, certificates, connect, csr, request, verify};

fn parsed<'a>(der: &'a CertificateDer<'_>) -> X509Certificate<'a> {
    X509Certificate::from_der(der).unwrap().1
}

/// The only names in the leaf.
fn names(leaf: &CertificateDer<'_>) -> Vec<String> {
    let leaf = parsed(leaf);
    let san = leaf.subject_alternative_name().unwrap().unwrap();
    assert!(san.critical);
    let name = |name: &GeneralName<'_>| name.to_string();
    san.value.general_names.iter().map(name).collect()
}

#[tokio::test]
async fn every_accepted_kind_of_key_gets_a_leaf_that_verifies() {
    let ca = Ca::start(&[]);
    let channel = ca.connect().await;
    let keys = [
        (KeyPair::generate().unwrap(), "EC P-256"),
        (KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap(), "EC P-384"),
        (KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap(), "RSA 2048"),
        (KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_4096).unwrap(), "RSA 4096"),
    ];
    for (key, kind) in keys {
        let answer = ask(channel.clone(), Some(TOKEN), request(&csr(&key))).await.unwrap();
        let chain = certificates(&answer.cert_chain);
        // The caller needs nothing but the answer: its last element is the bundle.
        let roots = answer.cert_chain.last().unwrap();
        let bundle = TrustBundle::from_pem("cluster.local".parse().unwrap(), roots.as_bytes()).unwrap();
        assert_eq!(verify(&bundle, &chain[..1]).unwrap().as_str(), IDENTITY);
        let leaf = parsed(&chain[0]);
        assert_eq!(leaf.public_key().subject_public_key.data.as_ref(), key.public_key_raw());
        let line = ca.audit();
        assert_eq!(line["outcome"], "issued");
        assert_eq!(line["identity"], IDENTITY);
        assert_eq!(line["key"], kind);
        assert_eq!(line["ttl_seconds"], 24 * 3600);
        let serial = leaf.raw_serial_as_string().replace(':', "");
        assert_eq!(
            serial.trim_start_matches("00"),
            line["serial"].as_str().unwrap().trim_start_matches("00")
        );
        assert!(line["caller"].as_str().unwrap().starts_with("127.0.0.1:"));
    }
    assert!((ca.metric("ringmail_ca_issued_total") - 4.0).abs() < 0.5);
    assert!((ca.metric("citadel_server_success_cert_issuance_count") - 4.0).abs() < 0.5);
}

#[tokio::test]
async fn what_a_request_asks_for_beside_its_key_has_no_effect() {
    let ca = Ca::start(&[]);
    let mut params = CertificateParams::new(vec!["admin.example".to_owned(), "10.0.0.1".to_owned()]).unwrap();
    let foreign = "spiffe://cluster.local/ns/kube-system/sa/admin";
    params.subject_alt_names.push(SanType::URI(foreign.try_into().unwrap()));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any];
    let key = KeyPair::generate().unwrap();
    let wishful = params.serialize_request(&key).unwrap().pem().unwrap();
    let answer = ask(ca.connect().await, Some(TOKEN), request(&wishful)).await.unwrap();
    let chain = certificates(&answer.cert_chain);
    assert_eq!(names(&chain[0]), [format!("URI({IDENTITY})")]);
    let leaf = parsed(&chain[0]);
    assert!(!leaf.is_ca());
    assert!(leaf.subject().iter().next().is_none());
    let usage = leaf.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && !usage.key_cert_sign() && !usage.crl_sign());
    assert!(!leaf.extended_key_usage().unwrap().unwrap().value.any);
    assert_eq!(verify(&ca.bundle(), &chain[..1]).unwrap().as_str(), IDENTITY);
}

#[tokio::test]
async fn the_lifetime_is_the_asked_one_or_the_default() {
    let ca = Ca::start(&["--ttl", "2h", "--max-ttl", "3h"]);
    let channel = ca.connect().await;
    for (asked, given) in [(0, 7200), (-5, 7200), (60, 60), (3 * 3600, 3 * 3600)] {
        let request = IstioCertificateRequest {
            validity_duration: asked,
            ..request(&csr(&KeyPair::generate().unwrap()))
        };
        let answer = ask(channel.clone(), Some(TOKEN), request).await.unwrap();
        let chain = certificates(&answer.cert_chain);
        let validity = parsed(&chain[0]).validity().clone();
        let backdate = ringmail_ca::issue::BACKDATE.as_secs().cast_signed();
        assert_eq!(validity.not_after.timestamp() - validity.not_before.timestamp(), given + backdate);
    }
}

#[tokio::test]
async fn the_server_is_verified_by_each_of_its_names_and_no_other() {
    let ca = Ca::start(&["--serving-name", "ca.example", "--serving-name", "127.0.0.1"]);
    for name in ["localhost", "ringmail-ca", "ringmail-ca.ringmail-system.svc", "ca.example", "127.0.0.1"] {
        connect(ca.address, &ca.bundle(), name).await.unwrap();
    }
    for name in ["istiod.istio-system.svc", "127.0.0.2"] {
        assert!(connect(ca.address, &ca.bundle(), name).await.is_err(), "{name}");
    }
    let stranger = Ca::start(&[]);
    assert!(connect(ca.address, &stranger.bundle(), "localhost").await.is_err());
}

/// A thousand proxies that come back at once must be served within seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_issued_by_the_hundred_per_second() {
    const CLIENTS: usize = 8;
    const EACH: usize = 125;
    let ca = Ca::start(&[]);
    let csr = csr(&KeyPair::generate().unwrap());
    let channels = futures(&ca, CLIENTS).await;
    let began = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for channel in channels {
        let csr = csr.clone();
        clients.spawn(async move {
            for _ in 0..EACH {
                ask(channel.clone(), Some(TOKEN), request(&csr)).await.unwrap();
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    let rate = (CLIENTS * EACH) as f64 / began.elapsed().as_secs_f64();
    println!("{rate:.0} certificates per second over {CLIENTS} connections");
    assert!(rate >= 200.0, "{rate:.0} certificates per second: expected at least 200");
}

async fn futures(ca: &Ca, count: usize) -> Vec<tonic::transport::Channel> {
    let mut channels = Vec::new();
    for _ in 0..count {
        channels.push(ca.connect().await);
    }
    channels
}
