//! What is not as its author may think: of the pod, its Services, and the policies around it.

use ringmail_policy::{Kind, Origin, Report, in_mesh};

use super::Subject;
use super::injection::SidecarState;
use super::traffic::{self, PortLine, ServiceLine, ServicePortLine};

/// Names of ports and values of `appProtocol` by which meshes choose how to read a port, and that mean plain bytes.
const OPAQUE_PROTOCOLS: [&str; 2] = ["tcp", "tls"];
/// Those by which they would read it.
const READ_PROTOCOLS: [&str; 8] = ["grpc", "grpc-web", "http", "http2", "https", "mongo", "mysql", "redis"];

pub(super) fn all(
    subject: &Subject<'_>,
    sidecar: Option<&SidecarState>,
    services: &[ServiceLine],
    ports: &[PortLine],
) -> Vec<String> {
    let mut warnings = Vec::new();
    membership(subject, sidecar.is_some(), &mut warnings);
    if sidecar.is_some() {
        for service in services {
            service_ports(service, &mut warnings);
            exposed(service, ports, &mut warnings);
        }
    }
    modes_of_other_ports(subject, services, &mut warnings);
    policies(subject, &mut warnings);
    warnings
}

/// Clients go by the label, connections by the sidecar.
fn membership(subject: &Subject<'_>, has_sidecar: bool, warnings: &mut Vec<String>) {
    let text = match (has_sidecar, in_mesh(&subject.seen.labels)) {
        (true, false) => {
            "it has a sidecar, and its label security.istio.io/tlsMode is not istio: clients take it for a pod without one \
             and send plaintext"
        }
        (false, true) => {
            "its label security.istio.io/tlsMode says that it has a sidecar, and it has none: clients in the mesh send TLS \
             that nobody answers"
        }
        (true, true) | (false, false) => return,
    };
    warnings.push(text.to_owned());
}

fn service_ports(service: &ServiceLine, warnings: &mut Vec<String>) {
    for port in &service.ports {
        let place = format!("Service {}, port {}", service.name, port.port);
        if port.protocol != "TCP" {
            let protocol = &port.protocol;
            warnings
                .push(format!("{place}: {protocol} is neither encrypted nor blocked; the mesh carries TCP"));
            continue;
        }
        if let (None, Some(name)) = (port.target, &port.target_name) {
            warnings.push(format!(
                "{place}: targetPort {name:?}: no container of the pod declares a port of that name"
            ));
        }
        match protocol_of(port) {
            Some(protocol) if READ_PROTOCOLS.contains(&protocol) => warnings.push(format!(
                "{place}: declared as {protocol}: Ringmail carries its bytes as they are, and rules about {protocol} have no \
                 effect"
            )),
            Some(protocol) if OPAQUE_PROTOCOLS.contains(&protocol) => {}
            Some(_) | None => warnings.push(format!(
                "{place}: its name says no protocol: all the same to Ringmail, while Istio would guess one; tcp-... is plain \
                 to both"
            )),
        }
    }
}

/// As Istio reads it: `appProtocol`, else the port's name up to its first dash.
fn protocol_of(port: &ServicePortLine) -> Option<&str> {
    let named = || Some(port.name.as_str()).filter(|name| !name.is_empty());
    let text = port.app_protocol.as_deref().or_else(named)?;
    if text.starts_with("grpc-web") { Some("grpc-web") } else { text.split('-').next() }
}

/// Who comes from outside has no identity.
fn exposed(service: &ServiceLine, ports: &[PortLine], warnings: &mut Vec<String>) {
    if !matches!(service.kind.as_str(), "LoadBalancer" | "NodePort") {
        return;
    }
    for port in &service.ports {
        let strict = ports.iter().find(|line| line.port == port.target && line.mode == Some("STRICT"));
        if let Some(line) = strict.filter(|_| port.target.is_some()) {
            let (kind, number, by) = (&service.kind, port.port, &line.decided_by);
            warnings.push(format!(
                "Service {}, port {number}: clients of a {kind} speak plaintext, and {by} is STRICT: they are refused",
                service.name
            ));
        }
    }
}

/// `portLevelMtls` names ports of containers; who takes a Service's for it protects nothing.
fn modes_of_other_ports(subject: &Subject<'_>, services: &[ServiceLine], warnings: &mut Vec<String>) {
    let declared = traffic::declared(subject);
    let all = || services.iter().flat_map(|service| service.ports.iter().map(move |port| (service, port)));
    for port in subject.inbound.ports_with_modes() {
        if declared.contains_key(&port) || all().any(|(_, other)| other.target == Some(port)) {
            continue;
        }
        let by = subject.inbound.mode(port).decided_by;
        let meant = all().find(|(_, other)| other.port == i32::from(port));
        let meant = meant.and_then(|(service, other)| Some((&service.name, other.target?)));
        let hint = meant.map_or_else(String::new, |(service, target)| {
            format!(" (port {port} of Service {service} is the container's {target})")
        });
        warnings.push(format!(
            "{by}: no container declares port {port} and no Service leads there; portLevelMtls names ports of containers{hint}"
        ));
    }
}

fn policies(subject: &Subject<'_>, warnings: &mut Vec<String>) {
    let snapshot = &subject.mesh.snapshot;
    let (resources, root) = (snapshot.resources(), snapshot.settings().root_namespace);
    let is_near = |namespace: &str| namespace == subject.namespace || namespace == root;
    for notice in snapshot.notices().into_iter().filter(|notice| notice.fault && is_near(&notice.namespace)) {
        let (kind, namespace, name) = (notice.kind, notice.namespace, notice.name);
        warnings.push(format!("{kind} {namespace}/{name} cannot be read: {}", notice.texts.join("; ")));
    }
    let rules = traffic::destination_rules(subject);
    let of_other_pods: Vec<String> = resources
        .selecting()
        .filter(|policy| {
            policy.selector.iter().any(|(key, value)| subject.seen.labels.get(key) != Some(value))
        })
        .map(|policy| policy.origin.to_string())
        .collect();
    let concerns = |report: &&Report| {
        let name = format!("{} {}/{}", report.kind, report.namespace, report.name);
        if report.kind == Kind::DestinationRule.as_str() {
            rules.iter().any(|rule| rule.name == name)
        } else {
            report.kind != Kind::WorkloadEntry.as_str()
                && is_near(&report.namespace)
                && !of_other_pods.contains(&name)
        }
    };
    let reports = resources.reports().iter().chain(subject.inbound.reports()).filter(concerns);
    for Report { kind, namespace, name, text, .. } in reports {
        warnings.push(format!("{kind} {namespace}/{name}: {text}"));
    }
    selecting_nobody(subject, warnings);
}

/// A selector with a slip of the pen protects nothing, and nobody is told.
fn selecting_nobody(subject: &Subject<'_>, warnings: &mut Vec<String>) {
    let snapshot = &subject.mesh.snapshot;
    let own = snapshot.resources().selecting().filter(|policy| policy.namespace == subject.namespace);
    for policy in own {
        let mut pods = subject.mesh.objects.pods.iter().filter(|pod| {
            let labels = pod.metadata.labels.as_ref();
            pod.metadata.namespace.as_deref() == Some(policy.namespace)
                && policy
                    .selector
                    .iter()
                    .all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
        });
        if pods.next().is_none() {
            let selector: Vec<_> =
                policy.selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let origin: &Origin = &policy.origin;
            warnings.push(format!("{origin} selects no pod of the namespace ({})", selector.join(",")));
        }
    }
}
