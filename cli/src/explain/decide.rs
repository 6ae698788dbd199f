//! The decisions on one connection, in the order in which the two sidecars make them.

use std::net::SocketAddr;

use ringmail_policy::{
    Inbound, Mode, Origin, Outbound, OutsideReason, RefusedReason, Report, Request, Route,
};

use super::explanation::{Explanation, Leg, Outcome, Step};
use super::party::{Behind, Destination, Dialled, End, World};
use super::settings::Outside;
use crate::cluster::Direction;

/// What is asked.
pub(super) struct Question<'a> {
    pub(super) world: &'a dyn World,
    pub(super) from: End,
    pub(super) destination: Destination,
}

/// What the client's side puts on the wire.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    MutualTls,
    Nothing,
    Plaintext,
}

/// Decides everything.
pub(super) fn explain(question: &Question<'_>) -> Explanation {
    let Question { from, destination, .. } = question;
    let mut answer = match &destination.behind {
        None => {
            let mut course = Course::new(question, &destination.to);
            let outcome = course.whole();
            course.alone(outcome)
        }
        Some(behind) => through_service(question, behind),
    };
    let of = |end: &End| end.pod.as_ref().map(|pod| pod.namespace.clone());
    let ends = [from, &destination.to].into_iter().chain(answer.endpoints.iter().map(|leg| &leg.to));
    let namespaces: Vec<String> = ends.filter_map(of).collect();
    let namespaces: Vec<&str> = namespaces.iter().map(String::as_str).collect();
    let reports = question.world.resources().reports().iter();
    answer.notes.extend(reports.filter_map(|report| question.world.cite(report, &namespaces)));
    answer.notes.extend(question.world.faults(&namespaces));
    answer.notes.sort();
    answer.notes.dedup();
    answer
}

/// A client with a sidecar dials an endpoint that its sidecar chooses; any other one that kube-proxy chooses; and
/// whoever looks up a headless Service chooses by itself.
fn through_service(question: &Question<'_>, behind: &Behind) -> Explanation {
    let to = &question.destination.to;
    let mut course = Course::new(question, to);
    let way = course.service(behind);
    let endpoints: &[SocketAddr] = match &way {
        Way::Nowhere => &[],
        Way::Whole | Way::Plaintext => &behind.endpoints,
        Way::Chosen(endpoints) => endpoints,
    };
    let mut notes = std::mem::take(&mut course.notes);
    let legs: Vec<Leg> =
        endpoints.iter().map(|endpoint| leg(question, &way, *endpoint, &mut notes)).collect();
    let outcome = legs.iter().map(|leg| leg.outcome).max();
    if outcome.is_none() && !matches!(way, Way::Nowhere) {
        course.step("service", false, "refused: no endpoint has the port", &to.known_by);
    }
    let mut answer = course.alone(outcome.unwrap_or(Outcome::Refused));
    answer.endpoints = legs;
    answer.notes = notes;
    answer
}

fn leg(question: &Question<'_>, way: &Way, endpoint: SocketAddr, notes: &mut Vec<String>) -> Leg {
    let to = End { port: Some(endpoint.port()), ..question.world.at(endpoint.ip()) };
    let behind = question.destination.behind.as_ref();
    let masked = behind.is_some_and(|behind| behind.dialled == Dialled::Node { local: false });
    let node = End::unknown(question.destination.to.address);
    let mut course = Course::new(question, &to);
    if masked {
        course.seen = &node;
    }
    let outcome = match way {
        Way::Whole => course.whole(),
        Way::Chosen(_) => course.routed(),
        Way::Plaintext | Way::Nowhere => course.arrival(Sent::Plaintext),
    };
    notes.append(&mut course.notes);
    let steps = course.steps;
    Leg { to, steps, outcome }
}

/// What becomes of a connection to a Service.
enum Way {
    /// The client's sidecar dials one of these.
    Chosen(Vec<SocketAddr>),
    Nowhere,
    /// It goes in plaintext to wherever kube-proxy sends it.
    Plaintext,
    /// Each endpoint is dialled by its own address.
    Whole,
}

