//! `ringmail certs`: the chain that a proxy presents, its identity, how long it lasts, and the roots it trusts.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::command_line::AdminArgs;
use crate::output::{self, Format};
use crate::table::{Align, Cell, Table, Tone};
use crate::{Answer, admin, units};

const PATH: &str = "/certs";

/// The proxy's answer.
#[derive(Debug, Deserialize)]
struct Document {
    identity: Option<String>,
    trust_domain: Option<String>,
    certificates: Vec<Credentials>,
    refreshes: Option<u64>,
    last_refresh: Option<String>,
    next_attempt: Option<String>,
    last_error: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Credentials {
    ca_cert: Vec<Certificate>,
    cert_chain: Vec<Certificate>,
}

/// One certificate. All but the error is missing in one that the proxy itself could not read.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Certificate {
    serial_number: String,
    subject: String,
    subject_alt_names: Vec<Value>,
    is_ca: bool,
    valid_from: String,
    expiration_time: String,
    seconds_until_expiration: i64,
    error: Option<String>,
}

impl Document {
    /// Whether there is a leaf and it has not expired.
    fn holds_a_valid_leaf(&self) -> bool {
        let mut leaves = self.certificates.iter().filter_map(|held| held.cert_chain.first());
        leaves.any(|leaf| leaf.error.is_none() && leaf.seconds_until_expiration > 0)
    }
}

/// Asks, prints; the answer is no when the proxy holds no valid certificate.
pub(crate) fn run(args: &AdminArgs) -> Result<Answer> {
    let answer: Value = admin::get_json(&args.address, PATH)?;
    let document = parse(answer.clone()).with_context(|| args.address.clone())?;
    match args.output {
        Format::Json => output::print_json(&answer)?,
        Format::Table => output::print(&render(&document, output::colour()))?,
    }
    Ok(if document.holds_a_valid_leaf() { Answer::Yes } else { Answer::No })
}

fn parse(answer: Value) -> Result<Document> {
    serde_json::from_value(answer).context("not the certificates of a proxy")
}

fn render(document: &Document, colour: bool) -> String {
    let mut facts = Table::new(&[("", Align::Left); 2]);
    let mut fact = |title, cell: Cell| facts.row([Cell::new(title, Tone::Quiet), cell]);
    match &document.identity {
        Some(identity) => fact("identity", identity.as_str().into()),
        None => fact("identity", Cell::new("none: the proxy holds no certificate", Tone::Bad)),
    }
    if let Some(domain) = &document.trust_domain {
        fact("trust domain", domain.as_str().into());
    }
    for (title, time) in [("last renewal", &document.last_refresh), ("next renewal", &document.next_attempt)]
    {
        if let Some(time) = time {
            fact(title, whole_seconds(time).into());
        }
    }
    if let Some(refreshes) = document.refreshes {
        fact("renewals", refreshes.to_string().into());
    }
    if let Some(error) = &document.last_error {
        fact("last error", Cell::new(error.as_str(), Tone::Bad));
    }
    let mut text = facts.render(colour);
    if !document.certificates.is_empty() {
        text.push('\n');
        text.push_str(&certificates(document).render(colour));
    }
    text
}

fn certificates(document: &Document) -> Table {
    let mut table = Table::new(&[
        ("CERTIFICATE", Align::Left),
        ("NAME", Align::Left),
        ("VALID FROM", Align::Left),
        ("EXPIRES", Align::Left),
        ("LEFT", Align::Right),
        ("SERIAL", Align::Left),
    ]);
    for held in &document.certificates {
        for (place, certificate) in held.cert_chain.iter().enumerate() {
            let kind = if place == 0 && !certificate.is_ca { "leaf" } else { "intermediate" };
            table.row(row(kind, certificate));
        }
        for root in &held.ca_cert {
            table.row(row("root", root));
        }
    }
    table
}

fn row(kind: &'static str, certificate: &Certificate) -> Vec<Cell> {
    if let Some(error) = &certificate.error {
        return vec![kind.into(), Cell::new(error.as_str(), Tone::Bad)];
    }
    let left = match u64::try_from(certificate.seconds_until_expiration) {
        Ok(seconds) if seconds > 0 => units::time(Duration::from_secs(seconds)).into(),
        Ok(_) | Err(_) => Cell::new("expired", Tone::Bad),
    };
    vec![
        kind.into(),
        name(certificate).into(),
        (&*certificate.valid_from).into(),
        (&*certificate.expiration_time).into(),
        left,
        (&*certificate.serial_number).into(),
    ]
}

