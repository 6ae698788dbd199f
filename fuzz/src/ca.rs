//! What the CA is sent, and what it finds in its state folder.

use std::cell::LazyCell;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use jsonwebtoken::{Algorithm, EncodingKey};
use prost::Message as _;
use rcgen::{KeyPair, PublicKeyData as _};
use ringmail_ca::attest::{Attestors, Caller, JwtAttestor, JwtRules};
use ringmail_ca::authority::Source;
use ringmail_ca::authority::self_signed::{FirstRoot, StateFolder};
use ringmail_ca::csr::{MAX_CSR_BYTES, requested_key};
use ringmail_ca::messages::IstioCertificateRequest;
use ringmail_identity::KeyAlgorithm;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::identity::says_nothing_of;
use crate::wishes::Wishes;

const LABEL: &str = "CERTIFICATE REQUEST";

/// A request is accepted only with a key that may be certified, and only signed by it: one bit of the signature
/// turned, and it is refused.
pub(crate) fn csr(data: &[u8]) {
    let message = IstioCertificateRequest::decode(data).map(|message| message.csr).unwrap_or_default();
    let raw = String::from_utf8_lossy(data).into_owned();
    let wrapped = pem::encode(&pem::Pem::new(LABEL, data));
    for text in [message, raw, wrapped] {
        let Ok(key) = requested_key(&text) else { continue };
        assert!(text.len() <= MAX_CSR_BYTES);
        match key.algorithm() {
            KeyAlgorithm::EcP256 | KeyAlgorithm::EcP384 => {}
            KeyAlgorithm::Rsa { bits } => assert!((2048..=4096).contains(&bits), "{bits}"),
        }
        let mut der = pem::parse(&text).unwrap().into_contents();
        *der.last_mut().unwrap() ^= 1;
        let forged = requested_key(&pem::encode(&pem::Pem::new(LABEL, der)));
        assert!(forged.is_err(), "a request with another signature is accepted");
    }
}

const AUDIENCE: &str = "ringmail-ca";
const ISSUER: &str = "https://issuer.example";
const KEY_ID: &str = "one";
const SUBJECT: &str = "system:serviceaccount:ignite:default";
const IDENTITY: &str = "spiffe://cluster.local/ns/ignite/sa/default";

struct Tokens {
    attestors: Attestors,
    key: EncodingKey,
    other_key: EncodingKey,
    _folder: TempDir,
}

impl Tokens {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pairs = [KeyPair::generate().unwrap(), KeyPair::generate().unwrap()];
        let point = pairs[0].der_bytes();
        let [x, y] = [&point[1..33], &point[33..65]].map(|half| URL_SAFE_NO_PAD.encode(half));
        let keys = json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": KEY_ID, "x": x, "y": y}]});
        let file = folder.path().join("keys.json");
        fs::write(&file, keys.to_string()).unwrap();
        let rules = JwtRules {
            audience: AUDIENCE.to_owned(),
            issuer: Some(ISSUER.to_owned()),
            trust_domain: "cluster.local".parse().unwrap(),
        };
        let attestors = Attestors::new(Some(Box::new(JwtAttestor::open(file, rules).unwrap())), None);
        let [key, other_key] = pairs.map(|pair| EncodingKey::from_ec_der(&pair.serialize_der()));
        Self { attestors, key, other_key, _folder: folder }
    }

    /// Whose token it is; nobody's where it is refused.
    fn whose(&self, token: &str) -> Option<Caller> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {token}")).ok()?);
        let mut asked = pin!(self.attestors.attest(&headers));
        match asked.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => {
                let error = answer.as_ref().err().map(ToString::to_string).unwrap_or_default();
                says_nothing_of(&error, token.as_bytes());
                answer.ok()
            }
            Poll::Pending => panic!("a token is judged by a file that was read"),
        }
    }
}

/// A token speaks for somebody exactly where nothing of it was wished to be wrong; whatever else claims to be one
/// speaks for nobody.
pub(crate) fn token(data: &[u8]) {
    thread_local! {
        static TOKENS: LazyCell<Tokens> = LazyCell::new(Tokens::new);
    }
    TOKENS.with(|tokens| {
        let mut wishes = Wishes(data);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let (claims, good_claims) = claims(&mut wishes, now);
        let (header, good_header) = header(&mut wishes);
        let forged = wishes.rarely();
        let key = if forged { &tokens.other_key } else { &tokens.key };
        let [header, claims] = [&header, &claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let signed = format!("{header}.{claims}");
        let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), key, Algorithm::ES256).unwrap();
        let cut = wishes.rarely();
        let signature = if cut { "" } else { &*signature };
        let whose = tokens.whose(&format!("{signed}.{signature}"));
        let good = good_claims && good_header && !forged && !cut;
        assert_eq!(whose.is_some(), good, "header {header}, claims {claims}");
        assert!(whose.is_none_or(|caller| caller.identity.as_str() == IDENTITY));
        assert!(tokens.whose(&String::from_utf8_lossy(data)).is_none());
    });
}

fn claims(wishes: &mut Wishes<'_>, now: u64) -> (Value, bool) {
    let mut claims = json!({"aud": [AUDIENCE, "other"], "iss": ISSUER, "sub": SUBJECT, "exp": now + 600, "nbf": now - 600});
    let wrong = [
        ("aud", json!("other")),
        ("aud", json!([])),
        ("aud", Value::Null),
        ("iss", json!("https://other.example")),
        ("iss", Value::Null),
        ("sub", json!("system:serviceaccount:ignite")),
        ("sub", json!("system:serviceaccount:ignite:default:more")),
        ("sub", json!("system:serviceaccount:ignite:..")),
        ("sub", json!("system:node:ignite:default")),
        ("sub", Value::Null),
        ("exp", json!(now - 600)),
        ("exp", Value::Null),
        ("nbf", json!(now + 600)),
    ];
    if !wishes.rarely() {
        return (claims, true);
    }
    let (name, value) = wrong[usize::from(wishes.one_of(wrong.len() as u8))].clone();
    if value.is_null() {
        claims.as_object_mut().unwrap().remove(name);
    } else {
        claims[name] = value;
    }
    (claims, false)
}

fn header(wishes: &mut Wishes<'_>) -> (Value, bool) {
    let mut header = json!({"alg": "ES256", "kid": KEY_ID, "typ": "JWT"});
    if !wishes.rarely() {
        return (header, true);
    }
    let wrong = [
        ("alg", json!("none")),
        ("alg", json!("HS256")),
        ("alg", json!("RS256")),
        ("alg", json!("es256")),
        ("kid", json!("two")),
        ("crit", json!(["exp"])),
    ];
    let (name, value) = wrong[usize::from(wishes.one_of(wrong.len() as u8))].clone();
    header[name] = value;
    (header, false)
}

/// A root's file that is damaged is refused and left as it is, and its key is in no message; a root that is read
/// can be used.
pub(crate) fn state_file(data: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
    let file = folder.path().join("root.pem");
    fs::write(&file, data).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let state = StateFolder {
        path: folder.path().to_owned(),
        first_root: FirstRoot::Existing,
        bootstrap_new_root: false,
    };
    let now = SystemTime::now();
    match Source::self_signed(&state, None, "cluster.local".parse().unwrap(), now) {
        Ok(source) => drop(source.load(now).expect("a root that was read can be used")),
        Err(error) => says_nothing_of(&error.to_string(), data),
    }
    assert_eq!(fs::read(&file).unwrap(), data, "the root's file was changed");
}
