//! Several nodes that should be one ring, and the question whether they are: asked of each of them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::fetch::Installation;
use super::node::{IgniteNode, NodeSettings, View};
use crate::network::Pod;
use crate::process::wait_until;

/// Nodes that have all started agree within a few ring messages.
const AGREEMENT_DEADLINE: Duration = Duration::from_secs(60);

/// In which order the nodes of a ring start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Formation {
    /// All JVMs are started before any is waited for.
    AtOnce,
    /// Each has joined before the next starts.
    OneAfterAnother,
}

/// A ring of nodes on pods. Dropping it kills them.
#[derive(Debug)]
pub struct Ring {
    installation: Installation,
    settings: NodeSettings,
    folder: PathBuf,
    nodes: Vec<IgniteNode>,
    formed_in: Duration,
}

/// The sets of the tests move within seconds; a ring that never gets there must be told from a slow one.
const REBALANCE_DEADLINE: Duration = Duration::from_secs(60);

impl Ring {
    /// Starts a node in each pod, all with the address list of all, and waits until the ring is whole. Logs go to `folder`.
    pub fn form(
        installation: &Installation,
        pods: &[&Pod],
        formation: Formation,
        folder: &Path,
    ) -> Result<Self> {
        let settings = NodeSettings::new(pods.iter().copied());
        Self::form_with(installation, pods, formation, settings, folder)
    }

    /// The same with settings of one's own.
    pub fn form_with(
        installation: &Installation,
        pods: &[&Pod],
        formation: Formation,
        settings: NodeSettings,
        folder: &Path,
    ) -> Result<Self> {
        let begin = Instant::now();
        let nodes = Vec::with_capacity(pods.len());
        let (installation, folder) = (installation.clone(), folder.to_owned());
        let mut ring = Self { installation, settings, folder, nodes, formed_in: Duration::ZERO };
        for pod in pods {
            ring.start_node(pod)?;
            if formation == Formation::OneAfterAnother {
                ring.wait_whole(ring.nodes.len())?;
            }
        }
        ring.wait_whole(pods.len())?;
        ring.formed_in = begin.elapsed();
        Ok(ring)
    }

    /// How long it took from the start of the first JVM until every node saw the whole ring.
    pub fn formed_in(&self) -> Duration {
        self.formed_in
    }

    /// Starts a node in this pod without waiting; one of the same name that has ended makes room for it.
    pub fn start_node(&mut self, pod: &Pod) -> Result<()> {
        if let Some(old) = self.nodes.iter().position(|node| node.name() == pod.name()) {
            ensure!(!self.nodes[old].is_running()?, "node {} still runs", pod.name());
            self.nodes.remove(old);
        }
        self.nodes.push(IgniteNode::start(&self.installation, pod, &self.settings, &self.folder)?);
        Ok(())
    }

    /// The node of this name.
    pub fn node(&self, name: &str) -> Result<&IgniteNode> {
        self.nodes.iter().find(|node| node.name() == name).with_context(|| format!("no node {name}"))
    }

    /// The node of this name, to end it.
    pub fn node_mut(&mut self, name: &str) -> Result<&mut IgniteNode> {
        self.nodes.iter_mut().find(|node| node.name() == name).with_context(|| format!("no node {name}"))
    }

    /// The nodes whose processes run.
    pub fn running(&mut self) -> Result<Vec<&IgniteNode>> {
        let mut running = Vec::new();
        for node in &mut self.nodes {
            if node.is_running()? {
                running.push(&*node);
            }
        }
        Ok(running)
    }

    /// Checks that so many nodes run and that each, asked for its own view, names the same servers (those that run), the same
    /// version and the same coordinator. Returns that one view; an error shows all of them.
    pub fn assert_whole(&mut self, servers: usize) -> Result<View> {
        let mut views = Vec::new();
        for node in self.running()? {
            views.push((node.name().to_owned(), node.view()?));
        }
        agreed(&views, servers)
    }

    /// Waits until every running node holds all its partitions: the next node may leave without taking the only copy of a key.
    pub fn wait_rebalanced(&mut self) -> Result<()> {
        wait_until(REBALANCE_DEADLINE, "every partition is where it belongs", || {
            for node in self.running()? {
                ensure!(node.is_rebalanced()?, "{} still waits for partitions", node.name());
            }
            Ok(Some(()))
        })
    }

    /// Waits for the same: nodes learn of a change one after another.
    pub fn wait_whole(&mut self, servers: usize) -> Result<View> {
        for node in &self.nodes {
            node.wait_started()?;
        }
        wait_until(AGREEMENT_DEADLINE, &format!("a ring of {servers}"), || {
            self.assert_whole(servers).map(Some)
        })
    }
}

fn agreed(views: &[(String, View)], servers: usize) -> Result<View> {
    let mut names: Vec<_> = views.iter().map(|(name, _)| name.clone()).collect();
    names.sort();
    let whole = views.len() == servers
        && views.iter().all(|(_, view)| *view == views[0].1 && view.servers == names)
        && names.contains(&views[0].1.coordinator);
    if !whole {
        let seen: Vec<_> = views.iter().map(|(name, view)| format!("{name} sees {view:?}")).collect();
        bail!("not one ring of {servers}: {}", seen.join("; "));
    }
    Ok(views[0].1.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(servers: &[&str], version: u64, coordinator: &str) -> View {
        let servers = servers.iter().map(|name| (*name).to_owned()).collect();
        View { servers, version, coordinator: coordinator.to_owned() }
    }

    fn of(views: &[(&str, View)]) -> Vec<(String, View)> {
        views.iter().map(|(name, view)| ((*name).to_owned(), view.clone())).collect()
    }

    #[test]
    fn a_ring_is_whole_when_every_node_says_the_same() {
        let whole = view(&["a", "b"], 2, "a");
        assert_eq!(agreed(&of(&[("a", whole.clone()), ("b", whole.clone())]), 2).unwrap(), whole);
    }

    #[test]
    fn a_ring_that_is_not_whole_shows_every_view() {
        let whole = view(&["a", "b"], 2, "a");
        for (case, views) in [
            ("split brain", of(&[("a", view(&["a"], 3, "a")), ("b", view(&["b"], 3, "b"))])),
            ("another version", of(&[("a", whole.clone()), ("b", view(&["a", "b"], 3, "a"))])),
            ("another coordinator", of(&[("a", whole.clone()), ("b", view(&["a", "b"], 2, "b"))])),
            ("too few nodes", of(&[("a", whole.clone())])),
            (
                "a server that does not run",
                of(&[("a", view(&["a", "c"], 2, "a")), ("b", view(&["a", "c"], 2, "a"))]),
            ),
            (
                "a coordinator that does not run",
                of(&[("a", view(&["a", "b"], 2, "c")), ("b", view(&["a", "b"], 2, "c"))]),
            ),
            ("nobody", Vec::new()),
        ] {
            let error = agreed(&views, 2).expect_err(case).to_string();
            assert!(error.contains("not one ring of 2"), "{case}: {error}");
        }
    }
}
