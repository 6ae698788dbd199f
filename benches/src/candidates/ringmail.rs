//! Ringmail as it is deployed: its init captures, its CA issues, and a sidecar runs in each pod.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use ringmail_lab::ca::{Ca, CaSettings};
use ringmail_lab::mesh::MeshFiles;
use ringmail_lab::sidecar::{Sidecar, SidecarSettings};

use super::place::AUTHORITY;
use super::start::{Ground, Started};
use super::{Candidate, Exchange, Setup};

/// The load comes from one address, and so do more connections and handshakes than a sidecar takes from one by default.
const MOST_CONNECTIONS: u32 = 40_000;

pub(super) fn start(ground: &Ground<'_>) -> Result<Started> {
    let files = MeshFiles::create(&ground.folder.join("mesh"), Some(&ground.programs.ringmail))?;
    if ground.setup.candidate == Candidate::RingmailBaseline {
        replace(&ground.program()?, &files.program("ringmail-proxy"))?;
    }
    let ca = Ca::start(ground.network, AUTHORITY, &files, &CaSettings::default(), ground.folder)?;
    let settings = settings(ground.setup);
    let mut started = Started::default();
    for pod in ground.pods()? {
        started.sidecars.push(Sidecar::start(pod, &files, &ca, &settings, ground.folder)?);
        let words: Vec<_> = settings.proxy.iter().map(|(key, value)| format!("{key}: {value}")).collect();
        started.commands.push(format!("ringmail-proxy --config {}.yaml # {}", pod.name(), words.join(", ")));
    }
    started.ca = Some(ca);
    Ok(started)
}

fn settings(setup: Setup) -> SidecarSettings {
    let settings = SidecarSettings::new("bench")
        .with("workers", &setup.workers.to_string())
        .with("access_log", "'off'")
        .with("max_connections_per_source", &MOST_CONNECTIONS.to_string());
    match setup.exchange {
        Some(Exchange::X25519) => {
            settings.with("key_exchange_groups", &format!("[{}]", Exchange::X25519.name()))
        }
        // What it prefers by itself, which the check makes sure of.
        Some(Exchange::X25519MlKem768) | None => settings,
    }
}

fn replace(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map(drop).with_context(|| format!("copy {}", from.display()))
}
