//! A ring behind Envoy: the same sidecar as on the network's path, in each pod of the ring and in the client's.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ringmail_lab::http::status;
use ringmail_lab::network::{Network, Pod};
use ringmail_lab::process::{Child, Launch, wait_until};
use ringmail_lab::sidecar::{ADMIN_PORT, PROXY_UID, install_rules};

use super::WORKERS;
use super::world::{PODS, Place};
use crate::candidates::certificates::{Authority, Naming};
use crate::candidates::envoy::{Handshakes, config};

/// It binds and says so within a second, on loaded cores within several.
const READY_DEADLINE: Duration = Duration::from_secs(30);

/// For one question to its admin port.
const ASK_DEADLINE: Duration = Duration::from_secs(5);

/// Captures every pod and starts an Envoy in each, and waits until all are ready. `program` is one that every user reaches.
pub(super) fn start(network: &Network, program: &Path, place: &Place<'_>) -> Result<Vec<Child>> {
    let init = place.options.binaries.join("ringmail-init");
    let authority = Authority::new()?;
    let mut proxies = Vec::with_capacity(PODS.len());
    for name in PODS {
        let pod = network.pod(name)?;
        install_rules(pod, &init, &[])?;
        let identity = authority.issue(&place.folder.join(format!("{name}-identity")), Naming::Spiffe)?;
        let file = place.folder.join(format!("{name}-envoy.json"));
        let text = config(pod, &(&identity).into(), Handshakes::Defaults).to_string();
        fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
        let mut command = Command::new(program);
        command.arg("-c").arg(&file).args(["--concurrency", &WORKERS.to_string()]);
        command.args(["--disable-hot-restart", "--log-level", "error"]).current_dir(&place.folder);
        let log = place.folder.join(format!("{name}-envoy.log"));
        proxies.push(pod.spawn(&mut command, &Launch::new(format!("envoy {name}"), log).user(PROXY_UID))?);
    }
    for (name, proxy) in PODS.iter().zip(&mut proxies) {
        wait_ready(network.pod(name)?, proxy)?;
    }
    Ok(proxies)
}

fn wait_ready(pod: &Pod, proxy: &mut Child) -> Result<()> {
    let admin = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), ADMIN_PORT);
    let what = format!("{} is ready", proxy.name());
    let ended = wait_until(READY_DEADLINE, &what, || {
        if let Some(status) = proxy.try_wait()? {
            return Ok(Some(Some(status)));
        }
        let status = status(pod.namespace(), admin, "/ready", ASK_DEADLINE)?;
        ensure!(status == 200, "its admin port says {status}");
        Ok(Some(None))
    });
    match ended.with_context(|| proxy.log_tail())? {
        None => Ok(()),
        Some(status) => bail!("{} ended with {status}:\n{}", proxy.name(), proxy.log_tail()),
    }
}
