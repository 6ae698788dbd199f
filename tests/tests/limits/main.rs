//! A sidecar that has too little of something: descriptors, memory, processes; or that too much is asked of.
//!
//! What it cannot hold waits or is refused, and is counted. It neither dies of it nor spins, and is itself again afterwards.

#![expect(clippy::unwrap_used, reason = "a step that fails fails its scenario, in a helper too")]

mod floods;
mod memory;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    thread::sleep,
    time::{Duration, Instant},
};

use ringmail_evidence::shown;
use ringmail_lab::{cgroup::Confinement, process::wait_until, sidecar::SidecarSettings, wire};
use ringmail_tests::{
    Shape, World,
    calls::{Caller, crowd, share_of_a_core},
    said,
    streams::{OWN_PORT, holds, listen, raise_descriptors},
    versions,
    world::{CLIENT, SERVICE_ACCOUNT, STRANGER},
};

/// Sidecars see a pod that has come into the mesh within a second.
const ANNOUNCED: Duration = Duration::from_millis(1_500);

/// Descriptors that a sidecar may have more than before something, once it is over: an admin connection that still closes, and
/// pipes that a worker keeps.
const MORE_DESCRIPTORS: usize = 5;

/// A world where the client has a sidecar of the usual kind, and `n1` one of these settings.
fn world_with(shape: Shape, n1: impl FnOnce(SidecarSettings) -> SidecarSettings) -> World {
    raise_descriptors().unwrap();
    let mut world = World::new(versions()[0], Shape { meshed: vec![CLIENT], ..shape }).unwrap();
    let settings = n1(world.shape.sidecar.clone());
    world.start_sidecar_as("n1", &settings).unwrap();
    world.wait_ready("n1").unwrap();
    sleep(ANNOUNCED);
    world
}

fn plane(world: &World) -> u32 {
    world.sidecars["n1"].data_plane().unwrap()[0]
}

fn metric(world: &World, name: &str) -> f64 {
    said::sum(&said::metrics(&world.sidecars["n1"], world.pod("n1").unwrap()).unwrap(), name, &[])
}

fn ended(world: &World, reason: &str) -> f64 {
    said::ended(&world.sidecars["n1"], world.pod("n1").unwrap(), reason).unwrap()
}

/// A connection through both sidecars carries a byte, within so long.
fn recovers(world: &World, listener: &TcpListener, within: Duration) -> Duration {
    let (client, node) = (world.pod(CLIENT).unwrap(), world.pod("n1").unwrap());
    let began = Instant::now();
    // Whoever was refused meanwhile may still be in the listener's backlog.
    listener.set_nonblocking(true).unwrap();
    wait_until(within, "a new connection is served", || {
        let mut near = wire::connect(client.namespace(), SocketAddr::new(node.ip(), OWN_PORT))?;
        near.write_all(b"anew")?;
        let mut far =
            wait_until(Duration::from_secs(3), "it is accepted", || Ok(Some(listener.accept()?)))?.0;
        far.set_nonblocking(false)?;
        far.set_read_timeout(Some(Duration::from_secs(1)))?;
        let mut heard = [0; 4];
        far.read_exact(&mut heard)?;
        Ok((&heard == b"anew").then_some(()))
    })
    .unwrap();
    listener.set_nonblocking(false).unwrap();
    began.elapsed()
}

/// Descriptors of the data plane, once they are back at what they were, or after a while.
fn descriptors_over(world: &World, before: usize) -> usize {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let over = holds(plane(world)).unwrap().0.saturating_sub(before);
        if over <= MORE_DESCRIPTORS || Instant::now() > until {
            return over;
        }
        sleep(Duration::from_millis(200));
    }
}

