//! What may be asked of the application: JSON in the shape in which Istio's injector tells its agent.
//!
//! `{"/app-health/ignite/livez": {"httpGet": {"path": "/", "port": 8080, "scheme": "HTTP"}, "timeoutSeconds": 1}}`,
//! with `tcpSocket` and `grpc` in the place of `httpGet` where Kubernetes has them. The injector may be of a later version:
//! what it says besides is passed over.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;

/// Probes of one pod: three and two hooks for each of some dozens of containers.
const MAX_PROBES: usize = 256;
/// Kubernetes' own default.
const DEFAULT_TIMEOUT: u64 = 1;
/// A probe that takes longer is a slip of the pen; a hook may take the whole grace period.
const MAX_TIMEOUT: u64 = 24 * 3600;

/// The paths of probes and hooks begin so.
const PREFIXES: [&str; 2] = ["/app-health/", "/app-lifecycle/"];

/// Probes by the path they are asked by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probes {
    probes: BTreeMap<String, Probe>,
    text: String,
}

/// What is asked, and how long it may take.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct Probe {
    /// What is asked.
    pub handler: Handler,
    timeout_seconds: u64,
}

/// A probe as it is written: exactly one of the three.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    grpc: Option<Grpc>,
    http_get: Option<HttpGet>,
    tcp_socket: Option<TcpSocket>,
    timeout_seconds: Option<u64>,
}

impl TryFrom<Written> for Probe {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let handler = match (written.grpc, written.http_get, written.tcp_socket) {
            (Some(grpc), None, None) => Handler::Grpc(grpc),
            (None, Some(get), None) => Handler::HttpGet(get),
            (None, None, Some(socket)) => Handler::TcpSocket(socket),
            (_, _, _) => return Err("a probe with other than one of httpGet, tcpSocket and grpc"),
        };
        Ok(Self { handler, timeout_seconds: written.timeout_seconds.unwrap_or(DEFAULT_TIMEOUT) })
    }
}

impl Probe {
    /// The deadline of one answer.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds)
    }
}

/// What is asked, as Kubernetes names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handler {
    /// gRPC's health protocol.
    Grpc(Grpc),
    /// A status from 200 to 399 is good.
    HttpGet(HttpGet),
    /// A connection that is taken is good.
    TcpSocket(TcpSocket),
}

/// See Kubernetes' `GRPCAction`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Grpc {
    /// The application's port.
    pub port: u16,
    /// The service that is asked about.
    #[serde(default)]
    pub service: Option<String>,
}

/// See Kubernetes' `HTTPGetAction`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpGet {
    /// Path and query.
    #[serde(default = "root")]
    pub path: String,
    /// The application's port.
    pub port: u16,
    /// `HTTP` or `HTTPS`. The certificate is not verified, as the kubelet does not.
    #[serde(default)]
    pub scheme: Scheme,
    /// Headers to send.
    #[serde(default)]
    pub http_headers: Vec<Header>,
}

fn root() -> String {
    "/".to_owned()
}

/// The scheme of an HTTP probe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Scheme {
    /// Plain.
    #[default]
    Http,
    /// Over TLS.
    Https,
}

/// A header of an HTTP probe.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// See Kubernetes' `TCPSocketAction`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TcpSocket {
    /// The application's port.
    pub port: u16,
}

impl Probes {
    /// Reads the JSON; the error says what of it is wrong. Empty text means no probes.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let probes: BTreeMap<String, Probe> =
            serde_json::from_str(text).map_err(|error| error.to_string())?;
        if probes.len() > MAX_PROBES {
            return Err(format!("{} probes, at most {MAX_PROBES} are meant", probes.len()));
        }
        for (path, probe) in &probes {
            if !PREFIXES.iter().any(|prefix| path.starts_with(prefix)) {
                return Err(format!("{path:?}, which does not begin with {}", PREFIXES.join(" or ")));
            }
            if !(1..=MAX_TIMEOUT).contains(&probe.timeout_seconds) {
                return Err(format!("{path:?} with timeoutSeconds {}", probe.timeout_seconds));
            }
        }
        Ok(Self { probes, text: text.to_owned() })
    }

    /// What is asked by `path`.
    pub fn get(&self, path: &str) -> Option<&Probe> {
        self.probes.get(path)
    }

    /// The longest that any answer may take.
    pub(crate) fn longest(&self) -> Duration {
        self.probes.values().map(Probe::timeout).max().unwrap_or_default()
    }

    /// As it was written.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

/// Whether a path asks whether the application is alive, so that a failure has it restarted.
pub(crate) fn is_liveness(path: &str) -> bool {
    path.starts_with("/app-health/") && path.ends_with("/livez")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_injector_writes_is_read() {
        let probes = Probes::parse(
            r#"{"/app-health/a/livez": {"httpGet": {"path": "/x", "port": 8080, "scheme": "HTTPS",
                  "httpHeaders": [{"name": "Host", "value": "a"}]}, "timeoutSeconds": 3},
                "/app-health/a/readyz": {"tcpSocket": {"port": 10800}},
                "/app-health/a/startupz": {"grpc": {"port": 9000, "service": null}, "timeoutSeconds": 1},
                "/app-lifecycle/a/prestop": {"httpGet": {"port": 8080}}}"#,
        )
        .unwrap();
        let live = probes.get("/app-health/a/livez").unwrap();
        assert_eq!(live.timeout(), Duration::from_secs(3));
        let Handler::HttpGet(get) = &live.handler else { panic!("{live:?}") };
        assert_eq!((&*get.path, get.port, get.scheme), ("/x", 8080, Scheme::Https));
        let ready = probes.get("/app-health/a/readyz").unwrap();
        assert_eq!(
            (&ready.handler, ready.timeout()),
            (&Handler::TcpSocket(TcpSocket { port: 10800 }), Duration::from_secs(1))
        );
        assert!(probes.get("/app-health/b/livez").is_none());
        let later = r#"{"/app-health/a/livez": {"tcpSocket": {"port": 1, "host": "a"}, "periodSeconds": 3}}"#;
        assert!(Probes::parse(later).is_ok(), "what a later injector says besides is no reason not to start");
        assert_eq!(Probes::parse("").unwrap(), Probes::default());
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let rows = [
            ("{", "EOF"),
            (
                r#"{"/x": {"tcpSocket": {"port": 1}}}"#,
                "\"/x\", which does not begin with /app-health/ or /app-lifecycle/",
            ),
            (r#"{"/app-health/a/livez": {"tcpSocket": {"port": 70000}}}"#, "70000"),
            (
                r#"{"/app-health/a/livez": {"exec": {"command": []}}}"#,
                "other than one of httpGet, tcpSocket and grpc",
            ),
            (
                r#"{"/app-health/a/livez": {"timeoutSeconds": 3}}"#,
                "other than one of httpGet, tcpSocket and grpc",
            ),
            (r#"{"/app-health/a/livez": {"tcpSocket": {"port": 1}, "grpc": {"port": 1}}}"#, "other than one"),
            (
                r#"{"/app-health/a/livez": {"tcpSocket": {"port": 1}, "timeoutSeconds": 0}}"#,
                "timeoutSeconds 0",
            ),
        ];
        for (text, expected) in rows {
            let error = Probes::parse(text).unwrap_err();
            assert!(error.contains(expected), "{error}, expected {expected}");
        }
    }
}
