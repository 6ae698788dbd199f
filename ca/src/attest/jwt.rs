//! JSON Web Tokens of Kubernetes service accounts, against a key set in a file.
//!
//! The algorithm is the key's, never the token's choice: RS256 for RSA keys, ES256 for P-256 keys.
//! With that neither `none` nor an HMAC over a public key can pass. Keys of other kinds in the set
//! are left out; a set that has keys but none of use is refused.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use ringmail_identity::{SpiffeId, TrustDomain};
use serde::Deserialize;

use super::{AttestError, Attesting, Attestor, Caller, SourceError, service_account};

/// Clocks of a token's issuer and of this CA may differ by this much.
const CLOCK_SKEW_SECONDS: u64 = 30;
const MIN_RSA_MODULUS_BYTES: usize = 256;

/// What a token must say.
#[derive(Clone, Debug)]
pub struct JwtRules {
    /// The audience: this CA's name.
    pub audience: String,
    /// The issuer, where it is to be checked.
    pub issuer: Option<String>,
    /// The trust domain of the identities.
    pub trust_domain: TrustDomain,
}

/// A key set in a file.
pub struct JwtAttestor {
    path: PathBuf,
    rules: JwtRules,
    keys: RwLock<Arc<Vec<VerifyingKey>>>,
}

struct VerifyingKey {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
}

impl JwtAttestor {
    /// Reads the key set (RFC 7517) in `path`.
    pub fn open(path: PathBuf, rules: JwtRules) -> Result<Self, SourceError> {
        let keys = RwLock::new(Arc::new(read(&path)?));
        Ok(Self { path, rules, keys })
    }

    fn verify(&self, token: &str) -> Result<SpiffeId, AttestError> {
        let header = header(token)?;
        let keys = Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner));
        let key = choose(&keys, &header)?;
        let claims = jsonwebtoken::decode::<Claims>(token, &key.key, &self.validation(key.algorithm))
            .map_err(|e| refusal(e.kind()))?
            .claims;
        service_account(&claims.sub, &self.rules.trust_domain)
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.leeway = CLOCK_SKEW_SECONDS;
        validation.validate_nbf = true;
        validation.set_audience(&[&self.rules.audience]);
        let mut required = vec!["exp", "aud", "sub"];
        if let Some(issuer) = &self.rules.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        validation
    }
}

impl Attestor for JwtAttestor {
    fn attest<'a>(&'a self, token: &'a str) -> Attesting<'a> {
        Box::pin(async move { self.verify(token).map(Caller::from) })
    }

    fn files(&self) -> Vec<PathBuf> {
        vec![self.path.clone()]
    }

    fn reload(&self) -> Result<(), SourceError> {
        let keys = Arc::new(read(&self.path)?);
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }
}

fn header(token: &str) -> Result<Header, AttestError> {
    let malformed = |what: String| AttestError::Malformed(what);
    let (encoded, _) = token.split_once('.').ok_or_else(|| malformed("no header".to_owned()))?;
    let json = URL_SAFE_NO_PAD.decode(encoded).map_err(|e| malformed(format!("header: {e}")))?;
    let header: Header = serde_json::from_slice(&json).map_err(|e| malformed(format!("header: {e}")))?;
    if header.crit.is_some() {
        // RFC 7515 4.1.11: extensions marked critical that are not understood end the matter.
        return Err(malformed("header marks extensions as critical".to_owned()));
    }
    Ok(header)
}

fn choose<'k>(keys: &'k [VerifyingKey], header: &Header) -> Result<&'k VerifyingKey, AttestError> {
    let refused = || AttestError::Algorithm(header.alg.clone());
    let algorithm = match header.alg.as_str() {
        "RS256" => Algorithm::RS256,
        "ES256" => Algorithm::ES256,
        _ => return Err(refused()),
    };
    let key = match &header.kid {
        Some(id) => keys.iter().find(|key| key.id.as_ref() == Some(id)),
        // Without a key id only a set that leaves no choice can be used.
        None => match keys {
            [only] => Some(only),
            _ => None,
        },
    };
    let key = key.ok_or_else(|| AttestError::UnknownKey(header.kid.clone().unwrap_or_default()))?;
    if key.algorithm == algorithm { Ok(key) } else { Err(refused()) }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's enum is open; what it adds is a malformed token"
)]
fn refusal(kind: &ErrorKind) -> AttestError {
    match kind {
        ErrorKind::ExpiredSignature => AttestError::Expired,
        ErrorKind::ImmatureSignature => AttestError::NotYetValid,
        ErrorKind::InvalidAlgorithm => AttestError::Algorithm("another".to_owned()),
        ErrorKind::InvalidAudience => AttestError::Audience,
        ErrorKind::InvalidIssuer => AttestError::Issuer,
        ErrorKind::InvalidSignature => AttestError::Signature,
        ErrorKind::MissingRequiredClaim(claim) => match claim.as_str() {
            "aud" => AttestError::Audience,
            "iss" => AttestError::Issuer,
            "sub" => AttestError::Subject(String::new()),
            _ => AttestError::Malformed(format!("no claim {claim}")),
        },
        other => AttestError::Malformed(format!("{other:?}")),
    }
}

