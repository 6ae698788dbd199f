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
use crate::cluster::{ClusterSettings, RootSecretSettings};
use crate::door::Deadlines;
use crate::issue::{Lifetimes, ServeNames, ServingName};
use crate::serve::GRACE;

pub use collect::{Collected, collect};
pub use table::{SETTINGS, Setting};

/// Names the serving certificate always carries: how the CA is reached in a cluster and on its host.
pub const SERVING_NAMES: [&str; 3] = ["ringmail-ca", "ringmail-ca.ringmail-system.svc", "localhost"];

/// Where the signing key comes from.
#[derive(Clone, Debug)]
pub enum KeyPlace {
    /// A mounted folder.
    Mounted(PathBuf),
    /// A self-signed root in a Secret.
    RootSecret(RootSecretSettings),
    /// A Secret that others fill.
    Secret(String),
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
    /// Audiences of the tokens that the API server judges; none when it judges none.
    pub token_review: Option<Vec<String>>,
    /// Default and maximum lifetime of leaves.
    pub lifetimes: Lifetimes,
    /// DNS names of the mesh's own servers.
    pub serve_names: ServeNames,
    /// Selects the namespaces that get the bundle; none when none do.
    pub bundle_namespaces: Option<String>,
    /// Where the API server is.
    pub cluster: ClusterSettings,
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
    /// Whether anything is asked of the Kubernetes API.
    pub fn needs_cluster(&self) -> bool {
        let key = match self.key_place {
            KeyPlace::RootSecret(_) | KeyPlace::Secret(_) => true,
            KeyPlace::Mounted(_) | KeyPlace::SelfSigned(_) => false,
        };
        key || self.token_review.is_some() || self.bundle_namespaces.is_some()
    }

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
        let serve_names = self.serve_names();
        let token_review = self.switch("token-review");
        let distribute = self.switch("distribute-bundle");
        self.check_sources(token_review);
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
            token_review: token_review?.then(|| self.collected.values("token-review-audience").to_vec()),
            lifetimes: lifetimes?,
            serve_names,
            bundle_namespaces: distribute?.then(|| self.text("bundle-namespaces").unwrap_or_default()),
            cluster: ClusterSettings {
                kubeconfig: self.path("kubeconfig"),
                namespace: self.text("namespace"),
            },
            bundle_out: self.path("bundle-out"),
            serving_names,
            deadlines: Deadlines { handshake: handshake?, idle: idle?, grace: GRACE },
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

    /// A comma may separate names of one account as well as accounts: what has no account continues the last.
    fn serve_names(&mut self) -> ServeNames {
        let mut entries = Vec::<String>::new();
        for text in self.collected.values("serve-names") {
            match entries.last_mut() {
                Some(last) if !text.contains('=') => *last = format!("{last},{text}"),
                Some(_) | None => entries.push(text.clone()),
            }
        }
        let mut names = ServeNames::default();
        for text in entries {
            if let Err(expected) = names.add(&text) {
                self.fault("serve-names", &text, &expected);
            }
        }
        names
    }

    fn switch(&mut self, name: &str) -> Option<bool> {
        self.choice(name, &[("true", true), ("false", false)])
    }

    fn key_place(&mut self) -> Option<KeyPlace> {
        let choices = [("create", FirstRoot::Create), ("existing", FirstRoot::Existing)];
        let first_root = self.choice("self-signed-root", &choices);
        let bootstrap = self.switch("bootstrap-new-root");
        let places = ["ca-dir", "ca-secret", "root-secret", "state-dir"];
        let given: Vec<_> = places.iter().filter_map(|name| Some((*name, self.text(name)?))).collect();
        let [(place, text)] = given.as_slice() else {
            self.faults.push(format!("{}: expected exactly one of them", places.join(", ")));
            return None;
        };
        let (first_root, bootstrap_new_root, text) = (first_root?, bootstrap?, text.clone());
        Some(match *place {
            "ca-dir" => KeyPlace::Mounted(text.into()),
            "ca-secret" => KeyPlace::Secret(text),
            "root-secret" => KeyPlace::RootSecret(RootSecretSettings {
                name: text,
                first_root,
                bootstrap_new_root,
                distributed: self
                    .switch("distribute-bundle")?
                    .then(|| self.text("bundle-namespaces").unwrap_or_default()),
            }),
            _ => KeyPlace::SelfSigned(StateFolder { path: text.into(), first_root, bootstrap_new_root }),
        })
    }

    fn check_sources(&mut self, token_review: Option<bool>) {
        let (jwks, reviewed) = (self.path("jwks").is_some(), token_review == Some(true));
        if self.path("static-tokens").is_none() && !jwks && !reviewed {
            self.faults.push("static-tokens, jwks, token-review: expected at least one of them".to_owned());
        }
        if jwks && reviewed {
            self.faults.push("jwks, token-review: expected one of the two, for both judge JWTs".to_owned());
        }
        for name in ["audience", "token-review-audience"] {
            if self.collected.values(name).iter().any(String::is_empty) {
                self.fault(name, "", "a name");
            }
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
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
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
