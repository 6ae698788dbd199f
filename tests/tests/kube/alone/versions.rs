//! Two versions of the mesh side by side: one part after the other is upgraded and rolled back, in both orders, under load.
//!
//! The next version is the same programs with a changed schema (the feature `next-schema`): new fields, a new word for
//! STRICT and for how a workload is reached, a new type to subscribe to, a setting that no proxy knows, more in the CA's
//! messages. Where sidecars go, a pod's own annotation says; what is without it gets that of control's version.

use std::{
    thread::scope,
    time::{Duration, Instant},
};

use ringmail_tests::kube::{
    Place, STRICT, Toolbox,
    metrics::{self, ISTIO_PROXY},
    stage,
    stage::{DEPLOYMENTS, NEXT_VERSION as NEXT, SYSTEM, Stage, VERSION as OLD},
    toolbox::{dial, dials},
    unbroken::{all_answered, hold_one_open, keep_dialling, still_open},
};

const THIN: u16 = 10800;
const CONTROL: &str = "ringmail-control";
const CA: &str = "ringmail-ca";

/// That a policy takes effect is what counts here, beside two other rings that start; how fast it does is another scenario's.
const APPLIED_WITHIN: Duration = Duration::from_secs(10);

/// A replica that is new is ready within seconds.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Denies the newest pods to everybody, on the one port.
const DENY: &str = "{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: deny}, spec: \
                    {selector: {matchLabels: {newest: 'yes'}}, action: DENY, \
                    rules: [{to: [{operation: {ports: ['10800']}}]}]}}";

#[test]
#[ignore = "needs a cluster"]
fn control_ca_and_proxies_of_two_versions_go_together_in_either_order() {
    let stage = stage();
    let place = Place::in_mesh(stage, "versions").unwrap();
    let strangers = Place::new(stage, "versions-strangers").unwrap();
    let _restored = Restored(stage);
    place.apply(STRICT).unwrap();
    let now = Mix { control: OLD.to_owned(), ca: OLD, worker: OLD };
    let mut versions = Versions { stage, place: &place, strangers: &strangers, now, held: Vec::new() };
    versions.begin();
    versions.holds("all is of the old version, but for sidecars");

    versions.control_half_way(NEXT);
    versions.control(NEXT);
    versions.ca(NEXT);
    versions.proxies(NEXT);
    versions.control(OLD);
    versions.ca(OLD);
    versions.proxies(OLD);

    versions.proxies(NEXT);
    versions.ca(NEXT);
    versions.control(NEXT);
    versions.control_half_way(OLD);
    versions.control(OLD);
    versions.ca(OLD);
    versions.proxies(OLD);
    versions.nothing_in_plaintext(&["worker", "old-member", "next-member", "old-echo", "next-echo"]);
}

/// The scenario, and how far it is.
struct Versions<'a> {
    stage: &'a Stage,
    place: &'a Place<'a>,
    strangers: &'a Place<'a>,
    now: Mix,
    /// What has held already, new pods and all.
    held: Vec<Mix>,
}

/// Which version each part is of.
#[derive(Clone, Debug, PartialEq)]
struct Mix {
    control: String,
    ca: &'static str,
    worker: &'static str,
}

