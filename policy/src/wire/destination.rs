//! One workload as one client sees it: Istio's message says who it is, one of our own what is spoken to it.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use ringmail_identity::{SpiffeId, TrustDomain};
use ringmail_xds::workload::{self as istio, TunnelProtocol};
use ringmail_xds::{address_bytes, address_of, ringmail as message};

use super::{WireError, port};
use crate::destination::{Destination, ToldTls};
use crate::left_alone::LeftAlone;
use crate::mode::PortModes;
use crate::origin::Origin;
use crate::settings::Settings;
use crate::workload::{DEFAULT_REVISION, DEFAULT_SERVICE_ACCOUNT, ServicePort, Workload};

/// Istio leaves this trust domain out of its messages.
const DEFAULT_TRUST_DOMAIN: &str = "cluster.local";
/// The labels that metrics ask for: those that a message of Istio's has no field for.
const LABELS: [&str; 4] = ["app", "version", "pod-template-hash", "linkerd.io/control-plane-ns"];

impl Workload {
    /// Istio's message about the workload: the same for every client. What a workload of a pod is called there
    /// besides (its node, its status, what kind of owner it has) is for the sender to fill in.
    pub fn to_wire(&self) -> istio::Workload {
        let default = |value: &str, default: &str| if value == default { "" } else { value }.to_owned();
        let tunnel = if self.in_mesh { TunnelProtocol::LegacyIstioMtls } else { TunnelProtocol::None };
        let mut services = BTreeMap::<String, istio::PortList>::new();
        for service in &self.services {
            let list = services.entry(format!("{}/{}", service.namespace, service.host)).or_default();
            list.ports.push(istio::Port {
                service_port: service.port.into(),
                target_port: service.target_port.into(),
                app_protocol: APP_PROTOCOL_TCP,
            });
        }
        istio::Workload {
            uid: self.uid.clone(),
            name: self.name.clone(),
            namespace: self.namespace.clone(),
            addresses: self.addresses.iter().copied().map(address_bytes).collect(),
            network: self.network.clone().unwrap_or_default(),
            tunnel_protocol: tunnel.into(),
            trust_domain: default(self.identity.trust_domain(), DEFAULT_TRUST_DOMAIN),
            service_account: default(&self.service_account, DEFAULT_SERVICE_ACCOUNT),
            canonical_name: self.canonical_service.clone(),
            canonical_revision: self.canonical_revision.clone(),
            workload_name: self.workload_name.clone(),
            cluster_id: self.cluster.clone().unwrap_or_default(),
            locality: self.locality.as_deref().map(locality),
            services,
            ..istio::Workload::default()
        }
    }

    /// What Istio's message has no field for is left to the other one.
    fn from_wire(workload: &istio::Workload, labels: &BTreeMap<String, String>) -> Result<Self, WireError> {
        let or = |value: &str, default: &str| if value.is_empty() { default } else { value }.to_owned();
        let service_account = or(&workload.service_account, DEFAULT_SERVICE_ACCOUNT);
        let trust_domain: TrustDomain = or(&workload.trust_domain, DEFAULT_TRUST_DOMAIN)
            .parse()
            .map_err(|_| WireError::new("trust_domain", "a trust domain", &*workload.trust_domain))?;
        let identity = SpiffeId::for_service_account(&trust_domain, &workload.namespace, &service_account);
        let addresses = workload.addresses.iter().map(|bytes| {
            address_of(bytes)
                .ok_or_else(|| WireError::new("addresses", "4 or 16 bytes", format!("{} bytes", bytes.len())))
        });
        let some = |value: &str| (!value.is_empty()).then(|| value.to_owned());
        let workload_name = or(&workload.workload_name, &workload.name);
        Ok(Self {
            uid: workload.uid.clone(),
            name: workload.name.clone(),
            namespace: workload.namespace.clone(),
            identity: identity.map_err(|error| {
                WireError::new("service_account", "one that an identity can carry", error.to_string())
            })?,
            service_account,
            labels: labels.clone(),
            addresses: addresses.collect::<Result<_, _>>()?,
            canonical_service: or(&workload.canonical_name, &workload_name),
            canonical_revision: or(&workload.canonical_revision, DEFAULT_REVISION),
            app: labels.get("app").cloned(),
            version: labels.get("version").cloned(),
            network: some(&workload.network),
            cluster: some(&workload.cluster_id),
            locality: workload.locality.as_ref().map(locality_text),
            in_mesh: workload.in_mesh(),
            services: service_ports(workload)?,
            left_alone: LeftAlone::default(),
            workload_name,
        })
    }
}

