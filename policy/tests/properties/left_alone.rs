//! What a capture leaves alone, before and after the journey to a proxy.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use ringmail_policy::{
    Client, Destination, Facts, LeftAlone, Origin, Resources, Route, SIDECAR_PORTS, Settings,
};

/// Ports next to each other, at both ends, and of the sidecar.
fn ports() -> impl Strategy<Value = BTreeSet<u16>> {
    let port = prop_oneof![1..8_u16, 65530..=65535_u16, 15000..15022_u16, 1..=65535_u16];
    prop::collection::btree_set(port, 0..12)
}

proptest! {
    #[test]
    fn a_port_is_dialled_in_plaintext_if_and_only_if_the_capture_does_not_take_it(
        included in prop::option::of(ports()),
        excluded in ports(),
        others in ports(),
    ) {
        let settings = Settings::new("td".parse().unwrap());
        let facts = Facts {
            namespace: "ignite".to_owned(),
            service_account: "default".to_owned(),
            labels: [("security.istio.io/tlsMode".to_owned(), "istio".to_owned())].into(),
            left_alone: LeftAlone::by_capture(included.as_ref(), &excluded),
            ..Facts::default()
        };
        let workload = Arc::new(facts.workload(&settings.trust_domain).unwrap());
        let resources = Resources::default();
        let mut client = Client::new(&resources, &settings, None);
        let sent = client.destination(workload, Origin::Default("a test".into())).unwrap();
        let (workload, message) = (sent.workload().to_wire(), sent.to_wire());
        let read = Destination::from_wire(&workload, &message, &settings).unwrap();
        prop_assert_eq!(&read.workload().left_alone, &sent.workload().left_alone);
        prop_assert_eq!(read.to_wire(), message);

        let asked = included.iter().flatten().chain(&excluded).chain(&others);
        let around = asked.flat_map(|port| [port.saturating_sub(1).max(1), *port, port.saturating_add(1)]);
        for port in around {
            let takes = included.as_ref().is_none_or(|included| included.contains(&port))
                && !excluded.contains(&port)
                && !SIDECAR_PORTS.contains(&port);
            prop_assert_eq!(matches!(read.route(port), Route::Mesh { .. }), takes, "{}", port);
            prop_assert_eq!(read.workload().leaves_alone(port), !takes, "{}", port);
        }
    }
}
