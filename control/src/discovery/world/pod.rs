//! Pods and nodes, reduced to what discovery says of them.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Node, Pod, PodSpec};
use kube::ResourceExt;
use ringmail_policy::{Facts, LeftAlone, ServicePort};
use ringmail_xds::workload::WorkloadType;

use super::{Age, ObjectKey};
use crate::inject::{INIT_CONTAINER, left_alone};

const POD_TEMPLATE_HASH: &str = "pod-template-hash";
/// A CronJob's Jobs end in the minute or second they were due at.
const CRON_DIGITS: std::ops::RangeInclusive<usize> = 8..=10;
const REGION: &str = "topology.kubernetes.io/region";
const ZONE: &str = "topology.kubernetes.io/zone";
const SUBZONE: &str = "topology.istio.io/subzone";

/// What is kept of a pod.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct PodInfo {
    pub(crate) key: ObjectKey,
    pub(crate) uid: String,
    pub(crate) age: Age,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) owner: Option<String>,
    pub(crate) kind: WorkloadType,
    pub(crate) service_account: String,
    pub(crate) node: Option<Arc<str>>,
    /// Empty where the pod does not count: it has ended, or its addresses are its node's.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) left_alone: LeftAlone,
}

/// What is kept of a node.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct NodeInfo {
    pub(crate) ranges: Vec<IpNet>,
    pub(crate) locality: Option<String>,
}

impl PodInfo {
    pub(crate) fn of(pod: &Pod) -> Self {
        let spec = pod.spec.as_ref();
        let status = pod.status.as_ref();
        let phase = status.and_then(|status| status.phase.as_deref());
        let counts = spec.is_none_or(|spec| spec.host_network != Some(true))
            && !matches!(phase, Some("Succeeded" | "Failed"));
        let ips = status.and_then(|status| status.pod_ips.as_ref()).into_iter().flatten();
        let only = status.and_then(|status| status.pod_ip.as_ref());
        let texts = ips.map(|ip| &ip.ip).chain(only).filter(|_| counts);
        let mut addresses = Vec::<IpAddr>::new();
        for address in texts.filter_map(|text| text.parse::<IpAddr>().ok()) {
            let address = address.to_canonical();
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        let uid = pod.uid().unwrap_or_default();
        let (owner, kind) = owner(pod);
        Self {
            key: ObjectKey::of(pod),
            age: since(pod),
            uid,
            labels: pod.metadata.labels.clone().unwrap_or_default(),
            owner,
            kind,
            service_account: spec
                .and_then(|spec| spec.service_account_name.clone())
                .filter(|name| !name.is_empty())
                .unwrap_or_else(|| "default".to_owned()),
            node: spec.and_then(|spec| spec.node_name.as_deref()).map(Arc::from),
            addresses,
            left_alone: spec.map(captured_without).unwrap_or_default(),
        }
    }

    pub(super) fn facts(
        &self,
        cluster: &str,
        addresses: Vec<IpAddr>,
        services: Vec<ServicePort>,
        locality: Option<String>,
    ) -> Facts {
        let (namespace, name) = (&self.key.namespace, &self.key.name);
        Facts {
            uid: format!("{cluster}//Pod/{namespace}/{name}"),
            name: name.to_string(),
            namespace: namespace.to_string(),
            owner: self.owner.clone(),
            service_account: self.service_account.clone(),
            labels: self.labels.clone(),
            addresses,
            network: None,
            cluster: Some(cluster.to_owned()),
            locality,
            services,
            left_alone: self.left_alone.clone(),
        }
    }
}

impl NodeInfo {
    pub(crate) fn of(node: &Node) -> Self {
        let spec = node.spec.as_ref();
        let several = spec.and_then(|spec| spec.pod_cidrs.as_ref()).into_iter().flatten();
        let only = spec.and_then(|spec| spec.pod_cidr.as_ref());
        let mut ranges: Vec<IpNet> = several.chain(only).filter_map(|text| text.parse().ok()).collect();
        ranges.sort();
        ranges.dedup();
        let label = |key: &str| node.labels().get(key).map(String::as_str).unwrap_or_default();
        let locality = [label(REGION), label(ZONE), label(SUBZONE)].join("/");
        let locality = locality.trim_end_matches('/').to_owned();
        Self { ranges, locality: (!locality.is_empty()).then_some(locality) }
    }
}

/// A pod gets its addresses once its node has taken it up, and may have waited for a node for as long as others lived and
/// died.
fn since(pod: &Pod) -> Age {
    let made = Age::of(pod);
    let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
    Age { seconds: started.map_or(made.seconds, |started| started.0.as_second()), ..made }
}

/// What the pod's capture does not take. The container that programs it says so, and not the annotations that it was
/// made from: these can be changed while the pod runs, and by who may not change what runs.
fn captured_without(spec: &PodSpec) -> LeftAlone {
    let mut containers = spec.init_containers.iter().flatten();
    let flags =
        containers.find(|container| container.name == INIT_CONTAINER).and_then(|init| init.args.as_ref());
    flags.map(|flags| left_alone(flags)).unwrap_or_default()
}

/// The name and the kind under which a pod is counted, by the field's rules: the Deployment of a ReplicaSet and the
/// CronJob of a Job are told from the names that their controllers give.
fn owner(pod: &Pod) -> (Option<String>, WorkloadType) {
    let generated = pod.metadata.generate_name.as_ref().is_some_and(|name| !name.is_empty());
    let controller = pod.owner_references().iter().find(|owner| owner.controller == Some(true));
    let Some(controller) = controller.filter(|_| generated) else { return (None, WorkloadType::Pod) };
    let name = controller.name.as_str();
    match controller.kind.as_str() {
        "ReplicaSet" => {
            let hash = pod.labels().get(POD_TEMPLATE_HASH).filter(|hash| !hash.is_empty());
            let deployment = hash.and_then(|hash| name.strip_suffix(hash.as_str())?.strip_suffix('-'));
            (Some(deployment.unwrap_or(name).to_owned()), WorkloadType::Deployment)
        }
        "Job" => match name.rsplit_once('-') {
            Some((cron, due))
                if !cron.is_empty()
                    && CRON_DIGITS.contains(&due.len())
                    && due.bytes().all(|byte| byte.is_ascii_digit()) =>
            {
                (Some(cron.to_owned()), WorkloadType::CronJob)
            }
            Some(_) | None => (Some(name.to_owned()), WorkloadType::Job),
        },
        _ => (Some(name.to_owned()), WorkloadType::Deployment),
    }
}
