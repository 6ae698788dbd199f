//! Whatever happens in whatever order: what clients hold after it is what a world says that was made anew.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use ringmail_xds::{address_name, ringmail::Destination};

use super::super::super::subscription::{Push, Subscription};
use super::*;

const ADDRESSES: [&str; 6] = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1", "10.96.0.1", "10.96.0.2"];
const PORTS: [(&str, u16); 2] = [("a", 80), ("b", 81)];

/// What a client has been told, name by name.
#[derive(Default)]
struct Told {
    versions: BTreeMap<String, String>,
    nothing: BTreeSet<String>,
}

impl Told {
    fn take(&mut self, push: Push) {
        for resource in push.resources {
            for name in resource.aliases.iter().chain([&resource.name]) {
                self.nothing.remove(name);
            }
            self.versions.insert(resource.name, resource.version);
        }
        for name in push.removed {
            self.versions.remove(&name);
            if name.starts_with('/') {
                self.nothing.insert(name);
            }
        }
    }

    fn check(&self, asked: &[IpAddr], answer: impl Fn(IpAddr) -> Vec<Answer>) {
        let mut expected = BTreeMap::new();
        for address in asked {
            let answers = answer(*address);
            assert!(!answers.is_empty() || self.nothing.contains(&address_name(*address)), "{address}");
            let named =
                |(name, encoded): (Arc<str>, Arc<Encoded>)| (name.to_string(), encoded.version.to_string());
            expected.extend(answers.into_iter().map(named));
        }
        assert_eq!(self.versions, expected);
    }
}

fn index(of: usize) -> impl Strategy<Value = usize> {
    0..of
}

fn pods() -> impl Strategy<Value = Update> {
    let some = (0..2_u8, index(3), 1..4_u8, proptest::collection::btree_set(index(4), 0..3), 0..4_u8);
    some.prop_map(|(namespace, name, age, addresses, odd)| {
        let (namespace, name) = (["a", "b"][usize::from(namespace)], ["p0", "p1", "p2"][name]);
        let addresses: Vec<_> = addresses.into_iter().map(|place| ADDRESSES[place]).collect();
        let mut json = objects::pod_json(namespace, name, age, &addresses);
        match odd {
            0 => return Update::Pod(ObjectKey::new(namespace, name), None),
            1 => json["status"]["phase"] = json!("Succeeded"),
            2 => json["metadata"]["labels"] = json!({ "app": "other" }),
            _ => {}
        }
        objects::pod_of(&json)
    })
}

fn services() -> impl Strategy<Value = Update> {
    (index(3), 1..4_u8, 0..4_usize, any::<bool>()).prop_map(|(name, age, address, gone)| {
        let name = ["s0", "s1", "p0"][name];
        let own = match address {
            0 => vec![],
            1 => vec!["10.96.0.1"],
            2 => vec!["10.96.0.2"],
            _ => vec!["10.96.0.1", "fd00::1"],
        };
        if gone {
            return Update::Service(ObjectKey::new("a", name), None);
        }
        service("a", name, age, &own, &PORTS)
    })
}

fn slices() -> impl Strategy<Value = Update> {
    let members = proptest::collection::vec((index(4), any::<bool>()), 0..3);
    (index(3), index(2), members, 0..5_u8, 1..3_usize).prop_map(|(name, of, members, odd, ports)| {
        let (name, of) = (["x0", "x1", "x2"][name], ["s0", "s1"][of]);
        let named = |(place, ready): (usize, bool)| (["p0", "p1", "p2", "10.0.0.1"][place], ready);
        let members: Vec<_> = members.into_iter().map(named).collect();
        match odd {
            0 => Update::Slice(ObjectKey::new("a", name), None),
            1 => objects::leaving("a", name, of, &PORTS, "p0"),
            _ => endpoints("a", name, of, &PORTS[..ports], &members),
        }
    })
}

fn policies() -> impl Strategy<Value = Update> {
    (0..5_u8, index(3), index(2), 1..3_u8, 0..5_u8).prop_map(|(kind, namespace, name, age, odd)| {
        let (namespace, name) = (["a", "b", "istio-system"][namespace], ["q0", "q1"][name]);
        let label = json!({ "matchLabels": { "app": "p0" } });
        let (kind, spec) = match (kind, odd) {
            (0, 1) => (Kind::PeerAuthentication, json!({ "mtls": { "mode": "STRICT" } })),
            (0, 2) => (Kind::PeerAuthentication, json!({ "selector": label, "mtls": { "mode": "DISABLE" } })),
            (0, _) => (Kind::PeerAuthentication, json!({ "mtls": { "mode": "WRONG" } })),
            (1, 1) => {
                (Kind::AuthorizationPolicy, json!({ "selector": label, "action": "DENY", "rules": [{}] }))
            }
            (1, 2) => (Kind::AuthorizationPolicy, json!({ "rules": [{}] })),
            (1, _) => (Kind::AuthorizationPolicy, json!({ "selector": label, "action": "WRONG" })),
            (2 | 3, odd) => {
                let host = ["p0.a.svc.cluster.local", "s0.a.svc.cluster.local", "*.cluster.local"]
                    [usize::from(odd % 3)];
                let to = [json!(["."]), json!(["*"]), json!(["b"])][usize::from(age % 3)].clone();
                let tls = json!({ "tls": { "mode": "DISABLE" } });
                (Kind::DestinationRule, json!({ "host": host, "exportTo": to, "trafficPolicy": tls }))
            }
            (_, odd) => {
                let address = ADDRESSES[usize::from(odd % 4)];
                (Kind::WorkloadEntry, json!({ "address": address, "labels": { "app": "p0" } }))
            }
        };
        if odd == 0 {
            return Update::Policy(object(kind, namespace, name), None);
        }
        policy(kind, namespace, name, age, spec)
    })
}

