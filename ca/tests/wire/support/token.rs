//! Tokens of a made-up issuer, sound and otherwise.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PKCS_RSA_SHA256, PublicKeyData, RsaKeySize};
use serde_json::{Value, json};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::RSAPublicKey;

/// An issuer with one RSA key (`rsa`) and one P-256 key (`ec`).
pub(crate) struct Issuer {
    pub(crate) rsa: KeyPair,
    pub(crate) ec: KeyPair,
}

pub(crate) fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    since.unwrap().as_secs().try_into().unwrap()
}

/// Claims that the CA of these tests accepts.
pub(crate) fn claims() -> Value {
    json!({
        "iss": "https://issuer.example",
        "aud": ["ringmail-ca"],
        "exp": now() + 600,
        "nbf": now() - 10,
        "sub": "system:serviceaccount:ignite:node",
    })
}

impl Issuer {
    pub(crate) fn new() -> Self {
        let rsa = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        Self { rsa, ec: KeyPair::generate().unwrap() }
    }

    pub(crate) fn jwks(&self) -> String {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let (_, rsa) = RSAPublicKey::from_der(self.rsa.public_key_raw()).unwrap();
        let modulus = rsa.modulus.strip_prefix(&[0]).unwrap_or(rsa.modulus);
        let point = &self.ec.public_key_raw()[1..];
        json!({ "keys": [
            {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "rsa", "n": encode(modulus), "e": encode(rsa.exponent)},
            {"kty": "EC", "crv": "P-256", "kid": "ec", "x": encode(&point[..32]), "y": encode(&point[32..])},
        ]})
        .to_string()
    }

    pub(crate) fn rs256(&self, claims: &Value) -> String {
        self.signed(Algorithm::RS256, Some("rsa"), claims)
    }

    pub(crate) fn es256(&self, claims: &Value) -> String {
        self.signed(Algorithm::ES256, Some("ec"), claims)
    }

    pub(crate) fn signed(&self, algorithm: Algorithm, kid: Option<&str>, claims: &Value) -> String {
        let key = if algorithm == Algorithm::ES256 {
            EncodingKey::from_ec_pem(self.ec.serialize_pem().as_bytes()).unwrap()
        } else {
            EncodingKey::from_rsa_pem(self.rsa.serialize_pem().as_bytes()).unwrap()
        };
        let header = Header { kid: kid.map(str::to_owned), ..Header::new(algorithm) };
        jsonwebtoken::encode(&header, claims, &key).unwrap()
    }

    /// The public keys in every form that a confused verifier may take for an HMAC secret.
    pub(crate) fn public_secrets(&self) -> Vec<Vec<u8>> {
        let keys = [&self.rsa, &self.ec];
        let forms = |key: &KeyPair| {
            [key.public_key_pem().into_bytes(), key.subject_public_key_info(), key.public_key_raw().to_vec()]
        };
        keys.into_iter().flat_map(forms).collect()
    }
}

pub(crate) fn hs256(secret: &[u8], kid: &str, claims: &Value) -> String {
    let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::HS256) };
    jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(secret)).unwrap()
}

/// A token whose header is written by hand.
pub(crate) fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.", part(header), part(claims))
}

/// `claims` with one of them replaced; `null` takes it away.
pub(crate) fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    let map = claims.as_object_mut().unwrap();
    map.remove(name);
    if !value.is_null() {
        map.insert(name.to_owned(), value);
    }
    claims
}
