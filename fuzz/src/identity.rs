//! Identities, certificates, bundles and keys.

use std::cell::LazyCell;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use ringmail_identity::{
    CertificateDer, MAX_CHAIN_LEN, MAX_ROOTS, MAX_SPIFFE_ID_LEN, MAX_TRUST_DOMAIN_LEN, PrivateKey, SpiffeId,
    Svid, SvidError, TrustBundle, UnixTime, Usage,
};

use crate::wishes::Wishes;

const DOMAIN: &str = "cluster.local";

/// The tag of a URI among the names of a certificate, in DER.
const URI: u8 = 0x86;

/// An ID is read exactly where it is one by the grammar, and then it is what was read.
pub(crate) fn spiffe_id(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let read = text.parse::<SpiffeId>();
    assert_eq!(read.is_ok(), is_an_id(&text), "{text:?}: {read:?}");
    let Ok(id) = read else { return };
    assert_eq!(id.as_str(), text);
    assert_eq!(format!("spiffe://{}{}", id.trust_domain(), id.path()), text);
    assert_eq!(format!("spiffe://{}", id.principal()), text);
    let parts: Vec<&str> = id.path().split('/').collect();
    let account = match parts[..] {
        ["", "ns", namespace, "sa", account] => (Some(namespace), Some(account)),
        _ => (None, None),
    };
    assert_eq!((id.namespace(), id.service_account()), account, "{text}");
}

/// The grammar, read anew: slow and obvious.
fn is_an_id(text: &str) -> bool {
    let is_word = |text: &str, upper: bool| {
        !text.is_empty()
            && text.chars().all(|c| {
                c.is_ascii_lowercase()
                    || c.is_ascii_digit()
                    || ".-_".contains(c)
                    || (upper && c.is_ascii_uppercase())
            })
    };
    let Some((domain, path)) = text.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/')) else {
        return false;
    };
    text.len() <= MAX_SPIFFE_ID_LEN
        && domain.len() <= MAX_TRUST_DOMAIN_LEN
        && is_word(domain, false)
        && path.split('/').all(|segment| is_word(segment, true) && segment != "." && segment != "..")
}

/// A leaf that satisfies the rules carries its ID as a URI, byte for byte.
pub(crate) fn leaf(data: &[u8]) {
    thread_local! {
        static KEY: LazyCell<String> = LazyCell::new(|| PrivateKey::generate().unwrap().to_pem().to_string());
    }
    let key = KEY.with(|pem| PrivateKey::from_pem(pem.as_bytes()).unwrap());
    let id = match Svid::new(vec![CertificateDer::from(data.to_vec())], key) {
        Ok(svid) => svid.id().clone(),
        Err(SvidError::KeyMismatch { id, .. } | SvidError::Usage { id, .. }) => id,
        Err(_refused) => return,
    };
    let name = [&[URI][..], &der_length(id.as_str().len()), id.as_str().as_bytes()].concat();
    assert!(
        data.windows(name.len()).any(|window| window == name),
        "{id} is not among the names of {data:02x?}"
    );
}

fn der_length(len: usize) -> Vec<u8> {
    match u8::try_from(len) {
        Ok(short @ 0..=127) => vec![short],
        Ok(long) => vec![0x81, long],
        Err(_) => [&[0x82][..], &u16::try_from(len).unwrap().to_be_bytes()].concat(),
    }
}

struct Authorities {
    own: Issuer<'static, KeyPair>,
    own_der: CertificateDer<'static>,
    foreign: Issuer<'static, KeyPair>,
    key: KeyPair,
    bundle: TrustBundle,
}

impl Authorities {
    fn new() -> Self {
        let root = || {
            let mut params = CertificateParams::default();
            params.not_before = date_time_ymd(2025, 1, 1);
            params.not_after = date_time_ymd(2035, 1, 1);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            let key = KeyPair::generate().unwrap();
            let der = params.self_signed(&key).unwrap().der().clone();
            (Issuer::new(params, key), der)
        };
        let ((own, own_der), (foreign, _)) = (root(), root());
        let bundle = TrustBundle::new(DOMAIN.parse().unwrap(), vec![own_der.clone()]).unwrap();
        Self { own, own_der, foreign, key: KeyPair::generate().unwrap(), bundle }
    }
}

