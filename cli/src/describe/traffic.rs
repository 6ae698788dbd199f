//! A pod's ports with their modes, its Services, and the policies that hold for it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Service};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use ringmail_control::inject::{INIT_CONTAINER, SIDECAR_CONTAINERS};
use ringmail_policy::ModeDecision;
use serde::Serialize;

use super::Subject;

/// A Service that leads to the pod.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ServiceLine {
    pub(super) name: String,
    /// `ClusterIP`, `NodePort`, `LoadBalancer`, or `headless`.
    pub(super) kind: String,
    pub(super) ports: Vec<ServicePortLine>,
}

/// One of its ports.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ServicePortLine {
    pub(super) name: String,
    pub(super) protocol: String,
    pub(super) app_protocol: Option<String>,
    pub(super) port: i32,
    /// The pod's own port; nothing for a name that no container declares.
    pub(super) target: Option<u16>,
    pub(super) target_name: Option<String>,
}

/// A port of the pod.
#[derive(Clone, Debug, Serialize)]
pub(super) struct PortLine {
    /// Nothing for all other ports.
    pub(super) port: Option<u16>,
    /// As the container calls it.
    pub(super) name: String,
    /// `STRICT`, `PERMISSIVE` or `DISABLE`; nothing where no sidecar sees the port.
    pub(super) mode: Option<&'static str>,
    pub(super) decided_by: String,
    /// `name:port` of each Service.
    pub(super) services: Vec<String>,
}

/// An AuthorizationPolicy that is enforced.
#[derive(Clone, Debug, Serialize)]
pub(super) struct PolicyLine {
    pub(super) name: String,
    pub(super) action: &'static str,
    pub(super) rules: usize,
}

/// A DestinationRule that names one of its hosts.
#[derive(Clone, Debug, Serialize)]
pub(super) struct RuleLine {
    pub(super) name: String,
    pub(super) host: String,
    /// What clients are told to speak; empty where it is left to them.
    pub(super) tls: String,
}

/// The application's containers, those that go on running beside it included.
fn containers<'a>(subject: &'a Subject<'_>) -> impl Iterator<Item = &'a Container> {
    let spec = subject.pod.spec.iter();
    let all = spec.flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers));
    all.filter(|container| {
        container.name != INIT_CONTAINER && !SIDECAR_CONTAINERS.contains(&container.name.as_str())
    })
}

/// TCP ports that containers declare, with their names.
pub(super) fn declared(subject: &Subject<'_>) -> BTreeMap<u16, String> {
    let ports = containers(subject).flat_map(|container| container.ports.iter().flatten());
    let tcp = ports.filter(|port| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP"));
    let named = tcp.filter_map(|port| {
        Some((u16::try_from(port.container_port).ok()?, port.name.clone().unwrap_or_default()))
    });
    named.collect()
}

/// Services of its namespace that select it, by name.
pub(super) fn services(subject: &Subject<'_>) -> Vec<ServiceLine> {
    let declared = declared(subject);
    let selects = |service: &&Service| {
        let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        service.metadata.namespace.as_deref() == Some(&subject.namespace)
            && selector.is_some_and(|selector| {
                !selector.is_empty()
                    && selector.iter().all(|(key, value)| subject.seen.labels.get(key) == Some(value))
            })
    };
    let own = subject.mesh.objects.services.iter().filter(selects);
    let mut lines: Vec<_> = own.map(|service| line_of(service, &declared)).collect();
    lines.sort_by(|a, b| a.name.cmp(&b.name));
    lines
}

fn line_of(service: &Service, declared: &BTreeMap<u16, String>) -> ServiceLine {
    let spec = service.spec.clone().unwrap_or_default();
    let is_headless = spec.cluster_ip.as_deref() == Some("None");
    let kind = if is_headless { Some("headless".to_owned()) } else { spec.type_ };
    let ports = spec.ports.unwrap_or_default().into_iter().map(|port| {
        let (target, target_name) = match &port.target_port {
            Some(IntOrString::Int(number)) => (u16::try_from(*number).ok(), None),
            Some(IntOrString::String(name)) => {
                let found = declared.iter().find(|(_, own)| *own == name).map(|(port, _)| *port);
                (found, Some(name.clone()))
            }
            None => (u16::try_from(port.port).ok(), None),
        };
        ServicePortLine {
            name: port.name.unwrap_or_default(),
            protocol: port.protocol.unwrap_or_else(|| "TCP".to_owned()),
            app_protocol: port.app_protocol,
            port: port.port,
            target,
            target_name,
        }
    });
    ServiceLine {
        name: service.metadata.name.clone().unwrap_or_default(),
        kind: kind.unwrap_or_else(|| "ClusterIP".to_owned()),
        ports: ports.collect(),
    }
}

/// Ports that containers declare, that Services lead to, or that have a mode of their own; then all others.
pub(super) fn ports(subject: &Subject<'_>, services: &[ServiceLine], has_sidecar: bool) -> Vec<PortLine> {
    let mut known = declared(subject);
    let mut leading: BTreeMap<u16, Vec<String>> = BTreeMap::new();
    for service in services {
        for port in service.ports.iter().filter(|port| port.protocol == "TCP") {
            if let Some(target) = port.target {
                known.entry(target).or_default();
                leading.entry(target).or_default().push(format!("{}:{}", service.name, port.port));
            }
        }
    }
    for port in subject.inbound.ports_with_modes() {
        known.entry(port).or_default();
    }
    let line = |port: Option<u16>, name: String, services: Vec<String>| {
        let (mode, decided_by) = mode(subject, port, has_sidecar);
        PortLine { port, name, mode, decided_by, services }
    };
    let mut lines: Vec<_> = known
        .into_iter()
        .map(|(port, name)| line(Some(port), name, leading.remove(&port).unwrap_or_default()))
        .collect();
    lines.push(line(None, String::new(), Vec::new()));
    lines
}

fn mode(subject: &Subject<'_>, port: Option<u16>, has_sidecar: bool) -> (Option<&'static str>, String) {
    if !has_sidecar {
        return (None, "the pod has no sidecar".to_owned());
    }
    let captured = |port| subject.capture.as_ref().is_none_or(|capture| capture.takes_inbound(None, port));
    if port.is_some_and(|port| !captured(port)) {
        return (None, "not captured: no policy is asked".to_owned());
    }
    let ModeDecision { mode, decided_by } = subject.inbound.mode(port.unwrap_or_default());
    (Some(mode.as_str()), decided_by.to_string())
}

/// Enforced ones, oldest first.
pub(super) fn authorization_policies(subject: &Subject<'_>) -> Vec<PolicyLine> {
    let all = subject.inbound.authorizations().into_iter();
    let line = all.map(|policy| PolicyLine {
        name: policy.origin.to_string(),
        action: policy.action,
        rules: policy.rules,
    });
    line.collect()
}

/// Those that name a host of its Services, oldest first.
pub(super) fn destination_rules(subject: &Subject<'_>) -> Vec<RuleLine> {
    let snapshot = &subject.mesh.snapshot;
    let Some((workload, _)) = snapshot.pod(&subject.namespace, &subject.name) else { return Vec::new() };
    let naming = snapshot.resources().rules_naming(workload).into_iter();
    naming.map(|rule| RuleLine { name: rule.origin.to_string(), host: rule.host, tls: rule.tls }).collect()
}
