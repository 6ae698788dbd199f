//! `/certs`: who this proxy is and whom it trusts, in the shape of Envoy's answer with what else helps.
//! No key and no PEM.

use std::time::{SystemTime, UNIX_EPOCH};

use ringmail_identity::CertificateDer;
use serde_json::{Map, Value, json};
use x509_parser::{
    certificate::X509Certificate, extensions::GeneralName, parse_x509_certificate, prelude::ASN1Time,
};

use super::State;

const SECONDS_PER_DAY: i64 = 24 * 3600;

pub(super) fn answer(state: &State) -> Value {
    let status = &state.identity_status;
    let mut answer = Map::new();
    answer.insert("certificates".to_owned(), json!([]));
    if let Some(credentials) = state.credentials.borrow().clone() {
        let chain: Vec<Value> = credentials.svid.chain().iter().map(certificate).collect();
        let roots: Vec<Value> =
            credentials.bundle.roots().iter().map(|root| certificate(&root.der)).collect();
        answer.insert("identity".to_owned(), json!(credentials.svid.id().as_str()));
        answer.insert("trust_domain".to_owned(), json!(credentials.bundle.trust_domain().as_str()));
        answer.insert("generation".to_owned(), json!(credentials.generation));
        answer.insert("certificates".to_owned(), json!([{ "ca_cert": roots, "cert_chain": chain }]));
    }
    answer.insert("refreshes".to_owned(), json!(status.refreshes_ok()));
    answer.insert("last_refresh".to_owned(), json!(status.last_refresh().map(system_time)));
    answer.insert("next_attempt".to_owned(), json!(status.next_attempt().map(system_time)));
    answer.insert("last_error".to_owned(), json!(status.last_error().map(|error| error.to_string())));
    Value::Object(answer)
}

fn certificate(der: &CertificateDer<'static>) -> Value {
    match parse_x509_certificate(der) {
        Ok((_, certificate)) => facts(&certificate),
        Err(error) => json!({ "error": format!("not a certificate: {error}") }),
    }
}

fn facts(certificate: &X509Certificate<'_>) -> Value {
    let validity = certificate.validity();
    let seconds_left = validity.not_after.timestamp() - unix_now();
    json!({
        "serial_number": serial_text(certificate.raw_serial()),
        "subject": certificate.subject().to_string(),
        "issuer": certificate.issuer().to_string(),
        "subject_alt_names": alternative_names(certificate),
        "is_ca": certificate.is_ca(),
        "valid_from": time_text(validity.not_before),
        "expiration_time": time_text(validity.not_after),
        "seconds_until_expiration": seconds_left,
        "days_until_expiration": seconds_left.div_euclid(SECONDS_PER_DAY).max(0).to_string(),
    })
}

fn alternative_names(certificate: &X509Certificate<'_>) -> Vec<Value> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let name = |name: &GeneralName<'_>| {
        if let GeneralName::URI(uri) = name {
            json!({ "uri": uri })
        } else if let GeneralName::DNSName(dns) = name {
            json!({ "dns": dns })
        } else {
            json!({ "other": name.to_string() })
        }
    };
    names.value.general_names.iter().map(name).collect()
}

/// Lower-case hex without the zero byte that DER puts before a high bit, as in the access log.
fn serial_text(der: &[u8]) -> String {
    let digits = match der {
        [0, rest @ ..] if !rest.is_empty() => rest,
        _ => der,
    };
    digits.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn time_text(time: ASN1Time) -> String {
    u64::try_from(time.timestamp())
        .map(|seconds| system_time(UNIX_EPOCH + std::time::Duration::from_secs(seconds)))
        .unwrap_or_default()
}

/// RFC 3339 in UTC.
pub(super) fn system_time(time: SystemTime) -> String {
    time::OffsetDateTime::from(time)
        .format(&time::format_description::well_known::Rfc3339)
        .unwrap_or_default()
}

fn unix_now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}
