//! Whether a pod has a sidecar and why, and how the sidecar is.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus};
use ringmail_control::inject::{INIT_CONTAINER, Sidecar, sidecar_of};
use serde::Serialize;

use super::Subject;
use super::next::Next;
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
    let next = match &surroundings.namespace {
        None => Next { why: "its namespace may not be read".to_owned(), warnings: Vec::new() },
        Some(namespace) => Next::of(subject, surroundings, namespace, sidecar.as_ref()),
    };
    let Next { why, mut warnings } = next;
    let state = sidecar.map(|sidecar| state(subject, sidecar));
    if let Some(failed) = init_failure(subject) {
        warnings.push(failed);
    }
    if let Some(sidecar) = state.as_ref().filter(|sidecar| !sidecar.ready) {
        warnings.push(not_ready(subject, sidecar));
    }
    (Injection { injected: is_injected, why, warnings }, state)
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
