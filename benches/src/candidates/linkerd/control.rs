//! The stand-in as a process: one plain gRPC server for all that the proxy asks.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use linkerd2_proxy_api::destination::destination_server::DestinationServer;
use linkerd2_proxy_api::identity::identity_server::IdentityServer;
use linkerd2_proxy_api::inbound::inbound_server_policies_server::InboundServerPoliciesServer;
use linkerd2_proxy_api::outbound::outbound_policies_server::OutboundPoliciesServer;
use tonic::transport::Server;

use super::services::StandIn;

/// `ringmail-bench linkerd-control`.
#[derive(Args, Clone, Debug)]
pub struct ControlArguments {
    /// Where it listens.
    #[arg(long)]
    pub listen: SocketAddr,
    /// The certificate that the proxy is given, DER.
    #[arg(long)]
    pub leaf: PathBuf,
    /// The name that every peer has.
    #[arg(long)]
    pub name: String,
    /// The port on which every peer's proxy takes meshed connections.
    #[arg(long)]
    pub inbound_port: u16,
}

/// Answers until it is killed.
pub fn control(arguments: &ControlArguments) -> Result<()> {
    let leaf = fs::read(&arguments.leaf).with_context(|| format!("read {}", arguments.leaf.display()))?;
    let stand_in = StandIn { leaf, name: arguments.name.clone(), inbound_port: arguments.inbound_port };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("make a runtime")?;
    runtime.block_on(async {
        Server::builder()
            .add_service(IdentityServer::new(stand_in.clone()))
            .add_service(DestinationServer::new(stand_in.clone()))
            .add_service(InboundServerPoliciesServer::new(stand_in.clone()))
            .add_service(OutboundPoliciesServer::new(stand_in))
            .serve(arguments.listen)
            .await
            .with_context(|| format!("serve on {}", arguments.listen))
    })
}
