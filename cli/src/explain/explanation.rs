//! The answer, as a script reads it.

use serde::Serialize;

use super::party::End;

/// The answer.
#[derive(Debug, Serialize)]
pub(super) struct Explanation {
    pub(super) from: End,
    pub(super) to: End,
    pub(super) steps: Vec<Step>,
    /// What follows for each endpoint, where the destination is a Service.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) endpoints: Vec<Leg>,
    /// Of several endpoints, the worst.
    pub(super) outcome: Outcome,
    /// What of the resources is not honoured as written, for the two pods.
    pub(super) notes: Vec<String>,
    /// Resources that are taken as if they had been applied.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) supposing: Vec<String>,
    /// What could not be seen and may change the answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) unseen: Vec<String>,
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

/// One endpoint of a Service.
#[derive(Debug, Serialize)]
pub(super) struct Leg {
    pub(super) to: End,
    pub(super) steps: Vec<Step>,
    pub(super) outcome: Outcome,
}

/// What becomes of the connection, the worst last.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
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
