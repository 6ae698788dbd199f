//! What no sidecar can be put into, and what no sidecar may be put into quietly.

use std::fmt;

use serde_json::Value;

use super::decide::{Mesh, RINGMAIL_INJECT, Source};
use super::pod::TypedPod;
use super::sidecar::{INIT_CONTAINER, SIDECAR_CONTAINERS, SIDECAR_PORTS, VOLUMES};

/// User and group of the proxy: whatever runs as either bypasses the mesh.
pub const PROXY_ID: i64 = 1337;

/// The largest pod that is looked at, as JSON. A database of the cluster keeps no object above 1.5 MiB, and the sidecar
/// has to fit as well.
pub const MAX_POD_BYTES: usize = 1024 * 1024;

/// Containers by which other meshes carry a pod's traffic, and those that program their capture.
const OTHER_MESHES: [(&str, &str); 12] = [
    ("istio-proxy", "Istio"),
    ("istio-init", "Istio"),
    ("istio-validation", "Istio"),
    ("linkerd-proxy", "Linkerd"),
    ("linkerd-init", "Linkerd"),
    ("linkerd-network-validator", "Linkerd"),
    ("consul-dataplane", "Consul"),
    ("consul-connect-inject-init", "Consul"),
    ("envoy-sidecar", "Consul"),
    ("kuma-sidecar", "Kuma"),
    ("kuma-init", "Kuma"),
    ("envoy", "an Envoy"),
];

/// An annotation that says something about security and cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// The annotation.
    pub name: String,
    /// Its value.
    pub value: String,
    /// What was expected of it.
    pub expected: String,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={:?}: expected {}", self.name, super::warning::cut(&self.value, 120), self.expected)
    }
}

/// Why a pod must not run as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Annotations that say which traffic is captured cannot be read.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Annotations(Vec<Malformed>),
    /// The pod shares the node's network, which is not its own to capture.
    #[error(
        "hostNetwork: true: the pod has no network of its own to capture; {RINGMAIL_INJECT}: disabled on the pod \
         leaves it outside the mesh"
    )]
    HostNetwork,
    /// A name that the sidecar's parts need is taken.
    #[error("{kind} {name:?} is already in the pod; the sidecar needs the name")]
    NameTaken {
        /// Container or volume.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// What was sent is not a pod.
    #[error("not a pod: {fault}")]
    NotAPod {
        /// What is wrong.
        fault: String,
    },
    /// Another mesh carries the pod's traffic already.
    #[error("container {container:?} belongs to {mesh}: a pod cannot be in two meshes")]
    OtherSidecar {
        /// The container.
        container: String,
        /// The mesh.
        mesh: &'static str,
    },
    /// A port of the sidecar's is declared by a container.
    #[error("container {container:?} declares port {port}, which is the sidecar's own")]
    PortTaken {
        /// The container.
        container: String,
        /// The port.
        port: i32,
    },
    /// A container would bypass the mesh.
    #[error("{place}: {field}: {PROXY_ID} is the proxy's own: what runs as it bypasses the mesh")]
    ProxyId {
        /// The pod or a container.
        place: String,
        /// `runAsUser`, `runAsGroup`, or what makes it a group beside those: a program that is set to a group runs as it.
        field: &'static str,
    },
    /// More than is looked at.
    #[error("the pod is {bytes} bytes of JSON, expected at most {MAX_POD_BYTES}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Two injectors would take the pod.
    #[error("{source_of} puts the pod into {mesh}, which is installed: a pod cannot be in two meshes")]
    TwoInjectors {
        /// The other mesh.
        mesh: Mesh,
        /// Where it is asked.
        source_of: Source,
    },
    /// Neither yes nor no.
    #[error("{source_of} says {value:?}: expected enabled or disabled")]
    UnknownWord {
        /// Where it is said.
        source_of: Source,
        /// What is said.
        value: String,
    },
    /// No capture on Windows.
    #[error(
        "the pod is for Windows, where traffic cannot be captured; {RINGMAIL_INJECT}: disabled leaves it outside"
    )]
    Windows,
}

