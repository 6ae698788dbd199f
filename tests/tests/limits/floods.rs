//! Whoever asks too much: storms of resets, handshakes that are never finished.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    thread::{self, sleep},
    time::{Duration, Instant},
};

use nix::{
    libc::linger,
    sys::socket::{setsockopt, sockopt},
};
use ringmail_evidence::shown;
use ringmail_lab::{process::wait_until, shape, wire};
use ringmail_tests::{
    Shape,
    calls::{Caller, crowd, times_as_long},
    nightly, said,
    streams::{OWN_PORT, holds, listen, pair},
    world::{CA, CLIENT, STRANGER},
};

use super::{MORE_DESCRIPTORS, descriptors_over, ended, plane, recovers, world_with};

/// What a machine that is busy may make of a p99 is part of twice as long.
const AT_MOST_TIMES: f64 = 2.0;

#[test]
fn a_storm_of_resets_leaks_no_descriptor_and_every_one_is_counted() {
    /// What a reset is, by how far the connection has come.
    const REASONS: [&str; 3] = ["handshake_eof", "remote_reset", "no_original_destination"];
    const PER_SECOND: u32 = 1_000;
    let seconds = if nightly() { 30 } else { 5 };
    let world = world_with(Shape::strict(), |settings| settings);
    let (client, node, stranger) =
        (world.pod(CLIENT).unwrap(), world.pod("n1").unwrap(), world.pod(STRANGER).unwrap());
    let listener = listen(node).unwrap();
    recovers(&world, &listener, Duration::from_secs(10));
    let inbound = || said::ended_in_all(&world.sidecars["n1"], node, "inbound").unwrap();
    let reasons_before = REASONS.map(|reason| ended(&world, reason));
    let (ended_before, descriptors) = (inbound(), holds(plane(&world)).unwrap().0);
    let count = PER_SECOND * seconds;
    let began = Instant::now();
    stranger.namespace().enter(|| storm((node.ip(), OWN_PORT).into(), PER_SECOND, count)).unwrap();
    let rate = f64::from(count) / began.elapsed().as_secs_f64();
    let counted = wait_until(Duration::from_secs(20), "every reset is counted", || {
        let counted = inbound() - ended_before;
        anyhow::ensure!(counted >= f64::from(count), "{counted} of {count}");
        Ok(Some(counted))
    })
    .unwrap();
    let by_reason = REASONS.map(|reason| ended(&world, reason)).into_iter().zip(reasons_before);
    let by_reason: Vec<_> = by_reason.map(|(now, before)| now - before).collect();
    println!("{rate:.0} resets a second, ended for {REASONS:?}: {by_reason:?}");
    assert_eq!(counted, f64::from(count));
    assert_eq!(by_reason.iter().sum::<f64>(), f64::from(count), "{REASONS:?}: {by_reason:?}");
    shown!(
        "F10",
        "resets by a stranger, of these counted by their reasons",
        format!("{count} at {rate:.0} a second, {counted}"),
        "all"
    );
    assert_eq!(ended(&world, "aborted"), 0.0);
    // And connections that were established, by the kernel of one side.
    let mut pairs: Vec<_> = (0..50).map(|_| pair(client, node, &listener).unwrap()).collect();
    let before = ended(&world, "application_reset");
    shape::reset_connections(node, OWN_PORT).unwrap();
    for (near, _) in &mut pairs {
        assert!(near.read(&mut [0]).is_err(), "a reset arrived as something else");
    }
    let ends =
        said::ended_in_the_end(&world.sidecars["n1"], node, "application_reset", before + 50.0).unwrap();
    assert_eq!(ends - before, 50.0);
    drop(pairs);
    let over = descriptors_over(&world, descriptors);
    shown!("F10", "descriptors after all these resets, over before", over, "<= 5");
    assert!(over <= MORE_DESCRIPTORS, "{over} descriptors over {descriptors}");
}

/// So many connections, each with a byte like that of a handshake, and reset.
fn storm(to: SocketAddr, per_second: u32, count: u32) {
    let began = Instant::now();
    for number in 0..count {
        let mut stream = TcpStream::connect(to).unwrap();
        stream.write_all(&[0x16]).unwrap();
        setsockopt(&stream, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 }).unwrap();
        drop(stream);
        sleep(
            (began + Duration::from_secs(1) * number / per_second).saturating_duration_since(Instant::now()),
        );
    }
}

