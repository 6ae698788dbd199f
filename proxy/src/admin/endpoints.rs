//! Which port answers which path: the one table.

use std::fmt::Write as _;

use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;

use super::{Served, certs, config_dump, connections, readiness};
use crate::metrics;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// What a request is answered with.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) content_type: &'static str,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn text(status: StatusCode, text: String) -> Self {
        Self { status, content_type: TEXT, body: text.into() }
    }

    fn json(value: &Value) -> Self {
        // A value that was built here has string keys only, so it can be written.
        let text = serde_json::to_string_pretty(value).unwrap_or_default();
        Self { status: StatusCode::OK, content_type: JSON, body: (text + "\n").into() }
    }
}

/// One path of one port.
pub(super) struct Endpoint {
    pub(super) path: &'static str,
    pub(super) doc: &'static str,
    pub(super) answer: fn(&Served) -> Answer,
}

/// What a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Port {
    Admin,
    Health,
    Linkerd,
    Stats,
}

const PROMETHEUS: &str = "metrics in Prometheus' text format";
const READY: &str = "200 when connections can be served, else 503 with what is missing";

#[rustfmt::skip]
const ADMIN: &[Endpoint] = &[
    Endpoint { path: "/certs", doc: "the own certificate chain and the roots, without keys", answer: |served| Answer::json(&certs::answer(&served.state)) },
    Endpoint { path: "/config_dump", doc: "settings, policies and workloads in force, without secrets", answer: |served| Answer::json(&config_dump::answer(&served.state)) },
    Endpoint { path: "/connections", doc: "every connection that is open now", answer: |served| Answer::json(&connections::answer(&served.state)) },
    Endpoint { path: "/healthz/ready", doc: READY, answer: ready },
    Endpoint { path: "/help", doc: "this list", answer: |_| Answer::text(StatusCode::OK, Port::Admin.index()) },
    Endpoint { path: "/stats/prometheus", doc: PROMETHEUS, answer: scrape },
];
const STATS: &[Endpoint] = &[
    Endpoint { path: "/healthz/ready", doc: READY, answer: ready },
    Endpoint { path: "/stats/prometheus", doc: PROMETHEUS, answer: scrape },
];
const HEALTH: &[Endpoint] = &[Endpoint { path: "/healthz/ready", doc: READY, answer: ready }];
const LINKERD: &[Endpoint] = &[
    Endpoint {
        path: "/live",
        doc: "200 while the proxy runs",
        answer: |_| Answer::text(StatusCode::OK, "live\n".to_owned()),
    },
    Endpoint { path: "/metrics", doc: PROMETHEUS, answer: scrape },
    Endpoint { path: "/ready", doc: READY, answer: ready },
];

impl Port {
    pub(super) const fn endpoints(self) -> &'static [Endpoint] {
        match self {
            Self::Admin => ADMIN,
            Self::Health => HEALTH,
            Self::Linkerd => LINKERD,
            Self::Stats => STATS,
        }
    }

    pub(super) fn endpoint(self, path: &str) -> Option<&'static Endpoint> {
        let path = if self == Self::Admin && path == "/" { "/help" } else { path };
        self.endpoints().iter().find(|endpoint| endpoint.path == path)
    }

    /// Every path of this port with what it answers, one per line.
    pub(super) fn index(self) -> String {
        let mut text = String::new();
        for Endpoint { path, doc, .. } in self.endpoints() {
            let _ = writeln!(text, "{path:<18} {doc}");
        }
        text
    }
}

fn ready(served: &Served) -> Answer {
    match readiness(&served.state) {
        Ok(()) => Answer::text(StatusCode::OK, "ready\n".to_owned()),
        Err(missing) => Answer::text(StatusCode::SERVICE_UNAVAILABLE, missing.to_string()),
    }
}

fn scrape(served: &Served) -> Answer {
    match served.metrics.scrape() {
        Ok(text) => Answer { status: StatusCode::OK, content_type: metrics::CONTENT_TYPE, body: text.into() },
        Err(error) => Answer::text(StatusCode::INTERNAL_SERVER_ERROR, format!("metrics: {error}\n")),
    }
}
