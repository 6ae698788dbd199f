//! One session with the server: what is said first, and then one message at a time.

use std::{net::IpAddr, time::Duration};

use ringmail_xds::{
    Resource, address_name,
    discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Status as Refusal},
    ringmail,
    security::Authorization,
    service,
    workload::Address,
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Extensions, Request, Streaming};

use super::{
    asked::Change,
    held::{Fault, Held},
};
use crate::control_plane::{Server, ServerError};

/// From the first SYN to the server's first headers. It asks Kubernetes about the token, which may take seconds.
const OPEN_DEADLINE: Duration = Duration::from_secs(10);
/// Bytes of an answer: 4096 addresses take some 3 MiB.
const MAX_ANSWER: usize = 16 * 1024 * 1024;
/// Characters of the server's words that are repeated in a log line.
const MAX_MESSAGE: usize = 300;

/// Every type that is asked for, the own policies last: with them the first complete set is there.
const TYPES: &[&str] = &[
    #[cfg(feature = "next-schema")]
    ringmail_xds::next::Novelty::TYPE_URL,
    Address::TYPE_URL,
    ringmail::Destination::TYPE_URL,
    Authorization::TYPE_URL,
    ringmail::Inbound::TYPE_URL,
];

/// Why there is no session, or no longer.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    /// Nothing came in time.
    #[error("{server} did not answer within {} s", OPEN_DEADLINE.as_secs())]
    Deadline {
        /// What it does, and its address.
        server: String,
    },
    /// The server ended it in order.
    #[error("{server} ended the session")]
    Ended {
        /// What it does, and its address.
        server: String,
    },
    /// The server said no, or failed.
    #[error("{server} answered {code:?}: {message}")]
    Refused {
        /// What it does, and its address.
        server: String,
        /// The gRPC code.
        code: Code,
        /// Its words, cut to a bound.
        message: String,
    },
    /// No connection.
    #[error(transparent)]
    Server(#[from] ServerError),
}

/// A session that is open.
pub(super) struct Session {
    server: String,
    requests: mpsc::UnboundedSender<DeltaDiscoveryRequest>,
    answers: Streaming<DeltaDiscoveryResponse>,
}

impl Session {
    /// Opens a session and asks for all of `held` that is newer than what is held.
    pub(super) async fn open(server: &Server, node: &str, held: &Held) -> Result<Self, SessionError> {
        let (requests, queue) = mpsc::unbounded_channel();
        let names: Vec<String> = held.asked().map(address_name).collect();
        for type_url in TYPES {
            let mut request = first(type_url, &names, held);
            request.node = Some(Node {
                id: node.to_owned(),
                user_agent_name: env!("CARGO_PKG_NAME").to_owned(),
                user_agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            });
            let _ = requests.send(request);
        }
        let opening = async {
            let metadata = server.metadata()?;
            let channel = server.connect().await?;
            let queue = UnboundedReceiverStream::new(queue);
            let request = Request::from_parts(metadata, Extensions::default(), queue);
            service::open(channel, request, MAX_ANSWER).await.map_err(|status| refused(server, &status))
        };
        match timeout_at(Instant::now() + OPEN_DEADLINE, opening).await {
            Ok(answers) => Ok(Self { server: server.to_string(), requests, answers: answers? }),
            Err(_elapsed) => Err(SessionError::Deadline { server: server.to_string() }),
        }
    }

    /// The next answer. Cancel safe.
    pub(super) async fn answer(&mut self) -> Result<DeltaDiscoveryResponse, SessionError> {
        match self.answers.message().await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(SessionError::Ended { server: self.server.clone() }),
            Err(status) => Err(of_status(self.server.clone(), &status)),
        }
    }

    /// Asks for other addresses.
    pub(super) fn subscribe(&self, change: &Change) {
        let names = |addresses: &[IpAddr]| addresses.iter().copied().map(address_name).collect();
        if change.is_empty() {
            return;
        }
        for type_url in [Address::TYPE_URL, ringmail::Destination::TYPE_URL] {
            self.say(DeltaDiscoveryRequest {
                type_url: type_url.to_owned(),
                resource_names_subscribe: names(&change.subscribe),
                resource_names_unsubscribe: names(&change.unsubscribe),
                ..DeltaDiscoveryRequest::default()
            });
        }
    }

    /// Says that `answer` was taken, or what of it was refused.
    pub(super) fn acknowledge(&self, answer: &DeltaDiscoveryResponse, faults: &[Fault]) {
        let message = super::shown(faults, "; ");
        let refusal = Refusal { code: Code::InvalidArgument.into(), message: shown(&message) };
        self.say(DeltaDiscoveryRequest {
            type_url: answer.type_url.clone(),
            response_nonce: answer.nonce.clone(),
            error_detail: (!faults.is_empty()).then_some(refusal),
            ..DeltaDiscoveryRequest::default()
        });
    }

    fn say(&self, request: DeltaDiscoveryRequest) {
        // Where the session has ended, the next answer tells.
        let _ = self.requests.send(request);
    }
}

/// The first request of a type. No names mean everything there is: of policies, those of this pod.
fn first(type_url: &str, names: &[String], held: &Held) -> DeltaDiscoveryRequest {
    let subscribe = match type_url {
        Authorization::TYPE_URL => Vec::new(),
        ringmail::Inbound::TYPE_URL => vec![ringmail::Inbound::NAME.to_owned()],
        #[cfg(feature = "next-schema")]
        ringmail_xds::next::Novelty::TYPE_URL => vec![ringmail_xds::next::Novelty::NAME.to_owned()],
        _ => names.to_vec(),
    };
    DeltaDiscoveryRequest {
        type_url: type_url.to_owned(),
        resource_names_subscribe: subscribe,
        initial_resource_versions: held.versions(type_url),
        ..DeltaDiscoveryRequest::default()
    }
}

fn refused(server: &Server, status: &tonic::Status) -> SessionError {
    of_status(server.to_string(), status)
}

fn of_status(server: String, status: &tonic::Status) -> SessionError {
    SessionError::Refused { server, code: status.code(), message: shown(status.message()) }
}

fn shown(text: &str) -> String {
    text.chars().filter(|char| !char.is_control()).take(MAX_MESSAGE).collect()
}
