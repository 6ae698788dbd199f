//! Istio's ztunnel as a proxy of its own for each pod: it speaks HTTP/2 over mutual TLS to the other one, on 15008.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use super::start::{Ground, Started};

/// Where two ztunnels meet; never captured.
const HBONE_PORT: u16 = 15008;

pub(super) fn start(ground: &Ground<'_>) -> Result<Started> {
    ground.capture(&[HBONE_PORT])?;
    let mut workloads = String::from("policies: []\nworkloads:\n");
    for pod in ground.pods()? {
        let (name, address) = (pod.name(), pod.ip());
        workloads += &format!(
            "- {{uid: bench/{name}, name: {name}, namespace: ignite, serviceAccount: bench, \
             workloadIps: ['{address}'], protocol: HBONE, node: bench, network: '', services: {{}}}}\n"
        );
    }
    let file = ground.folder.join("ztunnel.yaml");
    fs::write(&file, workloads).with_context(|| format!("write {}", file.display()))?;
    let mut started = Started::default();
    for pod in ground.pods()? {
        let mut command = Command::new(ground.program()?);
        command.arg("proxy").envs([
            ("PROXY_MODE", "dedicated".to_owned()),
            ("PROXY_WORKLOAD_INFO", format!("ignite/{}/bench", pod.name())),
            ("INSTANCE_IP", pod.ip().to_string()),
            ("NODE_NAME", "bench".to_owned()),
            ("FAKE_CA", "true".to_owned()),
            ("XDS_ADDRESS", String::new()),
            ("LOCAL_XDS_PATH", file.display().to_string()),
            ("ENABLE_ORIG_SRC", "false".to_owned()),
            ("ZTUNNEL_WORKER_THREADS", ground.setup.workers.to_string()),
            ("RUST_LOG", "error".to_owned()),
        ]);
        started.proxy(ground, pod, command)?;
    }
    Ok(started)
}
