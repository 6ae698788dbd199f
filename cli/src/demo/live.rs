//! Who talks to whom, how it is protected, and as whom: asked of the proxies while the ring works.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IsTerminal};
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringmail_lab::ignite::{COMMUNICATION_PORT, DISCOVERY_PORT, PORTS};
use ringmail_lab::mesh::WORKLOAD_NAMESPACE;
use ringmail_lab::network::Network;
use ringmail_lab::sidecar::Sidecar;

use super::stage::NODES;
use crate::connections::{self, Connection};
use crate::table::{Align, Cell, Table, Tone};
use crate::{output, units};

/// How often the table is drawn anew on a terminal, and how many times: long enough to see the bytes grow.
const LOOKS: u32 = 8;
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The connections of one pod with one port of another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Row {
    connections: usize,
    unprotected: usize,
    peers: BTreeSet<String>,
    bytes: u64,
}

/// From, to, port.
type Key = (String, String, u16);

/// All of them, by the proxies of the servers.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Links(BTreeMap<Key, Row>);

impl Links {
    /// Asks every sidecar for the connections that came in.
    pub(super) fn ask(network: &Network, sidecars: &[Sidecar]) -> Result<Self> {
        let names: BTreeMap<IpAddr, &str> = network.pods().iter().map(|pod| (pod.ip(), pod.name())).collect();
        let mut links = Self::default();
        for sidecar in sidecars {
            let answer = sidecar.admin(network.pod(sidecar.pod())?, connections::PATH)?;
            ensure!(answer.status == 200, "the proxy of {} answers {}", sidecar.pod(), answer.status);
            let answer = serde_json::from_str(&answer.body).context("the connections of a proxy")?;
            for connection in connections::parse(answer)? {
                links.add(sidecar.pod(), &connection, &names)?;
            }
        }
        Ok(links)
    }

    fn add(&mut self, to: &str, connection: &Connection, names: &BTreeMap<IpAddr, &str>) -> Result<()> {
        let Some(destination) = connection.destination.as_ref().filter(|_| connection.is_decided()) else {
            return Ok(());
        };
        if connection.direction != "inbound" {
            return Ok(());
        }
        let source: SocketAddr = connection.source.parse().context("a source address")?;
        let destination: SocketAddr = destination.parse().context("a destination address")?;
        let from = names.get(&source.ip()).map_or_else(|| source.ip().to_string(), |name| (*name).to_owned());
        let row = self.0.entry((from, to.to_owned(), destination.port())).or_default();
        row.connections += 1;
        row.unprotected += usize::from(!connection.is_mutual_tls());
        row.peers.extend(connection.peer_identity.clone());
        row.bytes += connection.bytes_sent + connection.bytes_received;
        Ok(())
    }

    /// Draws the table, on a terminal several times in its place; returns what was seen last.
    pub(super) fn show(network: &Network, sidecars: &[Sidecar]) -> Result<Self> {
        let mut links = Self::ask(network, sidecars)?;
        let mut drawn = links.render(output::colour());
        output::print(&format!("\n{drawn}"))?;
        if io::stdout().is_terminal() {
            for _ in 1..LOOKS {
                thread::sleep(LOOK_EVERY);
                links = Self::ask(network, sidecars)?;
                let next = links.render(true);
                // Up by what was drawn, and clear from there: the table may have become shorter.
                output::print(&format!("\x1b[{}A\x1b[J{next}", drawn.lines().count()))?;
                drawn = next;
            }
        }
        Ok(links)
    }

    fn render(&self, colour: bool) -> String {
        let mut table = Table::new(&[
            ("FROM", Align::Left),
            ("TO", Align::Left),
            ("PORT", Align::Right),
            ("MTLS", Align::Left),
            ("CONNECTIONS", Align::Right),
            ("BYTES", Align::Right),
            ("PEER'S SPIFFE ID", Align::Left),
        ]);
        for ((from, to, port), row) in &self.0 {
            let protected = row.unprotected == 0;
            let peers: Vec<_> = row.peers.iter().cloned().collect();
            table.row([
                from.as_str().into(),
                to.as_str().into(),
                port.to_string().into(),
                if protected { Cell::new("yes", Tone::Good) } else { Cell::new("no", Tone::Bad) },
                row.connections.to_string().into(),
                units::bytes(row.bytes).into(),
                peers.join(", ").into(),
            ]);
        }
        table.render(colour)
    }