#[test]
fn without_descriptors_a_sidecar_rests_answers_renews_and_recovers() {
    const DESCRIPTORS: u32 = 256;
    const STRANGERS: usize = 300;
    const ESTABLISHED: usize = 10;
    let shape = Shape::strict().with_ca(&["--ttl", "20s"]).with("certificate_ttl", "20s");
    let world = world_with(shape, |settings| SidecarSettings {
        descriptors: Some(DESCRIPTORS),
        // Longer than all this takes: nobody's deadline makes room.
        ..settings.with("handshake_timeout", "2m")
    });
    let (client, node, stranger) =
        (world.pod(CLIENT).unwrap(), world.pod("n1").unwrap(), world.pod(STRANGER).unwrap());
    let listener = listen(node).unwrap();
    let mut established: Vec<_> =
        (0..ESTABLISHED).map(|_| Caller::between(client, node, &listener).unwrap()).collect();
    let strangers = crowd(stranger, node, STRANGERS).unwrap();
    wait_until(Duration::from_secs(5), "accepting rests", || {
        Ok((metric(&world, "ringmail_accept_paused_total") > 0.0).then_some(()))
    })
    .unwrap();
    let refreshed = || {
        said::sum(
            &said::metrics(&world.sidecars["n1"], node).unwrap(),
            "control_identity_cert_refreshes_total",
            &["result=\"ok\""],
        )
    };
    let renewals = refreshed();
    let (share, most) = share_of_a_core(plane(&world), || {
        let (mut most, end) = (0, Instant::now() + Duration::from_secs(4));
        while Instant::now() < end {
            most = most.max(holds(plane(&world))?.0);
            sleep(Duration::from_millis(200));
        }
        Ok(most)
    })
    .unwrap();
    shown!(
        "F12",
        "share of a core while all descriptors are taken, %",
        format!("{:.1}", share * 100.0),
        "< 20"
    );
    assert!(share < 0.2, "{share}");
    assert!(most <= DESCRIPTORS as usize, "{most}");
    assert_eq!(world.sidecars["n1"].readiness(node).unwrap().status, 200);
    for caller in &mut established {
        caller.call().unwrap();
    }
    wait_until(Duration::from_secs(30), "the certificate is renewed", || {
        Ok((refreshed() > renewals).then_some(()))
    })
    .unwrap();
    shown!("F12", "renewals while all descriptors are taken", refreshed() - renewals, ">= 1");
    drop(strangers);
    let took = recovers(&world, &listener, Duration::from_secs(10));
    shown!(
        "F12",
        "a new connection is served afterwards within, s",
        format!("{:.1}", took.as_secs_f64()),
        "<= 10"
    );
}

/// The most threads and processes with which no sidecar runs: of the parent two, of the data plane three and one for each worker.
const TOO_FEW: u32 = 5;

/// What the log says then.
const WHY: &str = "raise the container's pids limit";

#[test]
fn a_sidecar_with_too_few_processes_says_so_and_serves_once_there_are_more() {
    let confinement = Confinement::create("processes").unwrap();
    let cgroup = confinement.cgroup().clone();
    let shape = Shape { meshed: vec![CLIENT], ..Shape::strict() };
    let mut world = World::new(versions()[0], shape).unwrap();
    let settings = SidecarSettings { cgroup: Some(cgroup.clone()), ..SidecarSettings::new(SERVICE_ACCOUNT) };
    let mut said_before = 0;
    for most in 1..=TOO_FEW {
        cgroup.limit_processes(Some(most)).unwrap();
        world.start_sidecar_as("n1", &settings.clone().with("workers", "1")).unwrap();
        let line = wait_until(Duration::from_secs(10), "it says why", || {
            let log = world.sidecars["n1"].log_text();
            Ok(log[said_before..].lines().find(|line| line.contains(WHY)).map(str::to_owned))
        });
        println!("{most}: {}", line.unwrap());
        // One that cannot even have a thread for its log ends; any other is tried again and again.
        sleep(Duration::from_millis(500));
        if !world.sidecar("n1").unwrap().is_running().unwrap() {
            assert!(!world.sidecar("n1").unwrap().wait_stopped().unwrap().success());
            let log = world.sidecars["n1"].log_text();
            assert!(log.lines().last().unwrap().contains(WHY), "{most}: {log}");
            cgroup.limit_processes(None).unwrap();
            world.restart_proxy("n1").unwrap();
        }
        cgroup.limit_processes(None).unwrap();
        world.wait_ready("n1").unwrap();
        world.sidecar("n1").unwrap().kill9().unwrap();
        said_before = world.sidecars["n1"].log_text().len();
    }
    let what =
        "limits of processes, 1 to 5, that the log names, and with which it serves once they are raised";
    shown!("F13", what, TOO_FEW, "every one");
}
