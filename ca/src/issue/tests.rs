use super::*;
use crate::authority::self_signed::{FirstRoot, StateFolder};
use crate::authority::{Source, certificate_pem};
use rcgen::{PKCS_RSA_SHA256, RsaKeySize};
use std::sync::LazyLock;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

const HOUR: Duration = Duration::from_secs(3600);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

fn authority(now: SystemTime) -> Authority {
    let folder = tempfile::tempdir().unwrap();
    let state = StateFolder {
        path: folder.path().to_path_buf(),
        first_root: FirstRoot::Create,
        bootstrap_new_root: false,
    };
    let trust_domain = "cluster.local".parse().unwrap();
    Source::self_signed(&state, None, trust_domain, now).unwrap().load(now).unwrap()
}

fn request(key: &KeyPair) -> RequestedKey {
    let csr = CertificateParams::default().serialize_request(key).unwrap().pem().unwrap();
    crate::csr::requested_key(&csr).unwrap()
}

fn identity() -> SpiffeId {
    "spiffe://cluster.local/ns/ignite/sa/node".parse().unwrap()
}

fn subject() -> Subject<'static> {
    static IDENTITY: LazyLock<SpiffeId> = LazyLock::new(identity);
    Subject { identity: &IDENTITY, dns_names: &[] }
}

fn seconds(time: SystemTime) -> i64 {
    i64::try_from(time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// Each extension with its value, which is the profile in readable form.
#[expect(clippy::wildcard_enum_match_arm, reason = "any other extension must show up in the comparison")]
fn extensions(certificate: &X509Certificate<'_>) -> Vec<String> {
    let describe = |extension: &ParsedExtension<'_>| match extension {
        ParsedExtension::AuthorityKeyIdentifier(_) => "akid".to_owned(),
        ParsedExtension::SubjectKeyIdentifier(_) => "skid".to_owned(),
        ParsedExtension::BasicConstraints(basic) => {
            format!("basic ca={} {:?}", basic.ca, basic.path_len_constraint)
        }
        ParsedExtension::KeyUsage(usage) => format!("key usage {usage}"),
        ParsedExtension::ExtendedKeyUsage(eku) => {
            format!(
                "eku server={} client={} any={} other={}",
                eku.server_auth,
                eku.client_auth,
                eku.any,
                eku.other.len()
            )
        }
        ParsedExtension::SubjectAlternativeName(san) => match san.general_names.as_slice() {
            [GeneralName::URI(uri)] => format!("san {uri}"),
            names => format!("san {names:?}"),
        },
        other => format!("{other:?}"),
    };
    let mut lines: Vec<_> = certificate
        .extensions()
        .iter()
        .map(|e| format!("{} critical={}", describe(e.parsed_extension()), e.critical))
        .collect();
    lines.sort();
    lines
}

fn profile(key_usage: &str) -> Vec<String> {
    let mut lines = vec![
        "akid critical=false".to_owned(),
        "basic ca=false None critical=true".to_owned(),
        "eku server=true client=true any=false other=0 critical=false".to_owned(),
        format!("key usage {key_usage} critical=true"),
        "san spiffe://cluster.local/ns/ignite/sa/node critical=true".to_owned(),
        "skid critical=false".to_owned(),
    ];
    lines.sort();
    lines
}

#[test]
fn a_leaf_carries_exactly_the_profile() {
    let now = SystemTime::now();
    let authority = authority(now);
    let cases = [
        (KeyPair::generate().unwrap(), "Digital Signature"),
        (
            KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap(),
            "Digital Signature, Key Encipherment",
        ),
    ];
    for (key, key_usage) in cases {
        let leaf = workload_leaf(&authority, &request(&key), &subject(), HOUR, now).unwrap();
        let (rest, certificate) = X509Certificate::from_der(&leaf.certificate).unwrap();
        assert!(rest.is_empty());
        assert_eq!(certificate.version().0, 2, "X.509 version 3");
        assert_eq!(certificate.subject().iter().count(), 0);
        assert_eq!(extensions(&certificate), profile(key_usage));
        assert_eq!(certificate.public_key().subject_public_key.data.as_ref(), key.public_key_raw());
        assert_eq!(certificate.validity().not_before.timestamp(), seconds(now - BACKDATE));
        assert_eq!(certificate.validity().not_after.timestamp(), seconds(now + HOUR));
        assert_eq!(
            certificate.raw_serial_as_string().replace(':', "").trim_start_matches("00"),
            leaf.serial.trim_start_matches("00")
        );
    }
}

#[test]
fn serial_numbers_are_random_and_long() {
    let now = SystemTime::now();
    let (authority, key) = (authority(now), request(&KeyPair::generate().unwrap()));
    let serials: std::collections::HashSet<_> =
        (0..200).map(|_| workload_leaf(&authority, &key, &subject(), HOUR, now).unwrap().serial).collect();
    assert_eq!(serials.len(), 200);
    assert!(serials.iter().all(|serial| serial.len() == 2 * SERIAL_BYTES));
}

#[test]
fn no_leaf_outlives_its_signer_and_an_expired_signer_signs_nothing() {
    let now = SystemTime::now();
    let (authority, key) = (authority(now), request(&KeyPair::generate().unwrap()));
    let end = authority.not_after();
    let late = end - HOUR;
    let leaf = workload_leaf(&authority, &key, &subject(), 24 * HOUR, late).unwrap();
    assert_eq!(leaf.not_after, end);
    for past in [end, end + YEAR] {
        let refused = workload_leaf(&authority, &key, &subject(), HOUR, past).unwrap_err();
        assert_eq!(refused, IssueError::SignerExpired);
    }
}

#[test]
fn a_lifetime_is_the_asked_one_the_default_or_an_error() {
    let lifetimes = Lifetimes { default: HOUR, max: 2 * HOUR };
    for (asked, given) in
        [(0, HOUR), (-1, HOUR), (i64::MIN, HOUR), (1, Duration::from_secs(1)), (7200, 2 * HOUR)]
    {
        assert_eq!(lifetimes.asked(asked), Ok(given));
    }
    for asked in [7201, i64::MAX] {
        assert_eq!(lifetimes.asked(asked), Err(IssueError::TtlTooLong { asked, max: 7200 }));
    }
}

#[test]
fn the_serving_certificate_names_servers_and_no_workload() {
    let now = SystemTime::now();
    let authority = authority(now);
    let names = [ServingName::Dns("ringmail-ca".to_owned()), ServingName::Ip("10.0.0.1".parse().unwrap())];
    let leaf = serving_leaf(&authority, &KeyPair::generate().unwrap(), &names, HOUR, now).unwrap();
    let (_, certificate) = X509Certificate::from_der(&leaf.certificate).unwrap();
    let san = certificate.subject_alternative_name().unwrap().unwrap().value;
    assert!(matches!(
        san.general_names[..],
        [GeneralName::DNSName("ringmail-ca"), GeneralName::IPAddress(&[10, 0, 0, 1])]
    ));
    let eku = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(eku.server_auth && !eku.client_auth);
}

#[test]
fn the_response_is_leaf_intermediates_and_then_all_roots() {
    let now = SystemTime::now();
    let (authority, key) = (authority(now), request(&KeyPair::generate().unwrap()));
    let leaf = workload_leaf(&authority, &key, &subject(), HOUR, now).unwrap();
    let chain = authority.response_chain(&leaf.certificate);
    assert_eq!(chain, [certificate_pem(&leaf.certificate), authority.bundle_pem()]);
}
