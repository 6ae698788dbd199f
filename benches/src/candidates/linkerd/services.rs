//! What the stand-in answers: every destination is a meshed pod that speaks opaque TCP, and everybody with a
//! certificate may talk to everybody.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use linkerd2_proxy_api::destination::destination_server::Destination;
use linkerd2_proxy_api::destination::protocol_hint::{self, OpaqueTransport};
use linkerd2_proxy_api::destination::tls_identity::{DnsLikeIdentity, Strategy};
use linkerd2_proxy_api::destination::{
    DestinationProfile, GetDestination, NoEndpoints, ProtocolHint, TlsIdentity, Update, WeightedAddr, update,
};
use linkerd2_proxy_api::identity::identity_server::Identity;
use linkerd2_proxy_api::identity::{CertifyRequest, CertifyResponse};
use linkerd2_proxy_api::inbound::authn::permit_mesh_tls::Clients;
use linkerd2_proxy_api::inbound::authn::{Permit, PermitMeshTls, PermitUnauthenticated};
use linkerd2_proxy_api::inbound::inbound_server_policies_server::InboundServerPolicies;
use linkerd2_proxy_api::inbound::proxy_protocol::{self, Opaque};
use linkerd2_proxy_api::inbound::{Authn, Authz, Network, PortSpec, ProxyProtocol, Server};
use linkerd2_proxy_api::meta::{Metadata, metadata};
use linkerd2_proxy_api::net::{IpNetwork, TcpAddress};
use linkerd2_proxy_api::outbound::outbound_policies_server::OutboundPolicies;
use linkerd2_proxy_api::outbound::{OutboundPolicy, TrafficSpec};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};

/// Longer than any run, so that nothing is renewed while it lasts.
const CERTIFICATE_LIFETIME: Duration = Duration::from_hours(12);

/// What the proxy counts an endpoint with when there is only one.
const WEIGHT: u32 = 10_000;

/// Answers of one kind, of which the first comes at once and no other ever.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The stand-in.
#[derive(Clone, Debug)]
pub(super) struct StandIn {
    pub(super) leaf: Vec<u8>,
    pub(super) name: String,
    pub(super) inbound_port: u16,
}

fn once_and_open<T: Send + 'static>(answer: T) -> Response<Answers<T>> {
    let open = tokio_stream::pending();
    Response::new(Box::pin(tokio_stream::once(Ok(answer)).chain(open)))
}

impl StandIn {
    fn endpoint(&self, address: SocketAddr) -> WeightedAddr {
        let name = DnsLikeIdentity { name: self.name.clone() };
        WeightedAddr {
            addr: Some(TcpAddress::from(address)),
            weight: WEIGHT,
            tls_identity: Some(TlsIdentity {
                strategy: Some(Strategy::DnsLikeIdentity(name.clone())),
                server_name: Some(name),
            }),
            protocol_hint: Some(ProtocolHint {
                protocol: Some(protocol_hint::Protocol::Opaque(protocol_hint::Opaque {})),
                opaque_transport: Some(OpaqueTransport { inbound_port: self.inbound_port.into() }),
            }),
            ..WeightedAddr::default()
        }
    }

    fn server() -> Server {
        let everybody = PermitMeshTls { clients: Some(Clients::Unauthenticated(PermitUnauthenticated {})) };
        Server {
            protocol: Some(ProxyProtocol { kind: Some(proxy_protocol::Kind::Opaque(Opaque {})) }),
            authorizations: vec![Authz {
                networks: vec![Network {
                    net: Some(IpNetwork { ip: Some([0, 0, 0, 0].into()), prefix_len: 0 }),
                    except: Vec::new(),
                }],
                authentication: Some(Authn { permit: Some(Permit::MeshTls(everybody)) }),
                metadata: Some(Metadata { kind: Some(metadata::Kind::Default("bench".to_owned())) }),
                ..Authz::default()
            }],
            labels: HashMap::from(
                [("name", "bench"), ("kind", "default")].map(|(k, v)| (k.into(), v.into())),
            ),
            ..Server::default()
        }
    }
}

#[tonic::async_trait]
impl Identity for StandIn {
    async fn certify(&self, _: Request<CertifyRequest>) -> Result<Response<CertifyResponse>, Status> {
        Ok(Response::new(CertifyResponse {
            leaf_certificate: self.leaf.clone(),
            intermediate_certificates: Vec::new(),
            valid_until: Some((SystemTime::now() + CERTIFICATE_LIFETIME).into()),
        }))
    }
}

#[tonic::async_trait]
impl Destination for StandIn {
    type GetStream = Answers<Update>;
    type GetProfileStream = Answers<DestinationProfile>;

    async fn get(&self, _: Request<GetDestination>) -> Result<Response<Self::GetStream>, Status> {
        Ok(once_and_open(Update { update: Some(update::Update::NoEndpoints(NoEndpoints { exists: false })) }))
    }

    async fn get_profile(
        &self,
        asked: Request<GetDestination>,
    ) -> Result<Response<Self::GetProfileStream>, Status> {
        let path = asked.into_inner().path;
        let address: SocketAddr = path
            .parse()
            .map_err(|error| Status::invalid_argument(format!("{path:?}: expected an address: {error}")))?;
        Ok(once_and_open(DestinationProfile {
            opaque_protocol: true,
            endpoint: Some(self.endpoint(address)),
            ..DestinationProfile::default()
        }))
    }
}

#[tonic::async_trait]
impl InboundServerPolicies for StandIn {
    type WatchPortStream = Answers<Server>;

    async fn get_port(&self, _: Request<PortSpec>) -> Result<Response<Server>, Status> {
        Ok(Response::new(Self::server()))
    }

    async fn watch_port(&self, _: Request<PortSpec>) -> Result<Response<Self::WatchPortStream>, Status> {
        Ok(once_and_open(Self::server()))
    }
}

#[tonic::async_trait]
impl OutboundPolicies for StandIn {
    type WatchStream = Answers<OutboundPolicy>;

    async fn get(&self, _: Request<TrafficSpec>) -> Result<Response<OutboundPolicy>, Status> {
        Err(Status::not_found("the profile's endpoint serves"))
    }

    async fn watch(&self, _: Request<TrafficSpec>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::not_found("the profile's endpoint serves"))
    }
}
