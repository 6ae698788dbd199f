//! The candidates by name: their order in tables and plots, what they are, and which is the best of the others.

use crate::results::{Better, Figure};

use super::statistics::{median, present};

/// What all others are compared with.
pub(super) const OURS: &str = "ringmail";

/// What each is, in the order of tables and plots.
const KNOWN: [(&str, &str); 13] = [
    (OURS, "Ringmail: a sidecar at each end"),
    ("ringmail-baseline", "Ringmail before a change, from another build"),
    ("plain", "nobody in between"),
    ("relay-copy", "a relay without TLS at each end that copies with 256 KiB buffers: the floor"),
    ("relay-splice", "the same by splice"),
    ("haproxy-plain", "HAProxy at each end, without TLS"),
    ("haproxy", "HAProxy at each end, mutual TLS, without resumption"),
    ("haproxy-default", "the same, resuming sessions as it does by default"),
    ("envoy", "Envoy at each end with Istio's filter chain, mutual TLS, without resumption"),
    ("envoy-default", "the same, resuming sessions as it does by default"),
    ("ztunnel", "ztunnel at each end: streams within one TLS connection"),
    ("linkerd2-proxy", "Linkerd's proxy at each end, with a stand-in of its control plane"),
    ("ignite-tls", "Ignite's own TLS in each JVM"),
];

/// Those that encrypt and are not Ringmail: a user's choice instead of it. Those that resume by default are not among them, for
/// Ringmail does not.
const TLS_PEERS: [&str; 5] = ["haproxy", "envoy", "ztunnel", "linkerd2-proxy", "ignite-tls"];

/// Carries all connections within one: a new one there is a stream and no handshake, and its rate is no peer's of handshakes.
const WITHOUT_HANDSHAKES: &str = "ztunnel";

/// The group of new connections.
const NEW_CONNECTIONS: &str = "conn";

/// Those that encrypt nothing.
const WITHOUT_TLS: [&str; 4] = ["plain", "relay-copy", "relay-splice", "haproxy-plain"];

/// What a candidate is, if it is known.
pub(super) fn description(candidate: &str) -> &'static str {
    KNOWN.iter().find(|(name, _)| *name == candidate).map_or("", |(_, what)| what)
}

/// All candidates with a sample of any of the figures, in the order of tables.
pub(super) fn in_order<'a>(figures: impl IntoIterator<Item = &'a Figure>) -> Vec<&'a str> {
    let mut names: Vec<&str> = figures
        .into_iter()
        .flat_map(|figure| &figure.samples)
        .filter(|(_, samples)| samples.iter().any(Option::is_some))
        .map(|(name, _)| name.as_str())
        .collect();
    let place = |name: &str| KNOWN.iter().position(|(known, _)| *known == name).unwrap_or(KNOWN.len());
    names.sort_by_key(|name| (place(name), *name));
    names.dedup();
    names
}

/// Whether it is Ringmail in one of its forms.
pub(super) fn is_ours(candidate: &str) -> bool {
    candidate.starts_with(OURS)
}

/// Whether it carries bytes without TLS.
pub(super) fn is_without_tls(candidate: &str) -> bool {
    WITHOUT_TLS.contains(&candidate)
}

/// The best by its median among those with TLS that are not Ringmail.
pub(super) fn best_tls_peer(figure: &Figure) -> Option<&str> {
    let medians = figure
        .samples
        .iter()
        .filter(|(name, _)| TLS_PEERS.contains(&name.as_str()))
        .filter(|(name, _)| figure.group != NEW_CONNECTIONS || *name != WITHOUT_HANDSHAKES)
        .filter_map(|(name, samples)| Some((name.as_str(), median(&present(samples))?)));
    let best = match figure.better {
        Better::Higher => medians.max_by(|(_, left), (_, right)| left.total_cmp(right)),
        Better::Lower => medians.min_by(|(_, left), (_, right)| left.total_cmp(right)),
    };
    best.map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn figure(better: Better, medians: &[(&str, f64)]) -> Figure {
        let samples: BTreeMap<_, _> =
            medians.iter().map(|(name, value)| ((*name).to_owned(), vec![Some(*value)])).collect();
        let (id, group, title, unit) = ("i".into(), "g".into(), "t".into(), "u".into());
        Figure { id, group, title, unit, better, samples }
    }

    #[test]
    fn the_best_peer_is_that_with_tls_and_the_better_median() {
        let medians =
            [("plain", 1.0), ("ringmail", 2.0), ("envoy", 5.0), ("ztunnel", 3.0), ("envoy-default", 1.5)];
        assert_eq!(best_tls_peer(&figure(Better::Lower, &medians)), Some("ztunnel"));
        assert_eq!(best_tls_peer(&figure(Better::Higher, &medians)), Some("envoy"));
        assert_eq!(best_tls_peer(&figure(Better::Higher, &medians[..2])), None);
        let connections = figure(Better::Lower, &medians);
        let connections = Figure { group: NEW_CONNECTIONS.to_owned(), ..connections };
        assert_eq!(best_tls_peer(&connections), Some("envoy"));
    }

    #[test]
    fn candidates_have_an_order_and_unknown_ones_come_last() {
        let mut mixed =
            figure(Better::Lower, &[("zebra", 1.0), ("envoy", 1.0), ("plain", 1.0), ("ringmail", 1.0)]);
        mixed.samples.insert("absent".to_owned(), vec![None]);
        assert_eq!(in_order([&mixed, &mixed]), ["ringmail", "plain", "envoy", "zebra"]);
    }
}
