//! A connection that is being admitted while policy changes: decided under one snapshot, entered a moment later.

use std::{net::SocketAddr, rc::Rc, sync::Arc};

use ringmail_policy::{Inbound, Outbound, Pod, Request, Resources, Settings};
use ringmail_proxy::snapshot::Snapshot;
use shuttle::{
    future::{block_on, spawn_local, yield_now},
    thread,
};
use tokio::sync::watch;

use crate::{
    access_log::AccessLog,
    ledger::Ledger,
    reason::Reason,
    record::{Direction, Protection, Record},
    registry::Registry,
};

const PORT: u16 = 47100;
const NOBODY: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nobody, namespace: ignite}
spec: {}
";

fn snapshot(version: u64, policy: &str) -> Arc<Snapshot> {
    let resources = Resources::parse([("policy.yaml", policy)]).unwrap();
    let settings = Settings::new("cluster.local".parse().unwrap());
    let pod = Pod { namespace: "ignite".to_owned(), ..Pod::default() };
    Arc::new(Snapshot {
        version,
        inbound: Arc::new(Inbound::compile(&resources, &settings, &pod)),
        outbound: Arc::new(Outbound::compile_for(&resources, &settings, &pod)),
    })
}

/// Whatever moment policy changes at, the connection is refused by what it is decided under, or told to end by what comes: never
/// admitted by what holds no more, and left so.
pub fn whoever_is_no_longer_admitted_is_told() {
    let (sender, snapshots) = watch::channel(Some(snapshot(1, "")));
    let publisher = thread::spawn(move || {
        thread::yield_now();
        sender.send_replace(Some(snapshot(2, NOBODY)));
        // The publisher of a process lives as long as it.
        sender
    });
    let worker = thread::spawn(move || block_on(admit(snapshots)));
    assert!(matches!(worker.join().unwrap(), None | Some(Reason::AuthorizationChanged)));
    drop(publisher.join().unwrap());
}

/// The steps of `inbound` and of the worker's loop, in their order: the reason that the connection is told, where it was admitted.
async fn admit(snapshots: watch::Receiver<Option<Arc<Snapshot>>>) -> Option<Reason> {
    let registry = Rc::new(Registry::default());
    let (mut changes, all) = (snapshots.clone(), Rc::clone(&registry));
    let look = spawn_local(async move {
        if changes.changed().await.is_ok() {
            yield_now().await;
            if let Some(snapshot) = changes.borrow_and_update().as_deref() {
                all.apply_policy(&snapshot.inbound);
            }
        }
    });
    let ledger = Arc::new(Ledger::new(AccessLog));
    let destination = SocketAddr::from(([10, 0, 0, 2], PORT));
    let record = Record::open(&ledger, Direction::Inbound, ([10, 0, 0, 1], 40_000).into());
    record.destination(destination);
    record.protection(Protection::MutualTls);
    let decided = snapshots.borrow().clone().unwrap();
    let request = Request { identity: None, source: record.live().source.ip(), destination };
    if !decided.inbound.authorize(&request).allowed {
        return None;
    }
    yield_now().await;
    record.established();
    let stay = registry.enter(record.live(), None);
    stay.judge_again(&snapshots, &watch::channel(None).1);
    let told = stay.entry().told_to_end().await;
    look.await.unwrap();
    Some(told)
}