    /// Checks that every connection is mutual TLS under the identity of the pod it comes from, that all nodes are linked, and
    /// that all five ports are in use. Returns the number of connections.
    pub(super) fn check(&self) -> Result<usize> {
        for ((from, to, port), row) in &self.0 {
            let expected =
                BTreeSet::from([format!("spiffe://cluster.local/ns/{WORKLOAD_NAMESPACE}/sa/{from}")]);
            ensure!(
                row.unprotected == 0,
                "{from} to {to}:{port}: {} connections without mutual TLS",
                row.unprotected
            );
            ensure!(
                row.peers == expected,
                "{from} to {to}:{port}: came as {:?}, expected {expected:?}",
                row.peers
            );
        }
        for (place, one) in NODES.iter().enumerate() {
            for other in &NODES[place + 1..] {
                ensure!(self.linked(one, other), "{one} and {other} do not talk to each other");
            }
        }
        for port in PORTS {
            ensure!(self.0.keys().any(|key| key.2 == port), "nobody uses port {port}");
        }
        Ok(self.0.values().map(|row| row.connections).sum())
    }

    fn linked(&self, one: &str, other: &str) -> bool {
        self.0.keys().any(|(from, to, port)| {
            let pair = (from == one && to == other) || (from == other && to == one);
            pair && [COMMUNICATION_PORT, DISCOVERY_PORT].contains(port)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> BTreeMap<IpAddr, &'static str> {
        let pods = ["n1", "n2", "n3", "client"];
        (1..).zip(pods).map(|(number, name)| (IpAddr::from([10, 77, 0, number]), name)).collect()
    }

    fn connection(from: u8, port: u16, account: &str) -> Connection {
        Connection {
            direction: "inbound".into(),
            source: format!("10.77.0.{from}:33000"),
            destination: Some(format!("10.77.0.9:{port}")),
            protection: "mutual_tls".into(),
            peer_identity: Some(format!("spiffe://cluster.local/ns/ignite/sa/{account}")),
            decided_by: None,
            age_ms: 1,
            bytes_sent: 100,
            bytes_received: 28,
        }
    }

    /// All pairs and all ports.
    fn whole() -> Links {
        let mut links = Links::default();
        for (to, from, port, account) in [
            ("n1", 2, 47500, "n2"),
            ("n1", 3, 47100, "n3"),
            ("n3", 2, 47100, "n2"),
            ("n1", 4, 10800, "client"),
            ("n1", 4, 11211, "client"),
            ("n1", 4, 8080, "client"),
        ] {
            links.add(to, &connection(from, port, account), &names()).unwrap();
        }
        links
    }

    fn with(to: &str, connection: &Connection) -> String {
        let mut links = whole();
        links.add(to, connection, &names()).unwrap();
        links.check().unwrap_err().to_string()
    }

    #[test]
    fn a_whole_protected_ring_passes_and_is_one_row_per_pair_and_port() {
        let mut links = whole();
        links.add("n1", &connection(4, 10800, "client"), &names()).unwrap();
        assert_eq!(links.check().unwrap(), 7);
        let text = links.render(false);
        assert_eq!(text.lines().count(), 7, "{text}");
        let row = text.lines().find(|line| line.contains("10800")).unwrap();
        assert_eq!(
            row,
            "client  n1  10800  yes             2  256 B  spiffe://cluster.local/ns/ignite/sa/client"
        );
    }

    #[test]
    fn plaintext_a_wrong_identity_a_missing_link_and_a_missing_port_do_not_pass() {
        let plain = Connection {
            protection: "plaintext_permissive".into(),
            peer_identity: None,
            ..connection(2, 47500, "n2")
        };
        assert_eq!(with("n1", &plain), "n2 to n1:47500: 1 connections without mutual TLS");
        assert!(with("n1", &connection(2, 47500, "n3")).contains("came as"));
        let stranger = Connection { source: "10.77.0.99:1".into(), ..connection(2, 47500, "n2") };
        assert!(with("n1", &stranger).starts_with("10.77.0.99 to n1:47500: came as"));
        let without = |port: u16, to: &str| {
            let mut links = whole();
            links.0.retain(|key, _| !(key.2 == port && key.1 == to));
            links.check().unwrap_err().to_string()
        };
        assert_eq!(without(47100, "n3"), "n2 and n3 do not talk to each other");
        assert_eq!(without(8080, "n1"), "nobody uses port 8080");
    }

    #[test]
    fn what_goes_out_and_what_is_undecided_is_not_counted() {
        let mut links = Links::default();
        let outbound = Connection { direction: "outbound".into(), ..connection(2, 47500, "n2") };
        let undecided = Connection { protection: "undecided".into(), ..connection(2, 47500, "n2") };
        for each in [outbound, undecided] {
            links.add("n1", &each, &names()).unwrap();
        }
        assert_eq!(links, Links::default());
    }
}
