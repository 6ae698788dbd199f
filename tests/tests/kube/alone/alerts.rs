//! The alert rules about control, under a real Prometheus on a node: each fires within a minute of its fault. Those of sidecars and
//! the CA need no cluster, and are with the scenarios in namespaces.

use std::time::{Duration, Instant};

use ringmail_evidence::shown;
use ringmail_tests::{
    alerts,
    kube::{Place, Stage, Toolbox, stage, stage::SYSTEM},
    prometheus::{Job, Prometheus, Target},
    world::scenario_folder,
};

use super::outages::{without, without_its_history};

/// How soon each has to fire.
const WITHIN: Duration = Duration::from_secs(60);
/// Scraped and judged so often.
const INTERVAL: Duration = Duration::from_secs(1);
/// Longer than any rule waits (30 s): what is wrong before the faults has fired by then.
const NORMAL: Duration = Duration::from_secs(35);

/// Its schema holds; what is in the list is no address.
const FAULTY: &str = "{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: faulty}, \
                      spec: {action: ALLOW, rules: [{from: [{source: {ipBlocks: [nowhere]}}]}]}}";

/// Two of the CA, and two of control.
const REPLICAS: usize = 4;

/// What lets the injector ask for the namespace of a pod.
const MAY_READ: &str = "clusterrolebinding/ringmail-injector";

#[test]
#[ignore = "needs a cluster"]
fn each_alert_about_control_fires_within_a_minute_of_its_real_fault_and_none_before() {
    let stage = stage();
    let place = Place::in_mesh(stage, "alerts").unwrap();
    Toolbox::idle("member").start(&place).unwrap();
    let home = stage.cluster().node_namespace(1).unwrap();
    let folder = scenario_folder().unwrap();
    let mut targets = system(&place);
    let (pod, ip) = ("member".to_owned(), place.address("member").unwrap().parse().unwrap());
    targets.push(Target { job: Job::Sidecar, pod, ip });
    let prometheus = Prometheus::start(&home, &targets, INTERVAL, &folder).unwrap();
    let scraped = || Ok((prometheus.scraped()? == targets.len()).then_some(()));
    place.until(WITHIN, "all of the mesh is scraped", scraped).unwrap();
    std::thread::sleep(NORMAL);
    let fired = prometheus.has_fired(2 * NORMAL.as_secs()).unwrap();
    assert!(fired.is_empty(), "{fired:?} in normal life");

    let began = Instant::now();
    place.apply(FAULTY).unwrap();
    let mut slowest = fires(&place, &prometheus, "RingmailPolicyFaulty", began);

    let forbidden = Forbidden::begin(stage);
    let refused = refused_pod(&place);
    let began = Instant::now();
    drop(forbidden);
    assert!(refused.contains("namespaces") && refused.contains("forbidden"), "{refused}");
    slowest = slowest.max(fires(&place, &prometheus, "RingmailInjectorUnable", began));

    let began = Instant::now();
    let back = without(stage, "ringmail-control");
    slowest = slowest.max(fires(&place, &prometheus, "RingmailControlAway", began));
    drop(back);
    let seen = ["RingmailControlAway", "RingmailInjectorUnable", "RingmailPolicyFaulty"];
    assert_eq!(seen, alerts::ON_KUBERNETES);
    shown!(
        "O2",
        "alerts about control that fired for their real fault under Prometheus",
        seen.len(),
        "exactly"
    );
    shown!("O2", "the slowest of those after its fault", format!("{} s", slowest.as_secs()), "< 60 s");
    drop(prometheus);
    let _ = std::fs::remove_dir_all(&folder);
}

/// The injector may not ask for a pod's namespace for as long as this lives.
struct Forbidden<'a>(&'a Stage, String);

impl<'a> Forbidden<'a> {
    fn begin(stage: &'a Stage) -> Self {
        let may_read = stage.kubectl(&["get", MAY_READ, "-o", "yaml"]).unwrap();
        stage.kubectl(&["delete", MAY_READ]).unwrap();
        Self(stage, without_its_history(&may_read))
    }
}

impl Drop for Forbidden<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.apply(&self.1) {
            println!("{MAY_READ} does not come back: {error:#}");
        }
    }
}

/// CA and control, each replica; those that a scenario before has ended are waited for to go.
fn system(place: &Place) -> Vec<Target> {
    let columns = "jsonpath={range .items[*]}{.metadata.name} {.status.podIP}{\"\\n\"}{end}";
    place
        .until(WITHIN, "each part has its replicas and no more", || {
            let pods = place.stage().kubectl(&["get", "pods", "-n", SYSTEM, "-o", columns])?;
            let target = |(pod, ip): (&str, &str)| {
                Some(Target { job: Job::System, pod: pod.to_owned(), ip: ip.parse().ok()? })
            };
            let found: Vec<_> =
                pods.lines().filter_map(|line| line.split_once(' ')).filter_map(target).collect();
            Ok((pods.lines().count() == REPLICAS && found.len() == REPLICAS).then_some(found))
        })
        .unwrap()
}

/// How long after its fault the alert fires, about whichever replica.
fn fires(place: &Place, prometheus: &Prometheus, alert: &str, since: Instant) -> Duration {
    let look = || Ok(prometheus.firing()?.iter().any(|firing| firing.alert == alert).then_some(()));
    place.until(WITHIN, &format!("{alert} fires"), look).unwrap();
    println!("{alert} after {:?}", since.elapsed());
    since.elapsed()
}

/// What the injector says of a pod that it cannot decide about; the API server takes a moment until it forbids.
fn refused_pod(place: &Place) -> String {
    let mut tries = 0;
    let refused = place.until(WITHIN, "the injector cannot decide", || {
        tries += 1;
        Ok(Toolbox::idle(&format!("late-{tries}")).begin(place).err())
    });
    format!("{:#}", refused.unwrap())
}
