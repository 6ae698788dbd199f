//! The same ring inside the mesh: the same nodes with the same settings, a sidecar beside each.

use std::thread;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use ringmail_lab::ca::{Ca, CaSettings};
use ringmail_lab::ignite::{LoadShape, Ring, ThinLoad};
use ringmail_lab::mesh::MeshFiles;
use ringmail_lab::pcap::{Conversation, find_ignite_bytes, judge};
use ringmail_lab::sidecar::{Sidecar, SidecarSettings};

use super::live::Links;
use super::progress::{Outcome, Progress};
use super::stage::{CA, CACHE, CLIENT, Healing, NODES, Stage, VICTIM, kill_one, ports};
use crate::units;

/// Small enough for seconds, and large enough that a lost partition cannot hide.
const KEYS: u64 = 20_000;

/// Load before and after the death of a node, so that operations are under way when it happens.
const UNDER_LOAD: Duration = Duration::from_secs(2);

/// Ignite's own failure detection; a killed JVM is noticed long before it.
const HEALED_WITHIN: Duration = Duration::from_secs(10);

/// No plaintext anywhere, for anybody.
const STRICT: &str = "apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
";

/// What held.
pub(super) struct Meshed {
    pub(super) streams: usize,
    pub(super) healing: Healing,
    pub(super) keys: u64,
}

/// In the order in which they must go: clients before servers, applications before sidecars, sidecars before the CA.
struct Cast {
    load: ThinLoad,
    ring: Ring,
    sidecars: Vec<Sidecar>,
    _ca: Ca,
}

/// Runs it, looks at the wire, kills a node, counts the keys.
pub(super) fn run(stage: &Stage, plain: &Healing, progress: &mut Progress) -> Result<Meshed> {
    let (files, ca) = progress.step("the CA, with a root it makes", || start_ca(stage))?;
    let sidecars =
        progress.step("rules and a proxy beside each application", || start_sidecars(stage, &files, &ca))?;
    let (mut cast, conversations) = progress.step("three nodes and a thin client, captured", || {
        let ((cast, _rest), conversations) = stage.captured("mesh", || {
            let ring = stage.form()?;
            let load = stage.fill(KEYS)?;
            let rest = stage.ask_rest()?;
            Ok((Cast { load, ring, sidecars, _ca: ca }, rest))
        })?;
        let text = format!("the ring formed in {}, {KEYS} keys are in", units::time(cast.ring.formed_in()));
        Ok(((cast, conversations), text))
    })?;
    let streams = progress.step("what anyone on the network reads now", || look(&conversations))?;
    cast.load.run(CACHE, LoadShape::default())?;
    progress.step("who talks to whom", || {
        let _rest = stage.ask_rest()?;
        thread::sleep(UNDER_LOAD);
        let links = Links::show(&stage.network, &cast.sidecars)?;
        let connections = links.check()?;
        Ok(((), format!("{connections} connections, all mutual TLS, every peer as itself")))
    })?;
    let healing = progress.step(&format!("kill {VICTIM}, under load"), || kill(&mut cast, plain))?;
    progress.step(&format!("{VICTIM} comes back"), || {
        cast.ring.start_node(stage.network.pod(VICTIM)?)?;
        let view = cast.ring.wait_whole(NODES.len())?;
        Ok(((), format!("one ring of {} again, topology version {}", view.servers.join(", "), view.version)))
    })?;
    let keys = progress.step("count the keys", || count(&cast))?;
    drop(cast);
    Ok(Meshed { streams, healing, keys })
}

fn start_ca(stage: &Stage) -> Outcome<(MeshFiles, Ca)> {
    let files = MeshFiles::create(&stage.folder.join("mesh"), None)?;
    files.write_policy("strict", STRICT)?;
    let ca = Ca::start(&stage.network, CA, &files, &CaSettings::default(), &stage.folder)?;
    let text = format!("it serves {}", ca.address());
    Ok(((files, ca), text))
}

fn start_sidecars(stage: &Stage, files: &MeshFiles, ca: &Ca) -> Outcome<Vec<Sidecar>> {
    let mut sidecars = Vec::new();
    for name in NODES.into_iter().chain([CLIENT]) {
        let pod = stage.network.pod(name)?;
        // A service account for each pod, so that the table shows who is who.
        sidecars.push(Sidecar::start(pod, files, ca, &SidecarSettings::new(name), &stage.folder)?);
    }
    for sidecar in &mut sidecars {
        let pod = stage.network.pod(sidecar.pod())?;
        sidecar.wait_ready(pod)?;
    }
    let text = format!("{} are ready, with certificates of their own, STRICT for everybody", sidecars.len());
    Ok((sidecars, text))
}

fn look(conversations: &[Conversation]) -> Outcome<usize> {
    let verdict = judge(conversations);
    if let Some(offender) = verdict.offenders.first() {
        bail!("{} streams are something else than TLS 1.3: {offender}", verdict.offenders.len());
    }
    ensure!(verdict.is_tls13_only(), "there was nothing to judge");
    ensure!(find_ignite_bytes(conversations).is_empty(), "some of Ignite's own bytes are readable");
    let text = format!(
        "{} streams (ports {}), {} protected records, TLS 1.3 and nothing else",
        verdict.conversations,
        ports(conversations.iter().map(|each| each.server.port())),
        verdict.counts.protected
    );
    Ok((verdict.conversations, text))
}

fn kill(cast: &mut Cast, plain: &Healing) -> Outcome<Healing> {
    cast.load.mark()?;
    let healing = kill_one(&mut cast.ring)?;
    ensure!(
        healing.whole < HEALED_WITHIN,
        "the ring was whole after {:?}, expected {HEALED_WITHIN:?}",
        healing.whole
    );
    thread::sleep(UNDER_LOAD);
    let progress = cast.load.progress()?;
    let text = format!(
        "reported after {} (plain {}), one ring after {} (plain {}), slowest operation {}",
        units::time(healing.reported),
        units::time(plain.reported),
        units::time(healing.whole),
        units::time(plain.whole),
        units::time(progress.slowest)
    );
    Ok((healing, text))
}

fn count(cast: &Cast) -> Outcome<u64> {
    let progress = cast.load.halt()?;
    let (filled, running) = (cast.load.verify(CACHE, KEYS)?, cast.load.check()?);
    for (what, verified) in [("filled", filled), ("under load", running)] {
        ensure!(verified.lost == 0 && verified.corrupt == 0, "keys {what}: {verified:?}");
    }
    ensure!(filled.found == KEYS, "{} keys, expected {KEYS}", filled.found);
    ensure!(progress.stale == 0, "{} gets showed less than an acknowledged put", progress.stale);
    ensure!(running.found > 0, "the load has put no key");
    let text = format!(
        "{} of {KEYS} are there, and {} under load; {} operations, {} failed",
        filled.found, running.found, progress.operations, progress.errors
    );
    Ok((filled.found + running.found, text))
}