impl Versions<'_> {
    /// Pods of both versions that stay throughout: each holds a connection to the other version, and dials it all the time.
    fn begin(&self) {
        let place = self.place;
        for (name, version) in [("old", OLD), ("next", NEXT)] {
            of(Toolbox::echo(&format!("{name}-echo")), version).begin(place).unwrap();
            of(Toolbox::idle(&format!("{name}-member")), version).begin(place).unwrap();
        }
        of(Toolbox::server("worker"), OLD).begin(place).unwrap();
        Toolbox::idle("stranger").start(self.strangers).unwrap();
        for pod in ["old-echo", "next-echo", "old-member", "next-member", "worker"] {
            place.ready(pod).unwrap();
        }
        for (from, echo) in [("old-member", "next-echo"), ("next-member", "old-echo")] {
            hold_one_open(place, from, echo).unwrap();
            keep_dialling(place, from, echo).unwrap();
        }
    }

    /// All replicas of control are of this version.
    fn control(&mut self, version: &'static str) {
        self.roll_out(CONTROL, version);
        self.now.control = version.to_owned();
        self.holds(&format!("control is {version}"));
        self.differs(version);
    }

    /// One replica of control is of this version, and another is not.
    fn control_half_way(&mut self, version: &'static str) {
        self.stage.set_version(CONTROL, version).unwrap();
        let new = || Ok(self.ready_replicas(CONTROL).contains(&version.to_owned()).then_some(()));
        self.place.until(READY_WITHIN, "a new replica is ready", new).unwrap();
        let rollout =
            |what| self.stage.kubectl(&["rollout", what, "-n", SYSTEM, &format!("deployment/{CONTROL}")]);
        rollout("pause").unwrap();
        let found = self.ready_replicas(CONTROL);
        assert!([OLD, NEXT].iter().all(|version| found.contains(&(*version).to_owned())), "{found:?}");
        self.now.control = "of both".to_owned();
        self.holds(&format!("control is {found:?}"));
        rollout("resume").unwrap();
    }

    /// The certificate authority is of this version.
    fn ca(&mut self, version: &'static str) {
        self.roll_out(CA, version);
        self.now.ca = version;
        self.holds(&format!("the CA is {version}"));
    }

    /// Sidecars go to this version as they do: with their pod made anew.
    fn proxies(&mut self, version: &'static str) {
        self.place.kubectl(&["delete", "pod", "worker", "--grace-period=1"]).unwrap();
        of(Toolbox::server("worker"), version).start(self.place).unwrap();
        self.now.worker = version;
        self.holds(&format!("sidecars are {version}"));
    }

    fn roll_out(&self, deployment: &str, version: &str) {
        self.stage.set_version(deployment, version).unwrap();
        self.stage.rolled_out().unwrap();
        let found = self.ready_replicas(deployment);
        assert!(!found.is_empty() && found.iter().all(|found| found == version), "{found:?}");
    }

    /// The versions of the replicas of a part of the mesh that are ready and not about to end.
    fn ready_replicas(&self, deployment: &str) -> Vec<String> {
        let selector = format!("app.kubernetes.io/name={deployment}");
        let line = "jsonpath={range .items[*]}{.status.containerStatuses[0].ready} \
                    {.metadata.deletionTimestamp} {.spec.containers[0].image}{\"\\n\"}{end}";
        let pods = self.stage.kubectl(&["get", "pods", "-n", SYSTEM, "-l", &selector, "-o", line]).unwrap();
        let ready = pods.lines().filter_map(|pod| pod.strip_prefix("true  "));
        ready.filter_map(|image| Some(image.rsplit_once(':')?.1.to_owned())).collect()
    }

    /// Pods of both versions start, dial, are dialled and are denied; nothing that was there before has noticed. A mix that
    /// has held is met again without new pods: what is new is the way to it.
    fn holds(&mut self, when: &str) {
        let began = Instant::now();
        if self.held.contains(&self.now) {
            self.has_not_noticed(when);
            println!("{when}: nobody has noticed, which took {:?}", began.elapsed());
            return;
        }
        self.held.push(self.now.clone());
        let round = self.held.len();
        let (old, next) = (format!("old-{round}"), format!("next-{round}"));
        for (name, version) in [(&old, OLD), (&next, NEXT)] {
            of(Toolbox::server(name), version).labels("newest: 'yes'").begin(self.place).unwrap();
        }
        for (pod, version) in [(&old, OLD), (&next, NEXT)] {
            self.place.ready(pod).unwrap_or_else(|error| panic!("{when}: {error:#}"));
            let tag = format!("tag=\"{version}\"");
            assert_eq!(metrics::sum(self.place, pod, "istio_build", &[&tag]).unwrap(), 1.0, "{when}: {pod}");
        }
        let started = began.elapsed();
        self.reach_each_other(when, &old, &next);
        self.policy_takes_effect(when, &old, &next);
        self.has_not_noticed(when);
        self.nothing_in_plaintext(&[&old, &next]);
        self.place.kubectl(&["delete", "pod", "--wait=false", &old, &next]).unwrap();
        println!("{when}: holds, pods started in {started:?}, all of it took {:?}", began.elapsed());
    }

    /// What was there before is as it was.
    fn has_not_noticed(&self, when: &str) {
        scope(|scope| {
            for check in [still_open, all_answered] {
                for from in ["old-member", "next-member"] {
                    let place = self.place;
                    scope.spawn(move || {
                        check(place, from).unwrap_or_else(|error| panic!("{when}: {error:#}"))
                    });
                }
            }
        });
    }

    fn nothing_in_plaintext(&self, pods: &[&str]) {
        for pod in pods {
            for direction in ["inbound", "outbound"] {
                let plain = metrics::in_plaintext(self.place, pod, direction).unwrap();
                assert_eq!(plain, 0, "{pod} {direction} in plaintext");
            }
        }
    }

    fn reach_each_other(&self, when: &str, old: &str, next: &str) {
        let (place, strangers) = (self.place, self.strangers);
        let dials = [
            ("old-member", old),
            ("old-member", next),
            ("next-member", old),
            ("next-member", next),
            (old, next),
            (next, old),
            (old, "worker"),
            (next, "worker"),
        ];
        scope(|scope| {
            for (from, to) in dials {
                scope.spawn(move || {
                    let heard = dial(place, from, &place.address(to).unwrap(), THIN).unwrap();
                    assert_eq!(heard.as_deref(), Some(to), "{when}: {from} dials {to}");
                });
            }
            for to in [old, next] {
                scope.spawn(move || {
                    let heard = dial(strangers, "stranger", &place.address(to).unwrap(), THIN).unwrap();
                    assert_eq!(heard, None, "{when}: {to} serves plaintext");
                });
            }
        });
    }

    fn policy_takes_effect(&self, when: &str, old: &str, next: &str) {
        let place = self.place;
        let both = |denied: bool| {
            scope(|scope| {
                for (from, to) in [("old-member", next), ("next-member", old)] {
                    scope.spawn(move || {
                        let address = place.address(to).unwrap();
                        let expected = (!denied).then_some(to);
                        dials(place, from, (&address, THIN), expected, APPLIED_WITHIN)
                            .unwrap_or_else(|error| panic!("{when}: {error:#}"));
                    });
                }
            });
        };
        place.apply(DENY).unwrap();
        both(true);
        place.kubectl(&["delete", "authorizationpolicy", "deny"]).unwrap();
        both(false);
    }

    /// The two versions do say what the other does not know, and what does not know it says so.
    fn differs(&self, control: &str) {
        let name = format!("plain-{}", control.replace('.', "-"));
        Toolbox::idle(&name).start(self.place).unwrap();
        let tag = format!("tag=\"{control}\"");
        assert_eq!(metrics::sum(self.place, &name, "istio_build", &[&tag]).unwrap(), 1.0, "{name}");
        if control == NEXT {
            let old = "born-of-next";
            of(Toolbox::idle(old), OLD).start(self.place).unwrap();
            let log = self.place.kubectl(&["logs", old, "-c", ISTIO_PROXY]).unwrap();
            assert!(log.contains("novelty: unknown setting, ignored"), "{log}");
            assert!(log.contains("mode 4: not known to this version"), "{log}");
            self.place.kubectl(&["delete", "pod", "--wait=false", old]).unwrap();
        } else {
            let selector = format!("app.kubernetes.io/name={CONTROL}");
            let log = self.stage.kubectl(&["logs", "-n", SYSTEM, "-l", &selector, "--tail=-1"]).unwrap();
            assert!(log.contains("asks for a type that this version does not serve"), "{log}");
        }
        self.place.kubectl(&["delete", "pod", &name]).unwrap();
    }
}

/// A pod with the sidecar of a version.
fn of(pod: Toolbox, version: &str) -> Toolbox {
    pod.annotations(&format!("sidecar.istio.io/proxyImage: 'docker.io/ringmail/proxy:{version}'"))
}

/// The mesh is of the old version again when this ends, whatever came in between.
struct Restored<'a>(&'a Stage);

impl Drop for Restored<'_> {
    fn drop(&mut self) {
        let resume = ["rollout", "resume", "-n", SYSTEM, &format!("deployment/{CONTROL}")];
        // It says so where nothing was paused.
        let _ = self.0.kubectl(&resume);
        for deployment in DEPLOYMENTS {
            if let Err(error) = self.0.set_version(deployment, OLD) {
                println!("{deployment} stays as it is: {error:#}");
            }
        }
        if let Err(error) = self.0.rolled_out() {
            println!("the mesh is not what it was: {error:#}");
        }
    }
}
