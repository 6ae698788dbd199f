//! Parts of the mesh go away while it is in use, and come back.

use std::{
    thread::{scope, sleep},
    time::{Duration, Instant},
};

use ringmail_evidence::shown;
use ringmail_tests::kube::{
    Grid, GridLoad, GridSettings, Place, STRICT, Toolbox,
    metrics::{self, ISTIO_PROXY},
    stage,
    stage::{SYSTEM, Stage},
    toolbox::{dial, dials},
    unbroken::{hold_one_open, still_open},
};

const KEYS: u64 = 1_000;
const THIN: u16 = 10800;

/// How long something is watched that must not happen.
const WATCHED: Duration = Duration::from_secs(8);

/// What waits for a part that is back goes on within its own next tries.
const GOES_ON_WITHIN: Duration = Duration::from_secs(60);

/// How long control is killed at random; the night gives it ten minutes.
fn killing_time() -> Duration {
    Duration::from_secs(if ringmail_tests::nightly() { 600 } else { 30 })
}

#[test]
#[ignore = "needs a cluster"]
fn an_application_starts_only_when_its_sidecar_is_ready() {
    let stage = stage();
    let place = Place::in_mesh(stage, "order").unwrap();
    Toolbox::server("server").start(&place).unwrap();
    // What an application meets that dials with its very first breath.
    let server = place.address("server").unwrap();
    let at_once = format!("echo hello | socat -t10 - TCP:{server}:{THIN} >/tmp/heard; exec sleep infinity");
    Toolbox::of("eager", &at_once).start(&place).unwrap();
    let heard = || Ok(place.sh("eager", "main", "cat /tmp/heard")?.contains("server").then_some(()));
    place.until(Duration::from_secs(10), "the first dial is answered", heard).unwrap();
    assert_eq!(metrics::in_plaintext(&place, "eager", "outbound").unwrap(), 0);
    assert_eq!(metrics::in_plaintext(&place, "server", "inbound").unwrap(), 0);
}

#[test]
#[ignore = "needs a cluster"]
fn without_the_webhook_labelled_pods_wait_and_others_start() {
    let stage = stage();
    let place = Place::in_mesh(stage, "unhooked").unwrap();
    let others = Place::new(stage, "unhooked-others").unwrap();
    let back = without(stage, "ringmail-control");
    Toolbox::idle("plain").start(&others).unwrap();
    let refused = Toolbox::idle("bare").begin(&place).unwrap_err();
    assert!(format!("{refused:#}").contains("ringmail"), "the refusal names nobody: {refused:#}");
    place.apply(&deployment("waits")).unwrap();
    place
        .until(GOES_ON_WITHIN, "an event says why there is no pod", || {
            let events = place.kubectl(&["get", "events", "-o", "jsonpath={.items[*].message}"])?;
            Ok((events.contains("webhook") && events.contains("ringmail")).then_some(()))
        })
        .unwrap();
    assert_eq!(place.kubectl(&["get", "pods", "-l", "app=waits", "--no-headers"]).unwrap(), "");
    drop(back);
    place.kubectl(&["rollout", "status", "--timeout=120s", "deployment/waits"]).unwrap();
    let pod = place.kubectl(&["get", "pods", "-l", "app=waits", "-o", "name"]).unwrap();
    assert!(place.field(pod.trim(), "{.spec.initContainers[*].name}").unwrap().contains(ISTIO_PROXY));
    shown!(
        "F18",
        "pods without their sidecar while the webhook is away",
        0,
        "those with the label wait, and others start"
    );
}

#[test]
#[ignore = "needs a cluster"]
fn without_the_ca_new_pods_wait_and_say_so_and_old_ones_work_on() {
    let stage = stage();
    let place = Place::in_mesh(stage, "uncertified").unwrap();
    Toolbox::server("server").begin(&place).unwrap();
    Toolbox::idle("member").start(&place).unwrap();
    place.ready("server").unwrap();
    let server = place.address("server").unwrap();
    let back = without(stage, "ringmail-ca");
    Toolbox::server("late").begin(&place).unwrap();
    place
        .until(GOES_ON_WITHIN, "the waiting pod says why", || {
            let log = place.kubectl(&["logs", "late", "-c", ISTIO_PROXY]).unwrap_or_default();
            let events = place.kubectl(&["get", "events", "-o", "jsonpath={.items[*].message}"])?;
            Ok((log.contains("ca_unreachable") && events.contains("Startup probe failed")).then_some(()))
        })
        .unwrap();
    let asks = "curl -s localhost:15021/healthz/ready";
    let readiness = place.sh("late", ISTIO_PROXY, asks).unwrap();
    assert!(readiness.contains("certificate") && readiness.contains("ringmail-ca"), "{readiness}");
    let started = place.field("pod/late", "{.status.containerStatuses[0].state.running.startedAt}").unwrap();
    assert_eq!(started, "", "the application runs without a certificate");
    assert_eq!(dial(&place, "member", &server, THIN).unwrap().as_deref(), Some("server"));
    drop(back);
    place.ready("late").unwrap();
    let late = place.address("late").unwrap();
    dials(&place, "member", (&late, THIN), Some("late"), GOES_ON_WITHIN).unwrap();
    assert_eq!(metrics::in_plaintext(&place, "member", "outbound").unwrap(), 0);
}

