//! Settings of the injector: the key `injection` of control's file.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::annotations::ImageType;
use super::resources::{DEFAULT_CPU_REQUEST, DEFAULT_MEMORY_LIMIT, DEFAULT_MEMORY_REQUEST};
use super::values;

/// Namespaces that must start before any mesh does, and those whose pods a mesh has nothing to offer.
const NEVER_INJECTED: [&str; 5] =
    ["kube-system", "kube-public", "kube-node-lease", "local-path-storage", "ringmail-system"];

/// When sidecars are native ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NativeSidecar {
    /// Whatever the cluster's version is.
    Always,
    /// Where the cluster's version has them.
    #[default]
    Auto,
    /// Nowhere.
    Never,
}

/// What every sidecar is made of, unless an annotation says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
pub struct InjectConfig {
    /// The proxy's image; `-distroless` is added to its tag for that type.
    pub proxy_image: String,
    /// Which of the proxy's images.
    pub proxy_image_type: ImageType,
    /// The image of `ringmail-init`.
    pub init_image: String,
    /// `Always`, `IfNotPresent` or `Never`; what Kubernetes takes where there is none.
    pub image_pull_policy: Option<String>,
    /// When sidecars are native ones.
    pub native_sidecar: NativeSidecar,
    /// The trust domain of the mesh.
    pub trust_domain: String,
    /// The cluster's name, in metrics and for the CA.
    pub cluster: String,
    /// Where the CA is, a URL.
    pub ca_address: String,
    /// Where discovery is, a URL.
    pub discovery_address: String,
    /// What the sidecar asks of a CPU.
    pub proxy_cpu_request: Option<String>,
    /// What it may take of a CPU at most; nothing is no limit.
    pub proxy_cpu_limit: Option<String>,
    /// What it asks of memory.
    pub proxy_memory_request: Option<String>,
    /// What it may take of memory at most.
    pub proxy_memory_limit: Option<String>,
    /// The sidecar's log filter.
    pub log_level: String,
    /// The sidecar's log format: `text` or `json`.
    pub log_format: String,
    /// The sidecar's access log: `text`, `json` or `off`.
    pub access_log: String,
    /// Namespaces whose pods are never injected.
    pub never_inject_namespaces: BTreeSet<String>,
    /// Further settings of the proxy by name, such as `fence_after: 0s`.
    pub proxy_settings: BTreeMap<String, String>,
}

/// Every fault of the settings at once.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct InjectConfigError(pub Vec<String>);

impl Default for InjectConfig {
    fn default() -> Self {
        let version = env!("CARGO_PKG_VERSION");
        Self {
            proxy_image: format!("ringmail/proxy:{version}"),
            proxy_image_type: ImageType::Default,
            init_image: format!("ringmail/init:{version}"),
            image_pull_policy: None,
            native_sidecar: NativeSidecar::Auto,
            trust_domain: "cluster.local".to_owned(),
            cluster: "Kubernetes".to_owned(),
            ca_address: "https://ringmail-ca.ringmail-system.svc:15012".to_owned(),
            discovery_address: "https://ringmail-control.ringmail-system.svc:15012".to_owned(),
            proxy_cpu_request: Some(DEFAULT_CPU_REQUEST.to_owned()),
            proxy_cpu_limit: None,
            proxy_memory_request: Some(DEFAULT_MEMORY_REQUEST.to_owned()),
            proxy_memory_limit: Some(DEFAULT_MEMORY_LIMIT.to_owned()),
            log_level: "info".to_owned(),
            log_format: "text".to_owned(),
            access_log: "text".to_owned(),
            never_inject_namespaces: NEVER_INJECTED.map(str::to_owned).into(),
            proxy_settings: BTreeMap::new(),
        }
    }
}

impl TryFrom<Value> for InjectConfig {
    type Error = InjectConfigError;

    /// Reads a mapping; what it does not name keeps its default.
    fn try_from(value: Value) -> Result<Self, InjectConfigError> {
        let settings = match value {
            Value::Object(settings) => settings,
            Value::Null => Map::new(),
            other @ (Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
                return Err(InjectConfigError(vec![format!("injection: {other}: expected a mapping")]));
            }
        };
        let mut reader = Reader { settings, faults: Vec::new() };
        let config = reader.config();
        let unknown: Vec<_> = reader.settings.keys().cloned().collect();
        for name in unknown {
            reader.faults.push(format!("injection.{name}: there is no such setting"));
        }
        if reader.faults.is_empty() { Ok(config) } else { Err(InjectConfigError(reader.faults)) }
    }
}

/// Takes one setting after the other out of the mapping, so that what is left over is unknown.
struct Reader {
    settings: Map<String, Value>,
    faults: Vec<String>,
}

