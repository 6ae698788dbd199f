//! Policies, as people and tools write them.

use std::fmt::Debug;

use ringmail_policy::{Inbound, MAX_FAULTS, Outbound, Pod, Request, Resources, Settings};

/// A set of policies is read the same way twice, names its faults up to a bound, and what is compiled of it decides the
/// same when it has travelled to a proxy.
pub(crate) fn policy(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let read = || Resources::parse([("set.yaml", &*text)]);
    let set = match read() {
        Ok(set) => set,
        Err(faults) => {
            assert!((1..=MAX_FAULTS).contains(&faults.len()));
            return same(&faults, &read().unwrap_err());
        }
    };
    same(&set, &read().unwrap());
    let settings = Settings::new("cluster.local".parse().unwrap());
    let pod = Pod {
        namespace: "ignite".to_owned(),
        labels: [("app".to_owned(), "ignite".to_owned())].into(),
        service_account: "default".to_owned(),
        addresses: vec!["10.0.0.1".parse().unwrap()],
    };
    let compiled = Inbound::compile(&set, &settings, &pod);
    let (modes, policies) = compiled.to_wire();
    let arrived = Inbound::from_wire(&modes, &policies).unwrap();
    let identity = "spiffe://cluster.local/ns/ignite/sa/default".parse().unwrap();
    for port in [47500, 10800, 1] {
        assert_eq!(arrived.mode(port).mode, compiled.mode(port).mode, "port {port}");
        for identity in [None, Some(&identity)] {
            let request = Request {
                identity,
                source: "10.0.0.2".parse().unwrap(),
                destination: (pod.addresses[0], port).into(),
            };
            assert_eq!(
                arrived.authorize(&request).allowed,
                compiled.authorize(&request).allowed,
                "{request:?}"
            );
        }
    }
    let outbound = Outbound::compile_for(&set, &settings, &pod);
    assert!(outbound.workloads().all(|workload| !workload.uid.is_empty()));
}

fn same(first: &impl Debug, second: &impl Debug) {
    assert_eq!(format!("{first:?}"), format!("{second:?}"));
}
