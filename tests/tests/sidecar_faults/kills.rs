//! A sidecar that is killed whole, again and again, under load.

use std::{
    fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread::{self, sleep},
    time::{Duration, Instant},
};

use ringmail_evidence::shown;
use ringmail_lab::{
    network::Pod,
    pcap::{Capture, judge},
    process::{Signal, wait_until},
    sidecar::{INBOUND_PORT, OUTBOUND_PORT, Sidecar},
};
use ringmail_tests::{
    Shape, World,
    calls::Ends,
    nightly,
    streams::{OWN_PORT, listen},
    versions,
    world::CLIENT,
};

/// What applications say while a sidecar is killed: on no wire may a byte of it be seen.
const PLAINTEXT: &[u8] = b"what no wire between two pods may show, ";

/// From the start of a sidecar until both of its ports are open. It binds them before anything else.
const LISTENING_WITHIN: Duration = Duration::from_secs(1);

/// A sidecar whose data plane alone was killed has its certificate still.
const SERVED_AGAIN_WITHIN: Duration = Duration::from_secs(1);

#[test]
fn a_sidecar_that_is_killed_again_and_again_under_load_listens_within_a_second_and_lets_no_plaintext_pass() {
    let kills = if nightly() { 50 } else { 8 };
    let shape = Shape { meshed: vec![CLIENT, "n2"], ..Shape::strict() };
    let mut world = World::new(versions()[0], shape).unwrap();
    let capture = Capture::start(&world.network).unwrap();
    let World { network, sidecars, .. } = &mut world;
    let (client, victim) = (network.pod(CLIENT).unwrap(), network.pod("n2").unwrap());
    let sidecar = sidecars.get_mut("n2").unwrap();
    let listeners = [client, victim].map(|pod| listen(pod).unwrap());
    let (stop, heard) = (AtomicBool::new(false), AtomicU64::new(0));
    let (mut listening, mut served) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        let _over = Ends(&stop);
        for listener in &listeners {
            let stop = &stop;
            scope.spawn(move || echo_all(listener, stop));
        }
        for (from, to) in [(client, victim), (victim, client)] {
            let (stop, heard) = (&stop, &heard);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    // What is cut is begun anew.
                    let _ = talk(from, to, 200, heard);
                }
            });
        }
        for _ in 0..kills {
            sleep(Duration::from_millis(200));
            listening.push(kill_whole(sidecar, victim));
            sidecar.wait_ready(victim).unwrap();
            talk_until_heard(client, victim, &heard);
            sidecar.signal_data_plane(Signal::SIGKILL).unwrap();
            served.push(talk_until_heard(client, victim, &heard));
        }
    });
    listening.sort();
    served.sort();
    let captured = capture.finish().unwrap();
    let shown_in_clear = captured.frames().iter().filter(|frame| contains(&frame.bytes, PLAINTEXT)).count();
    let verdict = judge(&captured.conversations());
    let last = |all: &[Duration]| all.last().unwrap().as_millis();
    shown!(
        "F8",
        "kills of the whole sidecar, and of these the slowest from exec to listening, ms",
        format!("{kills}, {}", last(&listening)),
        "< 1,000"
    );
    let middle = served[served.len() / 2];
    shown!(
        "F8",
        "kills of the data plane alone, and until it served again, median, ms",
        format!("{kills}, {}", middle.as_millis()),
        "< 1,000"
    );
    let heard = heard.into_inner();
    shown!("F8", "frames that show plaintext", format!("{shown_in_clear}, of {heard} bytes said"), "0");
    assert!(listening.last().unwrap() < &LISTENING_WITHIN, "{listening:?}");
    assert!(middle < SERVED_AGAIN_WITHIN, "{served:?}");
    assert_eq!(shown_in_clear, 0);
    assert!(verdict.is_tls13_only(), "{:?}", verdict.offenders);
    assert!(heard > 100 * kills * PLAINTEXT.len() as u64, "only {heard} bytes were said");
}

/// Kills a sidecar with everything in it and starts it again; how long until both of its ports are open.
fn kill_whole(sidecar: &mut Sidecar, pod: &Pod) -> Duration {
    sidecar.kill9().unwrap();
    let began = Instant::now();
    sidecar.start_proxy(pod).unwrap();
    let pid = sidecar.pid().unwrap();
    wait_until(Duration::from_secs(10), "it listens", || {
        // Of each socket the port, in hexadecimal, and 0A for one that listens.
        let table = fs::read_to_string(format!("/proc/{pid}/net/tcp"))?;
        let listens =
            |port: u16| table.lines().any(|line| line.contains(&format!(":{port:04X} 00000000:0000 0A")));
        Ok((listens(INBOUND_PORT) && listens(OUTBOUND_PORT)).then_some(()))
    })
    .unwrap();
    began.elapsed()
}

/// Says the same so many times, each time when it has come back, and counts what was heard.
fn talk(from: &Pod, to: &Pod, times: usize, heard: &AtomicU64) -> io::Result<()> {
    let address = SocketAddr::new(to.ip(), OWN_PORT);
    let patience = Duration::from_secs(2);
    let dial = || TcpStream::connect_timeout(&address, patience);
    let mut stream = from.namespace().enter(dial).map_err(io::Error::other)??;
    stream.set_read_timeout(Some(patience))?;
    let words = PLAINTEXT.repeat(10);
    let mut back = vec![0; words.len()];
    for _ in 0..times {
        stream.write_all(&words)?;
        stream.read_exact(&mut back)?;
        assert!(back == words, "another connection's bytes");
        heard.fetch_add(words.len() as u64, Ordering::Relaxed);
    }
    Ok(())
}

fn talk_until_heard(from: &Pod, to: &Pod, heard: &AtomicU64) -> Duration {
    let began = Instant::now();
    while let Err(error) = talk(from, to, 1, heard) {
        assert!(began.elapsed() < Duration::from_secs(20), "{error}");
    }
    began.elapsed()
}

/// Echoes whatever is said on every connection.
fn echo_all(listener: &TcpListener, stop: &AtomicBool) {
    listener.set_nonblocking(true).unwrap();
    while !stop.load(Ordering::Relaxed) {
        let Ok((stream, _)) = listener.accept() else {
            sleep(Duration::from_millis(1));
            continue;
        };
        thread::spawn(move || {
            stream.set_nonblocking(false)?;
            io::copy(&mut &stream, &mut &stream)
        });
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
