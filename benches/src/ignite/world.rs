//! Pods, sidecars, ring and client of one candidate. Dropping it ends and removes all of them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use ringmail_lab::ca::{Ca, CaSettings};
use ringmail_lab::ignite::{
    Atomicity, Formation, Installation, KeyStores, NodeSettings, Ring, THIN_PORT, ThinLoad,
};
use ringmail_lab::mesh::MeshFiles;
use ringmail_lab::network::{Network, Pod};
use ringmail_lab::pcap::{Capture, find_ignite_bytes, judge};
use ringmail_lab::process::Child;
use ringmail_lab::sidecar::{Sidecar, SidecarSettings, start_sidecars};

use super::cpu::Processes;
use super::{Options, WORKERS, Wrapping, envoy, relay};

/// The pods of the ring.
pub(super) const RING: [&str; 3] = ["n1", "n2", "n3"];

/// The pod of the client.
const CLIENT: &str = "client";

/// The pods whose CPU counts: the ring's and the client's. The CA's is not on the path of any byte.
pub(super) const PODS: [&str; 4] = [RING[0], RING[1], RING[2], CLIENT];

/// The pod of the CA.
const CA: &str = "ca";

/// The service account of all.
const SERVICE_ACCOUNT: &str = "ignite";

/// Where certificates are asked for: between the sidecars and the CA, not between members of the mesh.
const CA_PORT: u16 = ringmail_lab::ca::CA_PORT;

/// Every JVM alike: a heap that never grows, so that no candidate's rounds pay for it, and the compiler that a server has. The
/// lab's other rings are short-lived and do without it; the ciphers of the JDK need it to be fast.
pub(super) const JVM_FLAGS: [&str; 3] = ["-Xms512m", "-Xmx512m", "-XX:TieredStopAtLevel=4"];

/// What a node holds beside what is moved to the one that joins, in MiB.
const REGION_MIB: u32 = 512;

/// Makes the whole mesh refuse plaintext.
const STRICT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
";

/// What a world is made from.
#[derive(Debug)]
pub(super) struct Place<'a> {
    /// Its own folder, open to the sidecars' user.
    pub(super) folder: PathBuf,
    /// Ignite.
    pub(super) installation: &'a Installation,
    /// The identities of nodes and clients, where Ignite itself encrypts.
    pub(super) stores: &'a [KeyStores; 2],
    /// Envoy, where the sidecars' user reaches it.
    pub(super) envoy: Option<&'a Path>,
    /// This program, where the sidecars' user reaches it, for the relays.
    pub(super) relay: Option<&'a Path>,
    /// What the run was told.
    pub(super) options: &'a Options,
}

/// A candidate at work: the ring is whole, the client connected.
#[derive(Debug)]
pub(super) struct World {
    /// The client.
    pub(super) client: ThinLoad,
    /// The ring. Fields are dropped in this order: nodes end before their sidecars.
    pub(super) ring: Ring,
    /// What runs in the pods, for its CPU time.
    pub(super) processes: Processes,
    _mesh: Option<Mesh>,
    /// The pods.
    pub(super) network: Network,
}

/// What carries the bytes; dropped whole.
#[derive(Debug)]
enum Mesh {
    Others { _proxies: Vec<Child> },
    Ringmail { _sidecars: Vec<Sidecar>, _ca: Ca },
}

impl World {
    /// Makes it, and sees on the bridge that it encrypts, or that it does not where it should not.
    pub(super) fn new(candidate: Wrapping, place: &Place<'_>) -> Result<Self> {
        let network = Network::create(&["n1", "n2", "n3", CLIENT, CA])?;
        let mesh = match candidate {
            Wrapping::Plain | Wrapping::IgniteTls => None,
            Wrapping::RelayCopy => Some(Mesh::relays(&network, place)?),
            Wrapping::Ringmail => Some(Mesh::ringmail(&network, place)?),
            Wrapping::Envoy => Some(Mesh::envoy(&network, place)?),
        };
        let capture = Capture::start(&network)?;
        let tls = match candidate {
            Wrapping::IgniteTls => Some(place.stores),
            Wrapping::Plain | Wrapping::RelayCopy | Wrapping::Ringmail | Wrapping::Envoy => None,
        };
        let ring = form(&network, place, tls.map(|[node, _]| node.clone()))?;
        let client = connect(&network, place, tls.map(|[_, client]| client))?;
        check_wire(candidate, capture)?;
        let processes = Processes::find(&network, &PODS)?;
        ensure!(
            candidate.has_sidecars() == (processes.sidecars() >= PODS.len()),
            "{} sidecar processes in the pods of {}",
            processes.sidecars(),
            candidate.as_str()
        );
        Ok(Self { client, ring, processes, _mesh: mesh, network })
    }
}

