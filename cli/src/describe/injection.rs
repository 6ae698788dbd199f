//! Whether a pod has a sidecar and why, by the injector's own decision about a pod like it, and how the sidecar is.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus};
use ringmail_control::inject::{INIT_CONTAINER, Outcome, Request, Sidecar, inject, sidecar_of};
use serde::Serialize;

use super::Subject;
use super::surroundings::Surroundings;

/// Whether there is a sidecar, and why.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Injection {
    pub(super) injected: bool,
    pub(super) why: String,
    /// What the injector would say of it today.
    #[serde(skip)]
    pub(super) warnings: Vec<String>,
}

/// The sidecar as it is.
#[derive(Clone, Debug, Serialize)]
pub(super) struct SidecarState {
    pub(super) container: String,
    pub(super) image: String,
    /// Of the injector that put it there.
    pub(super) version: String,
    pub(super) native: bool,
    pub(super) ready: bool,
    pub(super) restarts: i32,
    /// Why it is not ready, as far as the kubelet knows.
    pub(super) state: Option<String>,
}

pub(super) fn of(subject: &Subject<'_>, surroundings: &Surroundings) -> (Injection, Option<SidecarState>) {
    let sidecar = sidecar_of(&subject.json);
    let is_injected = sidecar.is_some();
    let mut warnings = Vec::new();
    let why = match &surroundings.namespace {
        None => "its namespace may not be read".to_owned(),
        Some(namespace) => {
            let cluster = surroundings.cluster;
            let request = Request { pod: &subject.json, namespace, workload: None, cluster };
            let outcome = inject(&request, &subject.mesh.injection);
            why(sidecar.as_ref(), &outcome, surroundings.registered, &mut warnings)
        }
    };
    let state = sidecar.map(|sidecar| state(subject, sidecar));
    if let Some(failed) = init_failure(subject) {
        warnings.push(failed);
    }
    if let Some(sidecar) = state.as_ref().filter(|sidecar| !sidecar.ready) {
        warnings.push(not_ready(subject, sidecar));
    }
    (Injection { injected: is_injected, why, warnings }, state)
}

fn why(
    sidecar: Option<&Sidecar>,
    outcome: &Outcome,
    registered: Option<bool>,
    warnings: &mut Vec<String>,
) -> String {
    match (sidecar, outcome) {
        (Some(sidecar), Outcome::Injected(injected)) => {
            warnings.extend(injected.warnings.iter().map(ToString::to_string));
            if let Some(new) = sidecar_of(&injected.pod).filter(|new| new.image != sidecar.image) {
                let (old, new) = (&sidecar.image, new.image);
                warnings.push(format!(
                    "its sidecar is {old}, and a new pod would get {new}: restart the workload to update"
                ));
            }
            format!("{} asks for it", injected.asked_in)
        }
        (Some(_), Outcome::Skipped(skip)) => {
            let text = "a pod like it would be made without a sidecar now, so the next restart takes it out of the mesh";
            warnings.push(format!("{text}: {skip}"));
            "somebody asked when it was made, or `ringmail inject` put the sidecar in".to_owned()
        }
        (Some(_), Outcome::Refused(refusal)) => {
            warnings.push(format!("a pod like it would be refused now: {refusal}"));
            "somebody asked when it was made, or `ringmail inject` put the sidecar in".to_owned()
        }
        (None, Outcome::Injected(injected)) => {
            let cause = match registered {
                Some(false) => {
                    "Ringmail's injector is not registered (MutatingWebhookConfiguration ringmail-injector)"
                }
                Some(true) | None => "it was made before that, or while the injector could not be asked",
            };
            let source = &injected.asked_in;
            warnings.push(format!("{source} asks for a sidecar, and the pod has none: {cause}; once that is right, delete the pod to have it made anew"));
            format!("{cause}, though {source} asks")
        }
        (None, Outcome::Skipped(skip)) => skip.to_string(),
        (None, Outcome::Refused(refusal)) => {
            warnings.push(format!("a pod like it would be refused now: {refusal}"));
            format!("it was made before it could be refused: {refusal}")
        }
    }
}

fn state(subject: &Subject<'_>, sidecar: Sidecar) -> SidecarState {
    let status = status_of(subject, &sidecar.container);
    let Sidecar { container, image, version, native, .. } = sidecar;
    SidecarState {
        container,
        image,
        version,
        native,
        ready: status.is_some_and(|status| status.ready),
        restarts: status.map_or(0, |status| status.restart_count),
        state: match status {
            None => Some("not started".to_owned()),
            Some(status) => told(status.state.as_ref(), status.ready),
        },
    }
}

fn status_of<'a>(subject: &'a Subject<'_>, container: &str) -> Option<&'a ContainerStatus> {
    let status = subject.pod.status.as_ref()?;
    let all = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    all.into_iter().find(|status| status.name == container)
}

/// In the kubelet's words; nothing while all is well.
fn told(state: Option<&ContainerState>, is_ready: bool) -> Option<String> {
    let text = |reason: &Option<String>, message: &Option<String>| {
        let parts: Vec<_> = reason.iter().chain(message).map(|part| part.trim()).collect();
        parts.join(": ")
    };
    let state = state?;
    if let Some(waiting) = &state.waiting {
        return Some(format!("waiting: {}", text(&waiting.reason, &waiting.message)));
    }
    if let Some(ended) = &state.terminated {
        return Some(format!("ended with {}: {}", ended.exit_code, text(&ended.reason, &ended.message)));
    }
    (!is_ready).then(|| "running, not ready".to_owned())
}

/// The capture could not be programmed: the pod does not start, and what `ringmail-init` said is kept by the kubelet.
fn init_failure(subject: &Subject<'_>) -> Option<String> {
    let status = status_of(subject, INIT_CONTAINER)?;
    let last = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    let now = status.state.as_ref().and_then(|state| state.terminated.as_ref());
    let is_done = now.is_some_and(|ended| ended.exit_code == 0);
    let failed = now.or(last).filter(|ended| ended.exit_code != 0 && !is_done)?;
    let message = failed.message.as_deref().unwrap_or("no message").trim();
    Some(format!("{INIT_CONTAINER} ended with {}: {message}", failed.exit_code))
}

fn not_ready(subject: &Subject<'_>, sidecar: &SidecarState) -> String {
    let (namespace, name, container) = (&subject.namespace, &subject.name, &sidecar.container);
    let state = sidecar.state.as_deref().unwrap_or("not ready");
    format!(
        "the sidecar is not ready ({state}): `kubectl -n {namespace} logs {name} -c {container}` says what it waits for"
    )
}
