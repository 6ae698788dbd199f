//! Every refusal, by its code in the answer, its reason in the audit line and its metric.

use std::collections::BTreeMap;

use crate::support::token::{self, Issuer};
use crate::support::{Ca, TOKEN, ask, assert_refused, call, csr, folder, request};
use rcgen::KeyPair;
use ringmail_ca::messages::{
    CREATE_CERTIFICATE_PATH, IstioCertificateRequest, IstioCertificateResponse, Kind, Struct, Value,
};
use ringmail_evidence::shown;
use serde_json::{Value as Json, json};
use tonic::Code;
use tonic::client::Grpc;
use tonic_prost::ProstCodec;

fn sound() -> IstioCertificateRequest {
    request(&csr(&KeyPair::generate().unwrap()))
}

fn ca_with_issuer(flags: &[&str]) -> (Ca, Issuer) {
    let (folder, issuer) = (folder(), Issuer::new());
    std::fs::write(folder.path().join("jwks.json"), issuer.jwks()).unwrap();
    (Ca::start_in(folder, flags), issuer)
}

#[tokio::test]
async fn a_bad_token_is_unauthenticated_for_its_own_reason() {
    let (ca, issuer) = ca_with_issuer(&["--issuer", "https://issuer.example"]);
    let other = Issuer::new();
    let rs256 = |name: &str, value: Json| issuer.rs256(&token::with(name, value));
    let header = |alg: &str| json!({"alg": alg, "kid": "rsa", "typ": "JWT"});
    let mut critical = header("RS256");
    critical["crit"] = json!(["exp"]);
    let mut cases = vec![
        ("not-a-known-token".to_owned(), "unknown_token"),
        (format!("{TOKEN}x"), "unknown_token"),
        ("a.b.c".to_owned(), "malformed_token"),
        (token::unsigned(&json!({"kid": "rsa"}), &token::claims()), "malformed_token"),
        (token::unsigned(&critical, &token::claims()), "malformed_token"),
        (token::unsigned(&header("none"), &token::claims()), "token_algorithm"),
        (token::unsigned(&header("None"), &token::claims()), "token_algorithm"),
        (token::unsigned(&header("PS256"), &token::claims()), "token_algorithm"),
        (token::unsigned(&header("RS256"), &token::claims()), "token_signature"),
        (issuer.signed(jsonwebtoken::Algorithm::ES256, Some("rsa"), &token::claims()), "token_algorithm"),
        (issuer.signed(jsonwebtoken::Algorithm::RS256, Some("ec"), &token::claims()), "token_algorithm"),
        (
            issuer.signed(jsonwebtoken::Algorithm::RS256, Some("unknown"), &token::claims()),
            "token_unknown_key",
        ),
        (issuer.signed(jsonwebtoken::Algorithm::RS256, None, &token::claims()), "token_unknown_key"),
        (other.rs256(&token::claims()), "token_signature"),
        (other.es256(&token::claims()), "token_signature"),
        (rs256("exp", json!(token::now() - 120)), "token_expired"),
        (rs256("exp", Json::Null), "malformed_token"),
        (rs256("exp", json!("tomorrow")), "malformed_token"),
        (rs256("nbf", json!(token::now() + 120)), "token_not_yet_valid"),
        (rs256("aud", json!("istio-ca")), "token_audience"),
        (rs256("aud", json!([])), "token_audience"),
        (rs256("aud", Json::Null), "token_audience"),
        (rs256("iss", json!("https://elsewhere.example")), "token_issuer"),
        (rs256("iss", Json::Null), "token_issuer"),
    ];
    for subject in [
        "node",
        "ignite:node",
        "serviceaccount:ignite:node",
        "xsystem:serviceaccount:ignite:node",
        "system:node:worker-1",
        "system:serviceaccount:ignite",
        "system:serviceaccount::node",
        "system:serviceaccount:ignite:",
        "system:serviceaccount:ignite:node:more",
        "system:serviceaccount:ignite/../x:node",
        "system:serviceaccount:..:node",
        "spiffe://cluster.local/ns/ignite/sa/node",
    ] {
        cases.push((rs256("sub", json!(subject)), "token_subject"));
    }
    for secret in issuer.public_secrets() {
        cases.push((token::hs256(&secret, "rsa", &token::claims()), "token_algorithm"));
        cases.push((token::hs256(&secret, "ec", &token::claims()), "token_algorithm"));
    }
    let tried = cases.len() + 2;
    let channel = ca.connect().await;
    for (token, reason) in cases {
        let answer = ask(channel.clone(), Some(&token), sound()).await;
        assert_refused(&ca, answer, Code::Unauthenticated, reason);
    }
    assert_refused(&ca, ask(channel.clone(), None, sound()).await, Code::Unauthenticated, "missing_token");
    let answer = ask(channel.clone(), Some("two words"), sound()).await;
    assert_refused(&ca, answer, Code::Unauthenticated, "malformed_token");
    for token in [issuer.rs256(&token::claims()), issuer.es256(&token::claims()), TOKEN.to_owned()] {
        ask(channel.clone(), Some(&token), sound()).await.unwrap();
        let line = ca.audit();
        assert_eq!(
            (line["outcome"].as_str(), line["identity"].as_str()),
            (Some("issued"), Some(crate::support::IDENTITY))
        );
    }
    shown!("A17", "tokens that prove nothing, refused for their reason", tried, "all");
}

