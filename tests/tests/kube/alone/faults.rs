//! What a sidecar or a node does not survive, a grid under load does.

use std::time::{Duration, Instant};

use ringmail_tests::kube::{Grid, GridLoad, GridSettings, Place, metrics::ISTIO_PROXY, process, stage};

const KEYS: u64 = 2_000;

/// Ignite gives up a node after 10 s: whatever is held up longer has been lost by the ring.
const HELD_UP_AT_MOST: Duration = Duration::from_secs(10);

const ABORTS: usize = 10;

/// One grid for all three: none may leave a trace in it.
#[test]
#[ignore = "needs a cluster"]
fn a_sidecar_that_dies_ten_aborts_and_a_node_whose_kubelet_restarts_leave_the_ring_as_it_is() {
    let stage = stage();
    let place = Place::in_mesh(stage, "crashing").unwrap();
    let grid = Grid::start(&place, GridSettings::of(3)).unwrap();
    let client = GridLoad::on(&place, &grid, 3, KEYS).unwrap();
    let before = grid.assert_whole(3).unwrap();

    abort_in_a_row(&place);
    assert_eq!(restarts(&place), "0", "the container outlives its data plane");
    assert_eq!(grid.assert_whole(3).unwrap(), before, "ten aborts have changed the ring");

    process::kill_main(&place, "ignite-1", ISTIO_PROXY).unwrap();
    let back = || Ok((restarts(&place) == "1").then_some(()));
    place.until(Duration::from_secs(20), "the container is back", back).unwrap();
    place.ready("ignite-1").unwrap();
    assert_eq!(grid.assert_whole(3).unwrap(), before, "a killed sidecar has changed the ring");

    let node = place.field("pod/ignite-0", "{.spec.nodeName}").unwrap();
    let number = node.trim_start_matches(|letter: char| !letter.is_ascii_digit()).parse().unwrap();
    stage::named().unwrap().restart_node(number).unwrap();
    grid.wait_whole(3).unwrap();
    assert_eq!(grid.assert_whole(3).unwrap(), before, "a restarted kubelet has changed the ring");

    let progress = client.finish(KEYS).unwrap();
    assert_eq!((progress.errors, progress.stale), (0, 0), "{progress:?}");
    assert!(progress.slowest < HELD_UP_AT_MOST, "{progress:?}");
    assert_eq!(grid.departures().unwrap(), (0, 0));
}

/// Each as soon as the successor of the one before serves.
fn abort_in_a_row(place: &Place) {
    let begin = Instant::now();
    for _ in 0..ABORTS {
        process::abort_data_plane(place, "ignite-1", ISTIO_PROXY).unwrap();
        let ask = "curl -sf localhost:15021/healthz/ready";
        let serves = || Ok(place.sh("ignite-1", ISTIO_PROXY, ask).ok());
        place.until(Duration::from_secs(5), "it serves again", serves).unwrap();
    }
    println!("{ABORTS} aborts in {:?}", begin.elapsed());
}

fn restarts(place: &Place) -> String {
    let path = format!("{{.status.initContainerStatuses[?(@.name=='{ISTIO_PROXY}')].restartCount}}");
    place.field("pod/ignite-1", &path).unwrap()
}
