//! What a cluster looks like before any of it runs: its addresses, its folders, the programs it is made of.
//!
//! Everything follows from the cluster's number and its shape, so that another process that knows those two can stop a part of
//! it and start it again.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::binaries::Binaries;
use super::slot::Slot;

/// More nodes than this have never been needed, and each costs some 150 MB.
const MOST_NODES: usize = 2;

/// Where the API server answers, on the first node's address.
const API_PORT: u16 = 6443;

/// The Services' ranges; the tenth address is DNS's.
pub(super) const SERVICES_V4: &str = "10.96.0.0/16";
pub(super) const SERVICES_V6: &str = "fd00:10:96::/112";
pub(super) const API_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
pub(super) const DNS_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

/// The ranges that all pods are in, whichever node they are on.
pub(super) const PODS_V4: &str = "10.244.0.0/16";
pub(super) const PODS_V6: &str = "fd00:10:244::/48";

pub(super) const CLUSTER_DOMAIN: &str = "cluster.local";

const SHAPE: &str = "shape";

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// How many nodes, one or two. The control plane runs beside the first.
    pub nodes: usize,
    /// Whether pods and Services have IPv6 addresses too.
    pub dual_stack: bool,
}

impl Shape {
    /// This many nodes, with both families.
    pub fn nodes(nodes: usize) -> Self {
        Self { nodes, dual_stack: true }
    }

    /// Whether there can be such a cluster.
    pub(super) fn check(&self) -> Result<()> {
        ensure!((1..=MOST_NODES).contains(&self.nodes), "{} nodes: expected 1 to {MOST_NODES}", self.nodes);
        Ok(())
    }
}

/// A cluster that can be started, or was.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) slot: Slot,
    pub(super) shape: Shape,
    pub(super) binaries: Binaries,
}

impl Plan {
    /// Plans a cluster.
    pub(super) fn new(slot: Slot, shape: Shape, binaries: Binaries) -> Self {
        Self { slot, shape, binaries }
    }

    /// Makes its folders, and remembers its shape there.
    pub(super) fn prepare(&self) -> Result<()> {
        self.write(SHAPE, &format!("{} {}", self.shape.nodes, self.shape.dual_stack))?;
        ["pki", "run", "logs"].iter().try_for_each(|folder| self.make_folder(folder))
    }

    /// The plan of a cluster that runs.
    pub(super) fn of_running(slot: Slot, binaries: Binaries) -> Result<Self> {
        let file = slot.folder().join(SHAPE);
        let text = fs::read_to_string(&file)
            .with_context(|| format!("no cluster is kept: cannot read {}", file.display()))?;
        let shape = text.split_once(' ').and_then(|(nodes, dual)| {
            Some(Shape { nodes: nodes.parse().ok()?, dual_stack: dual.parse().ok()? })
        });
        let shape =
            shape.with_context(|| format!("{}: {text:?} is no shape of a cluster", file.display()))?;
        Ok(Self { slot, shape, binaries })
    }

    /// The nodes' numbers.
    pub(super) fn nodes(&self) -> std::ops::RangeInclusive<usize> {
        1..=self.shape.nodes
    }

    /// A path in the cluster's folder.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.slot.folder().join(name)
    }

    /// The same as text, for arguments and configuration files.
    pub(super) fn text(&self, name: &str) -> String {
        self.file(name).display().to_string()
    }

    /// Makes a folder in the cluster's folder.
    pub(super) fn make_folder(&self, name: &str) -> Result<()> {
        let folder = self.file(name);
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))
    }

    /// Writes a file in the cluster's folder.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<()> {
        let file = self.file(name);
        fs::write(&file, text).with_context(|| format!("write {}", file.display()))
    }

    /// The administrator's way in.
    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.file("kubeconfig")
    }

    /// The address of the API server, reached from the nodes and from the machine itself.
    pub(super) fn api(&self) -> String {
        format!("https://{}:{API_PORT}", self.node_v4(1))
    }

    /// A node's IPv4 address.
    pub(super) fn node_v4(&self, node: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 200, self.slot.number(), low_byte(node))
    }

    /// A node's IPv6 address.
    pub(super) fn node_v6(&self, node: usize) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0x10, 0x200, u16::from(self.slot.number()), 0, 0, 0, u16::from(low_byte(node)))
    }

    /// A node's addresses as the kubelet takes them.
    pub(super) fn node_addresses(&self, node: usize) -> String {
        self.joined(&self.node_v4(node).to_string(), &self.node_v6(node).to_string())
    }

    /// The IPv4 range of the pods on a node.
    pub(super) fn pods_v4(&self, node: usize) -> String {
        format!("10.244.{}.0/24", node - 1)
    }

    /// The IPv6 range of the pods on a node.
    pub(super) fn pods_v6(&self, node: usize) -> String {
        format!("{}/64", Ipv6Addr::new(0xfd00, 0x10, 0x244, u16::from(low_byte(node) - 1), 0, 0, 0, 0))
    }

    /// The Services' ranges as the API server takes them.
    pub(super) fn service_ranges(&self) -> String {
        self.joined(SERVICES_V4, SERVICES_V6)
    }

    /// The pods' ranges as kube-proxy takes them.
    pub(super) fn pod_ranges(&self) -> String {
        self.joined(PODS_V4, PODS_V6)
    }

    fn joined(&self, v4: &str, v6: &str) -> String {
        if self.shape.dual_stack { format!("{v4},{v6}") } else { v4.to_owned() }
    }
}

/// The name that a node has in Kubernetes.
pub(super) fn node_name(node: usize) -> String {
    format!("node{node}")
}

fn low_byte(node: usize) -> u8 {
    node.to_le_bytes()[0]
}