#[tokio::test]
async fn a_bad_request_is_refused_with_its_code_and_reason() {
    let ca = Ca::start(&["--max-ttl", "48h"]);
    let channel = ca.connect().await;
    let long = csr(&KeyPair::generate().unwrap()) + &"\n".repeat(ringmail_ca::csr::MAX_CSR_BYTES);
    let cases = [
        (request(""), "csr_malformed"),
        (
            request("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"),
            "csr_malformed",
        ),
        (request(include_str!("fixtures/rsa-1024.csr")), "csr_key"),
        (request(include_str!("fixtures/rsa-5120.csr")), "csr_key"),
        (request(include_str!("fixtures/rsa-exponent-3.csr")), "csr_key"),
        (request(include_str!("fixtures/ec-secp224r1.csr")), "csr_key"),
        (request(include_str!("fixtures/ec-secp256k1.csr")), "csr_key"),
        (request(include_str!("fixtures/ec-secp521r1.csr")), "csr_key"),
        (request(include_str!("fixtures/ec-brainpoolP256r1.csr")), "csr_key"),
        (request(include_str!("fixtures/ed25519.csr")), "csr_key"),
        (request(&rsa_csr(16 * 1024)), "csr_key"),
        (request(include_str!("fixtures/sha1.csr")), "csr_signature"),
        (request(&tampered_csr()), "csr_signature"),
        (request(&long), "csr_too_large"),
        (IstioCertificateRequest { validity_duration: 48 * 3600 + 1, ..sound() }, "ttl_too_long"),
        (IstioCertificateRequest { validity_duration: i64::MAX, ..sound() }, "ttl_too_long"),
    ];
    let tried = cases.len();
    for (message, reason) in cases {
        let answer = ask(channel.clone(), Some(TOKEN), message).await;
        assert_refused(&ca, answer, Code::InvalidArgument, reason);
    }
    ask(channel, Some(TOKEN), sound()).await.unwrap();
    shown!(
        "A17",
        "requests with a bad key, size, signature or lifetime, refused for their reason",
        tried,
        "all"
    );
}

#[tokio::test]
async fn a_message_has_65536_bytes_at_most_and_headers_have_16384() {
    let ca = Ca::start(&[]);
    let channel = ca.connect().await;
    // A message of one field: a byte for its number, three for its length.
    let message = |bytes: usize| request(&"x".repeat(bytes - 4));
    let answer = ask(channel.clone(), Some(TOKEN), message(65_536)).await;
    assert_refused(&ca, answer, Code::InvalidArgument, "csr_too_large");
    let answer = ask(channel.clone(), Some(TOKEN), message(65_537)).await;
    assert_refused(&ca, answer, Code::ResourceExhausted, "request_too_large");

    let with_header = async |bytes: usize| {
        let mut grpc = Grpc::new(channel.clone());
        grpc.ready().await.unwrap();
        let mut request = tonic::Request::new(sound());
        request.metadata_mut().insert("authorization", format!("Bearer {TOKEN}").parse().unwrap());
        request.metadata_mut().insert("filler", "x".repeat(bytes).parse().unwrap());
        let codec = ProstCodec::<_, IstioCertificateResponse>::default();
        grpc.unary(request, http::uri::PathAndQuery::from_static(CREATE_CERTIFICATE_PATH), codec).await
    };
    assert!(with_header(15_500).await.is_ok(), "what else there is of headers takes less than 800 bytes");
    let refused = with_header(16_384).await.unwrap_err();
    assert!(refused.message().contains("431"), "{refused:?}");
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
    let length = match content.len() {
        0..128 => vec![low],
        128..256 => vec![0x81, low],
        _ => vec![0x82, high, low],
    };
    [&[tag], &length[..], content].concat()
}