#[test]
#[ignore = "needs a cluster"]
fn while_control_is_killed_at_random_no_connection_drops_and_none_is_plaintext() {
    let stage = stage();
    let place = Place::in_mesh(stage, "killing").unwrap();
    let grid = Grid::start(&place, GridSettings::of(2)).unwrap();
    let client = GridLoad::on(&place, &grid, 2, KEYS).unwrap();
    Toolbox::echo("echo").begin(&place).unwrap();
    Toolbox::idle("member").start(&place).unwrap();
    place.ready("echo").unwrap();
    hold_one_open(&place, "member", "echo").unwrap();
    let before = grid.assert_whole(2).unwrap();
    let end = Instant::now() + killing_time();
    let (mut answered, mut unanswered) = (0, 0);
    scope(|scope| {
        let killer = scope.spawn(|| kill_until(stage, end));
        for number in 0.. {
            if Instant::now() > end {
                break;
            }
            // A pod that nobody has dialled yet: its address is new to everybody.
            let name = format!("new-{number}");
            let begun = Toolbox::server(&name).begin(&place).is_ok() && place.ready(&name).is_ok();
            if begun {
                let address = place.address(&name).unwrap();
                match dial(&place, "member", &address, THIN).unwrap() {
                    Some(heard) => {
                        assert_eq!(heard, name);
                        answered += 1;
                    }
                    None => unanswered += 1,
                }
                place.kubectl(&["delete", "pod", &name, "--wait=false"]).unwrap();
            } else {
                // The webhook is away with control: nothing starts without its sidecar.
                sleep(Duration::from_secs(1));
            }
        }
        println!("control was killed {} times", killer.join().unwrap());
    });
    assert!(answered > 0);
    stage.rolled_out().unwrap();
    still_open(&place, "member").unwrap();
    assert_eq!(grid.assert_whole(2).unwrap(), before, "the ring has changed");
    let progress = client.finish(KEYS).unwrap();
    assert_eq!((progress.errors, progress.stale), (0, 0), "{progress:?}");
    assert_eq!(
        metrics::in_plaintext(&place, "member", "outbound").unwrap(),
        0,
        "something left in plaintext"
    );
    let log = place.kubectl(&["logs", "member", "-c", ISTIO_PROXY]).unwrap();
    let refused = log.lines().filter(|line| line.contains("reason=unknown_destination"));
    assert_eq!(refused.count(), unanswered, "who waited in vain is told why:\n{log}");
    shown!("F18", "new pods dialled while control was killed at random, answered", answered, "> 0");
    shown!("F18", "of those, refused with their reason", unanswered, "each has a line");
}

#[test]
#[ignore = "needs a cluster"]
fn one_command_takes_a_namespace_to_plaintext_and_back_and_no_pod_restarts() {
    let stage = stage();
    let place = Place::in_mesh(stage, "emergency").unwrap();
    let strangers = Place::new(stage, "emergency-strangers").unwrap();
    place.apply(STRICT).unwrap();
    Toolbox::server("server").begin(&place).unwrap();
    Toolbox::echo("echo").begin(&place).unwrap();
    Toolbox::idle("stranger").begin(&strangers).unwrap();
    Toolbox::idle("member").start(&place).unwrap();
    place.ready("server").unwrap();
    place.ready("echo").unwrap();
    strangers.ready("stranger").unwrap();
    let server = place.address("server").unwrap();
    let uids = || place.kubectl(&["get", "pods", "-o", "jsonpath={.items[*].metadata.uid}"]).unwrap();
    let before = uids();
    hold_one_open(&place, "member", "echo").unwrap();
    assert_eq!(dial(&strangers, "stranger", &server, THIN).unwrap(), None);
    // Nobody can be certified any more, which is when it is needed.
    let back = without(stage, "ringmail-ca");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/emergency.sh");
    stage.shell(&format!("{script} plaintext emergency")).unwrap();
    dials(&strangers, "stranger", (&server, THIN), Some("server"), Duration::from_secs(5)).unwrap();
    dials(&place, "member", (&server, THIN), Some("server"), Duration::from_secs(5)).unwrap();
    assert!(metrics::in_plaintext(&place, "member", "outbound").unwrap() > 0, "the member still speaks TLS");
    still_open(&place, "member").unwrap();
    drop(back);
    stage.shell(&format!("{script} back emergency")).unwrap();
    dials(&strangers, "stranger", (&server, THIN), None, Duration::from_secs(5)).unwrap();
    let plain = metrics::in_plaintext(&place, "member", "outbound").unwrap();
    dials(&place, "member", (&server, THIN), Some("server"), Duration::from_secs(5)).unwrap();
    assert_eq!(metrics::in_plaintext(&place, "member", "outbound").unwrap(), plain);
    still_open(&place, "member").unwrap();
    assert_eq!(uids(), before, "a pod was made anew");
}

