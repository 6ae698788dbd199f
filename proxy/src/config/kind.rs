//! The kinds of values that settings have: how each is written, parsed and shown again.

use std::{collections::BTreeMap, fmt, net::IpAddr, path::PathBuf, str::FromStr, time::Duration};

use http::Uri;
use ipnet::IpNet;
use ringmail_identity::TrustDomain;
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use tracing_subscriber::filter::Targets;

use super::{
    choice::{
        AccessLogFormat, Choice, DiscoverySource, IdentitySource, KeyExchange, LogFormat, OutboundOutside,
        RecordLayer,
    },
    source::{Raw, Shape},
};
use crate::app_probe::Probes;

/// A longer wait than a year is a slip of the pen, and far from where clocks overflow.
const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 3600);

/// The kernel's own bound of `TCP_KEEPIDLE` and `TCP_KEEPINTVL`, in seconds.
const MAX_KEEPALIVE: u64 = 32_767;

/// The kernel's own bound of `TCP_KEEPCNT`.
const MAX_KEEPALIVE_PROBES: u32 = 127;

/// The sidecar notes four times a second that it is there; an absence of a few seconds is a busy machine.
const MIN_FENCE: Duration = Duration::from_secs(5);

/// More threads than this are a slip of the pen.
const MAX_WORKERS: usize = 1024;

/// Characters of a long value that a fault repeats; where it is wrong is told besides.
const SHOWN_OF_JSON: usize = 60;

/// How one kind of value is written, parsed and shown.
pub(super) struct Kind<T> {
    /// The word in the reference page.
    pub(super) name: &'static str,
    /// What a fault says was expected.
    pub(super) expected: &'static str,
    /// How an environment variable's text is split.
    pub(super) shape: Shape,
    /// The value, or the part of it that was wrong.
    pub(super) parse: fn(&Raw) -> Result<T, String>,
    /// For `/config_dump` and for telling changes.
    pub(super) show: fn(&T) -> Value,
}

pub(super) const TEXT: Kind<String> = Kind {
    name: "text",
    expected: "text of at most 253 characters without control characters",
    shape: Shape::Scalar,
    parse: |raw| scalar(raw, |text| is_text(text).then(|| text.to_owned())),
    show: |text| json!(text),
};

pub(super) const SEGMENT: Kind<String> = Kind {
    name: "name",
    expected: "a name of letters, digits, '-', '_' and '.', as in a SPIFFE ID",
    shape: Shape::Scalar,
    parse: |raw| scalar(raw, |text| is_segment(text).then(|| text.to_owned())),
    show: |text| json!(text),
};

pub(super) const TRUST_DOMAIN: Kind<TrustDomain> = Kind {
    name: "trust domain",
    expected: "a trust domain such as cluster.local: lower-case letters, digits, '.', '-' and '_'",
    shape: Shape::Scalar,
    parse: |raw| scalar(raw, from_str),
    show: |domain| json!(domain.as_str()),
};

pub(super) const TRUST_DOMAINS: Kind<Vec<TrustDomain>> = Kind {
    name: "list of trust domains",
    expected: "a list of trust domains such as cluster.local",
    shape: Shape::List,
    parse: |raw| list(raw, from_str),
    show: |items| show_list(items),
};

pub(super) const LABELS: Kind<BTreeMap<String, String>> = Kind {
    name: "mapping",
    expected: "a mapping of labels to values (in the environment: name=value,name=value)",
    shape: Shape::Map,
    parse: labels,
    show: |labels| json!(labels),
};

pub(super) const PROBES: Kind<Probes> = Kind {
    name: "JSON",
    expected: "a JSON object of probes as Istio's injector writes it, such as \
               {\"/app-health/app/livez\": {\"httpGet\": {\"path\": \"/\", \"port\": 8080}, \"timeoutSeconds\": 1}}",
    shape: Shape::Scalar,
    parse: |raw| match raw {
        Raw::Nothing => Ok(Probes::default()),
        Raw::Scalar(text) => Probes::parse(text).map_err(|why| {
            let begin: String = text.chars().take(SHOWN_OF_JSON).collect();
            format!("{begin:?}: {why}")
        }),
        other @ (Raw::List(_) | Raw::Map(_)) => Err(other.to_string()),
    },
    show: |probes| json!(probes.text()),
};

pub(super) const ADDRESSES: Kind<Vec<IpAddr>> = Kind {
    name: "list of IP addresses",
    expected: "a list of IP addresses such as 10.244.0.7 or fd00::7",
    shape: Shape::List,
    parse: |raw| list(raw, from_str),
    show: |items| show_list(items),
};

pub(super) const RANGES: Kind<Vec<IpNet>> = Kind {
    name: "list of CIDRs",
    expected: "a list of address ranges such as 10.244.0.0/16",
    shape: Shape::List,
    parse: |raw| list(raw, from_str),
    show: |items| show_list(items),
};

pub(super) const PATH: Kind<PathBuf> = Kind {
    name: "path",
    expected: "an absolute path",
    shape: Shape::Scalar,
    parse: |raw| scalar(raw, |text| Some(PathBuf::from(text)).filter(|path| path.is_absolute())),
    show: |path| json!(path.display().to_string()),
};

