//! The ring as it is without a mesh: everybody on the network reads along.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use ringmail_lab::pcap::{find_ignite_bytes, judge};

use super::progress::Progress;
use super::stage::{Healing, Stage, VICTIM, kill_one, ports};
use crate::units;

/// Enough that the client speaks to every node.
const KEYS: u64 = 1_000;

/// Runs it, looks at the wire, kills a node: what the ring in the mesh is compared with.
pub(super) fn run(stage: &Stage, progress: &mut Progress) -> Result<Healing> {
    let ((mut ring, load), conversations) =
        progress.step("three nodes and a thin client, captured", || {
            let ((ring, load), conversations) = stage.captured("plain", || {
                let ring = stage.form()?;
                let load = stage.fill(KEYS)?;
                stage.ask_rest()?;
                Ok((ring, load))
            })?;
            let text = format!("the ring formed in {}", units::time(ring.formed_in()));
            Ok((((ring, load), conversations), text))
        })?;
    progress.step("what anyone on the network reads", || {
        let verdict = judge(&conversations);
        let findings = find_ignite_bytes(&conversations);
        ensure!(!verdict.is_tls13_only(), "the plain ring passes for TLS 1.3: the look sees nothing");
        ensure!(!findings.is_empty(), "none of Ignite's own bytes: the look sees nothing");
        let streams: BTreeSet<_> = findings.iter().map(|finding| &finding.conversation).collect();
        let marks: BTreeSet<_> = findings.iter().map(|finding| finding.mark.to_string()).collect();
        let text = format!(
            "Ignite's own bytes in {} of {} streams (ports {}): {}",
            streams.len(),
            verdict.conversations,
            ports(findings.iter().map(|finding| finding.port)),
            marks.into_iter().collect::<Vec<_>>().join(", ")
        );
        Ok(((), text))
    })?;
    let healing = progress.step(&format!("kill {VICTIM}, for comparison"), || {
        let healing = kill_one(&mut ring)?;
        let text = format!(
            "the others report it after {}, and are one ring after {}",
            units::time(healing.reported),
            units::time(healing.whole)
        );
        Ok((healing, text))
    })?;
    drop(load);
    drop(ring);
    Ok(healing)
}
