//! `ringmail describe pod`: what the mesh makes of one pod, and which object each part of it comes from.
//!
//! - `surroundings`: what is asked beside the mesh: the pod's namespace, its template, and who else injects.
//! - `injection`: whether it has a sidecar and why, and how the sidecar is.
//! - `next`: what a new pod in its place would be, by the injector's own decision.
//! - `traffic`: its ports with their modes, its Services, the policies that hold for it.
//! - `warnings`: what is not as its author may think.
//! - `show`: the text.

mod injection;
mod next;
mod show;
mod surroundings;
mod traffic;
mod warnings;

use anyhow::Result;
use clap::{Args, Subcommand};
use k8s_openapi::api::core::v1::Pod;
use ringmail_identity::SpiffeId;
use ringmail_policy::{Inbound, Pod as PolicyPod};
use serde::Serialize;
use serde_json::Value;

use crate::Answer;
use crate::cluster::{Capture, ClusterArgs, Mesh, Supposed, block_on, connect};
use crate::output::{self, Format};
use injection::{Injection, SidecarState};
use surroundings::Surroundings;
use traffic::{PolicyLine, PortLine, RuleLine, ServiceLine};

#[derive(Args, Debug)]
pub(crate) struct DescribeArgs {
    #[command(subcommand)]
    what: Described,
}

#[derive(Debug, Subcommand)]
enum Described {
    /// Tell whether a pod has a sidecar and why, its identity, the mode of each port, the policies that hold for it
    #[command(visible_alias = "po")]
    Pod(PodArgs),
}

#[derive(Args, Debug)]
struct PodArgs {
    /// The pod, NAME or NAMESPACE/NAME
    #[arg(value_name = "NAME")]
    name: String,
    /// Its namespace; without it that of the context
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

/// Everything about one pod.
#[derive(Debug, Serialize)]
struct Description {
    namespace: String,
    name: String,
    phase: String,
    ready: bool,
    node: Option<String>,
    addresses: Vec<String>,
    injection: Injection,
    sidecar: Option<SidecarState>,
    service_account: String,
    /// What its sidecar presents; none without a sidecar.
    identity: Option<String>,
    services: Vec<ServiceLine>,
    ports: Vec<PortLine>,
    authorization_policies: Vec<PolicyLine>,
    destination_rules: Vec<RuleLine>,
    /// Flags of `ringmail-init` that leave traffic outside of the sidecar.
    capture_exclusions: Vec<String>,
    warnings: Vec<String>,
    /// What could not be seen and may change the answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unseen: Vec<String>,
}

/// Asks, prints.
pub(crate) fn run(args: &DescribeArgs) -> Result<Answer> {
    let Described::Pod(args) = &args.what;
    let description = block_on(of_cluster(args))?;
    match args.output {
        Format::Json => output::print_json(&description)?,
        Format::Table => output::print(&show::render(&description, output::colour()))?,
    }
    Ok(Answer::Yes)
}

async fn of_cluster(args: &PodArgs) -> Result<Description> {
    let connection = connect(&args.cluster).await?;
    let (namespace, name) = match args.name.split_once('/') {
        Some((namespace, name)) => (namespace.to_owned(), name.to_owned()),
        None => (args.namespace.clone().unwrap_or_else(|| connection.namespace.clone()), args.name.clone()),
    };
    let mut surroundings = Surroundings::read(&connection, &namespace).await?;
    let mesh = Mesh::read(&connection, &args.cluster.mesh_namespace, &Supposed::default()).await?;
    let pod = mesh.pod(&namespace, &name)?;
    let subject = Subject::new(&mesh, pod)?;
    if next::rests_on_template(&subject, &surroundings) {
        surroundings.read_template(&connection, &subject.namespace, &subject.json).await?;
    }
    Ok(describe(subject, &surroundings))
}

/// A pod with what the parts of its description look at.
struct Subject<'a> {
    mesh: &'a Mesh,
    pod: &'a Pod,
    json: Value,
    namespace: String,
    name: String,
    /// As policies see it.
    seen: PolicyPod,
    inbound: Inbound,
    capture: Option<Capture>,
}

fn describe(subject: Subject<'_>, surroundings: &Surroundings) -> Description {
    let (mesh, pod) = (subject.mesh, subject.pod);
    let (injection, sidecar) = injection::of(&subject, surroundings);
    let services = traffic::services(&subject);
    let ports = traffic::ports(&subject, &services, sidecar.is_some());
    let authorization_policies = traffic::authorization_policies(&subject);
    let destination_rules = traffic::destination_rules(&subject);
    let mut warnings = injection.warnings.clone();
    warnings.extend(warnings::all(&subject, sidecar.as_ref(), &services, &ports));
    let status = pod.status.clone().unwrap_or_default();
    let domain = &mesh.snapshot.settings().trust_domain;
    let identity = SpiffeId::for_service_account(domain, &subject.namespace, &subject.seen.service_account);
    let is_ready = status.conditions.iter().flatten().any(|one| one.type_ == "Ready" && one.status == "True");
    Description {
        phase: phase(pod, status.phase.as_deref()),
        ready: is_ready,
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        addresses: status.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect(),
        identity: identity.ok().filter(|_| sidecar.is_some()).map(|identity| identity.to_string()),
        service_account: subject.seen.service_account.clone(),
        capture_exclusions: subject.capture.as_ref().map(Capture::exclusions).unwrap_or_default(),
        unseen: mesh.unseen.iter().chain(&surroundings.unseen).cloned().collect(),
        namespace: subject.namespace,
        name: subject.name,
        injection,
        sidecar,
        services,
        ports,
        authorization_policies,
        destination_rules,
        warnings,
    }
}

fn phase(pod: &Pod, phase: Option<&str>) -> String {
    match pod.metadata.deletion_timestamp {
        Some(_) => "Terminating".to_owned(),
        None => phase.unwrap_or("Unknown").to_owned(),
    }
}

impl<'a> Subject<'a> {
    fn new(mesh: &'a Mesh, pod: &'a Pod) -> Result<Self, serde_json::Error> {
        let json = serde_json::to_value(pod)?;
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let (namespace, name) = (text(&pod.metadata.namespace), text(&pod.metadata.name));
        let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone());
        let status = pod.status.iter();
        let ips = status.flat_map(|status| status.pod_ips.iter().flatten());
        let seen = PolicyPod {
            namespace: namespace.clone(),
            labels: pod.metadata.labels.clone().unwrap_or_default(),
            service_account: account.filter(|name| !name.is_empty()).unwrap_or_else(|| "default".to_owned()),
            addresses: ips.filter_map(|ip| ip.ip.parse().ok()).collect(),
        };
        let inbound = Inbound::compile(mesh.snapshot.resources(), &mesh.snapshot.settings(), &seen);
        let sidecar = ringmail_control::inject::sidecar_of(&json);
        let capture = sidecar.and_then(|sidecar| Capture::read(&sidecar.capture));
        Ok(Self { mesh, pod, json, namespace, name, seen, inbound, capture })
    }
}

#[cfg(test)]
mod next_tests;
#[cfg(test)]
mod tests;
