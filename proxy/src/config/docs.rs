//! Reference pages made from the tables in the code: settings, metrics, reasons.

use std::fmt::Write as _;

use ringmail_identity::PeerReason;

use super::{
    ENV_PREFIX,
    settings::{Default, SETTINGS, Setting},
};
use crate::{
    metrics::TABLE,
    reason::{FaultClass, Reason},
};

pub(super) const GENERATED: &str = "<!-- Made from the code; `RINGMAIL_WRITE_DOCS=1 cargo test -p ringmail-proxy pages` writes it anew. -->\n";

impl Default {
    fn describe(&self) -> String {
        match self {
            Self::Derived { text, .. } => (*text).to_owned(),
            Self::Text("") => "empty".to_owned(),
            Self::Text(text) => format!("`{text}`"),
        }
    }
}

/// What `--help` says after the options: every setting in short.
pub fn help() -> String {
    let mut text = format!(
        "Settings (keys of the file; as environment variables in upper case with {ENV_PREFIX} in front; \
         * applies within 1 s when the file changes):\n"
    );
    for setting in SETTINGS {
        let Setting { name, kind, doc, .. } = setting;
        let hot = if setting.hot { "*" } else { "" };
        let default = setting.default.describe().replace('`', "");
        let kind = kind.replace('`', "");
        let _ = write!(text, "\n  {name}{hot}: {kind} [default: {default}]\n     {}\n", doc.replace('`', ""));
    }
    text
}

/// `docs/config.md`: every setting.
pub fn settings_page() -> String {
    let mut page = format!(
        "# Settings of ringmail-proxy\n\n{GENERATED}\n\
         `ringmail-proxy --config FILE` reads a YAML mapping with one key per setting. An environment variable,\n\
         the key in upper case with `{ENV_PREFIX}` in front (`{ENV_PREFIX}LOG_LEVEL`), overrides the file. A list is\n\
         a YAML list, in the environment separated by commas; a mapping is written `name=value,name=value` there.\n\
         A duration carries its unit: `200ms`, `15s`, `10m`, `1h`. An unknown key in the file is an error, an\n\
         unknown `{ENV_PREFIX}` variable a warning. All faults are told at once, and the exit code is 64.\n\n\
         A setting marked *hot* applies within a second when the file changes; the others need a restart. The\n\
         content of certificate, token and policy files is always followed.\n\n\
         | Setting | Kind | Default | | What it is for |\n|---|---|---|---|---|\n"
    );
    for setting in SETTINGS {
        let Setting { name, kind, doc, .. } = setting;
        let hot = if setting.hot { "hot" } else { "" };
        let _ =
            writeln!(page, "| `{name}` | {kind} | {} | {hot} | {} |", setting.default.describe(), doc.trim());
    }
    page
}

/// Longer lists of labels stand below the table, once.
const LABELS_IN_A_ROW: usize = 3;

/// `docs/metrics.md`: every metric.
pub fn metrics_page() -> String {
    let mut page = format!(
        "# Metrics of ringmail-proxy\n\n{GENERATED}\n\
         Every metric is on each of `:15020/stats/prometheus`, `:15000/stats/prometheus` (loopback) and\n\
         `:4191/metrics`. A family without samples is left out. Bytes are those of the application, without TLS.\n\n\
         | Metric | Type | Labels | What it says |\n|---|---|---|---|\n"
    );
    let mut sets: Vec<Vec<&str>> = Vec::new();
    for metric in TABLE {
        let labels = metric.labels();
        let labels = if labels.len() <= LABELS_IN_A_ROW {
            quoted(&labels)
        } else {
            let place = sets.iter().position(|set| *set == labels).unwrap_or(sets.len());
            if place == sets.len() {
                sets.push(labels);
            }
            format!("set {}", place + 1)
        };
        let _ =
            writeln!(page, "| `{}` | {} | {labels} | {} |", metric.name, metric.kind.as_str(), metric.doc);
    }
    page.push_str("\n## Sets of labels\n\nIn the order in which they are written. One in brackets is only there where it has a meaning.\n\n");
    for (index, set) in sets.iter().enumerate() {
        let _ = writeln!(page, "{}. {}", index + 1, quoted(set));
    }
    page
}

fn quoted(labels: &[&str]) -> String {
    labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ")
}

/// `docs/reasons.md`: every reason a connection ends for.
pub fn reasons_page() -> String {
    let mut page = format!(
        "# Why a connection ended\n\n{GENERATED}\n\
         The word is the field `reason` of the access log, the label `reason` of\n\
         `ringmail_connections_closed_total` and, as `response_flags`, coarser, in Istio's metrics. The side\n\
         says whom it is about: this pod's `application`, the `peer`, or `local`, this proxy with its settings. The class is\n\
         the label `class` of `ringmail_faults_total`, which the [alerts](alerts.md) are made on. What to do is the\n\
         field `advice` of the line.\n\n\
         | Reason | Side | Class | `response_flags` | What it means | What to do |\n|---|---|---|---|---|---|\n"
    );
    let certificate = PeerReason::ALL.iter().map(|reason| Reason::Certificate(*reason));
    for reason in Reason::PLAIN.iter().copied().chain(certificate) {
        let (word, side, flags) = (reason.as_str(), reason.side().as_str(), reason.response_flags());
        let class = reason.fault_class().map_or("", FaultClass::as_str);
        let (doc, advice) = (reason.doc(), reason.advice());
        let _ = writeln!(page, "| `{word}` | {side} | {class} | `{flags}` | {doc} | {advice} |");
    }
    page
}
