//! Linkerd's proxy, one for each pod, each with a stand-in of its control plane on the pod's loopback.
//!
//! The stand-in answers what the proxy asks for opaque TCP between two meshed pods, with the messages of the crate that
//! Linkerd publishes for it; it does nothing while bytes flow, and it is not measured.

mod control;
mod services;

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use ringmail_lab::network::Pod;
use ringmail_lab::process::{Child, Launch};
use ringmail_lab::sidecar::{INBOUND_PORT, OUTBOUND_PORT};

pub use control::{ControlArguments, control};

use super::certificates::{Authority, Identity, LINKERD_NAME, Naming};
use super::start::{Ground, Started};
use crate::load::ports;

/// Where the stand-in listens.
const CONTROL_ADDRESS: &str = "127.0.0.1:8086";

/// Whatever the parts of the control plane are called: with no TLS to them, no name is checked.
const CONTROL_NAME: &str = "control.bench";

pub(super) fn start(ground: &Ground<'_>) -> Result<Started> {
    ground.capture(&[])?;
    let authority = Authority::new()?;
    let mut started = Started::default();
    for pod in ground.pods()? {
        let identity = authority.issue(&ground.folder.join(pod.name()), Naming::Linkerd)?;
        started.helpers.push(stand_in(ground, pod, &identity)?);
        let mut command = Command::new(ground.program()?);
        command.envs(environment(ground, pod, &identity)?);
        started.proxy(ground, pod, command)?;
    }
    Ok(started)
}

fn stand_in(ground: &Ground<'_>, pod: &Pod, identity: &Identity) -> Result<Child> {
    let mut command = Command::new(&ground.programs.bench);
    command.args(["linkerd-control", "--listen", CONTROL_ADDRESS, "--name", LINKERD_NAME]);
    command.args(["--inbound-port", &INBOUND_PORT.to_string()]);
    command.arg("--leaf").arg(&identity.certificate_der);
    let name = format!("linkerd-control-{}", pod.name());
    pod.spawn(&mut command, &Launch::new(&name, ground.folder.join(format!("{name}.log"))))
}

fn environment(ground: &Ground<'_>, pod: &Pod, identity: &Identity) -> Result<Vec<(String, String)>> {
    let folder = &identity.folder;
    let token = folder.join("token");
    fs::write(&token, "bench").with_context(|| format!("write {}", token.display()))?;
    let root = fs::read_to_string(&identity.root).context("read the root")?;
    let served = [ports::SINK, ports::SOURCE].into_iter().chain(ports::ECHO.map(|(port, _)| port));
    let served: Vec<_> = served.map(|port| port.to_string()).collect();
    let networks = "10.0.0.0/8".to_owned();
    let mut variables = vec![
        ("OUTBOUND_LISTEN_ADDRS", format!("0.0.0.0:{OUTBOUND_PORT}")),
        ("INBOUND_LISTEN_ADDR", format!("0.0.0.0:{INBOUND_PORT}")),
        ("CONTROL_LISTEN_ADDR", "127.0.0.1:4190".to_owned()),
        ("ADMIN_LISTEN_ADDR", "127.0.0.1:4191".to_owned()),
        ("POLICY_WORKLOAD", format!("ignite:{}", pod.name())),
        ("INBOUND_IPS", pod.ip().to_string()),
        ("INBOUND_PORTS", served.join(",")),
        ("INBOUND_DEFAULT_POLICY", "all-authenticated".to_owned()),
        ("POLICY_CLUSTER_NETWORKS", networks.clone()),
        ("DESTINATION_PROFILE_NETWORKS", networks),
        ("IDENTITY_DIR", folder.display().to_string()),
        ("IDENTITY_TRUST_ANCHORS", root),
        ("IDENTITY_TOKEN_FILE", token.display().to_string()),
        ("IDENTITY_LOCAL_NAME", LINKERD_NAME.to_owned()),
        ("IDENTITY_SERVER_ID", LINKERD_NAME.to_owned()),
        ("IDENTITY_SERVER_NAME", LINKERD_NAME.to_owned()),
        ("CORES", ground.setup.workers.to_string()),
        ("LOG", "error".to_owned()),
    ];
    for [address, name] in [
        ["DESTINATION_SVC_ADDR", "DESTINATION_SVC_NAME"],
        ["POLICY_SVC_ADDR", "POLICY_SVC_NAME"],
        ["IDENTITY_SVC_ADDR", "IDENTITY_SVC_NAME"],
    ] {
        variables.push((address, CONTROL_ADDRESS.to_owned()));
        variables.push((name, CONTROL_NAME.to_owned()));
    }
    Ok(variables.into_iter().map(|(name, value)| (format!("LINKERD2_PROXY_{name}"), value)).collect())
}
