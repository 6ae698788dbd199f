//! Links that lose, delay, reorder, are narrow or cut, and a kernel that loses track of connections: streams stay whole, and what
//! cannot go on ends, is counted, and never passes in plaintext.

#![expect(clippy::unwrap_used, reason = "a step that fails fails its scenario, in a helper too")]

use std::{
    io::{ErrorKind, Read, Write},
    thread::sleep,
    time::{Duration, Instant},
};

use ringmail_evidence::shown;
use ringmail_lab::{network::Pod, process::wait_until, shape};
use ringmail_tests::{
    Shape, World,
    calls::Caller,
    nightly, said,
    streams::{OWN_PORT, both_ways, listen, pair},
    versions,
    world::CLIENT,
};

/// A peer that has vanished is seen after 20 to 30 s of silence and six questions 5 s apart, and a timer may be late.
const IDLE_DEATH: std::ops::Range<Duration> = Duration::from_secs(48)..Duration::from_secs(66);

/// An end is counted a moment after the application has seen it.
const COUNTED_WITHIN: Duration = Duration::from_secs(5);

/// The longest that a connection with bytes in flight is waited for whose other end does not know it any more: the black
/// hole's 9 s, a look twice a second, and a busy machine.
const LOST_TRACK_WITHIN: Duration = Duration::from_secs(12);

/// Far above what is open in any scenario here; a loop makes hundreds in a second.
const A_LOOP: usize = 60;

/// Two pods with a sidecar each.
fn two_pods(shape: Shape) -> World {
    World::new(versions()[0], Shape { meshed: vec![CLIENT, "n1"], ..shape }).unwrap()
}

fn of<'a>(world: &'a World, name: &str) -> &'a Pod {
    world.pod(name).unwrap()
}

/// How often connections of both sidecars ended for a reason.
fn ended(world: &World, reason: &str) -> f64 {
    let of_one = |name: &&str| said::ended(&world.sidecars[*name], of(world, name), reason).unwrap();
    [CLIENT, "n1"].iter().map(of_one).fold(0.0, |sum, one| sum + one)
}

#[test]
fn streams_stay_whole_over_links_that_lose_delay_reorder_and_are_narrow() {
    // A round trip of up to 400 ms leaves a connection a few packets for each; more would only take longer.
    let (streams, longest, narrow_longest) =
        if nightly() { (64, 400_000, 4_000_000) } else { (12, 60_000, 500_000) };
    let world = two_pods(Shape::strict());
    let (client, node) = (of(&world, CLIENT), of(&world, "n1"));
    let listener = listen(node).unwrap();
    let up_to = |milliseconds| Duration::ZERO..Duration::from_millis(milliseconds);
    let run = |what: &str, longest: u64, round: u64| {
        let began = Instant::now();
        let bytes = both_ways((client, node), &listener, streams, longest, round);
        let took = began.elapsed();
        println!("{what}: {bytes} bytes in {took:.1?}");
        shown!(
            "F16",
            format!("bytes that differ or are missing, {what}"),
            format!("0 of {bytes}, on {streams} connections"),
            "0"
        );
    };
    {
        let _both = [shape::lose(client, 0.01).unwrap(), shape::lose(node, 0.01).unwrap()];
        run("1 % of the packets lost each way", longest, 1);
    }
    {
        let _both = [shape::lose(client, 0.05).unwrap(), shape::lose(node, 0.05).unwrap()];
        let _late =
            [shape::delay(client, up_to(200), 1).unwrap(), shape::delay(node, up_to(200), 2).unwrap()];
        run("5 % lost each way, the others up to 200 ms late and reordered", longest / 4, 2);
    }
    {
        let _late =
            [shape::delay(client, up_to(200), 3).unwrap(), shape::delay(node, up_to(200), 4).unwrap()];
        run("up to 200 ms late each way and reordered", longest, 3);
    }
    {
        let _both = [shape::narrow(client, "8mbit").unwrap(), shape::narrow(node, "8mbit").unwrap()];
        run("8 Mbit/s each way", narrow_longest, 4);
    }
    let spurious = ended(&world, "handshake_timeout") + ended(&world, "black_holed");
    shown!("F16", "handshakes or connections given up for a deadline", spurious, "0");
    assert_eq!(spurious, 0.0);
    assert_eq!(ended(&world, "tls_failed"), 0.0);
}