fn count<T>(of: &[T]) -> String {
    if of.len() == 1 { "1 endpoint".to_owned() } else { format!("{} endpoints", of.len()) }
}

/// The decisions so far.
struct Course<'a> {
    question: &'a Question<'a>,
    /// Whom the destination sees: the client, or a node in its place.
    seen: &'a End,
    to: &'a End,
    steps: Vec<Step>,
    notes: Vec<String>,
}

impl<'a> Course<'a> {
    fn new(question: &'a Question<'a>, to: &'a End) -> Self {
        Self { question, seen: &question.from, to, steps: Vec::new(), notes: Vec::new() }
    }

    /// The answer, where there is one destination.
    fn alone(self, outcome: Outcome) -> Explanation {
        let (from, to) = (self.question.from.clone(), self.to.clone());
        let Self { steps, notes, .. } = self;
        let (endpoints, supposing, unseen) = (Vec::new(), Vec::new(), Vec::new());
        Explanation { from, to, steps, endpoints, outcome, notes, supposing, unseen }
    }

    fn step(&mut self, step: &'static str, goes_on: bool, decision: impl Into<String>, by: impl ToString) {
        self.steps.push(Step { step, goes_on, decision: decision.into(), decided_by: by.to_string() });
    }

    fn note(&mut self, reports: &[Report]) {
        let of = |end: &End| end.pod.as_ref().map(|pod| pod.namespace.clone()).unwrap_or_default();
        let namespaces = [of(&self.question.from), of(self.to)];
        let namespaces = [namespaces[0].as_str(), namespaces[1].as_str()];
        let world = self.question.world;
        self.notes.extend(reports.iter().filter_map(|report| world.cite(report, &namespaces)));
    }

    /// Both sides.
    fn whole(&mut self) -> Outcome {
        if self.question.from.address == self.to.address {
            let text = "the pod dials its own address, which is never captured";
            self.step("capture", true, text, "ringmail-init");
            return Outcome::Local;
        }
        self.routed()
    }

    /// Both sides of a connection that leaves the pod.
    fn routed(&mut self) -> Outcome {
        match self.route() {
            Sent::Nothing => Outcome::Refused,
            sent @ (Sent::MutualTls | Sent::Plaintext) => self.arrival(sent),
        }
    }

    /// Whether the client's sidecar sees the connection at all; if not, what is sent.
    fn uncaptured(&mut self) -> Option<Sent> {
        let from = &self.question.from;
        if !from.sidecar {
            let by = if from.name.is_some() {
                &*from.known_by
            } else {
                "nothing is known of the client's address"
            };
            self.step("route", true, "plaintext: the client has no sidecar", by);
            return Some(Sent::Plaintext);
        }
        let capture = from.capture.as_ref()?;
        if capture.takes_outbound(self.to.socket()) {
            return None;
        }
        let text =
            "plaintext: the client's sidecar is not asked, the destination is excluded from its capture";
        let by = format!(
            "ringmail-init of {}: {}",
            from.known_by,
            capture.exclusions_of(Direction::Out).join(" ")
        );
        self.step("capture", true, text, by);
        Some(Sent::Plaintext)
    }

    fn outbound(&mut self) -> Outbound {
        let client = self.question.from.pod.clone().unwrap_or_default();
        let outbound = self.question.world.outbound(&client, self.to.address);
        self.note(outbound.reports());
        outbound
    }

