//! What a refusal of iptables means, and what to do about it.
//!
//! iptables says `line 12 failed` or `No such file or directory` for a module that is not loaded; nobody should
//! have to know that. Pure: the words of the tool and the text it was given go in, a closed answer comes out.

use std::collections::BTreeSet;
use std::fmt;

use crate::backend::Backend;
use crate::pod::Capabilities;
use crate::rules::Family;

/// Why iptables refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// The lock file of iptables-legacy cannot be opened or stays taken.
    Locked,
    /// The kernel, or the installed iptables, lacks something.
    Missing(Missing),
    /// The process may not change the network configuration; names the capabilities it lacks, if any.
    NotPermitted(Option<&'static str>),
    /// Anything else; what the tool said is all there is to say.
    Other,
}

/// Something that is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Its names, for example `owner match`; several if the tool did not say which.
    pub features: Vec<&'static str>,
    /// The kernel modules that bring them.
    pub modules: Vec<String>,
}

impl Obstacle {
    /// Whether rules without memory of refused connects might be taken.
    pub fn may_be_recent_match(&self) -> bool {
        match self {
            Self::Missing(missing) => missing.features.contains(&RECENT_MATCH),
            Self::Locked | Self::NotPermitted(_) | Self::Other => false,
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked => write!(
                formatter,
                "the lock file /run/xtables.lock cannot be had: mount an emptyDir at /run, or let the other \
                 iptables finish"
            ),
            Self::Missing(missing) => write!(
                formatter,
                "missing: {}; load with `modprobe -a {}` on the node",
                missing.features.join(" or "),
                missing.modules.join(" ")
            ),
            Self::NotPermitted(Some(capabilities)) => {
                write!(formatter, "not permitted: the container needs the capabilities {capabilities}")
            }
            Self::NotPermitted(None) => write!(
                formatter,
                "not permitted, although NET_ADMIN and NET_RAW are held: a security module or a user namespace \
                 forbids it"
            ),
            Self::Other => write!(formatter, "iptables refused the rules"),
        }
    }
}

/// A feature that rules of ours need, as a word of the rule text and of the tool's complaint.
struct Feature {
    in_text: &'static str,
    in_complaint: &'static str,
    name: &'static str,
    module: &'static str,
}

/// The match that only the memory of refused connects needs.
const RECENT_MATCH: &str = "recent match";

const FEATURES: [Feature; 5] = [
    Feature { in_text: "-m owner", in_complaint: "owner", name: "owner match", module: "xt_owner" },
    Feature {
        in_text: "-j REDIRECT",
        in_complaint: "REDIRECT",
        name: "REDIRECT target",
        module: "xt_REDIRECT",
    },
    Feature {
        in_text: "-m conntrack",
        in_complaint: "conntrack",
        name: "conntrack match",
        module: "xt_conntrack",
    },
    Feature { in_text: "-m recent", in_complaint: "recent", name: RECENT_MATCH, module: "xt_recent" },
    Feature { in_text: "-j TPROXY", in_complaint: "TPROXY", name: "TPROXY target", module: "xt_TPROXY" },
];

