//! One stream of one pod, from its first request to its end.
//!
//! Requests are read and answers written by one task. What is to be sent is made from the world at the moment in which
//! it can be sent: while a client does not read, changes only mark what it has to be told again.

use std::{collections::VecDeque, net::IpAddr, sync::Arc, time::Instant};

use ringmail_policy::{ClientClass, Pod};
use ringmail_xds::{
    Resource,
    discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node},
    named_address,
    ringmail::{Destination, Inbound},
    security::Authorization,
    workload::Address,
};
use tokio::{
    sync::mpsc,
    time::{self, sleep_until},
};
use tonic::{Status, Streaming};

use super::{
    Discovery,
    hub::{Link, LinkDirty},
    own::Own,
    pace::Pace,
    subscription::{Push, Subscription},
    world::ObjectKey,
};

/// Names of one type on one stream: a sidecar asks for 4096 at most, and for its own.
pub(crate) const MAX_NAMES: usize = 8 * 1024;
/// Resources of one type that a client may say it holds: those behind the services that it asks for are among them.
const MAX_HELD: usize = 2 * 16 * 1024;
/// Bytes of resources in one answer: small enough for every client's limit, and for a queue of one.
const MAX_ANSWER: usize = 512 * 1024;
/// Answers that wait before no further request is read.
const MAX_OUTBOX: usize = 64;
/// Characters of a client's words that are repeated in a log line.
const MAX_WORDS: usize = 300;

/// What a client is sent through. One answer waits at most.
pub(crate) type Answers = mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>;

/// The pod that a stream's token is bound to.
pub(crate) struct BoundTo {
    pub(crate) key: ObjectKey,
    /// A later pod of the same name has another one.
    pub(crate) uid: String,
}

/// See the module.
pub(crate) struct Stream {
    discovery: Arc<Discovery>,
    pod: BoundTo,
    link: Arc<Link>,
    addresses: Subscription,
    destinations: Subscription,
    own: Own,
    /// The own pod as the world knew it last: what the client is told of others depends on it.
    seen: Option<Pod>,
    class: ClientClass,
    outbox: VecDeque<DeltaDiscoveryResponse>,
    /// When the oldest change in `outbox` became known.
    since: Option<Instant>,
    nonce: u64,
    pace: Pace,
    greeted: bool,
    /// One line of a stream is enough.
    has_passed_over: bool,
}

impl Stream {
    /// A stream of `pod`.
    pub(crate) fn new(discovery: Arc<Discovery>, pod: BoundTo, link: Arc<Link>) -> Self {
        Self {
            pod,
            discovery,
            link,
            addresses: Subscription::new(Address::TYPE_URL),
            destinations: Subscription::new(Destination::TYPE_URL),
            own: Own::default(),
            seen: None,
            class: ClientClass::default(),
            outbox: VecDeque::new(),
            since: None,
            nonce: 0,
            pace: Pace::default(),
            greeted: false,
            has_passed_over: false,
        }
    }

    /// Serves until the client leaves, the stream's life is over, or something is wrong: the status says what.
    pub(crate) async fn run(mut self, mut requests: Streaming<DeltaDiscoveryRequest>, answers: Answers) {
        let end = self.serve(&mut requests, &answers).await;
        let asked: Vec<IpAddr> = self.addresses.asked().chain(self.destinations.asked()).collect();
        self.discovery.hub.leave(&self.link, asked.into_iter());
        let reason = end.as_ref().map_or("lifetime", |status| status.message());
        tracing::debug!(pod = %self.name(), reason, "stream ended");
        if let Some(status) = end {
            // Where the queue is full the client does not read anyway.
            let _ = answers.try_send(Err(status));
        }
    }

    fn name(&self) -> String {
        format!("{}/{}", self.pod.key.namespace, self.pod.key.name)
    }

    /// Nothing where the stream ends in order.
    async fn serve(
        &mut self,
        requests: &mut Streaming<DeltaDiscoveryRequest>,
        answers: &Answers,
    ) -> Option<Status> {
        let life = time::Instant::now() + self.discovery.lifetime();
        let mut read_by = None;
        loop {
            if self.outbox.is_empty() {
                read_by = None;
            } else {
                read_by.get_or_insert_with(|| time::Instant::now() + self.discovery.read_deadline);
            }
            let link = Arc::clone(&self.link);
            tokio::select! {
                biased;
                () = answers.closed() => return None,
                () = sleep_until(life) => return None,
                () = link.replaced.notified() => {
                    return Some(Status::aborted("the pod has opened another stream"));
                }
                permit = answers.reserve(), if !self.outbox.is_empty() => {
                    let (Ok(permit), Some(answer)) = (permit, self.outbox.pop_front()) else { return None };
                    permit.send(Ok(answer));
                    read_by = None;
                    self.sent();
                }
                () = sleep_until(read_by.unwrap_or(life)), if read_by.is_some() => {
                    self.discovery.metrics.slow();
                    return Some(Status::deadline_exceeded("the client does not read"));
                }
                () = link.changed.notified(), if self.outbox.is_empty() => self.refresh(link.take()),
                request = requests.message(), if self.pace.is_open() && self.outbox.len() < MAX_OUTBOX => match request {
                    Ok(Some(request)) => if let Err(status) = self.take(&request) {
                        return Some(status);
                    },
                    Ok(None) => return None,
                    Err(status) => return Some(status),
                },
                () = self.pace.wait(), if !self.pace.is_open() => {}
            }
        }
    }