fn updates() -> impl Strategy<Value = Vec<Vec<Update>>> {
    let nodes = (any::<bool>(), index(3)).prop_map(|(gone, place)| {
        let ranges = vec!["10.1.0.0/24".parse().unwrap()];
        let locality = ["r", "r/z", ""][place].to_owned();
        let node = NodeInfo { ranges, locality: Some(locality).filter(|text| !text.is_empty()) };
        Update::Node("node".into(), (!gone).then_some(node))
    });
    let one = prop_oneof![4 => pods(), 2 => services(), 3 => slices(), 3 => policies(), 1 => nodes];
    proptest::collection::vec(proptest::collection::vec(one, 1..4), 1..12)
}

/// The same objects, put into an empty world at once, in an order of its own. A policy that cannot be read depends on
/// what it said before, so the whole history of policies comes with it.
fn anew(history: &[Update]) -> World {
    let mut last = BTreeMap::new();
    let mut policies = Vec::new();
    for update in history {
        let key = match update {
            Update::Node(name, _) => format!("3 {name}"),
            Update::Pod(key, _) => format!("2 {key:?}"),
            Update::Policy(..) => {
                policies.push(update.clone());
                continue;
            }
            Update::Range(name, _) => format!("4 {name}"),
            Update::Service(key, _) => format!("1 {key:?}"),
            Update::Slice(key, _) => format!("0 {key:?}"),
        };
        last.insert(key, update.clone());
    }
    world(policies.into_iter().chain(last.into_values()))
}

fn check(world: &World, fresh: &World, clients: &[Option<Pod>]) {
    for text in ADDRESSES {
        assert_eq!(world.addresses(address(text)), fresh.addresses(address(text)), "{text}");
        for client in clients {
            let told = |world: &World| world.destinations(address(text), client.as_ref());
            assert_eq!(told(world), told(fresh), "{text}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn clients_hold_what_a_world_made_anew_says(batches in updates()) {
        let mut world = World::new(settings(), "Kubernetes".to_owned());
        let all: Vec<IpAddr> = ADDRESSES.iter().map(|text| address(text)).collect();
        let client = |namespace: &str| Some(Pod { namespace: namespace.to_owned(), ..Pod::default() });
        let clients = [None, client("a"), client("b")];
        // Who asks for a service alone learns of its endpoints through it.
        let sets = [&all[..], &all[4..]];
        let mut addresses = sets.map(|asked| (asked, Subscription::new(Address::TYPE_URL), Told::default()));
        for (asked, subscription, told) in &mut addresses {
            told.take(subscription.subscribe(asked, false, |at| world.addresses(at)));
        }
        let mut destinations = Vec::new();
        for (client, asked) in clients.iter().flat_map(|client| sets.map(|asked| (client, asked))) {
            let (mut subscription, mut told) = (Subscription::new(Destination::TYPE_URL), Told::default());
            told.take(subscription.subscribe(asked, false, |at| world.destinations(at, client.as_ref())));
            destinations.push((client, asked, subscription, told));
        }
        let mut history = Vec::new();
        let mut own = BTreeMap::<ObjectKey, Option<Version>>::new();
        for batch in batches {
            history.extend(batch.iter().cloned());
            let dirty = world.apply(batch);
            let fresh = anew(&history);
            check(&world, &fresh, &clients);
            let again = || dirty.addresses.iter().copied();
            for (asked, subscription, told) in &mut addresses {
                told.take(subscription.refresh(again(), |at| world.addresses(at)));
                told.check(asked, |at| fresh.addresses(at));
            }
            for (client, asked, subscription, told) in &mut destinations {
                told.take(subscription.refresh(again(), |at| world.destinations(at, client.as_ref())));
                told.check(asked, |at| fresh.destinations(at, client.as_ref()));
            }
            for (key, pod) in &world.pods {
                let now = fresh.own_policies(key, &pod.uid).map(|own| own.inbound.version);
                if dirty.all_pods || dirty.pods.contains(key) {
                    own.insert(key.clone(), now);
                } else {
                    prop_assert_eq!(own.get(key), Some(&now), "{:?} is not dirty", key);
                }
            }
        }
    }
}
