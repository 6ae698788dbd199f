//! What discovery tells the data plane: one versioned set of compiled policies, swapped whole.
//!
//! A connection is judged under one snapshot; a half-applied change cannot be seen. Before the first
//! complete snapshot there is none, and inbound is closed.

use std::sync::Arc;

use ringmail_policy::{Inbound, Outbound, Workload};
use tokio::sync::watch;

/// Everything that policy and discovery decide for this pod, compiled.
#[derive(Debug)]
pub struct Snapshot {
    /// Grows by one with every snapshot that was applied.
    pub version: u64,
    /// Modes and authorization of this pod's own ports; the same one while nothing of it has changed.
    pub inbound: Arc<Inbound>,
    /// The mesh as seen from this pod.
    pub outbound: Arc<Outbound>,
}

impl Snapshot {
    /// Whether a client can speak only TLS to a PERMISSIVE `port`: it has a sidecar, and no DestinationRule has sidecars
    /// send plaintext there.
    pub fn expects_tls(&self, client: Option<&Workload>, port: u16) -> bool {
        client.is_some_and(|client| client.in_mesh) && self.inbound.plaintext_from_mesh(port).is_none()
    }
}

/// The receiving end of discovery: `None` until the first complete snapshot.
pub type Snapshots = watch::Receiver<Option<Arc<Snapshot>>>;

#[cfg(test)]
mod tests {
    use ringmail_policy::{Pod, Resources, Settings};

    use super::*;

    const MESH: &str = "
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: own, namespace: ignite}
spec: {address: 10.0.0.1, labels: {app: ignite, security.istio.io/tlsMode: istio}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: member, namespace: ignite, labels: {security.istio.io/tlsMode: istio}}
spec: {address: 10.0.0.2}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: stranger, namespace: ignite}
spec: {address: 10.0.0.3}
";

    const RULE: &str = "
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: thin, namespace: ignite}
spec:
  host: ignite
  trafficPolicy: {portLevelSettings: [{port: {number: 10800}, tls: {mode: DISABLE}}]}
";

    fn snapshot(policy: &str) -> Snapshot {
        let resources = Resources::parse([("policy.yaml", policy)]).unwrap();
        let settings = Settings::new("cluster.local".parse().unwrap());
        let addresses = vec!["10.0.0.1".parse().unwrap()];
        let pod = Pod { namespace: "ignite".to_owned(), addresses, ..Pod::default() };
        Snapshot {
            version: 1,
            inbound: Arc::new(Inbound::compile(&resources, &settings, &pod)),
            outbound: Arc::new(Outbound::compile_for(&resources, &settings, &pod)),
        }
    }

    #[test]
    fn a_member_speaks_tls_but_on_ports_that_a_destination_rule_has_it_dial_in_plaintext() {
        let with_rule = format!("{MESH}{RULE}");
        for (policy, client, port, expected) in [
            (MESH, "10.0.0.2", 10800, true),
            (MESH, "10.0.0.3", 10800, false),
            (MESH, "10.0.0.4", 10800, false),
            (&with_rule, "10.0.0.2", 10800, false),
            (&with_rule, "10.0.0.2", 47100, true),
            (&with_rule, "10.0.0.3", 47100, false),
        ] {
            let snapshot = snapshot(policy);
            let client = snapshot.outbound.workload(client.parse().unwrap()).map(|known| &**known);
            assert_eq!(snapshot.expects_tls(client, port), expected, "{client:?} on {port}");
        }
    }
}
