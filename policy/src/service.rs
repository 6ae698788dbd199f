//! A Kubernetes Service as a client sees it: ports that stand for endpoints.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// A Service with an address of its own, and the endpoints behind each of its ports.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Service {
    /// `<name>.<namespace>.svc.<cluster domain>`.
    pub host: String,
    /// Its namespace.
    pub namespace: String,
    /// Endpoints by the Service's port. A port none of whose endpoints is in the mesh is not here.
    pub ports: BTreeMap<u16, Arc<[SocketAddr]>>,
}

impl Service {
    /// The endpoints of a port, where at least one is in the mesh.
    pub fn endpoints(&self, port: u16) -> Option<Arc<[SocketAddr]>> {
        self.ports.get(&port).filter(|endpoints| !endpoints.is_empty()).cloned()
    }
}