    /// What the client's side makes of a Service.
    fn service(&mut self, behind: &Behind) -> Way {
        let plaintext = |course: &mut Self| {
            let decision = format!("kube-proxy chooses one of {}", count(&behind.endpoints));
            course.step("service", true, decision, &course.to.known_by);
            Way::Plaintext
        };
        match behind.dialled {
            Dialled::Address => {}
            Dialled::Name => {
                let endpoints = count(&behind.endpoints);
                let decision = format!("the name stands for {endpoints}; the client dials one");
                self.step("service", true, decision, &self.to.known_by);
                return Way::Whole;
            }
            Dialled::Node { local } => return self.node(behind, local),
        }
        if self.uncaptured().is_some() {
            return plaintext(self);
        }
        match self.outbound().route(self.to.socket()) {
            Route::Service { endpoints, .. } => {
                let decision = format!("the client's sidecar dials one of {} itself", count(&endpoints));
                self.step("service", true, decision, &self.to.known_by);
                Way::Chosen(endpoints.to_vec())
            }
            Route::Outside { reason, decided_by, .. } => match self.outside(reason, &decided_by) {
                Sent::Nothing => Way::Nowhere,
                Sent::MutualTls | Sent::Plaintext => plaintext(self),
            },
            Route::Mesh { .. } | Route::Refused { .. } | Route::Unknown => {
                self.unknown();
                Way::Nowhere
            }
        }
    }

    /// What becomes of a connection to a node, whose kube-proxy passes it on as it comes.
    fn node(&mut self, behind: &Behind, local: bool) -> Way {
        if self.route() == Sent::Nothing {
            return Way::Nowhere;
        }
        let then = if local {
            "and for clients outside the cluster only of those on that node (externalTrafficPolicy Local)"
        } else {
            "which sees the node in the place of the client (externalTrafficPolicy Cluster)"
        };
        let decision = format!("kube-proxy of the node chooses one of {}, {then}", count(&behind.endpoints));
        self.step("service", true, decision, &self.to.known_by);
        Way::Plaintext
    }

    /// The client's side: who is expected at the other end, or why the bytes go as they are, or nowhere.
    fn route(&mut self) -> Sent {
        if let Some(sent) = self.uncaptured() {
            return sent;
        }
        match self.outbound().route(self.to.socket()) {
            Route::Mesh { identities, decided_by, .. } => {
                let expected: Vec<_> = identities.iter().map(ToString::to_string).collect();
                let decision = format!("mutual TLS, the peer must be {}", expected.join(" or "));
                self.step("route", true, decision, decided_by);
                Sent::MutualTls
            }
            Route::Outside { reason, decided_by, .. } => self.outside(reason, &decided_by),
            Route::Refused { reason, decided_by, .. } => {
                let why =
                    RefusedReason::ALL.iter().find(|(known, _)| *known == reason).map_or("", |(_, why)| why);
                self.step("route", false, format!("refused ({}): {why}", reason.as_str()), decided_by);
                Sent::Nothing
            }
            // A Service's own address is looked at before its endpoints are.
            Route::Service { .. } | Route::Unknown => self.unknown(),
        }
    }

    fn unknown(&mut self) -> Sent {
        let decision = "refused (unknown_destination): inside mesh_ranges, and not known after unknown_wait";
        self.step("route", false, decision, "no workload is known at the address");
        Sent::Nothing
    }

    fn outside(&mut self, reason: OutsideReason, decided_by: &Origin) -> Sent {
        let why = OutsideReason::ALL.iter().find(|(known, _)| *known == reason).map_or("", |(_, why)| why);
        match self.question.from.outside {
            Outside::Passthrough => {
                self.step("route", true, format!("plaintext ({}): {why}", reason.as_str()), decided_by);
                Sent::Plaintext
            }
            Outside::Refuse => {
                let decision = format!("refused (outside_refused): {why}, and outbound_outside is refuse");
                self.step("route", false, decision, decided_by);
                Sent::Nothing
            }
        }
    }