#[test]
#[ignore = "needs a cluster"]
fn the_mesh_is_uninstalled_and_installed_again_under_a_running_ring() {
    let stage = stage();
    let place = Place::in_mesh(stage, "uninstalled").unwrap();
    let grid = Grid::start(&place, GridSettings::of(2)).unwrap();
    let client = GridLoad::on(&place, &grid, 2, KEYS).unwrap();
    let before = grid.assert_whole(2).unwrap();
    let secret = ["get", "secret", "-n", SYSTEM, "ringmail-ca-root", "-o", "yaml"];
    let root = stage.kubectl(&secret).unwrap();
    stage.kubectl(&["delete", "-k", &stage::manifests("ringmail"), "--timeout=120s"]).unwrap();
    sleep(WATCHED);
    assert_eq!(grid.assert_whole(2).unwrap(), before, "the ring has changed");
    // Nothing of it is left that could hold up a pod.
    Toolbox::idle("after").start(&place).unwrap();
    assert_eq!(place.field("pod/after", "{.spec.initContainers}").unwrap(), "");

    // Under a new root they would refuse each other, one after the other: there is none before somebody has said so.
    stage.kubectl(&["apply", "-k", &stage::manifests("ringmail")]).unwrap();
    place
        .until(GOES_ON_WITHIN, "the CA says what it waits for", || {
            let log = stage.kubectl(&["logs", "-n", SYSTEM, "deployment/ringmail-ca"])?;
            Ok(log.contains("shows the root of an earlier mesh").then_some(()))
        })
        .unwrap();
    sleep(WATCHED);
    assert_eq!(grid.assert_whole(2).unwrap(), before, "the ring has changed");

    // With the root that was kept, those who run are still each other's.
    stage.apply(&without_its_history(&root)).unwrap();
    stage.rolled_out().unwrap();
    grid.replace(1, 2).unwrap();
    let progress = client.finish(KEYS).unwrap();
    assert_eq!((progress.errors, progress.stale), (0, 0), "{progress:?}");
    let (left, failed) = grid.departures().unwrap();
    assert!(failed == 0 && left > 0, "{left} left, {failed} failed");
}

/// A part of the mesh is gone for as long as this lives.
pub(super) struct Away<'a>(&'a Stage, &'a str);

impl Drop for Away<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.scale(self.1, 2).and_then(|()| self.0.rolled_out()) {
            println!("{} does not come back: {error:#}", self.1);
        }
    }
}

pub(super) fn without<'a>(stage: &'a Stage, deployment: &'a str) -> Away<'a> {
    stage.scale(deployment, 0).unwrap();
    Away(stage, deployment)
}

/// Kills the replicas of control, all at once or one, until it is time; says how often.
fn kill_until(stage: &Stage, end: Instant) -> usize {
    let mut kills = 0;
    while Instant::now() < end {
        let selector = "app.kubernetes.io/name=ringmail-control";
        let delete = ["delete", "-n", SYSTEM, "--force", "--grace-period=0"];
        let names = stage.kubectl(&["get", "pods", "-n", SYSTEM, "-l", selector, "-o", "name"]).unwrap();
        let pods: Vec<_> = names.lines().take(if kills % 3 == 2 { 2 } else { 1 }).collect();
        stage.kubectl(&[&delete[..], &pods].concat()).unwrap();
        kills += 1;
        sleep(Duration::from_secs(3 + 7 * (kills as u64 % 3)));
    }
    kills
}

fn deployment(name: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: docker.io/ringmail/toolbox:{}
        command: [sleep, infinity]
",
        stage::VERSION
    )
}

/// An object as it was read, without what belonged to the one that was deleted.
pub(super) fn without_its_history(object: &str) -> String {
    let of_the_old = ["  uid:", "  resourceVersion:", "  creationTimestamp:"];
    let kept = object.lines().filter(|line| !of_the_old.iter().any(|field| line.starts_with(field)));
    kept.map(|line| format!("{line}\n")).collect()
}
