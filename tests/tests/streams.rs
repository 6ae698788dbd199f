//! Bytes, ends and back-pressure between two pods, through both sidecars.

#![expect(clippy::unwrap_used, reason = "a step that fails fails its scenario, in a helper too")]

use std::{
    io::{ErrorKind, Read, Write},
    net::Shutdown,
    thread::{self, sleep},
    time::{Duration, Instant},
};

use ringmail_evidence::shown;
use ringmail_lab::process::wait_until;
use ringmail_tests::{
    Shape, World, nightly, said,
    streams::{both_ways, cpu, holds, listen, pair, raise_descriptors, receive, send},
    versions,
    world::{CACHE, CLIENT, nothing_lost},
};

/// What a sidecar may hold of a connection whose reader has stopped: one slab for bulk, of 16 records, and what keeps its
/// books.
const HELD_AT_MOST_KIB: u64 = 400;

/// Resident memory that a run may add to what a heavier one before it left: arenas of the allocator fill unevenly.
const GROWS_AT_MOST_KIB: u64 = 4 * 1024;

/// A proxy without connections looks every second for what it can give back.
const GIVEN_BACK: Duration = Duration::from_secs(3);

/// With what a thread of a busy machine may be late.
const WITHIN_TEN_SECONDS: Duration = Duration::from_millis(10_500);

/// What one direction of a connection carries at most.
const LONGEST_STREAM: u64 = 2_000_000;

/// Connections whose readers stop at once, so that what each holds stands out of the noise.
const STOPPED_READERS: u64 = 20;

#[test]
fn a_half_closed_request_is_answered_and_both_sidecars_record_it_complete() {
    let world = World::new(versions()[0], Shape::strict()).unwrap();
    let (client, node) = (world.pod(CLIENT).unwrap(), world.pod("n1").unwrap());
    let listener = listen(node).unwrap();
    let (mut near, mut far) = pair(client, node, &listener).unwrap();
    near.write_all(b"question").unwrap();
    near.shutdown(Shutdown::Write).unwrap();
    let mut question = String::new();
    far.read_to_string(&mut question).unwrap();
    assert_eq!(question, "question");
    sleep(Duration::from_secs(1));
    far.write_all(b"answer after a second").unwrap();
    far.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    near.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "answer after a second");
    for (name, pod) in [(CLIENT, client), ("n1", node)] {
        let complete = wait_until(Duration::from_secs(5), "a record", || {
            let ended = said::ended(&world.sidecars[name], pod, "complete")?;
            Ok((ended > 0.0).then_some(ended))
        });
        assert_eq!(complete.unwrap(), 1.0, "{name}");
    }
}

#[test]
fn a_reader_that_stops_for_a_minute_holds_little_loses_nothing_and_is_left_alone() {
    let pause = Duration::from_secs(60);
    let mut world = World::new(versions()[0], Shape::strict()).unwrap();
    let planes: Vec<u32> =
        [CLIENT, "n1"].iter().map(|name| world.sidecar(name).unwrap().data_plane().unwrap()[0]).collect();
    let (client, node) = (world.pod(CLIENT).unwrap(), world.pod("n1").unwrap());
    let listener = listen(node).unwrap();
    let before: Vec<u64> = planes.iter().map(|pid| holds(*pid).unwrap().1).collect();
    let pairs: Vec<_> = (0..STOPPED_READERS).map(|_| pair(client, node, &listener).unwrap()).collect();
    let length = 64u64 << 20;
    thread::scope(|scope| {
        for (seed, (near, far)) in (1u64..).zip(&pairs) {
            near.set_write_timeout(Some(pause * 2)).unwrap();
            scope.spawn(move || send(near, seed, length).unwrap());
            scope.spawn(move || {
                sleep(pause);
                assert_eq!(receive(far, seed).unwrap(), (length, true), "stream {seed}");
            });
        }
        sleep(pause - Duration::from_secs(5));
        for ((name, pid), before) in [CLIENT, "n1"].iter().zip(&planes).zip(&before) {
            let held = holds(*pid).unwrap().1.saturating_sub(*before) / STOPPED_READERS;
            println!("{name}: {held} KiB held per connection whose reader has stopped");
            assert!(held < HELD_AT_MOST_KIB, "{name} holds {held} KiB per connection");
        }
    });
}

#[test]
fn a_value_of_a_hundred_megabytes_comes_back_byte_for_byte() {
    for version in versions() {
        let mut world = World::with_ring(version, Shape::strict()).unwrap();
        let load = world.load().unwrap();
        let value = load.big_value(CACHE, 100 << 20).unwrap();
        println!("{version}: 100 MB put in {:?}, got in {:?}", value.put, value.get);
        assert!(value.equal);
        world.ring().assert_whole(3).unwrap();
        nothing_lost(&load, u64::MAX).unwrap();
    }
}