    /// The destination's side: what the port takes, and whom.
    fn arrival(&mut self, sent: Sent) -> Outcome {
        let Some(pod) = self.to.pod.clone().filter(|_| self.to.sidecar) else {
            return self.bare_arrival(sent);
        };
        if let Some(capture) = &self.to.capture
            && !capture.takes_inbound(Some(self.seen.address), self.to.socket().port())
        {
            let excluded = capture.exclusions_of(Direction::In).join(" ");
            let by = format!("ringmail-init of {}: {excluded}", self.to.known_by);
            return self.uncaptured_arrival(sent, by.trim_end_matches([' ', ':']));
        }
        let world = self.question.world;
        let mut inbound = Inbound::compile(world.resources(), world.settings(), &pod);
        if let Some(workload) = &self.to.workload {
            inbound = inbound.known_as(workload, world.resources(), world.settings());
        }
        self.note(inbound.reports());
        match self.mode(&inbound, sent) {
            Some(outcome) if self.authorization(&inbound, outcome) => outcome,
            Some(_) | None => Outcome::Refused,
        }
    }

    /// No policy is asked: the sidecar does not see the connection.
    fn uncaptured_arrival(&mut self, sent: Sent, by: &str) -> Outcome {
        if sent == Sent::MutualTls {
            let text = "refused: TLS is sent, and the port is excluded from the capture of the sidecar that would answer";
            self.step("capture", false, text, by);
            return Outcome::Refused;
        }
        let text = "not captured: the application answers itself, and no policy is asked";
        self.step("capture", true, text, by);
        Outcome::Plaintext
    }

    /// Nobody in front of the application: it gets what was sent.
    fn bare_arrival(&mut self, sent: Sent) -> Outcome {
        let by = self.to.known_by.clone();
        if sent == Sent::MutualTls {
            self.step("mode", false, "refused: TLS is sent, and no sidecar answers it", by);
            return Outcome::Refused;
        }
        self.step("mode", true, "no sidecar: the application answers itself", by);
        Outcome::Plaintext
    }

    /// Nothing when the mode ends the connection.
    fn mode(&mut self, inbound: &Inbound, sent: Sent) -> Option<Outcome> {
        let decision = inbound.mode(self.to.socket().port());
        let name = decision.mode.as_str();
        let in_mesh = self.seen.sidecar;
        let told = inbound.plaintext_from_mesh(self.to.socket().port());
        if let (Mode::Permissive, Sent::Plaintext, true, Some(rule)) = (decision.mode, sent, in_mesh, told) {
            let text = format!("{name}: plaintext is taken: clients in the mesh are told to send it");
            self.step("mode", true, text, rule);
            return Some(Outcome::Plaintext);
        }
        let (outcome, text) = match (decision.mode, sent) {
            (_, Sent::Nothing) => (None, "nothing is sent"),
            (Mode::Disable, Sent::MutualTls) => {
                (None, "the bytes are passed on as they are, and the application does not answer TLS")
            }
            (Mode::Permissive | Mode::Strict, Sent::MutualTls) => {
                (Some(Outcome::MutualTls), "mutual TLS is taken")
            }
            (Mode::Disable, Sent::Plaintext) => (Some(Outcome::Plaintext), "plaintext is taken"),
            (Mode::Permissive, Sent::Plaintext) if in_mesh => {
                (None, "plaintext is refused: the client is in the mesh, so it is nobody's intention")
            }
            (Mode::Permissive, Sent::Plaintext) => {
                (Some(Outcome::Plaintext), "plaintext is taken from clients outside the mesh")
            }
            (Mode::Strict, Sent::Plaintext) => (None, "plaintext is refused (plaintext_refused)"),
        };
        self.step("mode", outcome.is_some(), format!("{name}: {text}"), decision.decided_by);
        outcome
    }

    fn authorization(&mut self, inbound: &Inbound, outcome: Outcome) -> bool {
        let from = self.seen;
        let identity = from.id.as_ref().filter(|_| outcome == Outcome::MutualTls);
        let request = Request { identity, source: from.address, destination: self.to.socket() };
        let verdict = inbound.authorize(&request);
        let who = identity.map_or_else(|| "a client without identity".to_owned(), ToString::to_string);
        let decision = if verdict.allowed {
            format!("allowed: {who}")
        } else {
            format!("denied (policy_denied): {who}")
        };
        self.step("authorization", verdict.allowed, decision, verdict.decided_by);
        verdict.allowed
    }
}
