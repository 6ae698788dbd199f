//! Settings: one table, read from flags, from the environment and from one file, in this order of
//! precedence.
//!
//! Reading has two stages. The first only collects text from the three places; the second turns it
//! into typed settings and reports every fault at once, each with the name, the value and what was
//! expected.

mod collect;
mod table;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ringmail_identity::TrustDomain;

use crate::authority::self_signed::{FirstRoot, StateFolder};
use crate::issue::{Lifetimes, ServingName};
use crate::serve::Deadlines;

pub use collect::{Collected, collect};
pub use table::{SETTINGS, Setting};

/// Names the serving certificate always carries: how the CA is reached in a cluster and on its host.
pub const SERVING_NAMES: [&str; 3] = ["ringmail-ca", "ringmail-ca.ringmail-system.svc", "localhost"];

/// Where the signing key comes from.
#[derive(Clone, Debug)]
pub enum KeyPlace {
    /// A mounted folder.
    Mounted(PathBuf),
    /// A self-signed root in a state folder.
    SelfSigned(StateFolder),
}

/// Form of the log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// One line of text.
    Text,
}

/// Typed settings, ready to use.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Address of the certificate service.
    pub listen: SocketAddr,
    /// Address of metrics and readiness.
    pub metrics_listen: SocketAddr,
    /// Trust domain of every identity.
    pub trust_domain: TrustDomain,
    /// The signing key's place.
    pub key_place: KeyPlace,
    /// Further roots for the bundle.
    pub extra_roots: Option<PathBuf>,
    /// File of static tokens.
    pub static_tokens: Option<PathBuf>,
    /// File with the key set for JWTs.
    pub jwks: Option<PathBuf>,
    /// Audience a JWT must name.
    pub audience: String,
    /// Issuer a JWT must name, where it is checked.
    pub issuer: Option<String>,
    /// Default and maximum lifetime of leaves.
    pub lifetimes: Lifetimes,
    /// File that always holds the bundle.
    pub bundle_out: Option<PathBuf>,
    /// Names of the serving certificate.
    pub serving_names: Vec<ServingName>,
    /// Deadlines of a connection.
    pub deadlines: Deadlines,
    /// Deadline of a request.
    pub request_timeout: Duration,
    /// Connections at once.
    pub max_connections: usize,
    /// Connections at once from one source.
    pub max_connections_per_source: usize,
    /// Log filter.
    pub log_level: String,
    /// Form of log and audit lines.
    pub log_format: LogFormat,
}

/// Every fault of the settings.
#[derive(Debug, PartialEq, Eq)]
pub struct Faults(pub Vec<String>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Faults {}

impl Settings {
    /// Types the collected text.
    pub fn from_collected(collected: &Collected) -> Result<Self, Faults> {
        let mut reader = Reader { collected, faults: collected.faults().to_vec() };
        let settings = reader.settings();
        match settings {
            Some(settings) if reader.faults.is_empty() => Ok(settings),
            Some(_) | None => Err(Faults(reader.faults)),
        }
    }
}

struct Reader<'a> {
    collected: &'a Collected,
    faults: Vec<String>,
}