#[test]
fn sixty_four_streams_of_random_bytes_with_random_half_closes_match_and_leave_nothing_behind() {
    const STREAMS: u64 = 64;
    const WARM_UP_ROUNDS: u64 = 8;
    let how_long = Duration::from_secs(if nightly() { 600 } else { 60 });
    let mut world = World::new(versions()[0], Shape::strict()).unwrap();
    let planes: Vec<u32> =
        [CLIENT, "n1"].iter().map(|name| world.sidecar(name).unwrap().data_plane().unwrap()[0]).collect();
    let (client, node) = (world.pod(CLIENT).unwrap(), world.pod("n1").unwrap());
    let listener = listen(node).unwrap();
    // What the allocator once gave to more connections at once than any round has, it keeps: that is no leak.
    for warming_up in 0..WARM_UP_ROUNDS {
        both_ways((client, node), &listener, 2 * STREAMS, LONGEST_STREAM, 1_000_000 + warming_up);
    }
    sleep(GIVEN_BACK);
    let before: Vec<_> = planes.iter().map(|pid| holds(*pid).unwrap()).collect();
    let end = Instant::now() + how_long;
    let (mut rounds, mut bytes) = (0u64, 0u64);
    while Instant::now() < end {
        rounds += 1;
        bytes += both_ways((client, node), &listener, STREAMS, LONGEST_STREAM, rounds);
    }
    shown!(
        "P3",
        "bytes of streams with half-closes",
        format!("{} MiB in {} s", bytes >> 20, how_long.as_secs()),
        "each as sent"
    );
    shown!("P3", "streams, and ends other than a FIN", format!("{}, 0", rounds * STREAMS), "none");
    let back = Instant::now() + Duration::from_secs(15);
    for ((name, pid), before) in [CLIENT, "n1"].iter().zip(&planes).zip(before) {
        let after = loop {
            let now = holds(*pid).unwrap();
            if (now.0 <= before.0 && now.1 < before.1 + GROWS_AT_MOST_KIB) || Instant::now() > back {
                break now;
            }
            sleep(Duration::from_millis(200));
        };
        println!("{name}: descriptors {} -> {}, resident {} -> {} KiB", before.0, after.0, before.1, after.1);
        assert!(after.0 <= before.0, "{name}: descriptors {} -> {}", before.0, after.0);
        assert!(after.1 < before.1 + GROWS_AT_MOST_KIB, "{name}: resident {} -> {} KiB", before.1, after.1);
    }
}

/// What idle connections may hold of a sidecar, each: the promise; the figure that is told is far below.
const IDLE_AT_MOST_KIB: u64 = 32;

/// CPU that a sidecar with nothing but idle connections may take, as a share of a core.
const IDLE_CPU_AT_MOST: f64 = 0.02;

/// Descriptors of a sidecar that are not of a connection may be more or fewer by so many at another time: an admin's request, a
/// renewal.
const DESCRIPTORS_BESIDE: usize = 5;

/// All of them fall silent together, and stay so for longer than keepalive takes to call a connection dead: where all asked at
/// the same moment, most of what they send would be lost in the kernel's queue.
#[test]
fn idle_connections_stay_cost_little_and_give_everything_back() {
    let (connections, how_long) = if nightly() { (9_000, 600) } else { (4_000, 75) };
    let shape = Shape::strict().with("max_connections_per_source", "20000");
    let mut world = World::new(versions()[0], shape).unwrap();
    let planes: Vec<u32> =
        [CLIENT, "n1"].iter().map(|name| world.sidecar(name).unwrap().data_plane().unwrap()[0]).collect();
    let (client, node) = (world.pod(CLIENT).unwrap(), world.pod("n1").unwrap());
    let listener = listen(node).unwrap();
    raise_descriptors().unwrap();
    let before: Vec<_> = planes.iter().map(|pid| holds(*pid).unwrap()).collect();
    let mut pairs: Vec<_> = (0..connections).map(|_| pair(client, node, &listener).unwrap()).collect();
    say_a_word(&mut pairs);
    // What a connection needs while it is young, it gives back once it has been idle for a look or two.
    sleep(GIVEN_BACK);
    let began: Vec<_> = planes.iter().map(|pid| cpu(*pid).unwrap()).collect();
    sleep(Duration::from_secs(how_long));
    for (((name, pid), before), began) in [CLIENT, "n1"].iter().zip(&planes).zip(&before).zip(began) {
        let share = (cpu(*pid).unwrap() - began).as_secs_f64() / how_long as f64;
        let each = holds(*pid).unwrap().1.saturating_sub(before.1) as f64 / connections as f64;
        println!(
            "{name}: {each:.1} KiB for each of {connections} idle connections, {:.2} % of a core",
            share * 100.0
        );
        assert!(each < IDLE_AT_MOST_KIB as f64, "{name}: {each} KiB for each idle connection");
        assert!(share < IDLE_CPU_AT_MOST, "{name}: {share} of a core with idle connections");
        let side = if *name == CLIENT { "client's" } else { "server's" };
        shown!(
            "P1",
            format!("memory of an idle connection, the {side} sidecar"),
            format!("{each:.1} KiB"),
            "< 32 KiB"
        );
        shown!(
            "P1",
            format!("CPU beside idle connections, the {side} sidecar"),
            format!("{:.2} % of a core", share * 100.0),
            "< 2 %"
        );
    }
    say_a_word(&mut pairs);
    shown!("P1", "idle connections, of these dropped", format!("{connections} for {how_long} s, 0"), "0");
    drop(pairs);
    let mut over = Vec::new();
    for (pid, before) in planes.iter().zip(&before) {
        let most = before.0 + DESCRIPTORS_BESIDE;
        let back = || Ok(holds(*pid)?.0).map(|now| (now <= most).then_some(now));
        over.push(
            wait_until(Duration::from_secs(30), "its descriptors", back).unwrap().saturating_sub(before.0),
        );
    }
    shown!("P1", "descriptors kept 30 s after the last connection", format!("{over:?}"), "<= 5");
}

