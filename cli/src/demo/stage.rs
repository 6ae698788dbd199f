//! What both rings stand on, and what is done to both: pods, a look at the wire, the death of a node.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ringmail_lab::ignite::{
    Atomicity, BINARY_REST_PORT, Formation, HTTP_REST_PORT, IgniteVersion, Installation, Ring, THIN_PORT,
    ThinLoad, now_ms,
};
use ringmail_lab::network::{Network, Pod};
use ringmail_lab::pcap::{Capture, Conversation};
use ringmail_lab::wire;

use super::progress::Progress;

/// The pods of the nodes.
pub(super) const NODES: [&str; 3] = ["n1", "n2", "n3"];
/// The pod of the thin client.
pub(super) const CLIENT: &str = "client";
/// The pod of the CA.
pub(super) const CA: &str = "ca";

/// The node that is killed: neither the first nor the last of the ring.
pub(super) const VICTIM: &str = "n2";

/// The cache, with one backup of each key: what makes the loss of one node no loss of keys.
pub(super) const CACHE: &str = "keys";

/// Bytes of a value: an ordinary small row.
pub(super) const VALUE_BYTES: u32 = 100;

/// The survivors of a killed JVM learn of it at once, and a ring that needs its failure detection takes ten seconds.
const FAILED_DEADLINE: Duration = Duration::from_secs(30);

/// The pods and the Ignite they run.
pub(super) struct Stage {
    pub(super) installation: Installation,
    pub(super) network: Network,
    pub(super) folder: PathBuf,
}

/// What the death of a node did.
#[derive(Clone, Copy, Debug)]
pub(super) struct Healing {
    /// Until the last survivor reported the failure.
    pub(super) reported: Duration,
    /// Until all survivors agreed on a ring without it.
    pub(super) whole: Duration,
}

impl Stage {
    /// Fetches Ignite and makes the namespaces.
    pub(super) fn prepare(version: IgniteVersion, folder: &Path, progress: &mut Progress) -> Result<Self> {
        let installation = progress.step("Apache Ignite from Maven Central", || {
            Ok((Installation::prepare(version)?, format!("{version} is in the cache")))
        })?;
        let network = progress.step("three namespaces, one for each node", || {
            let network = Network::create(&[&NODES[..], &[CLIENT, CA]].concat())?;
            let pods = network.pods().iter().map(|pod| format!("{} {}", pod.name(), pod.ip()));
            let text = pods.collect::<Vec<_>>().join(", ");
            Ok((network, format!("on one bridge: {text}")))
        })?;
        Ok(Self { installation, network, folder: folder.to_owned() })
    }

    /// The pods of the nodes.
    pub(super) fn nodes(&self) -> Result<Vec<&Pod>> {
        NODES.iter().map(|name| self.network.pod(name)).collect()
    }

    /// Three nodes started at once.
    pub(super) fn form(&self) -> Result<Ring> {
        Ring::form(&self.installation, &self.nodes()?, Formation::AtOnce, &self.folder)
    }

    /// A thin client that is connected to all nodes, with the cache made and so many keys in it.
    pub(super) fn fill(&self, keys: u64) -> Result<ThinLoad> {
        let load = ThinLoad::start(&self.installation, self.network.pod(CLIENT)?, &self.folder)?;
        let addresses =
            self.nodes()?.iter().map(|pod| SocketAddr::new(pod.ip(), THIN_PORT)).collect::<Vec<_>>();
        load.connect(&addresses, true)?;
        load.create_cache(CACHE, 1, Atomicity::Atomic)?;
        load.fill(CACHE, keys, VALUE_BYTES)?;
        Ok(load)
    }

    /// Asks the two REST ports of the first node from the client's pod; the connections stay open as long as they are held.
    pub(super) fn ask_rest(&self) -> Result<Vec<TcpStream>> {
        let node = self.network.pod(NODES[0])?.ip();
        let http = format!("GET /ignite?cmd=version HTTP/1.1\r\nHost: {node}\r\n\r\n");
        Ok(vec![
            self.ask((node, HTTP_REST_PORT), http.as_bytes()).context("REST over HTTP")?,
            self.ask((node, BINARY_REST_PORT), &wire::BINARY_REST_PING)
                .context("the binary REST protocol")?,
        ])
    }

    fn ask(&self, address: (IpAddr, u16), request: &[u8]) -> Result<TcpStream> {
        let mut stream = wire::connect(self.network.pod(CLIENT)?.namespace(), address.into())?;
        stream.write_all(request)?;
        let read = stream.read(&mut [0; 4096])?;
        ensure!(read > 0, "{}:{} ended the connection without an answer", address.0, address.1);
        Ok(stream)
    }

    /// Captures on the bridge while `work` is done.
    pub(super) fn captured<T>(
        &self,
        name: &str,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<(T, Vec<Conversation>)> {
        let capture = Capture::start(&self.network)?;
        let done = work()?;
        let captured = capture.finish()?;
        captured.write_pcap(&self.folder.join(format!("{name}.pcap")))?;
        Ok((done, captured.conversations()))
    }

    /// Removes the namespaces, and looks that none is left.
    pub(super) fn clear(self, progress: &mut Progress) -> Result<()> {
        progress.step("take everything down", || {
            let paths: Vec<_> = self.network.pods().iter().map(|pod| pod.namespace().path()).collect();
            drop(self);
            let left: Vec<_> = paths.iter().filter(|path| path.exists()).collect();
            ensure!(left.is_empty(), "namespaces are left: {left:?}");
            Ok(((), "no namespace and no process is left".to_owned()))
        })
    }
}

/// Kills the victim's JVM and waits until the survivors are one ring.
pub(super) fn kill_one(ring: &mut Ring) -> Result<Healing> {
    let killed_ms = now_ms();
    let begin = Instant::now();
    ring.node_mut(VICTIM)?.kill9()?;
    let mut reported = Duration::ZERO;
    for name in NODES.into_iter().filter(|name| *name != VICTIM) {
        let event = ring.node(name)?.wait_failed(VICTIM, FAILED_DEADLINE)?;
        reported = reported.max(Duration::from_millis(event.at_ms.saturating_sub(killed_ms)));
    }
    ring.wait_whole(NODES.len() - 1)?;
    let whole = begin.elapsed();
    for name in NODES.into_iter().filter(|name| *name != VICTIM) {
        ensure!(!ring.node(name)?.is_segmented(), "{name} found itself outside the ring");
    }
    Ok(Healing { reported, whole })
}

/// `10800, 47100` of these connections that carried something, for the eye.
pub(super) fn ports(conversations: impl IntoIterator<Item = u16>) -> String {
    let ports: BTreeSet<u16> = conversations.into_iter().collect();
    ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
}