impl Mesh {
    fn envoy(network: &Network, place: &Place<'_>) -> Result<Self> {
        let program = place.envoy.context("no --envoy was given")?;
        Ok(Self::Others { _proxies: envoy::start(network, program, place)? })
    }

    fn relays(network: &Network, place: &Place<'_>) -> Result<Self> {
        let program = place.relay.context("this program was not copied for relays")?;
        Ok(Self::Others { _proxies: relay::start(network, program, place)? })
    }

    fn ringmail(network: &Network, place: &Place<'_>) -> Result<Self> {
        let files = MeshFiles::create(&place.folder.join("mesh"), Some(&place.options.binaries))?;
        files.write_policy("strict", STRICT)?;
        let ca = Ca::start(network, CA, &files, &CaSettings::default(), &place.folder)?;
        let settings = SidecarSettings::new(SERVICE_ACCOUNT)
            .with("access_log", "'off'")
            .with("workers", &WORKERS.to_string());
        let sidecars = start_sidecars(network, &PODS, (&files, &ca), &settings, &place.folder)?;
        Ok(Self::Ringmail { _sidecars: sidecars, _ca: ca })
    }
}

fn form(network: &Network, place: &Place<'_>, tls: Option<KeyStores>) -> Result<Ring> {
    let pods: Vec<&Pod> = RING.iter().map(|name| network.pod(name)).collect::<Result<_>>()?;
    let moved_mib = place.options.rebalance_mb.saturating_mul(2);
    let settings = NodeSettings {
        jvm_flags: JVM_FLAGS.map(str::to_owned).to_vec(),
        region_mib: Some(REGION_MIB + moved_mib),
        tls,
        ..NodeSettings::new(pods.iter().copied())
    };
    // One after another: n1 is the coordinator of every ring, n3 the last.
    Ring::form_with(place.installation, &pods, Formation::OneAfterAnother, settings, &place.folder)
}

fn connect(network: &Network, place: &Place<'_>, tls: Option<&KeyStores>) -> Result<ThinLoad> {
    let flags = JVM_FLAGS.map(str::to_owned);
    let client = ThinLoad::start_with(place.installation, network.pod(CLIENT)?, &flags, &place.folder)?;
    let addresses: Vec<SocketAddr> = RING
        .iter()
        .map(|name| Ok(SocketAddr::new(network.pod(name)?.ip(), THIN_PORT)))
        .collect::<Result<_>>()?;
    client.connect_over(&addresses, true, tls)?;
    client.create_cache("wire", 1, Atomicity::Atomic)?;
    client.fill("wire", 100, 100)?;
    Ok(client)
}

/// What passed between the pods must be TLS 1.3 alone, or Ignite's own bytes.
fn check_wire(candidate: Wrapping, capture: Capture) -> Result<()> {
    let mut conversations = capture.finish()?.conversations();
    conversations.retain(|each| each.server.port() != CA_PORT);
    let plaintext = find_ignite_bytes(&conversations).len();
    let verdict = judge(&conversations);
    if candidate.encrypts() {
        ensure!(
            verdict.is_tls13_only() && plaintext == 0,
            "{} does not encrypt: {plaintext} marks of Ignite on the bridge, first offender {:?}",
            candidate.as_str(),
            verdict.offenders.first()
        );
    } else {
        ensure!(plaintext > 0, "{} shows none of Ignite's bytes on the bridge", candidate.as_str());
    }
    Ok(())
}
