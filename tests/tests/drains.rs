//! A sidecar that is told to end beside long-lived connections, in every order: it serves them until they end, or until it must.

#![expect(clippy::unwrap_used, reason = "a step that fails fails its scenario, in a helper too")]

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread::sleep,
    time::{Duration, Instant},
};

use ringmail_evidence::shown;
use ringmail_tests::{
    Shape, World, nightly, said,
    streams::{listen, pair},
    versions,
    world::CLIENT,
};

/// How soon a sidecar that nobody needs any more is gone: it looks at what is open twice a second, and a debug build ends slowly.
const SOON: Duration = Duration::from_secs(3);

/// Both ends of connections.
type Pairs = Vec<(TcpStream, TcpStream)>;

struct Scenario {
    world: World,
    listener: TcpListener,
    connections: usize,
    drain: Duration,
}

impl Scenario {
    fn new() -> Self {
        let (connections, drain) = if nightly() { (500, 30) } else { (100, 4) };
        let shape = Shape { meshed: vec![CLIENT, "n1"], ..Shape::strict() };
        let shape = shape.with("drain_timeout", &format!("{drain}s"));
        let world = World::new(versions()[0], shape).unwrap();
        let listener = listen(world.pod("n1").unwrap()).unwrap();
        Self { world, listener, connections, drain: Duration::from_secs(drain) }
    }

    fn pair(&self) -> (TcpStream, TcpStream) {
        let (client, node) = (self.world.pod(CLIENT).unwrap(), self.world.pod("n1").unwrap());
        pair(client, node, &self.listener).unwrap()
    }

    fn pairs(&self) -> Pairs {
        (0..self.connections).map(|_| self.pair()).collect()
    }

    fn told_to_end(&self) {
        self.world.sidecars["n1"].begin_stop().unwrap();
    }

    /// How long it takes until the sidecar has ended, which must be in order.
    fn ends(&mut self, order: &str) -> Duration {
        let began = Instant::now();
        let status = self.world.sidecar("n1").unwrap().wait_stopped().unwrap();
        assert!(status.success(), "{order}: {status}");
        began.elapsed()
    }

    fn starts_again(&mut self) {
        self.world.restart_proxy("n1").unwrap();
        self.world.wait_ready("n1").unwrap();
    }

    fn shows(&self, order: &str, took: Duration, bound: &str) {
        let what = format!("{order}, {} connections: the sidecar has ended after, s", self.connections);
        shown!("F14", what, format!("{:.1}", took.as_secs_f64()), bound);
    }
}

/// Every connection carries a byte each way.
fn all_talk(pairs: &[(TcpStream, TcpStream)]) {
    for (near, far) in pairs {
        for (mut from, mut to) in [(near, far), (far, near)] {
            from.write_all(b"x").unwrap();
            to.read_exact(&mut [0]).unwrap();
        }
    }
}

/// Every end of every connection reads an end in order, and no reset.
fn all_end_in_order(pairs: &mut [(TcpStream, TcpStream)], order: &str) {
    for (near, far) in pairs {
        for (stream, whose) in [(near, "client"), (far, "server")] {
            let end = stream.read(&mut [0]);
            assert!(matches!(end, Ok(0)), "{order}: the {whose}'s application saw {end:?}");
        }
    }
}

#[test]
fn long_lived_connections_are_served_until_they_end_or_the_deadline_in_every_order() {
    let mut scenario = Scenario::new();

    let order = "application first";
    drop(scenario.pairs());
    scenario.told_to_end();
    let took = scenario.ends(order);
    scenario.shows(order, took, "<= 3");
    assert!(took < SOON, "{order}: {took:?}");
    scenario.starts_again();

    let order = "both at once";
    let pairs = scenario.pairs();
    scenario.told_to_end();
    drop(pairs);
    let took = scenario.ends(order);
    scenario.shows(order, took, "<= 3");
    assert!(took < SOON, "{order}: {took:?}");
    scenario.starts_again();

    let order = "proxy first, application a second later";
    let mut pairs = scenario.pairs();
    scenario.told_to_end();
    sleep(Duration::from_secs(1));
    all_talk(&pairs);
    pairs.push(scenario.pair());
    all_talk(&pairs);
    drop(pairs);
    let took = scenario.ends(order);
    scenario.shows(order, took, "<= 3");
    assert!(took < SOON, "{order}: {took:?}");
    scenario.starts_again();
}

#[test]
fn connections_that_stay_end_in_order_at_the_deadline_or_at_the_second_signal() {
    let mut scenario = Scenario::new();

    let order = "proxy first, application never";
    let mut pairs = scenario.pairs();
    all_talk(&pairs);
    let began = Instant::now();
    scenario.told_to_end();
    all_end_in_order(&mut pairs, order);
    let told = began.elapsed();
    drop(pairs);
    scenario.ends(order);
    let took = began.elapsed();
    scenario.shows(
        order,
        took,
        &format!("{} to {}", scenario.drain.as_secs(), (scenario.drain + SOON).as_secs()),
    );
    assert!(told >= scenario.drain, "{order}: the first end came after {told:?}");
    assert!(took < scenario.drain + SOON, "{order}: {took:?}");
    let told = said::told(&scenario.world.sidecars["n1"].log_text());
    assert_eq!(told.get("drained"), Some(&(scenario.connections as u64)), "each end is told once");
    scenario.starts_again();

    let order = "told twice";
    let mut pairs = scenario.pairs();
    all_talk(&pairs);
    scenario.told_to_end();
    sleep(Duration::from_millis(500));
    let began = Instant::now();
    scenario.told_to_end();
    all_end_in_order(&mut pairs, order);
    scenario.ends(order);
    let took = began.elapsed();
    scenario.shows(order, took, "<= 3");
    assert!(took < SOON, "{order}: {took:?}");
}
