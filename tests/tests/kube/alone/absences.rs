//! What the data path does not need goes away: the API server, and the cluster's names.

use std::{thread::sleep, time::Duration};

use ringmail_evidence::shown;
use ringmail_lab::kube::Cluster;
use ringmail_tests::kube::{
    Place, STRICT, Toolbox, metrics, stage,
    unbroken::{all_answered, hold_one_open, keep_dialling, still_open},
};

/// Longer than watches, leases and the proxies' own questions need to find out.
fn away() -> Duration {
    Duration::from_secs(if ringmail_tests::nightly() { 300 } else { 20 })
}

/// Controllers and kubelets ask again after ever longer pauses, of up to half a minute, and one waits for the other.
const BACK_WITHIN: Duration = Duration::from_secs(120);

#[test]
#[ignore = "needs a cluster"]
fn without_the_api_server_and_without_names_connections_last_and_new_ones_are_made() {
    let stage = stage();
    let place = Place::in_mesh(stage, "absences").unwrap();
    place.apply(STRICT).unwrap();
    Toolbox::echo("echo").begin(&place).unwrap();
    Toolbox::idle("member").start(&place).unwrap();
    place.ready("echo").unwrap();
    hold_one_open(&place, "member", "echo").unwrap();
    keep_dialling(&place, "member", "echo").unwrap();
    let before = answered(&place);
    {
        let _absent = Absent::begin();
        sleep(away());
    }
    let dials = answered(&place) - before;
    cluster_is_back(&Place::new(stage, "absences-after").unwrap());
    stage.rolled_out().unwrap();

    still_open(&place, "member").unwrap();
    all_answered(&place, "member").unwrap();
    let plain = metrics::in_plaintext(&place, "member", "outbound").unwrap();
    assert_eq!(plain, 0);
    assert!(dials > away().as_secs() as usize / 2, "only {dials} dials were made");
    shown!("F18", "dials while API server and DNS were away: unanswered", format!("0 of {dials}"), "0");
    shown!("F18", "of those, in plaintext", plain, "0");
}

/// The cluster itself: what is tried next, here or by whoever comes next, finds nodes, and service accounts in new namespaces.
fn cluster_is_back(place: &Place) {
    let account = || Ok(place.kubectl(&["get", "serviceaccount", "default"]).ok().map(drop));
    place.until(BACK_WITHIN, "a new namespace has its service account", account).unwrap();
    let conditions = "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}";
    let ready = || {
        let nodes = place.kubectl(&["get", "nodes", "-o", conditions])?;
        let all = !nodes.trim().is_empty() && nodes.split_whitespace().all(|status| status == "True");
        Ok(all.then_some(()))
    };
    place.until(BACK_WITHIN, "every node is ready", ready).unwrap();
}

/// How many dials have been answered.
fn answered(place: &Place) -> usize {
    place.sh("member", "main", "wc -l </tmp/answered").unwrap().trim().parse().unwrap()
}

/// Neither API server nor DNS for as long as this lives.
struct Absent(Cluster);

impl Absent {
    fn begin() -> Self {
        let mut absent = Self(stage::named().unwrap());
        absent.0.stop_dns().unwrap();
        absent.0.stop_api().unwrap();
        absent
    }
}

impl Drop for Absent {
    fn drop(&mut self) {
        if let Err(error) = self.0.start_api().and_then(|()| self.0.start_dns()) {
            println!("the cluster does not come back: {error:#}");
        }
    }
}
