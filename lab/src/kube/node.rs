//! A node's processes and their configuration: containerd, kubelet, kube-proxy, and the network plugins that containerd calls.
//!
//! Everything that they would keep in the machine's own folders goes into the cluster's.

use anyhow::Result;

use super::binaries::CNI_PLUGINS;
use super::component::Blueprint;
use super::plan::{CLUSTER_DOMAIN, DNS_SERVICE, Plan, node_name};
use crate::cgroup::Cgroup;

/// A pod's sandbox is made of this image, which the pause archive holds.
const PAUSE_IMAGE: &str = "docker.io/local/pause:1";

/// As many as fit into a node's range, with some to spare for those that are ending.
const MOST_PODS: u16 = 220;

/// Where containerd listens.
pub(super) fn socket(plan: &Plan, node: usize) -> String {
    plan.text(&format!("node{node}/containerd.sock"))
}

/// The cgroup that a node's pods are in, below the cluster's.
fn pods_cgroup(plan: &Plan, node: usize) -> String {
    format!("{}/node{node}-pods", plan.slot.cgroup())
}

/// Writes a node's configuration, and says how its processes are started: containerd first.
pub(super) fn blueprints(plan: &Plan, node: usize) -> Result<[Blueprint; 3]> {
    let file = |name: &str| format!("node{node}/{name}");
    Cgroup::new(pods_cgroup(plan, node)).create()?; // the kubelet wants to find it
    plan.make_folder(&file("cni"))?;
    plan.write(&file("cni/10-pods.conflist"), &cni(plan, node))?;
    plan.write(&file("containerd.toml"), &containerd(plan, node))?;
    plan.write(&file("kubelet.yaml"), &kubelet(plan, node))?;
    // The machine's own would add its search domains, and name servers that no pod can reach.
    plan.write(&file("resolv.conf"), &format!("nameserver {}\n", plan.node_v4(1)))?;
    let name = |program: &str| format!("node{node}-{program}");
    let containerd = Blueprint {
        name: name("containerd"),
        node,
        program: "containerd".into(),
        args: vec!["--config".to_owned(), plan.text(&file("containerd.toml"))],
    };
    let kubelet = Blueprint {
        name: name("kubelet"),
        node,
        program: plan.binaries.path("kubelet"),
        args: vec![
            format!("--config={}", plan.text(&file("kubelet.yaml"))),
            format!("--kubeconfig={}", plan.text(&format!("pki/node{node}.conf"))),
            format!("--hostname-override={}", node_name(node)),
            format!("--node-ip={}", plan.node_addresses(node)),
            format!("--root-dir={}", plan.text(&file("kubelet"))),
        ],
    };
    let proxy = Blueprint {
        name: name("kube-proxy"),
        node,
        program: plan.binaries.path("kube-proxy"),
        args: vec![
            format!("--kubeconfig={}", plan.text("pki/kube-proxy.conf")),
            format!("--hostname-override={}", node_name(node)),
            format!("--cluster-cidr={}", plan.pod_ranges()),
            "--proxy-mode=iptables".to_owned(),
            // A namespace may not set these for the machine.
            "--conntrack-max-per-core=0".to_owned(),
            "--conntrack-tcp-timeout-established=0".to_owned(),
            "--conntrack-tcp-timeout-close-wait=0".to_owned(),
        ],
    };
    Ok([containerd, kubelet, proxy])
}

/// Pods are routed, each by a link of its own: so a connection to a Service leads back to its own node, or its own pod, with
/// no help from a bridge's filters, and every packet between pods passes the node's forwarding as it does between nodes.
fn cni(plan: &Plan, node: usize) -> String {
    let mut ranges = format!("[{{\"subnet\": \"{}\"}}]", plan.pods_v4(node));
    let mut routes = "{\"dst\": \"0.0.0.0/0\"}".to_owned();
    if plan.shape.dual_stack {
        ranges += &format!(", [{{\"subnet\": \"{}\"}}]", plan.pods_v6(node));
        routes += ", {\"dst\": \"::/0\"}";
    }
    format!(
        r#"{{
  "cniVersion": "0.4.0",
  "name": "{name}",
  "plugins": [
    {{
      "type": "ptp",
      "ipMasq": false,
      "ipam": {{
        "type": "host-local",
        "dataDir": "{data}",
        "ranges": [{ranges}],
        "routes": [{routes}]
      }}
    }},
    {{"type": "portmap", "capabilities": {{"portMappings": true}}, "snat": true}}
  ]
}}
"#,
        name = network_name(plan, node),
        data = plan.text(&addresses_folder(node)),
    )
}

/// Where the plugins keep which address is whose, by network.
pub(super) fn addresses_folder(node: usize) -> String {
    format!("node{node}/cni-addresses")
}

/// What the plugins' library calls the network in the one folder of its own that cannot be moved.
pub(super) fn network_name(plan: &Plan, node: usize) -> String {
    plan.slot.namespace(node)
}

fn containerd(plan: &Plan, node: usize) -> String {
    let folder = plan.text(&format!("node{node}"));
    format!(
        r#"version = 2
root = "{folder}/containerd"
state = "{folder}/containerd-state"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp"]

[grpc]
  address = "{socket}"

[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/opt"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  # So that one place holds everything that is mounted.
  netns_mounts_under_state_dir = true
  stream_server_address = "127.0.0.1"

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI_PLUGINS}"
    conf_dir = "{folder}/cni"

  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
"#,
        socket = socket(plan, node),
    )
}

/// No accounting of the machine's resources, which are not the cluster's alone, and no image that is loaded is ever collected.
fn kubelet(plan: &Plan, node: usize) -> String {
    let folder = plan.text(&format!("node{node}"));
    format!(
        r#"apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {{enabled: false}}
  webhook: {{enabled: true}}
  x509: {{clientCAFile: "{ca}"}}
authorization: {{mode: Webhook}}
address: "{address}"
containerRuntimeEndpoint: "unix://{socket}"
clusterDNS: ["{DNS_SERVICE}"]
clusterDomain: {CLUSTER_DOMAIN}
resolvConf: "{folder}/resolv.conf"
podLogsDir: "{folder}/pod-logs"
volumePluginDir: "{folder}/volume-plugins"
cgroupDriver: cgroupfs
cgroupRoot: "/{cgroup}"
cgroupsPerQOS: true
enforceNodeAllocatable: []
localStorageCapacityIsolation: false
failSwapOn: false
failCgroupV1: false
maxPods: {MOST_PODS}
evictionHard: {{memory.available: 1Mi, nodefs.available: 1Mi, imagefs.available: 1Mi}}
imageGCHighThresholdPercent: 100
"#,
        ca = plan.text("pki/ca.crt"),
        address = plan.node_v4(node),
        socket = socket(plan, node),
        cgroup = pods_cgroup(plan, node),
    )
}
