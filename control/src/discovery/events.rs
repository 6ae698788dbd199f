//! What authors of policies should know, as events on their objects: which field is not honoured as written.
//!
//! The leader writes. What has to be told is what the world says at that moment, so that nothing queues up while the
//! API server is away or another replica leads.

use std::{collections::HashMap, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::{sync::watch, time::sleep};

use super::{
    Discovery,
    watch::cause,
    world::{Notice, PolicyKey},
};

/// The API server's bound for a note, with room for what is put around it.
const MAX_NOTE: usize = 1000;
/// Between two events: a thousand faulty policies must not be a thousand requests at once.
const PAUSE: Duration = Duration::from_millis(50);
/// After a failure.
const RETRY: Duration = Duration::from_secs(5);

/// Runs for as long as it is polled.
pub(crate) async fn run(
    client: Client,
    discovery: Arc<Discovery>,
    mut leading: watch::Receiver<bool>,
    identity: String,
) {
    let reporter = Reporter { controller: "ringmail-control".to_owned(), instance: Some(identity) };
    let recorder = Recorder::new(client, reporter);
    let mut told = HashMap::<PolicyKey, Notice>::new();
    loop {
        let notices: Vec<Notice> = discovery.world().policies().notices().cloned().collect();
        discovery.metrics.faulty(notices.iter().filter(|notice| notice.fault).count());
        told.retain(|key, _| notices.iter().any(|notice| notice.key == *key));
        let mut failed = false;
        for notice in notices.into_iter().filter(|_| *leading.borrow()) {
            if told.get(&notice.key) == Some(&notice) {
                continue;
            }
            match recorder.publish(&event(&notice), &reference(&notice)).await {
                Ok(()) => _ = told.insert(notice.key.clone(), notice),
                Err(error) => {
                    tracing::warn!(error = cause(&error), "an event cannot be written");
                    failed = true;
                    break;
                }
            }
            sleep(PAUSE).await;
        }
        tokio::select! {
            () = discovery.policies_changed.notified() => {}
            changed = leading.changed() => if changed.is_err() {
                return;
            },
            () = sleep(RETRY), if failed => {}
        }
    }
}

fn event(notice: &Notice) -> Event {
    let reason = if notice.fault { "InvalidPolicy" } else { "NotHonoured" };
    let note: String = notice.texts.join("; ").chars().take(MAX_NOTE).collect();
    Event {
        type_: EventType::Warning,
        reason: reason.to_owned(),
        note: Some(note),
        action: "ReadPolicy".to_owned(),
        secondary: None,
    }
}

fn reference(notice: &Notice) -> ObjectReference {
    ObjectReference {
        api_version: Some(notice.api_version.clone()),
        kind: Some(notice.key.kind.as_str().to_owned()),
        namespace: Some(notice.key.object.namespace.to_string()),
        name: Some(notice.key.object.name.to_string()),
        uid: Some(notice.uid.clone()),
        ..ObjectReference::default()
    }
}
