//! Tokens written in a file, for places without a token issuer: laboratories and plain hosts.
//!
//! Only digests are kept in memory, and all of them are compared, each in constant time, so neither
//! a dump nor a clock tells a token.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Digest, SHA256, digest};
use ringmail_identity::{SpiffeId, TrustDomain};
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use super::{AttestError, Attesting, Attestor, Caller, SourceError, check_token, is_jwt_shaped};

/// A file of static tokens.
pub struct StaticTokens {
    path: PathBuf,
    trust_domain: TrustDomain,
    entries: RwLock<Arc<Vec<Entry>>>,
}

struct Entry {
    digest: Digest,
    identity: SpiffeId,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    #[serde(deserialize_with = "wiped")]
    token: Zeroizing<String>,
    namespace: String,
    service_account: String,
}

fn wiped<'de, D: Deserializer<'de>>(token: D) -> Result<Zeroizing<String>, D::Error> {
    String::deserialize(token).map(Zeroizing::new)
}

impl StaticTokens {
    /// Reads the file, a YAML list of `{token, namespace, service_account}`.
    pub fn open(path: PathBuf, trust_domain: TrustDomain) -> Result<Self, SourceError> {
        let entries = RwLock::new(Arc::new(read(&path, &trust_domain)?));
        Ok(Self { path, trust_domain, entries })
    }

    fn find(&self, token: &str) -> Result<SpiffeId, AttestError> {
        let entries = Arc::clone(&self.entries.read().unwrap_or_else(PoisonError::into_inner));
        let asked = digest(&SHA256, token.as_bytes());
        let mut found = None;
        for entry in entries.iter() {
            if verify_slices_are_equal(entry.digest.as_ref(), asked.as_ref()).is_ok() {
                found = Some(entry.identity.clone());
            }
        }
        found.ok_or(AttestError::Unknown)
    }
}

impl Attestor for StaticTokens {
    fn attest<'a>(&'a self, token: &'a str) -> Attesting<'a> {
        Box::pin(async move { self.find(token).map(Caller::from) })
    }

    fn files(&self) -> Vec<PathBuf> {
        vec![self.path.clone()]
    }

    fn reload(&self) -> Result<(), SourceError> {
        let entries = Arc::new(read(&self.path, &self.trust_domain)?);
        *self.entries.write().unwrap_or_else(PoisonError::into_inner) = entries;
        Ok(())
    }
}

fn read(path: &Path, trust_domain: &TrustDomain) -> Result<Vec<Entry>, SourceError> {
    let text = std::fs::read_to_string(path)
        .map(Zeroizing::new)
        .map_err(|error| SourceError::Read { path: path.to_path_buf(), error })?;
    parse(&text, trust_domain).map_err(|error| SourceError::Content { path: path.to_path_buf(), error })
}

/// Errors name the position of an entry, never its token.
fn parse(text: &str, trust_domain: &TrustDomain) -> Result<Vec<Entry>, String> {
    // The parser's own message may quote the line, and the line may hold a token.
    let rows: Vec<Row> = serde_saphyr::from_str(text).map_err(|e| match e.location() {
        Some(at) => format!("line {}: expected a list of {{token, namespace, service_account}}", at.line()),
        None => "expected a list of {token, namespace, service_account}".to_owned(),
    })?;
    let mut entries = Vec::<Entry>::with_capacity(rows.len());
    for (index, row) in rows.iter().enumerate() {
        let entry = entry(row, trust_domain).map_err(|e| format!("entry {index}: {e}"))?;
        if entries.iter().any(|known| known.digest.as_ref() == entry.digest.as_ref()) {
            return Err(format!("entry {index}: the token is given twice"));
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn entry(row: &Row, trust_domain: &TrustDomain) -> Result<Entry, String> {
    check_token(&row.token).map_err(|e| format!("token: {e}"))?;
    if is_jwt_shaped(&row.token) {
        return Err("token: has the shape of a jwt, which a key set judges".to_owned());
    }
    let identity = SpiffeId::for_service_account(trust_domain, &row.namespace, &row.service_account)
        .map_err(|e| e.to_string())?;
    Ok(Entry { digest: digest(&SHA256, row.token.as_bytes()), identity })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Vec<Entry>, String> {
        parse(text, &"cluster.local".parse().unwrap())
    }

    #[test]
    fn a_list_of_tokens_is_read() {
        let text = "- {token: one, namespace: ignite, service_account: node}\n";
        assert_eq!(parsed(text).unwrap()[0].identity.as_str(), "spiffe://cluster.local/ns/ignite/sa/node");
        assert!(parsed("[]").unwrap().is_empty());
    }

    #[test]
    fn a_faulty_file_is_refused_without_showing_a_token() {
        let cases = [
            ("- {token: s3cret, namespace: a}", "line 1"),
            ("- {token: s3cret, namespace: a, service_account: b, extra: 1}", "line 1"),
            ("- {token: '', namespace: a, service_account: b}", "entry 0: token"),
            ("- {token: s3.cr.et, namespace: a, service_account: b}", "shape of a jwt"),
            ("- {token: s3cret, namespace: a/b, service_account: b}", "entry 0: namespace"),
            (
                "- {token: s3cret, namespace: a, service_account: b}\n- {token: s3cret, namespace: c, service_account: d}",
                "entry 1: the token is given twice",
            ),
        ];
        for (text, expected) in cases {
            let error = parsed(text).err().unwrap();
            assert!(error.contains(expected) && !error.contains("s3cret"), "{text}: {error}");
        }
    }
}