impl Reader<'_> {
    /// Every setting is read before any is missed, so that all faults are found.
    fn settings(&mut self) -> Option<Settings> {
        let listen = self.parsed("listen", "an address and port");
        let metrics_listen = self.parsed("metrics-listen", "an address and port");
        let trust_domain = self.parsed("trust-domain", "a SPIFFE trust domain");
        let key_place = self.key_place();
        let lifetimes = self.lifetimes();
        let handshake = self.duration("handshake-timeout");
        let idle = self.duration("idle-timeout");
        let request_timeout = self.duration("request-timeout");
        let max_connections = self.parsed("max-connections", "a number");
        let max_connections_per_source = self.parsed("max-connections-per-source", "a number");
        let log_level = self.log_level();
        let log_format = self.choice("log-format", &[("text", LogFormat::Text), ("json", LogFormat::Json)]);
        let serving_names = self.serving_names();
        self.check_sources();
        Some(Settings {
            listen: listen?,
            metrics_listen: metrics_listen?,
            trust_domain: trust_domain?,
            key_place: key_place?,
            extra_roots: self.path("extra-roots"),
            static_tokens: self.path("static-tokens"),
            jwks: self.path("jwks"),
            audience: self.text("audience")?,
            issuer: self.text("issuer"),
            lifetimes: lifetimes?,
            bundle_out: self.path("bundle-out"),
            serving_names,
            deadlines: Deadlines { handshake: handshake?, idle: idle? },
            request_timeout: request_timeout?,
            max_connections: max_connections?,
            max_connections_per_source: max_connections_per_source?,
            log_level: log_level?,
            log_format: log_format?,
        })
    }

    fn text(&self, name: &str) -> Option<String> {
        self.collected.values(name).last().cloned()
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.text(name).map(PathBuf::from)
    }

    fn parsed<T: FromStr>(&mut self, name: &str, expected: &str) -> Option<T> {
        let text = self.text(name)?;
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.fault(name, &text, expected);
        }
        parsed
    }

    fn duration(&mut self, name: &str) -> Option<Duration> {
        let text = self.text(name)?;
        let parsed = parse_duration(&text);
        if parsed.is_none() {
            self.fault(name, &text, "a duration above zero with its unit: ms, s, m, h or d");
        }
        parsed
    }

    fn choice<T: Copy>(&mut self, name: &str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(name)?;
        let chosen = choices.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if chosen.is_none() {
            let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
            self.fault(name, &text, &words.join(" or "));
        }
        chosen
    }

    fn lifetimes(&mut self) -> Option<Lifetimes> {
        let (default, max) = (self.duration("ttl"), self.duration("max-ttl"));
        let lifetimes = Lifetimes { default: default?, max: max? };
        if lifetimes.default > lifetimes.max {
            let ttl = self.text("ttl").unwrap_or_default();
            self.fault("ttl", &ttl, "at most max-ttl");
        }
        Some(lifetimes)
    }

    fn log_level(&mut self) -> Option<String> {
        let text = self.text("log-level")?;
        if let Err(error) = text.parse::<tracing_subscriber::filter::Targets>() {
            self.fault("log-level", &text, &format!("a level or a filter ({error})"));
        }
        Some(text)
    }

    fn serving_names(&mut self) -> Vec<ServingName> {
        let mut names: Vec<_> =
            SERVING_NAMES.iter().map(|name| ServingName::Dns((*name).to_owned())).collect();
        for text in self.collected.values("serving-name") {
            let name = match text.parse::<IpAddr>() {
                Ok(address) => ServingName::Ip(address),
                Err(_) if is_dns_name(text) => ServingName::Dns(text.clone()),
                Err(_) => {
                    self.fault("serving-name", text, "a DNS name or an IP address");
                    continue;
                }
            };
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    fn key_place(&mut self) -> Option<KeyPlace> {
        let choices = [("create", FirstRoot::Create), ("existing", FirstRoot::Existing)];
        let first_root = self.choice("self-signed-root", &choices);
        let bootstrap = self.choice("bootstrap-new-root", &[("true", true), ("false", false)]);
        match (self.path("ca-dir"), self.path("state-dir")) {
            (Some(folder), None) => Some(KeyPlace::Mounted(folder)),
            (None, Some(path)) => {
                let (first_root, bootstrap_new_root) = (first_root?, bootstrap?);
                Some(KeyPlace::SelfSigned(StateFolder { path, first_root, bootstrap_new_root }))
            }
            (None, None) | (Some(_), Some(_)) => {
                self.faults.push("ca-dir, state-dir: expected exactly one of the two".to_owned());
                None
            }
        }
    }

    fn check_sources(&mut self) {
        if self.path("static-tokens").is_none() && self.path("jwks").is_none() {
            self.faults.push("static-tokens, jwks: expected at least one of the two".to_owned());
        }
        if self.text("audience").is_some_and(|audience| audience.is_empty()) {
            self.fault("audience", "", "a name");
        }
    }

    fn fault(&mut self, name: &str, value: &str, expected: &str) {
        let place = self.collected.place(name);
        self.faults.push(format!("{name}={value:?} ({place}): expected {expected}"));
    }
}

fn is_dns_name(text: &str) -> bool {
    rustls_pki_types::DnsName::try_from(text).is_ok()
}

/// A number with one unit; zero is no duration here, because every one of them bounds something.
fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok().filter(|&n| n > 0)?;
    let seconds = match unit {
        "ms" => return Some(Duration::from_millis(number)),
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return None,
    };
    // A century is beyond any certificate and within every clock.
    let limit = 100 * 365 * 24 * 3600;
    number.checked_mul(seconds).filter(|&total| total <= limit).map(Duration::from_secs)
}

#[cfg(test)]
mod tests;