/// A request for a key of so many bits, which nobody has made: its signature is none.
fn rsa_csr(bits: usize) -> String {
    let rsa = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
    let sha256 = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b, 0x05, 0x00];
    let modulus = [vec![0, 0xff], vec![0xff; bits / 8 - 1]].concat();
    let key = der(0x30, &[der(0x02, &modulus), der(0x02, &[1, 0, 1])].concat());
    let spki = der(0x30, &[der(0x30, &rsa), der(0x03, &[vec![0], key].concat())].concat());
    let info = der(0x30, &[der(0x02, &[0]), der(0x30, &[]), spki, der(0xa0, &[])].concat());
    let signature = der(0x03, &vec![0; bits / 8 + 1]);
    let request = der(0x30, &[info, der(0x30, &sha256), signature].concat());
    pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", request))
}

/// A sound request whose last signature bit is another.
fn tampered_csr() -> String {
    let mut der = pem::parse(csr(&KeyPair::generate().unwrap())).unwrap().into_contents();
    *der.last_mut().unwrap() ^= 1;
    pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", der))
}

#[tokio::test]
async fn impersonation_is_refused_whatever_its_value() {
    let ca = Ca::start(&[]);
    let other = "spiffe://cluster.local/ns/kube-system/sa/admin".to_owned();
    for kind in [Kind::String(other), Kind::String(String::new()), Kind::Null(0)] {
        let value = Value { kind: Some(kind) };
        let metadata = Some(Struct { fields: BTreeMap::from([("ImpersonatedIdentity".to_owned(), value)]) });
        let message = IstioCertificateRequest { metadata, ..sound() };
        let answer = ask(ca.connect().await, Some(TOKEN), message).await;
        assert_refused(&ca, answer, Code::Unauthenticated, "impersonation");
    }
    let cluster = Value { kind: Some(Kind::String("Kubernetes".to_owned())) };
    let metadata = Some(Struct { fields: BTreeMap::from([("ClusterID".to_owned(), cluster)]) });
    let answer = ask(ca.connect().await, Some(TOKEN), IstioCertificateRequest { metadata, ..sound() }).await;
    assert!(answer.is_ok(), "other metadata is the caller's own affair");
}

/// Field 1 as a number, where the protocol has a string.
#[derive(Clone, PartialEq, prost::Message)]
struct AnotherMessage {
    #[prost(int64, tag = "1")]
    number: i64,
}

#[tokio::test]
async fn what_is_no_request_of_the_service_is_refused() {
    let ca = Ca::start(&[]);
    let channel = ca.connect().await;
    let answer =
        call(channel.clone(), CREATE_CERTIFICATE_PATH, Some(TOKEN), AnotherMessage { number: 7 }).await;
    assert_refused(&ca, answer, Code::InvalidArgument, "malformed_request");
    for path in
        ["/", "/istio.v1.auth.IstioCertificateService/Other", "/grpc.reflection.v1.ServerReflection/Info"]
    {
        let answer = call(channel.clone(), path, Some(TOKEN), sound()).await;
        assert_refused(&ca, answer, Code::Unimplemented, "unknown_method");
    }
}

#[tokio::test]
async fn a_body_that_never_ends_meets_the_deadline_and_too_many_meet_the_limit() {
    let ca = Ca::start(&["--request-timeout", "3s"]);
    let per_connection = 32;
    let mut stalled = tokio::task::JoinSet::new();
    for _ in 0..=ringmail_ca::service::MAX_REQUESTS / per_connection {
        let channel = ca.connect().await;
        for _ in 0..per_connection {
            stalled.spawn(stalled_call(channel.clone()));
        }
    }
    let mut codes = BTreeMap::new();
    while let Some(code) = stalled.join_next().await {
        *codes.entry(format!("{:?}", code.unwrap())).or_insert(0) += 1;
    }
    assert_eq!(codes["DeadlineExceeded"], ringmail_ca::service::MAX_REQUESTS, "{codes:?}");
    assert_eq!(codes["ResourceExhausted"], per_connection, "{codes:?}");
    assert_eq!(codes.len(), 2, "{codes:?}");
    assert!((ca.metric("ringmail_ca_refused_total{reason=\"overloaded\"}") - 32.0).abs() < 0.5);
    let stalled = ringmail_ca::service::MAX_REQUESTS as f64;
    assert!((ca.metric("ringmail_ca_refused_total{reason=\"deadline_exceeded\"}") - stalled).abs() < 0.5);
    ask(ca.connect().await, Some(TOKEN), sound()).await.unwrap();
}

async fn stalled_call(channel: tonic::transport::Channel) -> Code {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.unwrap();
    let mut request = tonic::Request::new(tokio_stream::pending::<IstioCertificateRequest>());
    request.metadata_mut().insert("authorization", format!("Bearer {TOKEN}").parse().unwrap());
    let codec = ProstCodec::<IstioCertificateRequest, IstioCertificateResponse>::default();
    let path = http::uri::PathAndQuery::from_static(CREATE_CERTIFICATE_PATH);
    grpc.client_streaming(request, path, codec).await.unwrap_err().code()
}