pub(super) fn too_large(pod: &Value) -> Result<(), Refusal> {
    let bytes = serde_json::to_vec(pod).map_or(usize::MAX, |json| json.len());
    if bytes > MAX_POD_BYTES { Err(Refusal::TooLarge { bytes }) } else { Ok(()) }
}

/// All that speaks against the pod but for its annotations.
pub(super) fn check(pod: &TypedPod) -> Result<(), Refusal> {
    if pod.spec.host_network == Some(true) {
        return Err(Refusal::HostNetwork);
    }
    windows(pod)?;
    sidecars(pod)?;
    proxy_id(pod)?;
    ports(pod)?;
    volumes(pod)
}

fn windows(pod: &TypedPod) -> Result<(), Refusal> {
    let os = pod.spec.os.as_ref().map(|os| os.name.as_str());
    let selector = pod.spec.node_selector.as_ref().and_then(|labels| labels.get("kubernetes.io/os"));
    if os == Some("windows") || selector.is_some_and(|os| os == "windows") {
        return Err(Refusal::Windows);
    }
    Ok(())
}

/// An earlier injection of ours has been taken out before, so any of these names is somebody else's.
fn sidecars(pod: &TypedPod) -> Result<(), Refusal> {
    for container in pod.containers() {
        let name = container.name.as_str();
        if let Some((_, mesh)) = OTHER_MESHES.iter().find(|(other, _)| *other == name) {
            return Err(Refusal::OtherSidecar { container: name.to_owned(), mesh });
        }
        if name == INIT_CONTAINER || SIDECAR_CONTAINERS.contains(&name) {
            return Err(Refusal::NameTaken { kind: "container", name: name.to_owned() });
        }
    }
    Ok(())
}

fn proxy_id(pod: &TypedPod) -> Result<(), Refusal> {
    let refused = |place: String, field| Err(Refusal::ProxyId { place, field });
    let of_pod = pod.spec.security_context.as_ref();
    let groups = of_pod.and_then(|pod| pod.supplemental_groups.as_deref()).unwrap_or_default();
    if groups.contains(&PROXY_ID) {
        return refused("the pod".to_owned(), "supplementalGroups");
    }
    if of_pod.is_some_and(|pod| pod.fs_group == Some(PROXY_ID)) {
        return refused("the pod".to_owned(), "fsGroup");
    }
    for container in pod.containers() {
        let own = container.security_context.as_ref();
        let user = own.and_then(|own| own.run_as_user);
        let group = own.and_then(|own| own.run_as_group);
        let place = || format!("container {:?}", container.name);
        if user == Some(PROXY_ID) {
            return refused(place(), "runAsUser");
        }
        if group == Some(PROXY_ID) {
            return refused(place(), "runAsGroup");
        }
        if user.is_none() && of_pod.is_some_and(|pod| pod.run_as_user == Some(PROXY_ID)) {
            return refused("the pod".to_owned(), "runAsUser");
        }
        if group.is_none() && of_pod.is_some_and(|pod| pod.run_as_group == Some(PROXY_ID)) {
            return refused("the pod".to_owned(), "runAsGroup");
        }
    }
    Ok(())
}

fn ports(pod: &TypedPod) -> Result<(), Refusal> {
    for container in pod.containers() {
        for port in container.ports.iter().flatten() {
            let is_tcp = port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP");
            if is_tcp && SIDECAR_PORTS.contains(&port.container_port) {
                let container = container.name.clone();
                return Err(Refusal::PortTaken { container, port: port.container_port });
            }
        }
    }
    Ok(())
}

fn volumes(pod: &TypedPod) -> Result<(), Refusal> {
    let taken = pod.spec.volumes.iter().flatten().find(|volume| VOLUMES.contains(&volume.name.as_str()));
    match taken {
        Some(volume) => Err(Refusal::NameTaken { kind: "volume", name: volume.name.clone() }),
        None => Ok(()),
    }
}