/// How the first record of a handshake begins; the rest never comes.
const HALF_A_HANDSHAKE: [u8; 11] = [0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3];

/// Connections that one source may hold by default, and who comes beyond them here.
const PER_SOURCE: usize = 2_048;
const BEYOND: usize = 52;

/// By default a handshake has 15 s.
const ENDED_WITHIN: Duration = Duration::from_secs(25);

#[test]
fn drippers_and_half_handshakes_are_ended_by_the_deadline_and_good_clients_do_not_wait_for_them() {
    const DRIP: Duration = Duration::from_secs(5);
    let (drippers, halves) = if nightly() { (2_000, [2_000, 2_000, 1_000]) } else { (400, [400, 400, 200]) };
    let world = world_with(Shape::strict(), |settings| settings);
    let (client, node, stranger) =
        (world.pod(CLIENT).unwrap(), world.pod("n1").unwrap(), world.pod(STRANGER).unwrap());
    let listener = listen(node).unwrap();
    let mut caller = Caller::between(client, node, &listener).unwrap();
    let before = caller.percentiles_99(9).unwrap();
    let (timeouts, refused) =
        (ended(&world, "handshake_timeout"), ended(&world, "limit_connections_per_source"));
    let began = Instant::now();
    let mut hostile: Vec<TcpStream> = Vec::new();
    for (name, count) in ["n2", "n3", CA].into_iter().zip(halves) {
        hostile.extend(crowd(world.pod(name).unwrap(), node, count).unwrap());
    }
    hostile.iter_mut().for_each(|stream| stream.write_all(&HALF_A_HANDSHAKE).unwrap());
    // The rest of what one source may hold says nothing, and what comes beyond it is refused.
    let mut of_one_source = crowd(stranger, node, PER_SOURCE).unwrap();
    let to = SocketAddr::new(node.ip(), OWN_PORT);
    let too_many: Vec<_> =
        (0..BEYOND).map(|_| wire::connect_or_reset(stranger.namespace(), to).unwrap()).collect();
    let (during, slowest_new) = thread::scope(|scope| {
        let measuring = scope.spawn(|| {
            let during = caller.percentiles_99(21).unwrap();
            let began = Instant::now();
            drop(pair(client, node, &listener).unwrap());
            (during, began.elapsed())
        });
        let mut drip = |byte: u8| {
            of_one_source.iter_mut().take(drippers).for_each(|stream| drop(stream.write_all(&[byte])));
        };
        drip(HALF_A_HANDSHAKE[0]);
        sleep(DRIP);
        drip(HALF_A_HANDSHAKE[1]);
        measuring.join().unwrap()
    });
    assert!(began.elapsed() < Duration::from_secs(15), "what was measured is over: {:?}", began.elapsed());
    let all = hostile.len() + PER_SOURCE;
    wait_until(ENDED_WITHIN, "all are ended by the deadline", || {
        let over = ended(&world, "handshake_timeout") - timeouts;
        anyhow::ensure!(over >= all as f64, "{over} of {all}");
        Ok(Some(()))
    })
    .unwrap();
    drop(too_many);
    let (last, beyond) = (began.elapsed(), ended(&world, "limit_connections_per_source") - refused);
    let times = times_as_long(before, &during, caller.percentiles_99(9).unwrap());
    let what = format!(
        "{drippers} drippers, {} half handshakes and {} silent ones",
        hostile.len(),
        PER_SOURCE - drippers
    );
    shown!(
        "F15",
        format!("p99 of a good client beside {what}, times that without"),
        format!("{times:.2}"),
        "<= 2"
    );
    shown!(
        "F15",
        "the last of them is ended after, s",
        format!("{:.1}", last.as_secs_f64()),
        "<= 25, the deadline is 15 s"
    );
    shown!(
        "F15",
        "connections beyond 2,048 of one source that are refused",
        beyond,
        format!("{BEYOND}, exactly")
    );
    assert!(times <= AT_MOST_TIMES, "{times:.2} times as long");
    assert!(slowest_new < Duration::from_secs(2), "a new good connection took {slowest_new:?}");
    assert_eq!(beyond, BEYOND as f64);
}