    /// All that became known until `since` is on its way.
    fn sent(&mut self) {
        if self.outbox.is_empty()
            && let Some(since) = self.since.take()
        {
            self.discovery.metrics.queued(since.elapsed());
        }
    }

    fn take(&mut self, request: &DeltaDiscoveryRequest) -> Result<(), Status> {
        if !self.greeted {
            self.greet(request.node.as_ref())?;
        }
        self.acknowledged(request);
        let names = request.resource_names_subscribe.len() + request.resource_names_unsubscribe.len();
        self.pace.spend(1 + names);
        if request.initial_resource_versions.len() > MAX_HELD {
            return Err(Status::resource_exhausted(format!("more than {MAX_HELD} resources are held")));
        }
        match &*request.type_url {
            Address::TYPE_URL | Destination::TYPE_URL => self.subscribe(request),
            Authorization::TYPE_URL => {
                if request.response_nonce.is_empty() {
                    self.own.ask_policies(&request.initial_resource_versions);
                    self.refresh_own(true);
                }
                Ok(())
            }
            Inbound::TYPE_URL => self.subscribe_inbound(request),
            #[cfg(feature = "next-schema")]
            ringmail_xds::next::Novelty::TYPE_URL => {
                if request.response_nonce.is_empty() {
                    let resources = vec![ringmail_xds::next::Novelty::resource()];
                    self.answer(
                        ringmail_xds::next::Novelty::TYPE_URL,
                        Push { resources, removed: Vec::new() },
                    );
                }
                Ok(())
            }
            other => {
                self.passed_over(other);
                Ok(())
            }
        }
    }

    /// A later proxy may ask for more than is known here, and must not lose the rest over it.
    fn passed_over(&mut self, type_url: &str) {
        if !self.has_passed_over {
            self.has_passed_over = true;
            tracing::info!(
                pod = %self.name(),
                r#type = shown(type_url),
                "a proxy asks for a type that this version does not serve, it gets none",
            );
        }
    }

    /// The stream is the pod's that the token is bound to, whatever the client says. One that says otherwise is
    /// mistaken about who it is, and must not go on.
    fn greet(&mut self, node: Option<&Node>) -> Result<(), Status> {
        self.greeted = true;
        let discovery = Arc::clone(&self.discovery);
        let world = discovery.world();
        self.see(world.pod(&self.pod.key, &self.pod.uid), &world);
        drop(world);
        let Some(node) = node else { return Ok(()) };
        let bound = format!("{}.{}", self.pod.key.name, self.pod.key.namespace);
        match node.id.split('~').nth(2) {
            Some(claimed) if claimed == bound => Ok(()),
            claimed => Err(Status::permission_denied(format!(
                "node says that it is pod {:?}: the token is bound to {bound:?}",
                shown(claimed.unwrap_or_default())
            ))),
        }
    }

    fn acknowledged(&self, request: &DeltaDiscoveryRequest) {
        if let Some(refusal) = &request.error_detail {
            self.discovery.metrics.refused(&request.type_url);
            tracing::warn!(
                pod = %self.name(),
                r#type = shown(&request.type_url),
                nonce = shown(&request.response_nonce),
                error = shown(&refusal.message),
                "a proxy refuses what it was sent",
            );
        }
    }

    fn subscribe(&mut self, request: &DeltaDiscoveryRequest) -> Result<(), Status> {
        let discovery = Arc::clone(&self.discovery);
        let (more, strange) = read_names(&request.resource_names_subscribe);
        let (less, _) = read_names(&request.resource_names_unsubscribe);
        // Marked before it is looked up, so that no change in between is missed.
        discovery.hub.ask(&self.link, &more);
        let (seen, is_address) = (self.seen.clone(), request.type_url == Address::TYPE_URL);
        let own = if is_address { &mut self.addresses } else { &mut self.destinations };
        let resumes = !request.initial_resource_versions.is_empty() && own.len() == 0;
        if resumes {
            own.resume(&request.initial_resource_versions);
        }
        let world = discovery.world();
        let answer = |address| match is_address {
            true => world.addresses(address),
            false => world.destinations(address, seen.as_ref()),
        };
        let gone = if less.is_empty() { Push::default() } else { own.unsubscribe(&less, answer) };
        let mut push =
            if more.is_empty() && !resumes { Push::default() } else { own.subscribe(&more, resumes, answer) };
        drop(world);
        let names = own.len();
        push.removed.extend(strange);
        let other = if is_address { &self.destinations } else { &self.addresses };
        let nobody_asks = less.into_iter().filter(|address| !other.contains(*address));
        discovery.hub.forget(&self.link, nobody_asks);
        let type_url = if is_address { Address::TYPE_URL } else { Destination::TYPE_URL };
        self.queue(type_url, gone);
        self.queue(type_url, push);
        if names > MAX_NAMES {
            return Err(Status::resource_exhausted(format!("more than {MAX_NAMES} names are asked for")));
        }
        Ok(())
    }

