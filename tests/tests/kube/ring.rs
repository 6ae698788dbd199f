//! A grid from its own manifests joins the mesh, lives in it, and leaves it.

use std::time::Duration;

use ringmail_tests::kube::{Grid, GridLoad, GridSettings, Place, STRICT, Toolbox, metrics, stage, toolbox};

const KEYS: u64 = 2_000;

/// How long a policy may take from `kubectl apply` to every sidecar.
const APPLIED_WITHIN: Duration = Duration::from_secs(2);

#[test]
#[ignore = "needs a cluster"]
fn two_then_three_nodes_form_a_ring_that_serves_the_mesh_alone_once_it_is_strict() {
    let stage = stage();
    let place = Place::in_mesh(stage, "grid").unwrap();
    let [members, strangers] =
        ["grid-members", "grid-strangers"].map(|name| Place::new(stage, name).unwrap());
    members.label("istio-injection=enabled").unwrap();
    let grid = Grid::start(&place, GridSettings::of(2)).unwrap();
    let member = GridLoad::start(&members, "member").unwrap();
    let stranger = GridLoad::start(&strangers, "stranger").unwrap();

    // PERMISSIVE is what holds where nobody has said anything.
    stranger.connect("ignite.grid.svc:10800").unwrap();
    member.connect(&grid.addresses(2)).unwrap();
    member.begin(KEYS).unwrap();
    grid.scale(3).unwrap();
    let before = grid.assert_whole(3).unwrap();
    member.mark().unwrap();

    place.apply(STRICT).unwrap();
    place
        .until(APPLIED_WITHIN, "a stranger is refused", || {
            Ok(stranger.connect("ignite.grid.svc:10800").err())
        })
        .unwrap();
    for pod in grid.pods().unwrap() {
        // What is left is the API server, which the IP finder asks.
        let log = place.kubectl(&["logs", &pod, "-c", metrics::ISTIO_PROXY]).unwrap();
        let to_a_node = |line: &&str| line.contains(":47500 dst.") || line.contains(":47100 dst.");
        let dialled = log.lines().filter(|line| line.contains("direction=outbound")).filter(to_a_node);
        let in_tls =
            |line: &&str| line.contains(" protection=mutual_tls ") || line.contains("protection=undecided");
        assert!(dialled.clone().count() > 0, "{pod} has dialled no node");
        assert_eq!(dialled.filter(|line| !in_tls(line)).count(), 0, "{pod} dialled in plaintext");
    }
    // Nobody who is in the mesh has noticed.
    assert_eq!(grid.assert_whole(3).unwrap(), before);
    let progress = member.finish(KEYS).unwrap();
    assert_eq!((progress.errors, progress.stale), (0, 0), "{progress:?}");
    assert!(progress.operations > 100, "{progress:?}");
    let refused: f64 = grid
        .pods()
        .unwrap()
        .iter()
        .map(|pod| metrics::ended(&place, pod, "plaintext_refused").unwrap())
        .sum();
    assert!(refused > 0.0, "no sidecar has recorded the stranger");

    place.kubectl(&["delete", "peerauthentication", "default"]).unwrap();
    place
        .until(APPLIED_WITHIN * 2, "a stranger is served again", || {
            Ok(stranger.connect("ignite.grid.svc:10800").ok())
        })
        .unwrap();
}