/// A byte there and one back on each connection.
fn say_a_word(pairs: &mut [(std::net::TcpStream, std::net::TcpStream)]) {
    for (number, (near, far)) in pairs.iter_mut().enumerate() {
        let mut heard = [0; 2];
        near.write_all(b"?").unwrap();
        far.read_exact(&mut heard[..1]).unwrap_or_else(|error| panic!("connection {number}: {error}"));
        far.write_all(b"!").unwrap();
        near.read_exact(&mut heard[1..]).unwrap_or_else(|error| panic!("connection {number}: {error}"));
        assert_eq!(&heard, b"?!", "connection {number}");
    }
}

#[test]
fn a_leg_that_swallows_data_dies_within_ten_seconds_and_an_idle_one_does_not() {
    let world = World::new(versions()[0], Shape::strict()).unwrap();
    let (client, node) = (world.pod(CLIENT).unwrap(), world.pod("n1").unwrap());
    let listener = listen(node).unwrap();
    let (mut near, mut far) = pair(client, node, &listener).unwrap();
    let (mut idle_near, mut idle_far) = pair(client, node, &listener).unwrap();
    near.write_all(b"before").unwrap();
    far.read_exact(&mut [0; 6]).unwrap();
    let client_ip = client.ip().to_string();
    let drop_from_client = ["INPUT", "-s", &client_ip, "-j", "DROP"];
    node.namespace().run("iptables", &[&["-I"][..], &drop_from_client].concat()).unwrap();
    let began = Instant::now();
    near.write_all(b"into the void").unwrap();
    let error = near.read(&mut [0]).unwrap_err();
    let took = began.elapsed();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    shown!(
        "F9",
        "a leg that swallows bytes in flight ends after, s",
        format!("{:.1}", took.as_secs_f64()),
        "8 to 10.5"
    );
    assert!((Duration::from_secs(8)..WITHIN_TEN_SECONDS).contains(&took), "{took:?}");
    assert_eq!(said::ended_in_the_end(&world.sidecars[CLIENT], client, "black_holed", 1.0).unwrap(), 1.0);
    node.namespace().run("iptables", &[&["-D"][..], &drop_from_client].concat()).unwrap();
    idle_near.write_all(b"still here").unwrap();
    let mut heard = [0; 10];
    idle_far.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"still here");
}

#[test]
fn a_connection_that_is_idle_for_longer_than_keepalive_waits_still_carries_bytes() {
    // 30 s, and then three probes of 10 s.
    stays_silent(Duration::from_secs(65));
}

#[test]
#[ignore = "eleven minutes: part of make nightly"]
fn a_connection_that_is_idle_for_eleven_minutes_still_carries_bytes() {
    // Ignite closes an idle connection itself after ten; no sidecar may do it earlier.
    stays_silent(Duration::from_secs(660));
}

fn stays_silent(silence: Duration) {
    let world = World::new(versions()[0], Shape::strict()).unwrap();
    let (client, node) = (world.pod(CLIENT).unwrap(), world.pod("n1").unwrap());
    let listener = listen(node).unwrap();
    let (mut near, mut far) = pair(client, node, &listener).unwrap();
    near.write_all(b"before").unwrap();
    far.read_exact(&mut [0; 6]).unwrap();
    sleep(silence);
    near.write_all(b"after").unwrap();
    let mut after = [0; 5];
    far.read_exact(&mut after).unwrap();
    assert_eq!(&after, b"after");
}