    fn subscribe_inbound(&mut self, request: &DeltaDiscoveryRequest) -> Result<(), Status> {
        let names = &request.resource_names_subscribe;
        if let Some(name) = names.iter().find(|name| *name != Inbound::NAME) {
            return Err(Status::permission_denied(format!(
                "{:?} is asked for: a proxy is served its own pod's, named {:?}",
                shown(name),
                Inbound::NAME
            )));
        }
        if !names.is_empty() {
            self.own.ask_inbound(request.initial_resource_versions.get(Inbound::NAME).map(String::as_str));
            self.refresh_own(false);
        }
        Ok(())
    }

    /// Looks again at what has changed: who answers before what is spoken to them, policies before their list.
    fn refresh(&mut self, dirty: LinkDirty) {
        if let Some(since) = dirty.since {
            self.since = Some(self.since.map_or(since, |before| before.min(since)));
        }
        let discovery = Arc::clone(&self.discovery);
        let world = discovery.world();
        let addresses =
            self.addresses.refresh(dirty.addresses.iter().copied(), |address| world.addresses(address));
        let mut again = dirty.addresses;
        if dirty.own && self.see(world.pod(&self.pod.key, &self.pod.uid), &world) {
            again.extend(self.destinations.asked());
        }
        let seen = self.seen.as_ref();
        let destinations = self.destinations.refresh(again, |address| world.destinations(address, seen));
        drop(world);
        self.queue(Address::TYPE_URL, addresses);
        self.queue(Destination::TYPE_URL, destinations);
        if dirty.own {
            self.refresh_own(false);
        }
        self.sent();
    }

    /// Whether clients such as the pod is now are told otherwise than before.
    fn see(&mut self, pod: Option<Pod>, world: &super::world::World) -> bool {
        let class = pod.as_ref().map(|pod| world.class(pod)).unwrap_or_default();
        let changed = class != self.class;
        (self.seen, self.class) = (pod, class);
        changed
    }

    fn refresh_own(&mut self, first: bool) {
        let discovery = Arc::clone(&self.discovery);
        let world = discovery.world();
        let own = world.own_policies(&self.pod.key, &self.pod.uid);
        drop(world);
        let Some(own) = own else { return };
        let (policies, inbound) = self.own.refresh(&own);
        if first && policies.is_empty() {
            // A client that asked for all there is must learn that it has it.
            self.answer(Authorization::TYPE_URL, policies);
        } else {
            self.queue(Authorization::TYPE_URL, policies);
        }
        self.queue(Inbound::TYPE_URL, inbound);
    }

    /// Puts a push into the outbox, in answers of a bounded size. What is gone comes last.
    fn queue(&mut self, type_url: &'static str, push: Push) {
        let mut part = Push::default();
        let mut bytes = 0;
        for resource in push.resources {
            bytes += resource.resource.as_ref().map_or(0, |any| any.value.len()) + resource.name.len();
            part.resources.push(resource);
            if bytes >= MAX_ANSWER {
                self.answer(type_url, std::mem::take(&mut part));
                bytes = 0;
            }
        }
        part.removed = push.removed;
        if !part.is_empty() {
            self.answer(type_url, part);
        }
    }

    fn answer(&mut self, type_url: &'static str, push: Push) {
        self.nonce += 1;
        let answer = DeltaDiscoveryResponse {
            system_version_info: env!("CARGO_PKG_VERSION").to_owned(),
            resources: push.resources,
            type_url: type_url.to_owned(),
            nonce: self.nonce.to_string(),
            removed_resources: push.removed,
        };
        self.discovery.metrics.pushed(&answer);
        self.outbox.push_back(answer);
    }
}

/// The addresses that names stand for, and names that stand for nothing here.
fn read_names(names: &[String]) -> (Vec<IpAddr>, Vec<String>) {
    let (mut addresses, mut strange) = (Vec::new(), Vec::new());
    for name in names {
        match named_address(name) {
            Some(address) => addresses.push(address),
            // Everything there is: too much for anybody, and nothing that a name stands for.
            None if name == "*" => {}
            None => strange.push(shown(name)),
        }
    }
    (addresses, strange)
}

fn shown(text: &str) -> String {
    text.chars().filter(|char| !char.is_control()).take(MAX_WORDS).collect()
}
