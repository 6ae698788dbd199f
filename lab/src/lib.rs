//! The lab: what the demo and the end-to-end tests stand on.
//!
//! Pods are network namespaces on a bridge that lives in a namespace of its own, so nothing in the machine's own network
//! changes. In them run real Ignite nodes, `ringmail-init`, `ringmail-proxy` and `ringmail-ca`, as real processes. What passes
//! between the pods is captured on the bridge and judged byte by byte. Everything here is synchronous, needs root, and takes
//! itself away when it is dropped.

pub mod ca;
pub mod cgroup;
pub mod http;
pub mod ignite;
pub mod interrupt;
pub mod kube;
pub mod mesh;
pub mod netns;
pub mod network;
pub mod origin;
pub mod pcap;
pub mod process;
pub mod shape;
pub mod sidecar;
pub mod wire;