pub(super) const SERVER_ADDRESS: Kind<Uri> = Kind {
    name: "URL",
    expected: "https://host:port with nothing after it",
    shape: Shape::Scalar,
    parse: |raw| scalar(raw, server_address),
    show: |uri| json!(uri.to_string().trim_end_matches('/')),
};

pub(super) const SERVER_NAME: Kind<ServerName<'static>> = Kind {
    name: "DNS name or IP address",
    expected: "a DNS name or an IP address, as in the server's certificate",
    shape: Shape::Scalar,
    parse: |raw| scalar(raw, |text| ServerName::try_from(text.to_owned()).ok()),
    show: |name| json!(name.to_str()),
};

pub(super) const DURATION: Kind<Duration> = Kind {
    name: "duration",
    expected: "a duration above 0 and at most 365 days with its unit, such as 200ms, 15s, 10m or 1h",
    shape: Shape::Scalar,
    parse: |raw| scalar(raw, |text| duration(text).filter(|duration| !duration.is_zero())),
    show: |duration| json!(show_duration(*duration)),
};

pub(super) const WAIT: Kind<Duration> = Kind {
    name: "duration, 0s for none",
    expected: "a duration of at most 365 days with its unit, such as 0s, 200ms, 15s, 10m or 1h",
    shape: Shape::Scalar,
    parse: |raw| scalar(raw, duration),
    show: |duration| json!(show_duration(*duration)),
};

pub(super) const FENCE: Kind<Duration> = Kind {
    name: "duration, 0s for never",
    expected: "0s for never, or a duration from 5s to 365 days such as 12s or 1m",
    shape: Shape::Scalar,
    parse: |raw| scalar(raw, |text| duration(text).filter(|after| after.is_zero() || *after >= MIN_FENCE)),
    show: |duration| json!(show_duration(*duration)),
};

pub(super) const KEEPALIVE: Kind<Duration> = Kind {
    name: "duration in whole seconds",
    expected: "whole seconds from 1s to 32767s, such as 30s",
    shape: Shape::Scalar,
    parse: |raw| scalar(raw, |text| duration(text).filter(|duration| is_keepalive(*duration))),
    show: |duration| json!(show_duration(*duration)),
};

pub(super) const KEEPALIVE_PROBES: Kind<u32> = Kind {
    name: "number",
    expected: "a whole number from 1 to 127",
    shape: Shape::Scalar,
    parse: |raw| {
        scalar(raw, |text| number(text).filter(|probes| (1..=MAX_KEEPALIVE_PROBES).contains(probes)))
    },
    show: |probes| json!(probes),
};

pub(super) const PORT: Kind<u16> = Kind {
    name: "port",
    expected: "a port from 1 to 65535",
    shape: Shape::Scalar,
    parse: |raw| scalar(raw, port),
    show: |port| json!(port),
};

pub(super) const PORTS: Kind<Vec<u16>> = Kind {
    name: "list of ports",
    expected: "a list of ports from 1 to 65535",
    shape: Shape::List,
    parse: |raw| list(raw, port),
    show: |ports| json!(ports),
};

pub(super) const WORKERS: Kind<usize> = Kind {
    name: "number",
    expected: "a whole number from 1 to 1024",
    shape: Shape::Scalar,
    parse: |raw| scalar(raw, |text| number(text).filter(|workers| (1..=MAX_WORKERS).contains(workers))),
    show: |workers| json!(workers),
};

pub(super) const LIMIT: Kind<usize> = Kind {
    name: "number",
    expected: "a whole number above 0",
    shape: Shape::Scalar,
    parse: |raw| scalar(raw, |text| number(text).filter(|limit| *limit > 0)),
    show: |limit| json!(limit),
};

pub(super) const LIMIT_OR_DERIVED: Kind<usize> = Kind {
    name: "number, 0 for derived",
    expected: "a whole number, 0 for derived",
    shape: Shape::Scalar,
    parse: |raw| scalar(raw, number),
    show: |limit| json!(limit),
};

pub(super) const KEY_EXCHANGE: Kind<Vec<KeyExchange>> = Kind {
    name: "list of groups",
    expected: "a list of at least one of X25519MLKEM768, X25519 and P-256, the preferred first, none twice",
    shape: Shape::List,
    parse: |raw| {
        let groups = list(raw, KeyExchange::from_word)?;
        let twice = groups.iter().enumerate().find(|(index, group)| groups[..*index].contains(group));
        match twice {
            Some((_, group)) => Err(format!("{:?}", group.as_str())),
            None if groups.is_empty() => Err(raw.to_string()),
            None => Ok(groups),
        }
    },
    show: |groups| groups.iter().map(|group| group.as_str()).collect(),
};

pub(super) const RECORD_LAYER: Kind<RecordLayer> = Kind {
    name: "`own` or `rustls`",
    expected: "own or rustls",
    shape: Shape::Scalar,
    parse: |raw| scalar(raw, RecordLayer::from_word),
    show: |choice| json!(choice.as_str()),
};