/// A time of RFC 3339 without its fractions.
fn whole_seconds(time: &str) -> String {
    match time.split_once('.') {
        Some((seconds, _)) if time.ends_with('Z') => format!("{seconds}Z"),
        Some(_) | None => time.to_owned(),
    }
}

/// The alternative names, which is where an identity is; else the subject.
fn name(certificate: &Certificate) -> String {
    let names =
        certificate.subject_alt_names.iter().filter_map(Value::as_object).flat_map(|name| name.values());
    let names: Vec<_> = names.filter_map(Value::as_str).collect();
    if names.is_empty() { certificate.subject.clone() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// As the proxy writes it.
    fn answer() -> Value {
        json!({
            "identity": "spiffe://cluster.local/ns/ignite/sa/ignite",
            "trust_domain": "cluster.local",
            "generation": 3,
            "certificates": [{
                "cert_chain": [{
                    "serial_number": "0a1b", "subject": "", "issuer": "O=cluster.local", "is_ca": false,
                    "subject_alt_names": [{"uri": "spiffe://cluster.local/ns/ignite/sa/ignite"}],
                    "valid_from": "2026-01-01T00:00:00Z", "expiration_time": "2026-01-02T00:00:00Z",
                    "seconds_until_expiration": 43_200, "days_until_expiration": "0",
                }],
                "ca_cert": [{
                    "serial_number": "01", "subject": "O=cluster.local", "is_ca": true, "subject_alt_names": [],
                    "valid_from": "2025-01-01T00:00:00Z", "expiration_time": "2026-01-01T00:00:00Z",
                    "seconds_until_expiration": -5,
                }],
            }],
            "refreshes": 3, "last_refresh": "2026-01-01T00:00:00.123Z", "next_attempt": null, "last_error": null,
        })
    }

    #[test]
    fn the_chain_and_the_roots_are_shown_with_what_is_left_of_them() {
        let document = parse(answer()).unwrap();
        assert!(document.holds_a_valid_leaf());
        let text = render(&document, false);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "identity      spiffe://cluster.local/ns/ignite/sa/ignite");
        assert!(lines.contains(&"last renewal  2026-01-01T00:00:00Z"), "{text}");
        let leaf = lines.iter().find(|line| line.starts_with("leaf")).unwrap();
        assert!(leaf.contains("spiffe://cluster.local/ns/ignite/sa/ignite  2026-01-01T00:00:00Z"), "{text}");
        assert!(leaf.ends_with("12h 0m  0a1b"), "{text}");
        let root = lines.iter().find(|line| line.starts_with("root")).unwrap();
        assert!(root.contains("O=cluster.local") && root.ends_with("expired  01"), "{text}");
    }

    #[test]
    fn without_a_certificate_the_last_error_says_why_and_the_answer_is_no() {
        let document = parse(json!({
            "certificates": [], "refreshes": 0, "last_refresh": null, "next_attempt": null,
            "last_error": "ca_unreachable: connect to ca: refused",
        }))
        .unwrap();
        assert!(!document.holds_a_valid_leaf());
        let text = render(&document, false);
        assert!(text.starts_with("identity    none: the proxy holds no certificate\n"), "{text}");
        assert!(text.contains("last error  ca_unreachable: connect to ca: refused\n"), "{text}");
    }

    #[test]
    fn an_expired_leaf_and_one_that_cannot_be_read_are_no() {
        for (key, value) in [("seconds_until_expiration", json!(0)), ("error", json!("not a certificate: x"))]
        {
            let mut answer = answer();
            answer["certificates"][0]["cert_chain"][0][key] = value;
            let document = parse(answer).unwrap();
            assert!(!document.holds_a_valid_leaf(), "{key}");
            let text = render(&document, false);
            assert!(text.contains("expired") || text.contains("leaf         not a certificate: x"), "{text}");
        }
    }
}
