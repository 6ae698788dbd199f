//! A ring behind relays without TLS, two in each pod, where a sidecar's two halves would be: what is left of a plain ring's
//! rates there is left by no proxy, however little it does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringmail_lab::network::Network;
use ringmail_lab::process::{Child, Launch, wait_until};
use ringmail_lab::sidecar::{INBOUND_PORT, OUTBOUND_PORT, PROXY_UID, install_rules};

use super::copy_program;
use super::world::{PODS, Place};

/// It binds before it does anything else.
const READY_DEADLINE: Duration = Duration::from_secs(10);

/// Bytes of a segment of an Ethernet. With the loopback's, which are longer than the windows of Ignite's sockets, a connection to
/// a node can come to a crawl for the rest of its life.
const SEGMENT: &str = "1460";

/// Ports that the kernel gives to no dial. While a node is not there yet, its peers dial it a hundred times a second, and the relay
/// as often in its pod: some dial would be given the node's own port, and the node could not start.
const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";
const PORTS_OF_IGNITE: &str = "10800,47100,47500";

/// Copies this program to where the sidecars' user reaches it.
pub(super) fn copied_to(folder: &Path) -> Result<PathBuf> {
    copy_program(&std::env::current_exe().context("find the running program")?, &folder.join("relay"))
}

/// Captures every pod and starts both relays in each. `program` is one that every user reaches.
pub(super) fn start(network: &Network, program: &Path, place: &Place<'_>) -> Result<Vec<Child>> {
    let init = place.options.binaries.join("ringmail-init");
    let mut relays = Vec::with_capacity(2 * PODS.len());
    for name in PODS {
        let pod = network.pod(name)?;
        install_rules(pod, &init, &[])?;
        pod.namespace().enter(|| fs::write(RESERVED, PORTS_OF_IGNITE))?.context("reserve Ignite's ports")?;
        for port in [OUTBOUND_PORT, INBOUND_PORT] {
            let mut command = Command::new(program);
            command.args(["relay", "--by", "copy", "--segment", SEGMENT, "--port", &port.to_string()]);
            let name = format!("relay-{name}-{port}");
            let log = place.folder.join(format!("{name}.log"));
            let mut relay = pod.spawn(&mut command, &Launch::new(&name, log).user(PROXY_UID))?;
            wait_until(READY_DEADLINE, &format!("{name} listens"), || {
                ensure!(relay.try_wait()?.is_none(), "it ended: {}", relay.log_tail());
                let listening = pod.namespace().run("ss", &["-ltnH", &format!("sport = :{port}")])?;
                Ok((!listening.trim().is_empty()).then_some(()))
            })?;
            relays.push(relay);
        }
    }
    Ok(relays)
}