pub(super) const LOG_FILTER: Kind<String> = Kind {
    name: "log filter",
    expected: "error, warn, info, debug or trace, or a list of target=level such as info,ringmail_proxy=debug",
    shape: Shape::Scalar,
    parse: |raw| scalar(raw, |text| is_log_filter(text).then(|| text.to_owned())),
    show: |filter| json!(filter),
};

pub(super) const DISCOVERY_SOURCE: Kind<DiscoverySource> = Kind {
    name: "`files` or `control`",
    expected: "files or control",
    shape: Shape::Scalar,
    parse: |raw| scalar(raw, DiscoverySource::from_word),
    show: |choice| json!(choice.as_str()),
};

pub(super) const IDENTITY_SOURCE: Kind<IdentitySource> = Kind {
    name: "`ca` or `files`",
    expected: "ca or files",
    shape: Shape::Scalar,
    parse: |raw| scalar(raw, IdentitySource::from_word),
    show: |choice| json!(choice.as_str()),
};

pub(super) const OUTBOUND_OUTSIDE: Kind<OutboundOutside> = Kind {
    name: "`passthrough` or `refuse`",
    expected: "passthrough or refuse",
    shape: Shape::Scalar,
    parse: |raw| scalar(raw, OutboundOutside::from_word),
    show: |choice| json!(choice.as_str()),
};

pub(super) const LOG_FORMAT: Kind<LogFormat> = Kind {
    name: "`text` or `json`",
    expected: "text or json",
    shape: Shape::Scalar,
    parse: |raw| scalar(raw, LogFormat::from_word),
    show: |choice| json!(choice.as_str()),
};

pub(super) const ACCESS_LOG: Kind<AccessLogFormat> = Kind {
    name: "`text`, `json` or `off`",
    expected: "text, json or off",
    shape: Shape::Scalar,
    parse: |raw| scalar(raw, AccessLogFormat::from_word),
    show: |choice| json!(choice.as_str()),
};

fn scalar<T>(raw: &Raw, parse: impl Fn(&str) -> Option<T>) -> Result<T, String> {
    match raw {
        Raw::Scalar(text) => parse(text).ok_or_else(|| raw.to_string()),
        Raw::List(_) | Raw::Map(_) | Raw::Nothing => Err(raw.to_string()),
    }
}

/// On a fault names the item, not the whole list.
fn list<T>(raw: &Raw, parse: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, String> {
    match raw {
        Raw::List(items) => items.iter().map(|item| parse(item).ok_or_else(|| format!("{item:?}"))).collect(),
        Raw::Map(_) | Raw::Nothing | Raw::Scalar(_) => Err(raw.to_string()),
    }
}

fn labels(raw: &Raw) -> Result<BTreeMap<String, String>, String> {
    match raw {
        Raw::Map(entries) => entries
            .iter()
            .map(|(key, value)| {
                let is_label = !key.is_empty() && is_text(key) && is_text(value);
                is_label.then(|| (key.clone(), value.clone())).ok_or_else(|| format!("{key:?}: {value:?}"))
            })
            .collect(),
        Raw::List(_) | Raw::Nothing | Raw::Scalar(_) => Err(raw.to_string()),
    }
}

fn from_str<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

/// Digits only: a sign or a blank is not what somebody meant to write.
fn number<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn port(text: &str) -> Option<u16> {
    number(text).filter(|port| *port > 0)
}

fn is_text(text: &str) -> bool {
    text.chars().count() <= 253 && !text.chars().any(char::is_control)
}

fn is_segment(text: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !text.is_empty() && text.len() <= 253 && text.chars().all(letter) && text != "." && text != ".."
}

fn is_log_filter(text: &str) -> bool {
    !text.is_empty() && text.parse::<Targets>().is_ok()
}

fn is_keepalive(duration: Duration) -> bool {
    duration.subsec_nanos() == 0 && (1..=MAX_KEEPALIVE).contains(&duration.as_secs())
}

fn server_address(text: &str) -> Option<Uri> {
    let uri: Uri = text.parse().ok()?;
    let bare = uri.path() == "/" && uri.query().is_none() && !text.ends_with('/') && !text.contains('@');
    let complete = uri.scheme_str() == Some("https") && uri.host().is_some() && uri.port_u16().is_some();
    (bare && complete).then_some(uri)
}

fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (amount, unit) = text.split_at(digits);
    let amount: u64 = amount.parse().ok()?;
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 3600 * 1000,
        _ => return None,
    };
    let duration = Duration::from_millis(amount.checked_mul(milliseconds)?);
    (duration <= MAX_DURATION).then_some(duration)
}

/// In the largest unit that is exact.
pub(super) fn show_duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let units = [(3600 * 1000, "h"), (60 * 1000, "m"), (1000, "s")];
    match units.iter().find(|(size, _)| milliseconds > 0 && milliseconds.is_multiple_of(*size)) {
        Some((size, unit)) => format!("{}{unit}", milliseconds / size),
        None if milliseconds == 0 => "0s".to_owned(),
        None => format!("{milliseconds}ms"),
    }
}

fn show_list<T: fmt::Display>(items: &[T]) -> Value {
    items.iter().map(ToString::to_string).collect()
}
