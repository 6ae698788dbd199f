//! What the API server asks the injector.

use std::cell::LazyCell;

use ringmail_control::inject::{Cluster, InjectConfig, Namespace, Outcome, Request, inject};
use ringmail_control::webhook::review::Review;

/// A review is read or refused, and never more than that; a pod that gets a sidecar gets the one that the patch says, and
/// asked again it needs no other.
pub(crate) fn admission(data: &[u8]) {
    thread_local! {
        static CONFIG: LazyCell<InjectConfig> = LazyCell::new(InjectConfig::default);
    }
    let Ok(review) = Review::read(data) else { return };
    assert!(!review.uid.is_empty());
    let Some(mut pod) = review.pod else { return };
    let namespace = Namespace {
        name: review.namespace,
        labels: [("istio-injection".to_owned(), "enabled".to_owned())].into(),
        ..Namespace::default()
    };
    let cluster = Cluster { native_sidecars: true, ..Cluster::default() };
    CONFIG.with(|config| {
        let ask = |pod: &_| inject(&Request { pod, namespace: &namespace, workload: None, cluster }, config);
        let Outcome::Injected(injected) = ask(&pod) else { return };
        json_patch::patch(&mut pod, &injected.patch).expect("the patch is for the pod that came");
        assert_eq!(pod, injected.pod);
        match ask(&pod) {
            Outcome::Injected(again) => assert!(again.patch.0.is_empty(), "{:?}", again.patch),
            Outcome::Refused(refusal) => panic!("what was injected is refused: {refusal}"),
            Outcome::Skipped(skip) => panic!("what was injected is skipped: {skip}"),
        }
    });
}
