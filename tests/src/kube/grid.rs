//! An Apache Ignite cluster from `manifests/ignite2`, as its user applies it.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};

use super::{place::Place, stage::VERSION};

/// A node starts in ten seconds where the machine does nothing else; others of the run start beside it.
const NODE_WITHIN: Duration = Duration::from_secs(120);

/// What a node says once it has fetched its part of every cache.
const FETCHED: &str = "Completed rebalance chain";

/// What differs from the manifests.
#[derive(Clone, Copy, Debug)]
pub struct GridSettings {
    /// How many nodes.
    pub nodes: usize,
    /// Whether pods run under the namespace's `default` service account.
    pub default_account: bool,
}

impl GridSettings {
    /// So many nodes and nothing else.
    pub fn of(nodes: usize) -> Self {
        Self { nodes, default_account: false }
    }
}

/// A StatefulSet `ignite` with its Services.
pub struct Grid<'a> {
    place: &'a Place<'a>,
}

/// A ring as one node sees it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct View {
    /// The topology's version: each node that comes or goes adds one.
    pub version: u64,
    /// How many servers are in it.
    pub servers: usize,
}

impl<'a> Grid<'a> {
    /// Applies the manifests to the namespace and waits until the ring has all its nodes.
    pub fn start(place: &'a Place<'a>, settings: GridSettings) -> Result<Self> {
        let folder = write_overlay(place.name(), settings)?;
        place.stage().kubectl(&["apply", "-k", &folder])?;
        let grid = Self { place };
        grid.wait_whole(settings.nodes)?;
        Ok(grid)
    }

    /// `kubectl scale`, and waits until the ring has so many nodes.
    pub fn scale(&self, nodes: usize) -> Result<()> {
        self.place.kubectl(&["scale", "statefulset/ignite", &format!("--replicas={nodes}")])?;
        self.wait_whole(nodes)
    }

    /// `kubectl rollout restart`, and waits until every pod is new and the ring is whole.
    pub fn roll(&self, nodes: usize) -> Result<()> {
        self.place.kubectl(&["rollout", "restart", "statefulset/ignite"])?;
        let limit = format!("--timeout={}s", NODE_WITHIN.as_secs() * nodes as u64);
        self.place.kubectl(&["rollout", "status", &limit, "statefulset/ignite"])?;
        self.wait_whole(nodes)
    }

    /// Deletes a pod and waits until its successor is in the ring and holds its part of the keys: a node that is told to stop while
    /// another one has joined and not begun to fetch finds nobody to wait for, with or without a mesh.
    pub fn replace(&self, node: usize, nodes: usize) -> Result<()> {
        let pod = format!("pod/ignite-{node}");
        let before = self.place.field(&pod, "{.metadata.uid}")?;
        self.place.kubectl(&["delete", &pod])?;
        self.place.until(NODE_WITHIN, &format!("{pod} is another one"), || {
            let now = self.place.field(&pod, "{.metadata.uid}").unwrap_or_default();
            Ok((!now.is_empty() && now != before).then_some(()))
        })?;
        self.wait_whole(nodes)?;
        let fetched = format!("ignite-{node} has fetched its keys");
        self.place.until(NODE_WITHIN, &fetched, || {
            Ok(self.log(&format!("ignite-{node}"))?.contains(FETCHED).then_some(()))
        })
    }

    /// Waits until every pod is ready and every node sees all of them.
    pub fn wait_whole(&self, nodes: usize) -> Result<()> {
        let limit = NODE_WITHIN * u32::try_from(nodes)?;
        let what = format!("a ring of {nodes} in {}", self.place.name());
        self.place.until(limit, &what, || {
            let ready = "{.status.readyReplicas}/{.status.updatedReplicas}";
            let ready = self.place.field("statefulset/ignite", ready)?;
            if ready != format!("{nodes}/{nodes}") {
                return Ok(None);
            }
            let views = self.views()?;
            Ok((views.len() == nodes && views.iter().all(|view| *view == views[0] && view.servers == nodes))
                .then_some(()))
        })
    }

    /// The ring's view, which must be the same at every node and hold all `nodes`.
    pub fn assert_whole(&self, nodes: usize) -> Result<View> {
        let views = self.views()?;
        ensure!(
            views.len() == nodes && views.iter().all(|view| *view == views[0] && view.servers == nodes),
            "expected one ring of {nodes}, each node sees {views:?}"
        );
        Ok(views[0])
    }

    /// What each node that runs sees.
    pub fn views(&self) -> Result<Vec<View>> {
        self.pods()?.iter().filter_map(|pod| self.view(pod).transpose()).collect()
    }

    /// The grid's pods.
    pub fn pods(&self) -> Result<Vec<String>> {
        let selector = "app.kubernetes.io/name=ignite";
        let names = "jsonpath={.items[*].metadata.name}";
        let names = self.place.kubectl(&["get", "pods", "-l", selector, "-o", names])?;
        Ok(names.split_whitespace().map(str::to_owned).collect())
    }

    /// How often the nodes that live now have seen others leave, and fail.
    pub fn departures(&self) -> Result<(usize, usize)> {
        let (mut left, mut failed) = (0, 0);
        for pod in self.pods()? {
            let log = self.log(&pod)?;
            left += log.matches("Node left topology").count();
            failed += log.matches("Node FAILED").count();
        }
        Ok((left, failed))
    }

    /// The addresses that a thin client is given: every node by its name.
    pub fn addresses(&self, nodes: usize) -> String {
        let name = |node| format!("ignite-{node}.ignite-headless.{}.svc:10800", self.place.name());
        (0..nodes).map(name).collect::<Vec<_>>().join(",")
    }

    fn view(&self, pod: &str) -> Result<Option<View>> {
        let log = self.log(pod)?;
        let Some(line) = log.lines().rfind(|line| line.contains("Topology snapshot")) else {
            return Ok(None);
        };
        let number = |name: &str| {
            let after = line.split(name).nth(1).with_context(|| format!("{pod}: no {name} in {line}"))?;
            let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<u64>().with_context(|| format!("{pod}: no number after {name} in {line}"))
        };
        Ok(Some(View { version: number("ver=")?, servers: usize::try_from(number("servers=")?)? }))
    }

    /// A pod that has not started yet, or is on its way out, has said nothing.
    fn log(&self, pod: &str) -> Result<String> {
        Ok(self.place.kubectl(&["logs", pod, "-c", "ignite"]).unwrap_or_default())
    }
}

/// Writes a kustomization of the user's own on top of the manifests.
fn write_overlay(namespace: &str, settings: GridSettings) -> Result<String> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder = repository.join("target/kube-e2e").join(namespace);
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let file = folder.join("kustomization.yaml");
    let nodes = settings.nodes;
    let mut text = format!(
        "apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: {namespace}
resources: [../../../manifests/ignite2/base]
images: [{{name: apacheignite/ignite, newName: docker.io/ringmail/ignite-test, newTag: {VERSION}}}]
replicas: [{{name: ignite, count: {nodes}}}]
patches:
- target: {{kind: StatefulSet, name: ignite}}
  patch: |-
    # Several grids share two cores.
    - {{op: replace, path: /spec/template/spec/containers/0/resources/requests, value: {{cpu: 20m, memory: 512Mi}}}}
"
    );
    if settings.default_account {
        text.push_str(
            "    - {op: remove, path: /spec/template/spec/serviceAccountName}
- target: {kind: RoleBinding, name: ignite}
  patch: |-
    - {op: replace, path: /subjects/0/name, value: default}
",
        );
    }
    fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
    Ok(folder.display().to_string())
}
