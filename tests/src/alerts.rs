//! The alert rules, and the pages that are made of them: the resource of the Prometheus operator, and the page for whoever
//! is woken up.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

/// What both pages say of themselves.
const GENERATED: &str = "Made from manifests/monitoring/alerts.yaml; `RINGMAIL_WRITE_DOCS=1 cargo test -p ringmail-tests --lib alerts` writes it anew.";

/// Whose real fault needs a cluster.
pub const ON_KUBERNETES: [&str; 3] =
    ["RingmailControlAway", "RingmailInjectorUnable", "RingmailPolicyFaulty"];

/// Whose fault nobody can make at will: a bug, and a sidecar of another version that refuses what it is told.
pub const WRITTEN_ALONE: [&str; 2] = ["RingmailBug", "RingmailDiscoveryRefused"];

/// The rules, as Prometheus reads them.
#[derive(Clone, Debug, Deserialize)]
pub struct Rules {
    /// In their order.
    pub groups: Vec<Group>,
}

/// What one program is watched by.
#[derive(Clone, Debug, Deserialize)]
pub struct Group {
    /// The program.
    pub name: String,
    /// Its alerts.
    pub rules: Vec<Rule>,
}

/// One alert.
#[derive(Clone, Debug, Deserialize)]
pub struct Rule {
    /// Its name.
    pub alert: String,
    /// When it fires.
    pub expr: String,
    /// For how long that has to be so.
    #[serde(default)]
    pub r#for: String,
    /// What it is routed by.
    pub labels: Labels,
    /// What it says.
    pub annotations: Annotations,
}

/// What an alert is routed by.
#[derive(Clone, Debug, Deserialize)]
pub struct Labels {
    /// `critical` or `warning`.
    pub severity: String,
}

/// What an alert says.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Annotations {
    /// One line, with who it is about.
    pub summary: String,
    /// What it means for connections.
    pub meaning: String,
    /// What to do.
    pub action: String,
}

/// A file of the repository.
pub fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The file of the rules.
pub fn file() -> PathBuf {
    in_repository("manifests/monitoring/alerts.yaml")
}

/// The text of the rules.
pub fn text() -> Result<String> {
    fs::read_to_string(file()).context("the alert rules")
}

/// The rules.
pub fn rules() -> Result<Rules> {
    serde_saphyr::from_str(&text()?).map_err(|error| anyhow::Error::msg(error.to_string()))
}

/// The same for the Prometheus operator, which reads rules from a resource.
pub fn prometheus_rule(text: &str) -> Result<String> {
    let (_, groups) = text.split_once("\ngroups:\n").context("expected a line groups:")?;
    let mut resource = format!(
        "# {GENERATED}\n\
         apiVersion: monitoring.coreos.com/v1\n\
         kind: PrometheusRule\n\
         metadata:\n  name: ringmail\n  namespace: ringmail-system\n  labels: {{app.kubernetes.io/part-of: ringmail}}\n\
         spec:\n  groups:\n"
    );
    for line in groups.lines() {
        writeln!(resource, "  {line}")?;
    }
    Ok(resource)
}

/// `docs/alerts.md`.
pub fn page(rules: &Rules) -> Result<String> {
    let mut page = format!(
        "# Alerts\n\n<!-- {GENERATED} -->\n\n\
         [manifests/monitoring](../manifests/monitoring/README.md) has the rules, for Prometheus and for its operator. Each fires within a\n\
         minute of its fault in the tests, which scrape every second; where targets are scraped every 15 s, up to two of these later.\n"
    );
    for group in &rules.groups {
        write!(page, "\n## {}\n", group.name)?;
        for rule in &group.rules {
            let held = if rule.r#for.is_empty() { String::new() } else { format!(", for {}", rule.r#for) };
            let Annotations { meaning, action, .. } = &rule.annotations;
            write!(
                page,
                "\n### {}\n\n{}: `{}`{held}\n\n{meaning}\n\n**What to do.** {action}\n",
                rule.alert,
                rule.labels.severity,
                rule.expr.trim()
            )?;
        }
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn is_written(path: &str, text: &str) {
        let path = in_repository(path);
        if std::env::var_os("RINGMAIL_WRITE_DOCS").is_some() {
            fs::write(path, text).unwrap();
        } else {
            assert_eq!(
                fs::read_to_string(&path).unwrap_or_default(),
                text,
                "{}: {GENERATED}",
                path.display()
            );
        }
    }

    #[test]
    fn the_pages_are_those_of_the_rules() {
        is_written("manifests/monitoring/prometheus-rule.yaml", &prometheus_rule(&text().unwrap()).unwrap());
        is_written("docs/alerts.md", &page(&rules().unwrap()).unwrap());
    }

    /// A rule about a metric that nobody has would be silent for ever.
    #[test]
    fn every_metric_of_a_rule_is_one_that_a_program_has() {
        let sources = [
            "docs/metrics.md",
            "ca/src/metrics.rs",
            "control/src/health.rs",
            "control/src/discovery/metrics.rs",
            "control/src/webhook/metrics.rs",
        ];
        let known: String =
            sources.iter().map(|path| fs::read_to_string(in_repository(path)).unwrap()).collect();
        let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        let known: BTreeSet<&str> = known.split(|letter| !is_name(letter)).collect();
        let rules = rules().unwrap();
        let expressions = rules.groups.iter().flat_map(|group| &group.rules).map(|rule| &rule.expr);
        let mut metrics: usize = 0;
        for expression in expressions {
            let words = expression.split(|letter| !is_name(letter));
            for word in words.filter(|word| word.starts_with("ringmail_") || word.starts_with("control_")) {
                assert!(known.contains(word), "{word} in {expression}");
                metrics += 1;
            }
        }
        let rules: usize = rules.groups.iter().map(|group| group.rules.len()).sum();
        assert!(metrics >= rules, "{metrics}");
    }
}