/// Reads what the tool said (`complaint`) about the `text` it was given.
pub fn diagnose(
    complaint: &str,
    text: &str,
    (family, backend): (Family, Backend),
    capabilities: Capabilities,
) -> Obstacle {
    let says = |words: &str| complaint.contains(words);
    if says("xtables.lock") || says("Another app is currently holding the xtables lock") {
        return Obstacle::Locked;
    }
    if says("you must be root") || says("Permission denied") || says("Operation not permitted") {
        return Obstacle::NotPermitted(capabilities.missing());
    }
    if let Some(feature) = FEATURES.iter().find(|feature| complains_about(complaint, feature.in_complaint)) {
        return missing([feature], backend);
    }
    if says("unable to initialize table")
        || says("can't initialize")
        || says("Table does not exist")
        || says("Address family not supported")
    {
        // iptables-legacy says the same whether the table is missing or it may not look.
        return match capabilities.missing() {
            Some(lacking) => Obstacle::NotPermitted(Some(lacking)),
            None => missing_table(complaint, family, backend),
        };
    }
    if says("Failed to initialize nft") || says("TABLE_ADD failed") || says("CHAIN_ADD failed") {
        return missing_table(complaint, family, backend);
    }
    if says("RULE_INSERT failed") || says("RULE_APPEND failed") || says("RULE_REPLACE failed") {
        // Other reasons than a missing extension (too many rules, a bad value) are no module's fault.
        return if says("No such file or directory") || says("not supported") {
            named_by_line(complaint, text, backend)
        } else {
            Obstacle::Other
        };
    }
    if says("No chain/target/match by that name") || failed_line(complaint).is_some() {
        return named_by_line(complaint, text, backend);
    }
    Obstacle::Other
}

fn complains_about(complaint: &str, extension: &str) -> bool {
    [
        format!("Extension {extension} "),
        format!("match `{extension}'"),
        format!("target `{extension}'"),
        format!("match \"{extension}\""),
        format!("target \"{extension}\""),
    ]
    .iter()
    .any(|words| complaint.contains(words.as_str()))
}

/// With only a line number to go by: the features of that line, or of its whole table if the line is COMMIT.
fn named_by_line(complaint: &str, text: &str, backend: Backend) -> Obstacle {
    let lines: Vec<&str> = text.lines().collect();
    let Some(row) = failed_line(complaint).filter(|row| *row >= 1 && *row <= lines.len()) else {
        return Obstacle::Other;
    };
    let suspects = if lines[row - 1] == "COMMIT" {
        let start = lines[..row].iter().rposition(|line| line.starts_with('*')).unwrap_or(0);
        &lines[start..row]
    } else {
        &lines[row - 1..row]
    };
    let features: Vec<&Feature> = FEATURES
        .iter()
        .filter(|feature| suspects.iter().any(|line| line.contains(feature.in_text)))
        .collect();
    if features.is_empty() { Obstacle::Other } else { missing(features, backend) }
}

fn failed_line(complaint: &str) -> Option<usize> {
    let number = |rest: &str| {
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    };
    complaint.split("line ").skip(1).find_map(number)
}

fn missing<'a>(features: impl IntoIterator<Item = &'a Feature>, backend: Backend) -> Obstacle {
    let features: Vec<&Feature> = features.into_iter().collect();
    let bridge = match backend {
        // iptables-nft reaches every xt_ module through this one.
        Backend::Nft => Some("nft_compat"),
        Backend::Legacy => None,
    };
    let modules = bridge.into_iter().chain(features.iter().map(|feature| feature.module));
    Obstacle::Missing(Missing {
        features: features.iter().map(|feature| feature.name).collect(),
        modules: modules.map(str::to_owned).collect(),
    })
}

fn missing_table(complaint: &str, family: Family, backend: Backend) -> Obstacle {
    let named: BTreeSet<&str> = ["filter", "mangle", "nat"]
        .into_iter()
        .filter(|name| complaint.contains(&format!("'{name}'")))
        .collect();
    let tables = if named.is_empty() { BTreeSet::from(["filter", "mangle", "nat"]) } else { named };
    let (feature, modules) = match (backend, family) {
        (Backend::Nft, _) => ("nf_tables with nat", vec!["nf_tables".to_owned(), "nft_chain_nat".to_owned()]),
        (Backend::Legacy, Family::V4) => {
            ("tables of ip_tables", tables.iter().map(|name| format!("iptable_{name}")).collect())
        }
        (Backend::Legacy, Family::V6) => {
            ("tables of ip6_tables", tables.iter().map(|name| format!("ip6table_{name}")).collect())
        }
    };
    Obstacle::Missing(Missing { features: vec![feature], modules })
}

#[cfg(test)]
mod tests;
