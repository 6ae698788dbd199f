//! What resumed sessions would save: Ringmail's library makes full and resumed handshakes in memory.

use anyhow::Result;
use ringmail_lab::interrupt;

use super::arguments::Group;
use super::figures::Head;
use super::recorder::Recorder;
use crate::candidates::Candidate;
use crate::handshake::{EXCHANGES, HandshakeArguments, measure};
use crate::results::Better;

/// Handshakes of a kind in a round: a tenth of a second.
const HANDSHAKES: u32 = 200;

/// Takes all rounds; the error is an interruption, or a handshake of another kind than was meant.
pub(super) fn take(rounds: usize, candidates: &[Candidate], recorder: &mut Recorder) -> Result<()> {
    if !candidates.contains(&Candidate::Ringmail) {
        return Ok(());
    }
    for (name, group) in EXCHANGES {
        eprintln!("bench: what resumption would save with {name}");
        let costs = measure(group, &HandshakeArguments { rounds, handshakes: HANDSHAKES })?;
        interrupt::check()?;
        for (kind, samples) in [("full", costs.full), ("resumed", costs.resumed)] {
            let head = Head {
                id: format!("handshake-{}-{kind}", name.to_lowercase()),
                group: Group::Resumption.name(),
                title: format!("CPU of both sides of a {kind} mutual handshake in memory, {name}"),
                unit: "us",
                better: Better::Lower,
            };
            for (round, sample) in samples.into_iter().enumerate() {
                recorder.sample(&head, Candidate::Ringmail, round, sample);
            }
        }
    }
    Ok(())
}