impl Reader {
    fn config(&mut self) -> InjectConfig {
        let default = InjectConfig::default();
        let image = |text: &str| values::image(text).map(str::to_owned);
        let url = |text: &str| {
            let authority = text.strip_prefix("https://")?;
            let (host, port) = authority.rsplit_once(':')?;
            (!host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)).then(|| text.to_owned())
        };
        let domain =
            |text: &str| text.parse::<ringmail_identity::TrustDomain>().ok().map(|_| text.to_owned());
        let cluster = |text: &str| (!text.is_empty() && text.len() <= 253).then(|| text.to_owned());
        InjectConfig {
            proxy_image: self.text("proxy_image", default.proxy_image, image, "the name of an image"),
            proxy_image_type: self.choice(
                "proxy_image_type",
                default.proxy_image_type,
                &[("default", ImageType::Default), ("distroless", ImageType::Distroless)],
            ),
            init_image: self.text("init_image", default.init_image, image, "the name of an image"),
            image_pull_policy: self.choice(
                "image_pull_policy",
                None,
                &[
                    ("Always", Some("Always".to_owned())),
                    ("IfNotPresent", Some("IfNotPresent".to_owned())),
                    ("Never", Some("Never".to_owned())),
                ],
            ),
            native_sidecar: self.choice(
                "native_sidecar",
                default.native_sidecar,
                &[
                    ("always", NativeSidecar::Always),
                    ("auto", NativeSidecar::Auto),
                    ("never", NativeSidecar::Never),
                ],
            ),
            trust_domain: self.text("trust_domain", default.trust_domain, domain, "a trust domain"),
            cluster: self.text("cluster", default.cluster, cluster, "a name"),
            ca_address: self.text("ca_address", default.ca_address, url, "https://host:port"),
            discovery_address: self.text(
                "discovery_address",
                default.discovery_address,
                url,
                "https://host:port",
            ),
            proxy_cpu_request: self.quantity("proxy_cpu_request", default.proxy_cpu_request),
            proxy_cpu_limit: self.quantity("proxy_cpu_limit", default.proxy_cpu_limit),
            proxy_memory_request: self.quantity("proxy_memory_request", default.proxy_memory_request),
            proxy_memory_limit: self.quantity("proxy_memory_limit", default.proxy_memory_limit),
            log_level: self.text("log_level", default.log_level, values::log_filter, "a log filter"),
            log_format: self.choice(
                "log_format",
                default.log_format,
                &[("text", "text".to_owned()), ("json", "json".to_owned())],
            ),
            access_log: self.choice(
                "access_log",
                default.access_log,
                &[("text", "text".to_owned()), ("json", "json".to_owned()), ("off", "off".to_owned())],
            ),
            never_inject_namespaces: self.namespaces(default.never_inject_namespaces),
            proxy_settings: self.proxy_settings(),
        }
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        self.settings.remove(name).filter(|value| !value.is_null())
    }

    fn fault(&mut self, name: &str, value: &Value, expected: &str) {
        self.faults.push(format!("injection.{name}: {value}: expected {expected}"));
    }

    fn text(
        &mut self,
        name: &str,
        default: String,
        read: impl Fn(&str) -> Option<String>,
        expected: &str,
    ) -> String {
        let Some(value) = self.take(name) else { return default };
        value.as_str().and_then(read).unwrap_or_else(|| {
            self.fault(name, &value, expected);
            default
        })
    }

    fn choice<T: Clone>(&mut self, name: &str, default: T, choices: &[(&str, T)]) -> T {
        let Some(value) = self.take(name) else { return default };
        // An unquoted `off` is YAML's word for false to some.
        let word = if value == Value::Bool(false) { Some("off") } else { value.as_str() };
        let chosen = choices.iter().find(|(text, _)| Some(*text) == word).map(|(_, choice)| choice.clone());
        chosen.unwrap_or_else(|| {
            let words: Vec<_> = choices.iter().map(|(text, _)| *text).collect();
            self.fault(name, &value, &words.join(" or "));
            default
        })
    }

    /// Null takes the default away.
    fn quantity(&mut self, name: &str, default: Option<String>) -> Option<String> {
        let value = self.settings.remove(name);
        match value {
            None => default,
            Some(Value::Null) => None,
            Some(value) => {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let quantity = values::quantity(&text).map(|quantity| quantity.text);
                if quantity.is_none() {
                    self.fault(name, &value, "a quantity above zero, such as 100m or 64Mi");
                }
                quantity
            }
        }
    }

    fn namespaces(&mut self, default: BTreeSet<String>) -> BTreeSet<String> {
        let name = "never_inject_namespaces";
        let Some(value) = self.take(name) else { return default };
        BTreeSet::deserialize(&value).unwrap_or_else(|_| {
            self.fault(name, &value, "a list of names");
            default
        })
    }

    /// The proxy itself says whether it knows a setting; here only what would break the pod is refused.
    fn proxy_settings(&mut self) -> BTreeMap<String, String> {
        let name = "proxy_settings";
        let Some(value) = self.take(name) else { return BTreeMap::new() };
        let expected = "a mapping from settings of ringmail-proxy in lower case to text";
        let is_name = |name: &String| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        };
        match BTreeMap::<String, String>::deserialize(&value) {
            Ok(settings) if settings.keys().all(is_name) => settings,
            Ok(_) | Err(_) => {
                self.fault(name, &value, expected);
                BTreeMap::new()
            }
        }
    }
}
