//! Events about what could not be honoured: the warnings in an answer reach only who created the pod, and for most pods
//! that is a controller.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Duration, sleep, timeout};

use super::metrics::Metrics;
use crate::inject::{Warning, controller_of};

/// Pods with warnings whose events may wait; beyond it they are counted and dropped, since pods come first.
const MAX_WAITING: usize = 256;
/// Events per pod: the first few say what is wrong.
const MAX_PER_POD: usize = 8;
const PUBLISH_DEADLINE: Duration = Duration::from_secs(5);
/// Nobody proves to be the API server: whoever reaches the port can have events published, but not many.
const SPACING: Duration = Duration::from_millis(100);

/// Hands events to the task that publishes them.
#[derive(Clone)]
pub(crate) struct Events {
    queue: mpsc::Sender<(ObjectReference, Vec<Warning>)>,
    metrics: Metrics,
}

impl Events {
    /// Starts the task; it ends with the last handle.
    pub(crate) fn start(client: Client, metrics: Metrics) -> Self {
        let (queue, mut waiting) = mpsc::channel::<(ObjectReference, Vec<Warning>)>(MAX_WAITING);
        let recorder = Recorder::new(client, Reporter::from("ringmail-injector"));
        let counted = metrics.clone();
        tokio::spawn(async move {
            while let Some((regarding, warnings)) = waiting.recv().await {
                for warning in warnings.iter().take(MAX_PER_POD) {
                    let published =
                        timeout(PUBLISH_DEADLINE, recorder.publish(&event(warning), &regarding)).await;
                    let result = match published {
                        Ok(Ok(())) => "published",
                        Ok(Err(error)) => {
                            tracing::warn!(%error, "an event could not be published");
                            "failed"
                        }
                        Err(_) => "failed",
                    };
                    counted.events.with_label_values(&[result]).inc();
                    sleep(SPACING).await;
                }
            }
        });
        Self { queue, metrics }
    }

    /// Has events published about the pod's owner, or about the pod where it has none.
    pub(crate) fn publish(&self, namespace: &str, pod: &Value, warnings: &[Warning]) {
        if warnings.is_empty() {
            return;
        }
        if self.queue.try_send((regarding(namespace, pod), warnings.to_vec())).is_err() {
            self.metrics.events.with_label_values(&["dropped"]).inc();
        }
    }
}

/// Repeated warnings about one owner are one event with a count, so each annotation is an action of its own.
fn event(warning: &Warning) -> Event {
    let mut action = warning.subject.clone();
    action.truncate(action.floor_char_boundary(128));
    Event {
        type_: EventType::Warning,
        reason: "NotHonoured".to_owned(),
        note: Some(warning.to_string()),
        action,
        secondary: None,
    }
}

fn regarding(namespace: &str, pod: &Value) -> ObjectReference {
    let text = |path: &str| pod.pointer(path).and_then(Value::as_str).map(str::to_owned);
    let namespace = Some(namespace.to_owned());
    match controller_of(pod) {
        Some(owner) => ObjectReference {
            api_version: Some(owner.api_version),
            kind: Some(owner.kind),
            name: Some(owner.name),
            uid: Some(owner.uid),
            namespace,
            ..ObjectReference::default()
        },
        None => ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: text("/metadata/name").or_else(|| text("/metadata/generateName")),
            namespace,
            ..ObjectReference::default()
        },
    }
}