/// A chain is accepted exactly where nothing of it was wished to be wrong.
pub(crate) fn certificate(data: &[u8]) {
    thread_local! {
        static AUTHORITIES: LazyCell<Authorities> = LazyCell::new(Authorities::new);
    }
    AUTHORITIES.with(|authorities| {
        let mut wishes = Wishes(data);
        let usage = [Usage::Client, Usage::Server][usize::from(wishes.one_of(2))];
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let good = wish(&mut params, &mut wishes, usage);
        let by_foreign = wishes.rarely();
        let issuer = if by_foreign { &authorities.foreign } else { &authorities.own };
        let leaf = params.signed_by(&authorities.key, issuer).unwrap().der().clone();
        let more = usize::from(wishes.one_of(5));
        let chain: Vec<_> = [leaf].into_iter().chain(vec![authorities.own_der.clone(); more]).collect();
        let verdict = authorities.bundle.verify(&chain, usage, noon());
        let expected = good && !by_foreign && chain.len() <= MAX_CHAIN_LEN;
        assert_eq!(verdict.is_ok(), expected, "{verdict:?} of {params:?} in a chain of {}", chain.len());
        // And whatever else claims to be a chain is refused, which must cost little and never panic.
        let halves = data.split_at(data.len() / 2);
        let chain = [halves.0, halves.1].map(|part| CertificateDer::from(part.to_vec()));
        let refused = authorities.bundle.verify(&chain, Usage::Client, noon());
        assert!(refused.is_err(), "{refused:?}");
    });
}

/// Writes what is wished into a leaf, and says whether it is a good one for `usage`.
fn wish(params: &mut CertificateParams, wishes: &mut Wishes<'_>, usage: Usage) -> bool {
    let domain = if wishes.rarely() { "elsewhere" } else { DOMAIN };
    let uris = if wishes.rarely() { wishes.one_of(4) } else { 1 };
    for number in 0..uris {
        params.subject_alt_names.push(uri(&format!("spiffe://{domain}/ns/a/sa/b{number}")));
    }
    if wishes.rarely() {
        params.subject_alt_names.push(SanType::DnsName("a.example".try_into().unwrap()));
    }
    let address = wishes.rarely();
    if address {
        params.subject_alt_names.push(SanType::IpAddress([10, 0, 0, 1].into()));
    }
    let ca = wishes.rarely();
    params.is_ca = if ca { IsCa::Ca(BasicConstraints::Constrained(0)) } else { IsCa::ExplicitNoCa };
    let usages = if wishes.rarely() { wishes.one_of(16) } else { 1 };
    let all = [
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
    ];
    params.key_usages =
        all.into_iter().enumerate().filter(|(bit, _)| usages >> bit & 1 == 1).map(|(_, each)| each).collect();
    let (client, server) =
        if wishes.rarely() { (wishes.one_of(2) == 1, wishes.one_of(2) == 1) } else { (true, true) };
    params.extended_key_usages =
        [(client, ExtendedKeyUsagePurpose::ClientAuth), (server, ExtendedKeyUsagePurpose::ServerAuth)]
            .into_iter()
            .filter(|(has, _)| *has)
            .map(|(_, each)| each)
            .collect();
    let day = if wishes.rarely() { wishes.one_of(3) } else { 1 };
    params.not_before = date_time_ymd(2026, 1, 3 - day);
    params.not_after = date_time_ymd(2026, 1, 4 - day);
    let plays = match usage {
        Usage::Client => client,
        Usage::Server => server,
    };
    domain == DOMAIN && uris == 1 && !address && !ca && usages & 1 == 1 && usages < 4 && plays && day == 1
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

/// In the middle of the second of January, on which what was not wished otherwise is valid.
fn noon() -> UnixTime {
    let seconds = date_time_ymd(2026, 1, 2).unix_timestamp() + 12 * 3600;
    UnixTime::since_unix_epoch(Duration::from_secs(seconds.try_into().unwrap()))
}

/// A bundle is bounded, and written as it is read.
pub(crate) fn trust_bundle(data: &[u8]) {
    let Ok(bundle) = TrustBundle::from_pem(DOMAIN.parse().unwrap(), data) else { return };
    assert!((1..=MAX_ROOTS).contains(&bundle.roots().len()));
    let again = TrustBundle::from_pem(DOMAIN.parse().unwrap(), bundle.to_pem().as_bytes()).unwrap();
    let ids = |bundle: &TrustBundle| bundle.roots().iter().map(|root| root.id).collect::<Vec<_>>();
    assert_eq!(ids(&again), ids(&bundle));
}

/// A key is written as it is read, and never in the error of one that is refused.
pub(crate) fn private_key(data: &[u8]) {
    match PrivateKey::from_pem(data) {
        Ok(key) => {
            let again = PrivateKey::from_pem(key.to_pem().as_bytes()).unwrap();
            assert_eq!((again.key_algorithm(), again.to_pem()), (key.key_algorithm(), key.to_pem()));
            let encoding = |key: &PrivateKey| std::mem::discriminant(&key.der());
            assert_eq!(encoding(&again), encoding(&key));
        }
        Err(error) => says_nothing_of(&error.to_string(), data),
    }
}

/// Letters of base64 in a row that are no accident.
const TELLING: usize = 32;

/// No message shows a line of what it is about.
pub(crate) fn says_nothing_of(message: &str, secret: &[u8]) {
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    for run in secret.split(|byte| !is_base64(byte)).filter(|run| run.len() >= TELLING) {
        let run = String::from_utf8_lossy(&run[..TELLING]).into_owned();
        assert!(!message.contains(&run), "{message:?} shows {run}");
    }
}
