//! A real Kubernetes for the end-to-end tests: somebody's own, or the very components as plain processes.
//!
//! The plain processes need no container engine: etcd, API server, controller manager, scheduler and DNS beside the first
//! node, and containerd, kubelet and kube-proxy on each. A node is a network namespace; the nodes share a bridge, and the
//! machine reaches them by one link. Pods are routed, with IPv4 and IPv6. All of it is in one folder, one cgroup and a few
//! namespaces that carry the cluster's number, and goes away with the value that stands for it, or with the next start of any
//! cluster when its process was killed.

mod addresses;
mod binaries;
mod cluster;
mod component;
mod control_plane;
pub mod images;
mod kubectl;
mod local;
mod network;
mod node;
mod pki;
mod plan;
mod report;
mod slot;
mod teardown;

pub use cluster::Cluster;
pub use kubectl::Kubectl;
pub use plan::Shape;
pub use slot::KEPT_CLUSTERS;
