//! Two real pods with sidecars, one of which takes a steady stream of bytes from the other.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    cluster::Cluster,
    process::{Look, Processes, Seen},
};

const PROGRAM: &str = "ringmail-proxy";
/// Where bytes come without end, and where what is sent comes back.
const PORTS: (u16, u16) = (9000, 9001);
/// Connections that carry bytes all the time, and what each takes per second: far below what a sidecar can do, so that
/// the rate is the client's choice.
const CONNECTIONS: usize = 4;
const RATE: &str = "2M";
/// Bytes per second below which there is no load.
const LEAST: f64 = 1024.0 * 1024.0;
/// A look has so many parts, and the one that cost the least counts: the others say more of what else ran.
const PARTS: u32 = 5;
/// Buffers reach the size that they keep.
const WARM_UP: Duration = Duration::from_secs(10);

/// The sidecar of the client: the parent and its data plane.
pub(crate) struct Sidecar(Processes);

impl Sidecar {
    /// Starts both pods, and waits until the load has run for a while.
    pub(crate) async fn start(cluster: &Cluster, image: &str) -> anyhow::Result<Self> {
        let (zeros, echo) = PORTS;
        let listen = |port: u16| format!("TCP-LISTEN:{port},fork,reuseaddr");
        let serve = format!("socat -u OPEN:/dev/zero {} & exec socat {} PIPE", listen(zeros), listen(echo));
        let server = cluster.run_pod(pod("server", image, &serve)).await?;
        let ip = server
            .status
            .as_ref()
            .and_then(|status| status.pod_ip.as_ref())
            .context("the server has no ip")?;
        let ip: IpAddr = ip.parse()?;
        let (zeros, echo) = (SocketAddr::new(ip, zeros), SocketAddr::new(ip, echo));
        // A connection each second beside those that last: a proxy looks up where it leads.
        let script = format!(
            "for i in $(seq {CONNECTIONS}); do \
                 (while :; do curl -s --http0.9 --limit-rate {RATE} -o /dev/null http://{zeros}/; sleep 1; done) & \
             done; \
             while :; do echo | socat - TCP:{echo} >/dev/null; sleep 1; done"
        );
        let client = cluster.run_pod(pod("client", image, &script)).await?;
        ensure!(is_injected(&client), "the client got no sidecar: is {} injected?", cluster.real());
        let processes = Processes::of_pod(&client.uid().unwrap_or_default(), PROGRAM)?;
        sleep(WARM_UP).await;
        Ok(Self(processes))
    }

    pub(crate) fn look(&self) -> anyhow::Result<Look> {
        Look::begin(&self.0)
    }

    /// What it uses within so much time from now, in the part in which a byte cost the least. A part in which nothing
    /// came, for others had every core, says nothing of what a byte costs; only a whole time without load is a fault.
    pub(crate) async fn seen_for(&self, time: Duration) -> anyhow::Result<Seen> {
        let (mut parts, mut most) = (Vec::new(), 0.0_f64);
        for _ in 0..PARTS {
            let look = self.look()?;
            sleep(time / PARTS).await;
            let seen = look.end()?;
            most = most.max(seen.received);
            if seen.received > LEAST {
                parts.push(seen);
            }
        }
        let cheapest =
            parts.into_iter().min_by(|one, other| one.cpu_by_byte().total_cmp(&other.cpu_by_byte()));
        cheapest.with_context(|| format!("{most:.0} bytes per second came to the client at most: no load"))
    }
}

fn is_injected(pod: &Pod) -> bool {
    let spec = pod.spec.iter();
    let containers = spec.flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers));
    containers.into_iter().any(|container| container.name == "istio-proxy")
}

fn pod(name: &str, image: &str, script: &str) -> Value {
    json!({
        "metadata": { "name": name, "labels": { "app": name } },
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "load", "image": image, "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", script],
            }],
        },
    })
}
