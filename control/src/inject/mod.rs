//! Pods in, pods with a sidecar out; pure.
//!
//! The webhook and `ringmail inject` share this code, so what a file shows is what the cluster does. Read the rooms in
//! the order of a pod's way: [`decide`](self) says whether anybody asked, `status` takes out an earlier injection,
//! `refuse` says what no sidecar can be put into, `annotations` reads what the user wants of it, `probes` sends the
//! kubelet to the sidecar, `sidecar` makes the containers. A second pass changes nothing, because an injected pod
//! is first led back to what it was.

mod annotations;
mod capture;
mod config;
mod decide;
mod lifecycle;
pub mod manifest;
mod pod;
mod probes;
mod proxy_config;
mod quantity;
mod refuse;
mod resources;
mod sidecar;
mod status;
mod unread;
mod values;
mod warning;
mod workload;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use json_patch::Patch;
use serde_json::Value;

pub use annotations::ImageType;
pub use capture::left_alone;
pub use config::{InjectConfig, InjectConfigError, NativeSidecar};
pub use decide::{AskedBy, Mesh, Skip, Source};
pub use refuse::{MAX_POD_BYTES, Malformed, PROXY_ID, Refusal};
pub use resources::{DEFAULT_CPU_REQUEST, DEFAULT_MEMORY_LIMIT, DEFAULT_MEMORY_REQUEST};
pub use sidecar::{INIT_CONTAINER, SIDECAR_CONTAINERS};
pub use status::{STATUS_ANNOTATION, Sidecar, sidecar_of, uninject};
pub use unread::unread;
pub use warning::{MAX_WARNING_CHARACTERS, Warning};
pub use workload::{Owner, controller_of, workload_of};

/// What the injector needs to know about a pod's namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

/// What the injector needs to know about the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// Whether init containers with `restartPolicy: Always` work: Kubernetes 1.29.
    pub native_sidecars: bool,
    /// Whether an injector of Istio's is registered with the API server.
    pub istio_injects: bool,
    /// Whether Linkerd's injector is registered with the API server.
    pub linkerd_injects: bool,
}

/// One pod, or the template of one, and what surrounds it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The pod as JSON, with `metadata` and `spec`.
    pub pod: &'a Value,
    /// Its namespace.
    pub namespace: &'a Namespace,
    /// The name of what owns it, where the pod does not say it itself: the Deployment of a template.
    pub workload: Option<&'a str>,
    /// The cluster that it will run in.
    pub cluster: Cluster,
}

/// A pod with a sidecar.
#[derive(Clone, Debug)]
pub struct Injected {
    /// What leads from the pod as it came to the pod with a sidecar; empty if it had the same one already.
    pub patch: Patch,
    /// The pod with a sidecar.
    pub pod: Value,
    /// What could not be honoured.
    pub warnings: Vec<Warning>,
    /// Who asked, and so what the sidecar's container is called.
    pub asked_by: AskedBy,
    /// Which label or annotation decided that it gets one.
    pub asked_in: Source,
}

/// What the injector says about a pod.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It gets a sidecar.
    Injected(Box<Injected>),
    /// It must not run: what was asked for cannot be done.
    Refused(Refusal),
    /// It is left as it is.
    Skipped(Skip),
}

/// Decides about one pod. Never panics, whatever the JSON holds.
pub fn inject(request: &Request<'_>, config: &InjectConfig) -> Outcome {
    match decide_and_inject(request, config) {
        Ok(outcome) => outcome,
        Err(refusal) => Outcome::Refused(refusal),
    }
}

fn decide_and_inject(request: &Request<'_>, config: &InjectConfig) -> Result<Outcome, Refusal> {
    let asked = pod::Meta::read(request.pod)?;
    let (asked_by, asked_in) = match decide::decide(&asked, request.namespace, request.cluster, config)? {
        decide::Decision::Inject(asked_by, asked_in) => (asked_by, asked_in),
        decide::Decision::Skip(skip) => return Ok(Outcome::Skipped(skip)),
    };
    refuse::too_large(request.pod)?;
    let mut pod = request.pod.clone();
    uninject(&mut pod);
    let typed = pod::read(&pod)?;
    refuse::check(&typed)?;
    let mut warnings = Vec::new();
    let overrides = annotations::read(&typed, request.namespace, asked_by, &mut warnings)?;
    let shape = lifecycle::shape(&typed, &overrides, request.cluster, config, &mut warnings);
    let workload = request.workload.map_or_else(|| workload_of(request.pod), str::to_owned);
    let plan = sidecar::Plan {
        pod: &typed,
        overrides: &overrides,
        shape: &shape,
        workload: &workload,
        asked_by,
        config,
    };
    let added = plan.added(&mut warnings);
    let probes = if overrides.rewrite_probes.unwrap_or(true) {
        probes::rewrite(&mut pod, &mut warnings)
    } else {
        BTreeMap::new()
    };
    added.put_into(&mut pod, &probes)?;
    let patch = json_patch::diff(request.pod, &pod);
    warnings.dedup();
    Ok(Outcome::Injected(Box::new(Injected { patch, pod, warnings, asked_by, asked_in })))
}
