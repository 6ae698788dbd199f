//! A simulated proxy: the stream that a sidecar opens, what it asks for at first, and its acknowledgements.

use std::{sync::Arc, time::Instant};

use ringmail_xds::{
    Resource,
    discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node},
    ringmail::{Destination, Inbound},
    security::Authorization,
    service,
    workload::Address,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Streaming};

use crate::{churn::slot_ip, connection::Target, learnt::Learnt};

/// What a sidecar takes of one answer.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// One of the proxies.
#[derive(Clone, Debug)]
pub(crate) struct Proxy {
    pub(crate) number: usize,
    pub(crate) namespace: String,
    pub(crate) token: String,
    /// How many peers it asks for, of how many.
    pub(crate) peers: (usize, usize),
}

/// The name of its pod.
pub(crate) fn name(number: usize) -> String {
    format!("proxy-{number}")
}

/// The address of its pod.
pub(crate) fn ip(number: usize) -> String {
    format!("10.252.{}.{}", number / 250, number % 250 + 1)
}

impl Proxy {
    /// The pods that come and go of which it asks for the addresses.
    fn slots(&self) -> impl Iterator<Item = usize> {
        let (peers, pods) = self.peers;
        let first = self.number * peers;
        (0..peers).map(move |peer| (first + peer) % pods)
    }

    /// Opens the stream and asks for everything. It is read until it ends, in the background.
    pub(crate) async fn open(self, control: Target, learnt: Arc<Learnt>) -> anyhow::Result<()> {
        let channel = control.connect(self.number).await?;
        let (requests, queue) = mpsc::channel(16);
        let mut request = Request::new(ReceiverStream::new(queue));
        request.metadata_mut().insert("authorization", format!("Bearer {}", self.token).parse()?);
        for first in self.first() {
            requests.send(first).await?;
        }
        let answers = service::open(channel, request, MAX_ANSWER).await?;
        learnt.opened();
        tokio::spawn(async move {
            read(self.number, requests, answers, &learnt).await;
            learnt.closed();
        });
        Ok(())
    }

    fn first(&self) -> Vec<DeltaDiscoveryRequest> {
        let peers = self.slots().map(slot_ip);
        let names: Vec<String> = peers.chain([ip(self.number)]).map(|ip| format!("/{ip}")).collect();
        let (namespace, name) = (&self.namespace, name(self.number));
        let id = format!("sidecar~{}~{name}.{namespace}~{namespace}.svc.cluster.local", ip(self.number));
        let asked = [
            (Address::TYPE_URL, names.clone()),
            (Destination::TYPE_URL, names),
            (Authorization::TYPE_URL, Vec::new()),
            (Inbound::TYPE_URL, vec![Inbound::NAME.to_owned()]),
        ];
        let request = |(type_url, names): (&str, Vec<String>)| DeltaDiscoveryRequest {
            node: Some(Node { id: id.clone(), ..Node::default() }),
            type_url: type_url.to_owned(),
            resource_names_subscribe: names,
            ..DeltaDiscoveryRequest::default()
        };
        asked.into_iter().map(request).collect()
    }
}

async fn read(
    proxy: usize,
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    mut answers: Streaming<DeltaDiscoveryResponse>,
    learnt: &Learnt,
) {
    while let Ok(Some(answer)) = answers.message().await {
        let now = Instant::now();
        if answer.type_url == Address::TYPE_URL {
            let pods = answer.resources.iter().filter_map(|resource| resource.name.rsplit('/').next());
            pods.for_each(|pod| learnt.arrived(pod, proxy, now));
        }
        let acknowledged = DeltaDiscoveryRequest {
            type_url: answer.type_url,
            response_nonce: answer.nonce,
            ..DeltaDiscoveryRequest::default()
        };
        if requests.send(acknowledged).await.is_err() {
            return;
        }
    }
}
