//! A server that lies: what is refused, for which reason, and that what was known before stays.

use std::{net::Ipv4Addr, process::Command};

use ringmail_evidence::shown;

use super::*;
use crate::discovery::RefusedResource;

/// A pod that knows itself and one peer, and has policies.
fn settled() -> (Held, Arc<Inbound>) {
    let mut held = held();
    held.ask(ip(PEER));
    told(&mut held, &[workload("n1", OWN), workload("n2", PEER)]);
    held.apply(&inbound(ringmail::Mode::Strict, &[]));
    let decided = complete(&mut held).unwrap();
    (held, decided)
}

fn at_addresses(name: &str, addresses: &[&str]) -> NamedResource {
    let addresses = addresses.iter().map(|text| address_bytes(ip(text))).collect();
    address(Workload { addresses, ..workload(name, PEER) })
}

fn service_at(address: &str, network: &str) -> NamedResource {
    let address = NetworkAddress { network: network.to_owned(), address: address_bytes(ip(address)) };
    let service = workload::Service {
        name: "s".to_owned(),
        namespace: "ignite".to_owned(),
        hostname: "s".to_owned(),
        addresses: vec![address],
        ..workload::Service::default()
    };
    named("ignite/s", "1", &Address { r#type: Some(Type::Service(service)) })
}

fn still(held: &mut Held, decided: &Arc<Inbound>, what: &str) {
    held.take_changed();
    assert!(Arc::ptr_eq(decided, &held.complete().unwrap()), "{what}");
    assert!(matches!(held.outbound().route(at(PEER, 1)), Route::Mesh { .. }), "{what}");
}

#[test]
fn every_lie_is_refused_for_its_reason_and_what_was_known_stays() {
    let (mut held, decided) = settled();
    let mut rows = Vec::new();
    for nowhere in [
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "ff02::1",
        "::ffff:127.0.0.1",
    ] {
        rows.push((
            answer::<Address>(vec![at_addresses("liar", &["10.0.0.9", nowhere])], &[]),
            RefusedResource::Nowhere,
        ));
        rows.push((answer::<Address>(vec![service_at(nowhere, "")], &[]), RefusedResource::Nowhere));
        let destination = named(&format!("/{nowhere}"), "1", &ringmail::Destination::default());
        rows.push((answer::<ringmail::Destination>(vec![destination], &[]), RefusedResource::Nowhere));
    }
    let twice = |first, second| answer::<Address>(vec![first, second], &[]);
    let peer = || at_addresses("n2", &["10.0.0.66"]);
    let abroad = Workload { network: "west".to_owned(), ..workload("n2", PEER) };
    let crowded: Vec<String> = (0..65).map(|place| format!("10.9.0.{place}")).collect();
    let crowded: Vec<&str> = crowded.iter().map(String::as_str).collect();
    let long = "n".repeat(1025);
    let removed = peer().name;
    rows.extend([
        (twice(peer(), peer()), RefusedResource::Duplicate),
        (twice(peer(), at_addresses("n2", &[PEER])), RefusedResource::Duplicate),
        (answer::<Address>(vec![peer()], &[&removed]), RefusedResource::Duplicate),
        (answer::<Address>(Vec::new(), &[&removed, &removed]), RefusedResource::Duplicate),
        (answer::<Address>(vec![address(abroad)], &[]), RefusedResource::Network),
        (answer::<Address>(vec![service_at(PEER, "west")], &[]), RefusedResource::Network),
        (answer::<Address>(vec![at_addresses("n2", &crowded)], &[]), RefusedResource::Limit),
        (answer::<Address>(vec![named(&long, "1", &Address::default())], &[]), RefusedResource::Limit),
    ]);
    let count = rows.len();
    for (answer, reason) in rows {
        let faults = held.apply(&answer);
        // Removals that are said twice are not resources: nobody is told, and nothing is done.
        let told: Vec<_> = faults.iter().map(Fault::reason).collect();
        let expected = if answer.resources.is_empty() { vec![] } else { vec![reason] };
        assert_eq!(told, expected, "{faults:?}");
        still(&mut held, &decided, &format!("{faults:?}"));
    }
    shown!("A20", "lies of discovery refused, each for its reason", count, "all");
}

#[test]
fn whoever_else_claims_the_own_address_changes_nothing_that_is_in_force() {
    let liar = Workload { service_account: "liar".to_owned(), ..workload("liar", OWN) };
    for claim in [address(liar), service_at(OWN, "")] {
        let (mut held, decided) = settled();
        assert_eq!(held.apply(&answer::<Address>(vec![claim], &[])), []);
        held.apply(&answer::<ringmail::Destination>(
            vec![destination(OWN, "Kubernetes//Pod/ignite/liar")],
            &[],
        ));
        held.take_changed();
        // Nothing is published while the server is wrong about this pod itself; the last snapshot stays.
        let missing = held.complete().unwrap_err();
        assert!(matches!(missing, Incomplete::OwnMistaken { .. } | Incomplete::OwnUnknown(_)), "{missing}");
        let right = answer::<Address>(vec![address(workload("n1", OWN))], &["ignite/s"]);
        assert_eq!(held.apply(&right), []);
        held.apply(&answer::<ringmail::Destination>(
            vec![destination(OWN, "Kubernetes//Pod/ignite/n1")],
            &[],
        ));
        held.take_changed();
        assert!(Arc::ptr_eq(&decided, &held.complete().unwrap()));
    }
}

/// No certificate of this mesh proves such an identity: what is dialled there fails in the handshake.
#[test]
fn a_workload_of_a_foreign_trust_domain_is_dialled_as_that_and_never_in_plaintext() {
    let (mut held, _) = settled();
    held.ask(ip("10.0.0.7"));
    told(&mut held, &[Workload { trust_domain: "evil.example".to_owned(), ..workload("n7", "10.0.0.7") }]);
    match held.outbound().route(at("10.0.0.7", 1)) {
        Route::Mesh { workload, .. } => assert_eq!(workload.identity.trust_domain(), "evil.example"),
        other @ (Route::Outside { .. } | Route::Refused { .. } | Route::Service { .. } | Route::Unknown) => {
            assert_eq!(other, Route::Unknown);
        }
    }
}

/// A workload with two million addresses, made without memory for each.
fn millions() -> NamedResource {
    let mut workload = Vec::with_capacity(12_000_000);
    (0..2_000_000u32).for_each(|place| workload.extend([&[0x1a, 4][..], &place.to_be_bytes()].concat()));
    let mut value = vec![0x0a];
    prost::encoding::encode_varint(workload.len() as u64, &mut value);
    value.extend(workload);
    let any = ringmail_xds::discovery::Any { type_url: Address::TYPE_URL.to_owned(), value: value.into() };
    NamedResource { name: "hoarder".to_owned(), resource: Some(any), ..NamedResource::default() }
}

/// Memory of this process that no file backs.
fn anonymous_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Set where this process runs one test alone: other tests' memory would be counted with it.
const ALONE: &str = "RINGMAIL_TEST_ALONE";

#[test]
fn a_hundred_thousand_resources_and_millions_of_addresses_take_a_bounded_memory() {
    if std::env::var_os(ALONE).is_none() {
        let name = "discovery::control::held::tests::lies::a_hundred_thousand_resources_and_millions_of_addresses_take_a_bounded_memory";
        let alone = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(ALONE, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&alone.stdout).into_owned();
        print!("{said}");
        assert!(alone.status.success() && said.contains("1 passed"), "{alone:?}");
        return;
    }
    let (mut held, _) = settled();
    let before = anonymous_kib();
    let mut refused = 0;
    // Each in answers of the size that a session takes.
    for part in 0..10u32 {
        let plain = |place: u32| {
            let own = Ipv4Addr::from(0x0b00_0000 + part * 10_000 + place).to_string();
            at_addresses(&format!("p{part}-{place}"), &[&own])
        };
        refused += held.apply(&answer::<Address>((0..10_000).map(plain).collect(), &[])).len();
        held.take_changed();
    }
    assert!(refused >= 100_000 - MAX_HELD, "{refused}");
    let hoarder = |count: u32, name: &str| {
        let addresses =
            (0..count).map(|place| Ipv4Addr::from(0x0c00_0000 + place).octets().to_vec()).collect();
        address(Workload { addresses, ..workload(name, PEER) })
    };
    let faults = held.apply(&answer::<Address>(vec![millions()], &[]));
    assert_eq!(faults.iter().map(Fault::reason).collect::<Vec<_>>(), [RefusedResource::Limit]);
    // Those that are known already may grow, up to what all may weigh.
    for part in 0..10u32 {
        let many = (0..1_000).map(|place| hoarder(64, &format!("p0-{}", part * 1_000 + place)));
        refused += held.apply(&answer::<Address>(many.collect(), &[])).len();
        held.take_changed();
    }
    // The smallest parts on the wire that are the largest here.
    for number in 0..1_000 {
        let rule = Rule { clauses: vec![Clause { matches: vec![Match::default(); 10_000] }] };
        let policy = Authorization { rules: vec![rule], ..Authorization::default() };
        refused += held
            .apply(&answer::<Authorization>(vec![named(&format!("a/{number}"), "1", &policy)], &[]))
            .len();
    }
    crate::sys::trim_heap();
    let grown = anonymous_kib().saturating_sub(before) / 1024;
    held.take_changed();
    assert!(matches!(held.outbound().route(at(PEER, 1)), Route::Mesh { .. }));
    shown!(
        "A20",
        "MiB after 100,000 resources, 2.6 million addresses and 10 million empty matches",
        grown,
        "<= 192"
    );
    assert!(grown <= 192, "{grown} MiB, {refused} refused");
}