#[test]
fn an_idle_peer_that_has_vanished_is_seen_after_about_a_minute_by_both_ends() {
    let world = two_pods(Shape::strict());
    let (client, node) = (of(&world, CLIENT), of(&world, "n1"));
    let listener = listen(node).unwrap();
    let (mut near, mut far) = pair(client, node, &listener).unwrap();
    near.write_all(b"before").unwrap();
    far.read_exact(&mut [0; 6]).unwrap();
    let _cut = shape::unplug(&world.network, node).unwrap();
    let began = Instant::now();
    let died = |stream: &mut std::net::TcpStream| {
        let end = stream.read(&mut [0]);
        (began.elapsed(), end.map_err(|error| error.kind()))
    };
    let ends = std::thread::scope(|scope| {
        let far = scope.spawn(|| died(&mut far));
        [died(&mut near), far.join().unwrap()]
    });
    for ((after, end), whose) in ends.into_iter().zip(["client", "server"]) {
        println!("the {whose}'s application saw {end:?} after {after:?}");
        assert!(IDLE_DEATH.contains(&after), "{whose}: {end:?} after {after:?}");
        shown!(
            "F9",
            format!("an idle connection whose peer vanished ends at the {whose}'s, s"),
            format!("{:.1}", after.as_secs_f64()),
            "48 to 66: 50 to 60 by the settings, and the kernel's timers"
        );
    }
}

#[test]
fn a_connection_whose_translation_is_forgotten_goes_on_or_ends_at_both_sides_and_never_hangs() {
    let world = two_pods(Shape::strict());
    let (client, node) = (of(&world, CLIENT), of(&world, "n1"));
    let listener = listen(node).unwrap();
    for (whose, pod) in [("server", node), ("client", client)] {
        let (mut near, mut far) = pair(client, node, &listener).unwrap();
        near.write_all(b"before").unwrap();
        far.read_exact(&mut [0; 6]).unwrap();
        shape::forget_connections_of(pod, OWN_PORT).unwrap();
        let began = Instant::now();
        // The first that is said afterwards comes from the side that was forgotten: nothing tells the kernel whose it was.
        let (speaker, listens) =
            if whose == "server" { (&mut far, &mut near) } else { (&mut near, &mut far) };
        for stream in [&mut *speaker, &mut *listens] {
            stream.set_read_timeout(Some(LOST_TRACK_WITHIN)).unwrap();
        }
        listens.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        speaker.write_all(b"after").unwrap();
        let mut heard = listens.read(&mut [0; 5]);
        if matches!(&heard, Err(error) if error.kind() == ErrorKind::WouldBlock) {
            // As behind any translation: the side that was not forgotten learns of it when it speaks, or by keepalive.
            listens.set_read_timeout(Some(LOST_TRACK_WITHIN)).unwrap();
            let _ = listens.write_all(b"and you?");
            heard = listens.read(&mut [0; 5]);
        }
        let outcome = match &heard {
            Ok(5) => "goes on".to_owned(),
            end => {
                let other = speaker.read(&mut [0]);
                assert!(!matches!(&other, Ok(1..)), "{whose}: {other:?}");
                let hangs = |end: &std::io::Result<usize>| matches!(end, Err(error) if error.kind() == ErrorKind::WouldBlock);
                assert!(!hangs(end) && !hangs(&other), "{whose}: {end:?}, {other:?}");
                format!("ends at both sides after {:.1} s", began.elapsed().as_secs_f64())
            }
        };
        shown!(
            "F9",
            format!("a live connection that the {whose}'s kernel has forgotten"),
            outcome,
            "goes on, or both sides told within 12 s"
        );
        let (mut near, mut far) = pair(client, node, &listener).unwrap();
        near.write_all(b"anew").unwrap();
        far.read_exact(&mut [0; 4]).unwrap();
    }
    assert_eq!(ended(&world, "plaintext_refused"), 0.0);
}