impl Destination {
    /// What Istio's message about the workload does not say.
    pub fn to_wire(&self) -> message::Destination {
        let (mode, ports) = self.modes.to_wire();
        let (tls, port_tls) = self.tls.to_wire();
        let labels = &self.workload.labels;
        let kept = LABELS.into_iter().filter_map(|key| Some((key.to_owned(), labels.get(key)?.clone())));
        message::Destination {
            uid: self.workload.uid.clone(),
            entry: Some(self.entry.to_wire()),
            mode,
            ports,
            tls,
            port_tls,
            labels: kept.collect(),
            left_alone: self.workload.left_alone.to_wire(),
        }
    }

    /// Reads both messages, which must be of one workload, under the mesh's own names.
    ///
    /// # Errors
    /// [`WireError`] with the field that does not say what is needed.
    pub fn from_wire(
        workload: &istio::Workload,
        destination: &message::Destination,
        settings: &Settings,
    ) -> Result<Self, WireError> {
        if workload.uid != destination.uid {
            return Err(WireError::new("uid", "that of the workload", &*destination.uid));
        }
        let mut workload = Workload::from_wire(workload, &destination.labels)?;
        workload.left_alone = LeftAlone::from_wire(&destination.left_alone)?;
        let own = settings.trust_domains().any(|domain| domain.as_str() == workload.identity.trust_domain());
        let identities =
            if own { workload.identities(settings) } else { Some(vec![workload.identity.clone()]) };
        Ok(Self {
            identities: identities
                .ok_or_else(|| {
                    WireError::new("service_account", "one that an identity can carry", &*workload.uid)
                })?
                .into(),
            modes: PortModes::from_wire(destination.mode.as_ref(), &destination.ports)?,
            tls: ToldTls::from_wire(destination.tls.as_ref(), &destination.port_tls)?,
            entry: Origin::from_wire(destination.entry.as_ref())?,
            workload: Arc::new(workload),
        })
    }
}

impl LeftAlone {
    fn to_wire(&self) -> Vec<message::PortRange> {
        let range = |range: &RangeInclusive<u16>| message::PortRange {
            first: (*range.start()).into(),
            last: (*range.end()).into(),
        };
        self.ranges().iter().map(range).collect()
    }

    fn from_wire(ranges: &[message::PortRange]) -> Result<Self, WireError> {
        let range = |range: &message::PortRange| {
            let first = port("left_alone.first", range.first)?;
            let last = port("left_alone.last", range.last)?;
            if first > last {
                return Err(WireError::new("left_alone.last", "none below the first", last.to_string()));
            }
            Ok(first..=last)
        };
        ranges.iter().map(range).collect()
    }
}

/// `AppProtocol.TCP`.
const APP_PROTOCOL_TCP: i32 = 4;

fn service_ports(workload: &istio::Workload) -> Result<Vec<ServicePort>, WireError> {
    let mut ports = Vec::new();
    for (name, list) in &workload.services {
        let Some((namespace, host)) = name.split_once('/') else {
            return Err(WireError::new("services", "a key <namespace>/<host name>", &**name));
        };
        for entry in &list.ports {
            let own = port("services.service_port", entry.service_port)?;
            let target =
                if entry.target_port == 0 { own } else { port("services.target_port", entry.target_port)? };
            ports.push(ServicePort {
                host: host.to_owned(),
                namespace: namespace.to_owned(),
                port: own,
                target_port: target,
            });
        }
    }
    // The map that they came in is in the order of names.
    if let Some(memberships) = workload.memberships() {
        let place = |port: &ServicePort| {
            let name = format!("{}/{}", port.namespace, port.host);
            memberships.services.iter().position(|said| said.service == name)
        };
        ports.sort_by_cached_key(|port| place(port).unwrap_or(usize::MAX));
    }
    Ok(ports)
}

fn locality(text: &str) -> istio::Locality {
    let mut parts = text.splitn(3, '/').map(str::to_owned);
    let mut next = || parts.next().unwrap_or_default();
    istio::Locality { region: next(), zone: next(), subzone: next() }
}

fn locality_text(locality: &istio::Locality) -> String {
    let parts = [&*locality.region, &*locality.zone, &*locality.subzone];
    parts.join("/").trim_end_matches('/').to_owned()
}
