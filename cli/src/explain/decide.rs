//! The decisions on one connection, in the order in which the two sidecars make them.

use std::net::SocketAddr;

use ringmail_policy::{
    Inbound, Mode, Origin, Outbound, OutsideReason, RefusedReason, Report, Request, Resources, Route,
};
use serde::Serialize;

use super::party::End;
use super::settings::{MeshSettings, Outside};

/// What is asked.
pub(super) struct Question<'a> {
    pub(super) mesh: &'a MeshSettings,
    pub(super) resources: &'a Resources,
    pub(super) from: End,
    pub(super) to: End,
}

/// The answer.
#[derive(Debug, Serialize)]
pub(super) struct Explanation {
    pub(super) from: End,
    pub(super) to: End,
    pub(super) steps: Vec<Step>,
    pub(super) outcome: Outcome,
    /// What of the resources is not honoured as written, for the two pods.
    pub(super) notes: Vec<String>,
}

/// One decision.
#[derive(Debug, Serialize)]
pub(super) struct Step {
    pub(super) step: &'static str,
    /// Whether the connection goes on after it.
    pub(super) goes_on: bool,
    pub(super) decision: String,
    pub(super) decided_by: String,
}

/// What becomes of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// It never leaves the pod, and no sidecar sees it.
    Local,
    MutualTls,
    Plaintext,
    Refused,
}

impl Outcome {
    pub(super) fn is_served(self) -> bool {
        self != Self::Refused
    }
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
    let (from, to) = (&question.from, &question.to);
    let mut course = Course { question, steps: Vec::new(), notes: Vec::new() };
    course.note(question.resources.reports());
    let outcome = if from.address == to.address {
        course.step(
            "capture",
            true,
            "the pod dials its own address, which is never captured",
            "ringmail-init",
        );
        Outcome::Local
    } else {
        match course.route() {
            Sent::Nothing => Outcome::Refused,
            sent @ (Sent::MutualTls | Sent::Plaintext) => course.arrival(sent),
        }
    };
    course.notes.sort();
    course.notes.dedup();
    let Course { steps, notes, .. } = course;
    Explanation { from: from.clone(), to: to.clone(), steps, outcome, notes }
}

/// The decisions so far.
struct Course<'a> {
    question: &'a Question<'a>,
    steps: Vec<Step>,
    notes: Vec<String>,
}

impl Course<'_> {
    fn step(&mut self, step: &'static str, goes_on: bool, decision: impl Into<String>, by: impl ToString) {
        self.steps.push(Step { step, goes_on, decision: decision.into(), decided_by: by.to_string() });
    }

    fn note(&mut self, reports: &[Report]) {
        self.notes.extend(reports.iter().map(ToString::to_string));
    }

    fn destination(&self) -> SocketAddr {
        let to = &self.question.to;
        SocketAddr::new(to.address, to.port.unwrap_or_default())
    }

    /// The client's side: who is expected at the other end, or why the bytes go as they are, or nowhere.
    fn route(&mut self) -> Sent {
        let Question { mesh, resources, from, .. } = self.question;
        if !from.sidecar {
            let by = from.name.as_ref().map_or_else(
                || "no WorkloadEntry has the client's address".to_owned(),
                |name| format!("WorkloadEntry {name}"),
            );
            self.step("route", true, "plaintext: the client has no sidecar", by);
            return Sent::Plaintext;
        }
        let client = from.pod.clone().unwrap_or_default();
        let outbound = Outbound::compile_for(resources, &mesh.settings, &client);
        self.note(outbound.reports());
        match outbound.route(self.destination()) {
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
            // From files no Service is known.
            Route::Service { service, .. } => {
                self.step("route", true, "one endpoint of the Service is dialled", service.host.clone());
                Sent::MutualTls
            }
            Route::Unknown => {
                let decision =
                    "refused (unknown_destination): inside mesh_ranges, and not known after unknown_wait";
                self.step("route", false, decision, "no workload is known at the address");
                Sent::Nothing
            }
        }
    }

    fn outside(&mut self, reason: OutsideReason, decided_by: &Origin) -> Sent {
        let why = OutsideReason::ALL.iter().find(|(known, _)| *known == reason).map_or("", |(_, why)| why);
        match self.question.mesh.outside {
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
        let Question { mesh, resources, to, .. } = self.question;
        let Some(pod) = to.pod.clone().filter(|_| to.sidecar) else {
            return self.bare_arrival(sent);
        };
        let inbound = Inbound::compile(resources, &mesh.settings, &pod);
        self.note(inbound.reports());
        match self.mode(&inbound, sent) {
            Some(outcome) if self.authorization(&inbound, outcome) => outcome,
            Some(_) | None => Outcome::Refused,
        }
    }

    /// Nobody in front of the application: it gets what was sent.
    fn bare_arrival(&mut self, sent: Sent) -> Outcome {
        let by = match &self.question.to.name {
            Some(name) => format!("WorkloadEntry {name}"),
            None => "no workload is known at the address".to_owned(),
        };
        if sent == Sent::MutualTls {
            self.step("mode", false, "refused: TLS is sent, and no sidecar answers it", by);
            return Outcome::Refused;
        }
        self.step("mode", true, "no sidecar: the application answers itself", by);
        Outcome::Plaintext
    }

    /// Nothing when the mode ends the connection.
    fn mode(&mut self, inbound: &Inbound, sent: Sent) -> Option<Outcome> {
        let decision = inbound.mode(self.destination().port());
        let name = decision.mode.as_str();
        let in_mesh = self.question.from.sidecar;
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
        let from = &self.question.from;
        let identity = from.id.as_ref().filter(|_| outcome == Outcome::MutualTls);
        let request = Request { identity, source: from.address, destination: self.destination() };
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