#[test]
#[ignore = "needs a cluster"]
fn a_live_plain_ring_moves_in_pod_by_pod_stays_mixed_and_moves_out_again() {
    let stage = stage();
    let place = Place::new(stage, "moving").unwrap();
    let strangers = Place::new(stage, "moving-strangers").unwrap();
    let grid = Grid::start(&place, GridSettings::of(3)).unwrap();
    let client = GridLoad::on(&place, &grid, 3, KEYS).unwrap();
    let stranger = GridLoad::start(&strangers, "stranger").unwrap();

    place.label("istio-injection=enabled").unwrap();
    for (node, meshed) in [(2, 1), (1, 2), (0, 3)] {
        grid.replace(node, 3).unwrap();
        assert_eq!(sidecars(&place, &grid), meshed);
        // A client of a plain namespace and a ring of two kinds: everybody still talks to everybody.
        let progress = client.mark().unwrap();
        assert_eq!((progress.errors, progress.stale), (0, 0), "{meshed} in the mesh: {progress:?}");
    }
    let pod = "ignite-0";
    assert!(metrics::opened(&place, pod, "destination", "mutual_tls").unwrap() > 0.0, "no node came by TLS");
    // A client that is there already dials a new node once, when it joins, and not again before the next one does.
    stranger.connect("ignite-0.ignite-headless.moving.svc:10800").unwrap();
    assert!(metrics::opened(&place, pod, "destination", "none").unwrap() > 0.0, "no plain client has come");

    place.label("istio-injection-").unwrap();
    for (node, meshed) in [(2, 2), (1, 1), (0, 0)] {
        grid.replace(node, 3).unwrap();
        assert_eq!(sidecars(&place, &grid), meshed);
    }
    let progress = client.finish(KEYS).unwrap();
    assert_eq!((progress.errors, progress.stale), (0, 0), "{progress:?}");
    let (left, failed) = grid.departures().unwrap();
    assert_eq!(failed, 0, "{left} left and {failed} failed");
    assert!(left > 0, "nobody saw a node leave");
}

/// How many of the grid's pods carry a sidecar.
fn sidecars(place: &Place, grid: &Grid) -> usize {
    let names = "{.spec.initContainers[*].name}";
    let has =
        |pod: &String| place.field(&format!("pod/{pod}"), names).unwrap().contains(metrics::ISTIO_PROXY);
    grid.pods().unwrap().iter().filter(|pod| has(pod)).count()
}

/// The same question without a grid: it is asked of every port, and from both sides of the mesh.
#[test]
#[ignore = "needs a cluster"]
fn every_port_of_a_strict_namespace_is_open_to_the_mesh_and_closed_to_everybody_else() {
    let stage = stage();
    let place = Place::in_mesh(stage, "ports").unwrap();
    let strangers = Place::new(stage, "ports-strangers").unwrap();
    place.apply(STRICT).unwrap();
    for begun in [Toolbox::server("server"), Toolbox::idle("member")] {
        begun.begin(&place).unwrap();
    }
    Toolbox::idle("stranger").start(&strangers).unwrap();
    for pod in ["server", "member"] {
        place.ready(pod).unwrap();
    }
    let server = place.address("server").unwrap();
    for port in toolbox::GRID_PORTS {
        let member = toolbox::dial(&place, "member", &server, port).unwrap();
        assert_eq!(member.as_deref(), Some("server"), "{port}");
        assert_eq!(toolbox::dial(&strangers, "stranger", &server, port).unwrap(), None, "{port}");
    }
    assert_eq!(metrics::ended(&place, "server", "plaintext_refused").unwrap(), 5.0);
}

#[test]
#[ignore = "needs a cluster"]
fn pods_that_are_deleted_and_a_rolling_restart_lose_no_key_and_fail_no_node() {
    let stage = stage();
    let place = Place::in_mesh(stage, "rolling").unwrap();
    let grid = Grid::start(&place, GridSettings::of(3)).unwrap();
    let client = GridLoad::on(&place, &grid, 3, KEYS).unwrap();
    grid.replace(1, 3).unwrap();
    let (left, failed) = grid.departures().unwrap();
    assert!(failed == 0 && left >= 2, "{left} saw it leave, {failed} fail");
    grid.roll(3).unwrap();
    grid.assert_whole(3).unwrap();
    let progress = client.finish(KEYS).unwrap();
    assert_eq!((progress.errors, progress.stale), (0, 0), "{progress:?}");
    let (left, failed) = grid.departures().unwrap();
    assert!(failed == 0 && left > 0, "{left} saw a node leave, {failed} fail");
}