#[test]
fn a_full_table_of_tracked_connections_refuses_new_ones_by_the_deadline_and_recovers_when_it_is_flushed() {
    let world = two_pods(Shape::strict().with("connect_timeout", "3s"));
    let (client, node) = (of(&world, CLIENT), of(&world, "n1"));
    let listener = listen(node).unwrap();
    let mut established = Caller::between(client, node, &listener).unwrap();
    let full = shape::fill_tracking(node).unwrap();
    for _ in 0..10 {
        established.call().unwrap();
    }
    let began = Instant::now();
    let mut refused = ringmail_lab::wire::connect(client.namespace(), (node.ip(), OWN_PORT).into()).unwrap();
    let end = refused.read(&mut [0]);
    let took = began.elapsed();
    assert!(end.is_err(), "{end:?}");
    // The full one's own admin connection is not tracked either.
    let counted = || Ok((said::ended(&world.sidecars[CLIENT], client, "dial_timeout")? > 0.5).then_some(()));
    wait_until(COUNTED_WITHIN, "it is counted as dial_timeout", counted).unwrap();
    shown!(
        "F19",
        format!("a new connection while {full} are tracked is refused after, s"),
        format!("{:.1}", took.as_secs_f64()),
        "the deadline of 3 s, and counted as dial_timeout"
    );
    assert!((Duration::from_millis(2_900)..Duration::from_secs(8)).contains(&took), "{took:?}");
    shape::forget_connections(node).unwrap();
    let began = Instant::now();
    recovers(client, node, &listener);
    shown!(
        "F19",
        "connections are served again after the flush, s",
        format!("{:.1}", began.elapsed().as_secs_f64()),
        "<= 5"
    );
}

#[test]
fn tracked_connections_that_are_flushed_under_load_make_no_loop_and_no_plaintext() {
    const CALLERS: usize = 10;
    let flushes = if nightly() { 50 } else { 8 };
    let world = two_pods(Shape::strict());
    let (client, node) = (of(&world, CLIENT), of(&world, "n1"));
    let listener = listen(node).unwrap();
    let (mut lost, mut most_open) = (0, 0);
    for flush in 0..flushes {
        let mut callers: Vec<_> =
            (0..CALLERS).map(|_| Caller::between(client, node, &listener).unwrap()).collect();
        for pod in [client, node] {
            shape::forget_connections(pod).unwrap();
        }
        lost += callers.iter_mut().filter_map(|caller| caller.call().err()).count();
        for name in [CLIENT, "n1"] {
            let open = said::connections(&world.sidecars[name], of(&world, name)).unwrap().len();
            most_open = most_open.max(open);
            assert!(open < A_LOOP, "{name}, flush {flush}: {open} connections");
        }
        drop(callers);
        recovers(client, node, &listener);
    }
    println!("{lost} of {} connections did not survive a flush", flushes * CALLERS);
    shown!(
        "F19",
        format!("connections open at most, {flushes} flushes under load"),
        most_open,
        format!("< {A_LOOP}: no loop")
    );
    let plaintext = ended(&world, "plaintext_refused");
    shown!("F19", "connections that arrived in plaintext after a flush", plaintext, "0");
    assert_eq!(plaintext, 0.0);
}

/// A new connection is served within five seconds.
fn recovers(client: &Pod, node: &Pod, listener: &std::net::TcpListener) {
    wait_until(Duration::from_secs(5), "a new connection is served", || {
        sleep(Duration::from_millis(50));
        let mut near = ringmail_lab::wire::connect(client.namespace(), (node.ip(), OWN_PORT).into())?;
        near.write_all(b"anew")?;
        listener.set_nonblocking(true)?;
        let accepted = wait_until(Duration::from_secs(2), "it is accepted", || Ok(Some(listener.accept()?)));
        listener.set_nonblocking(false)?;
        let (mut far, _) = accepted?;
        far.set_nonblocking(false)?;
        let mut heard = [0; 4];
        far.read_exact(&mut heard)?;
        Ok((&heard == b"anew").then_some(()))
    })
    .unwrap();
}