fn read(path: &Path) -> Result<Vec<VerifyingKey>, SourceError> {
    let text = std::fs::read(path).map_err(|error| SourceError::Read { path: path.to_path_buf(), error })?;
    parse(&text).map_err(|error| SourceError::Content { path: path.to_path_buf(), error })
}

fn parse(text: &[u8]) -> Result<Vec<VerifyingKey>, String> {
    let set: KeySet = serde_json::from_slice(text).map_err(|e| format!("not a key set: {e}"))?;
    let mut keys = Vec::<VerifyingKey>::new();
    let mut skipped = Vec::new();
    for (index, value) in set.keys.iter().enumerate() {
        match verifying_key(value) {
            Ok(key) if keys.iter().any(|known| known.id == key.id) => {
                return Err(format!("key {index}: key id {:?} is given twice", key.id));
            }
            Ok(key) => keys.push(key),
            Err(why) => skipped.push(format!("key {index}: {why}")),
        }
    }
    if keys.is_empty() && !skipped.is_empty() {
        return Err(format!("no usable key: {}", skipped.join("; ")));
    }
    for why in skipped {
        tracing::info!(why, "a key of the set is not used");
    }
    Ok(keys)
}

fn verifying_key(value: &serde_json::Value) -> Result<VerifyingKey, String> {
    let jwk: Jwk = serde_json::from_value(value.clone()).map_err(|e| e.to_string())?;
    let algorithm = if let AlgorithmParameters::RSA(rsa) = &jwk.algorithm {
        check_modulus(&rsa.n)?;
        Algorithm::RS256
    } else if let AlgorithmParameters::EllipticCurve(ec) = &jwk.algorithm
        && ec.curve == EllipticCurve::P256
    {
        Algorithm::ES256
    } else {
        return Err("neither RSA nor P-256".to_owned());
    };
    let expected = if algorithm == Algorithm::RS256 { KeyAlgorithm::RS256 } else { KeyAlgorithm::ES256 };
    if jwk.common.key_algorithm.is_some_and(|named| named != expected) {
        return Err(format!("is for another algorithm than {algorithm:?}"));
    }
    if jwk.common.public_key_use.as_ref().is_some_and(|named| *named != PublicKeyUse::Signature) {
        return Err("is not for signatures".to_owned());
    }
    let key = DecodingKey::from_jwk(&jwk).map_err(|e| e.to_string())?;
    Ok(VerifyingKey { id: jwk.common.key_id, algorithm, key })
}

fn check_modulus(encoded: &str) -> Result<(), String> {
    let modulus = URL_SAFE_NO_PAD.decode(encoded).map_err(|e| format!("modulus: {e}"))?;
    let length = modulus.iter().skip_while(|&&b| b == 0).count();
    if length < MIN_RSA_MODULUS_BYTES {
        return Err(format!("RSA modulus of {length} bytes, expected at least {MIN_RSA_MODULUS_BYTES}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const P256: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"KID}"#;

    fn set(keys: &[String]) -> String {
        format!("{{\"keys\":[{}]}}", keys.join(","))
    }

    fn p256(kid: &str) -> String {
        P256.replace("KID", &format!(",\"kid\":\"{kid}\""))
    }

    #[test]
    fn only_keys_that_can_verify_are_taken() {
        let oct = r#"{"kty":"oct","k":"c2VjcmV0","kid":"hmac"}"#.to_owned();
        let short = r#"{"kty":"RSA","n":"AQAB","e":"AQAB","kid":"short"}"#.to_owned();
        let enc = p256("enc").replace("\"kid\"", "\"use\":\"enc\",\"kid\"");
        let keys = parse(set(&[oct, short, enc, p256("a")]).as_bytes()).unwrap();
        assert_eq!(keys.iter().map(|k| k.id.as_deref()).collect::<Vec<_>>(), [Some("a")]);
    }

    #[test]
    fn a_set_that_is_ambiguous_or_of_no_use_is_refused() {
        let oct = r#"{"kty":"oct","k":"c2VjcmV0","kid":"hmac"}"#.to_owned();
        let cases = [
            (set(&[p256("a"), p256("a")]), "given twice"),
            (set(&[oct]), "no usable key"),
            ("{}".to_owned(), "not a key set"),
            ("".to_owned(), "not a key set"),
        ];
        for (text, expected) in cases {
            let error = parse(text.as_bytes()).err().unwrap();
            assert!(error.contains(expected), "{error}");
        }
        assert!(parse(set(&[]).as_bytes()).unwrap().is_empty());
    }
}
