//! Who connects and who answers, as it is asked for and as it is found.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use anyhow::Result;
use ringmail_identity::SpiffeId;
use ringmail_policy::{Outbound, Pod, Report, Resources, Settings, Workload};
use serde::Serialize;

use super::settings::Outside;
use crate::cluster::Capture;

/// Who connects, as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Party {
    Address(IpAddr),
    Named { namespace: String, name: String },
}

impl FromStr for Party {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Address(address.to_canonical()));
        }
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self::Named { namespace: namespace.to_owned(), name: name.to_owned() })
            }
            Some(_) | None => Err("expected an IP address or namespace/name".to_owned()),
        }
    }
}

/// Where to, as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Address(SocketAddr),
    /// A name of the cluster's DNS, without `.svc` and what follows: a Service's, or a pod's behind a headless one.
    Host {
        labels: Vec<String>,
        port: u16,
    },
    Named {
        party: Party,
        port: u16,
    },
}

/// What may stand in [`Target`].
const TARGETS: &str = "address:port, namespace/pod:port or service.namespace:port";

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self::Address(SocketAddr::new(address.ip().to_canonical(), address.port())));
        }
        let (place, port) =
            text.rsplit_once(':').ok_or_else(|| format!("expected {TARGETS}; read no port"))?;
        let port: u16 = port.parse().map_err(|_| format!("expected {TARGETS}; {port:?} is no port"))?;
        if place.contains('/') {
            let party = place.parse().map_err(|_| format!("expected {TARGETS}"))?;
            return Ok(Self::Named { party, port });
        }
        let place = place.strip_suffix('.').unwrap_or(place);
        let short = [".svc.cluster.local", ".svc"].iter().find_map(|suffix| place.strip_suffix(suffix));
        let labels: Vec<_> = short.unwrap_or(place).split('.').map(str::to_owned).collect();
        match labels.len() {
            2 | 3 if labels.iter().all(|label| !label.is_empty()) => Ok(Self::Host { labels, port }),
            _ => Err(format!("expected {TARGETS}")),
        }
    }
}

/// One end of the connection.
#[derive(Clone, Debug, Serialize)]
pub(super) struct End {
    pub(super) address: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) port: Option<u16>,
    /// `namespace/name`, where it is known.
    pub(super) name: Option<String>,
    /// What its sidecar presents; none without a sidecar.
    pub(super) identity: Option<String>,
    pub(super) sidecar: bool,
    /// What says who it is.
    #[serde(skip)]
    pub(super) known_by: String,
    #[serde(skip)]
    pub(super) id: Option<SpiffeId>,
    #[serde(skip)]
    pub(super) pod: Option<Pod>,
    /// What clients know it as.
    #[serde(skip)]
    pub(super) workload: Option<Arc<Workload>>,
    /// Which of its connections its sidecar takes; all, where that is not known.
    #[serde(skip)]
    pub(super) capture: Option<Capture>,
    #[serde(skip)]
    pub(super) outside: Outside,
}

impl End {
    /// Somebody about whom nothing is known.
    pub(super) fn unknown(address: IpAddr) -> Self {
        Self {
            address,
            port: None,
            name: None,
            identity: None,
            sidecar: false,
            known_by: "no workload is known at the address".to_owned(),
            id: None,
            pod: None,
            workload: None,
            capture: None,
            outside: Outside::default(),
        }
    }

    /// The workload at one of its addresses.
    pub(super) fn of(workload: &Workload, address: IpAddr, known_by: String, outside: Outside) -> Self {
        let id = workload.in_mesh.then(|| workload.identity.clone());
        Self {
            name: Some(format!("{}/{}", workload.namespace, workload.name)),
            identity: id.as_ref().map(ToString::to_string),
            sidecar: workload.in_mesh,
            known_by,
            id,
            pod: Some(Pod {
                namespace: workload.namespace.clone(),
                labels: workload.labels.clone(),
                service_account: workload.service_account.clone(),
                addresses: workload.addresses.clone(),
            }),
            workload: Some(Arc::new(workload.clone())),
            outside,
            ..Self::unknown(address)
        }
    }

    /// Address and port.
    pub(super) fn socket(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port.unwrap_or_default())
    }
}

/// Where a connection leads.
#[derive(Clone, Debug)]
pub(super) struct Destination {
    pub(super) to: End,
    /// What stands behind a Service.
    pub(super) behind: Option<Behind>,
}

/// The endpoints of a Service.
#[derive(Clone, Debug)]
pub(super) struct Behind {
    pub(super) dialled: Dialled,
    pub(super) endpoints: Vec<SocketAddr>,
}

/// By what a Service is dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialled {
    /// Its own address.
    Address,
    /// Its name alone, for it has no address: the client looks it up and dials an endpoint itself.
    Name,
    /// A port of a node, or a load balancer's address. The endpoint sees a node in the place of the client, unless the
    /// Service's externalTrafficPolicy is Local.
    Node { local: bool },
}

/// Everybody who is known, from files or from a cluster.
pub(super) trait World {
    fn settings(&self) -> &Settings;
    fn resources(&self) -> &Resources;
    /// Who is at an address. Somebody about whom nothing is known has no sidecar.
    fn at(&self, address: IpAddr) -> End;
    /// Who connects; a name must be known. `ipv4` is the family of the address that is dialled, where it is known.
    fn client(&self, party: &Party, ipv4: Option<bool>) -> Result<End>;
    /// Who answers.
    fn destination(&self, target: &Target) -> Result<Destination>;
    /// What is done with connections of `client` to an address, and to what stands behind it.
    fn outbound(&self, client: &Pod, address: IpAddr) -> Outbound;
    /// A report in words; nothing where it is of no interest to the two namespaces.
    fn cite(&self, report: &Report, namespaces: &[&str]) -> Option<String>;
    /// What else is not as written, for the two namespaces.
    fn faults(&self, namespaces: &[&str]) -> Vec<String>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_party_is_an_address_or_a_name_with_its_namespace() {
        assert_eq!("10.0.0.1".parse(), Ok(Party::Address([10, 0, 0, 1].into())));
        assert_eq!("::ffff:10.0.0.1".parse(), Ok(Party::Address([10, 0, 0, 1].into())));
        let named = Party::Named { namespace: "ignite".into(), name: "n1".into() };
        assert_eq!("ignite/n1".parse(), Ok(named));
        for wrong in ["n1", "/n1", "ignite/", "a/b/c", "", "10.0.0.1:80"] {
            assert!(wrong.parse::<Party>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_target_is_an_address_a_pod_or_a_name_of_the_clusters_dns_each_with_a_port() {
        let address = |text: &str| Ok(Target::Address(text.parse().unwrap()));
        assert_eq!("10.0.0.1:80".parse(), address("10.0.0.1:80"));
        assert_eq!("[fd00::1]:80".parse(), address("[fd00::1]:80"));
        let party = Party::Named { namespace: "ignite".into(), name: "ignite-1".into() };
        assert_eq!("ignite/ignite-1:47500".parse(), Ok(Target::Named { party, port: 47500 }));
        let labels = vec!["thin".to_owned(), "ignite".to_owned()];
        for text in ["thin.ignite:80", "thin.ignite.svc:80", "thin.ignite.svc.cluster.local.:80"] {
            assert_eq!(text.parse(), Ok(Target::Host { labels: labels.clone(), port: 80 }), "{text}");
        }
        for wrong in ["10.0.0.1", "ignite:80", "ignite/n1", "a/b:x", "a..b:80", "a.b.c.d:80", "a.b:70000"] {
            assert!(wrong.parse::<Target>().is_err(), "{wrong}");
        }
    }
}
