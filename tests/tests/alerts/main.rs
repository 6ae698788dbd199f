//! The alert rules under a real Prometheus: each fires within a minute of its fault, and none in normal life.
//!
//! The programs are real, and so are the faults. Those of control, which needs an API server, are among the scenarios on
//! Kubernetes. What cannot be made at will (a bug, a sidecar of another version that refuses what it is told, and an hour within a
//! minute) is shown by promtool, on series written by hand: `promtool/`.

#![expect(clippy::unwrap_used, reason = "a step that fails fails its scenario, in a helper too")]

mod faults;

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    thread::{self, sleep},
    time::{Duration, Instant},
};

use ringmail_evidence::shown;
use ringmail_lab::{
    ca::{Ca, CaSettings, SigningKey},
    mesh::MeshFiles,
    network::Network,
    process::wait_until,
    sidecar::{Sidecar, SidecarSettings, start_sidecars},
    wire,
};
use ringmail_tests::{
    alerts, nightly,
    prometheus::{Expected, Job, Prometheus, Target, promtool},
    roots::{Root, trust},
    streams::{OWN_PORT, listen},
    world::{STRICT, scenario_folder},
};

/// Short enough that a renewal is part of normal life, and long enough that a machine that stalls for seconds is no fault.
const TTL: &str = "60s";
/// How soon each has to fire.
const WITHIN: Duration = Duration::from_secs(60);
/// Every target several times, and a renewal.
const NORMAL: Duration = Duration::from_secs(35);
/// In the long run.
const NORMAL_HOUR: Duration = Duration::from_secs(3_600);
/// A sidecar that was away for so long is fenced, which is the least that can be set; and it notes well within this who listens.
const FENCED_AFTER: Duration = Duration::from_secs(5);
const TOLD_EVERY: Duration = Duration::from_secs(1);
/// Scraped and judged so often.
const INTERVAL: Duration = Duration::from_secs(1);

/// In normal life these two talk to each other.
const TALKING: [&str; 2] = ["client", "server"];
const SIDECARS: [&str; 7] = ["client", "server", "narrow", "full", "untrusted", "lonely", "fenced"];
const CAS: [&str; 2] = ["ca", "ca-old"];

struct Scene {
    files: MeshFiles,
    old_files: MeshFiles,
    network: Network,
    folder: std::path::PathBuf,
}

impl Scene {
    fn make() -> Self {
        let folder = scenario_folder().unwrap();
        let files = MeshFiles::create(&folder.join("mesh"), None).unwrap();
        let old_files = MeshFiles::create(&folder.join("old-mesh"), None).unwrap();
        files.write_policy("strict", STRICT).unwrap();
        let names = [&SIDECARS[..], &CAS, &["prometheus"]].concat();
        Self { files, old_files, network: Network::create(&names).unwrap(), folder }
    }

    fn settings() -> SidecarSettings {
        SidecarSettings::new("app").with("certificate_ttl", TTL)
    }

    fn sidecar(&self, name: &str, ca: &Ca, settings: &SidecarSettings) -> Sidecar {
        Sidecar::start(self.network.pod(name).unwrap(), &self.files, ca, settings, &self.folder).unwrap()
    }

    fn prometheus(&self) -> Prometheus<'_> {
        let target = |name: &str, job| {
            let ip = self.network.pod(name).unwrap().ip();
            Target { job, pod: name.to_owned(), ip }
        };
        let sidecars = SIDECARS.iter().map(|name| target(name, Job::Sidecar));
        let targets: Vec<_> = sidecars.chain(CAS.iter().map(|name| target(name, Job::System))).collect();
        let home = self.network.pod("prometheus").unwrap().namespace();
        Prometheus::start(home, &targets, INTERVAL, &self.folder).unwrap()
    }

    fn ca(&self) -> Ca {
        let settings = CaSettings { flags: vec!["--ttl", TTL], ..CaSettings::default() };
        Ca::start(&self.network, "ca", &self.files, &settings, &self.folder).unwrap()
    }

    /// A CA whose root is valid for a day more.
    fn old_ca(&self) -> Ca {
        let root = Root::expiring_in("old root", Duration::from_secs(86_400)).unwrap();
        root.mount(&self.old_files).unwrap();
        trust(&self.old_files, &[&root]).unwrap();
        let settings = CaSettings { key: SigningKey::Mounted, flags: vec!["--ttl", TTL] };
        Ca::start(&self.network, "ca-old", &self.old_files, &settings, &self.folder).unwrap()
    }

    fn inbound(&self, name: &str) -> SocketAddr {
        SocketAddr::new(self.network.pod(name).unwrap().ip(), OWN_PORT)
    }

    /// A connection from outside of the mesh, to a port that is captured.
    fn knock(&self, name: &str) -> Option<TcpStream> {
        let outside = self.network.pod("prometheus").unwrap().namespace();
        wire::connect_or_reset(outside, self.inbound(name)).unwrap()
    }

    /// So many that send these bytes and are refused.
    fn refused(&self, name: &str, times: usize, bytes: &[u8]) {
        for _ in 0..times {
            let Some(mut stream) = self.knock(name) else { continue };
            let _ = stream.write_all(bytes);
            let _ = stream.read(&mut [0; 64]);
        }
    }
}

/// Both ends say a word and hear the other's, ten times a second, and end in order.
fn talk(scene: &Scene, over: Duration, mut at_times: impl FnMut()) -> u64 {
    let listener = listen(scene.network.pod("server").unwrap()).unwrap();
    let end = Instant::now() + over;
    let answering = thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut said = Vec::new();
            if stream.read_to_end(&mut said).is_err() || said.is_empty() || said == b"end" {
                break;
            }
            stream.write_all(&said).unwrap();
        }
    });
    let mut rounds = 0;
    let say = |word: &[u8]| {
        let from = scene.network.pod("client").unwrap().namespace();
        let mut stream = wire::connect(from, scene.inbound("server")).unwrap();
        stream.write_all(word).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        heard
    };
    while Instant::now() < end {
        assert_eq!(say(b"hello"), b"hello");
        rounds += 1;
        at_times();
        sleep(Duration::from_millis(100));
    }
    say(b"end");
    answering.join().unwrap();
    rounds
}

/// What is running in normal life.
struct Running {
    ca: Ca,
    /// Those of [`TALKING`], and then some with limits that are soon met.
    sidecars: Vec<Sidecar>,
}

impl Running {
    fn start(scene: &Scene) -> Self {
        let ca = scene.ca();
        let mut sidecars =
            start_sidecars(&scene.network, &TALKING, (&scene.files, &ca), &Scene::settings(), &scene.folder)
                .unwrap();
        let fenced_after = format!("{}s", FENCED_AFTER.as_secs());
        for (name, setting, value) in [
            ("narrow", "max_connections_per_source", "2"),
            ("full", "max_connections", "2"),
            ("fenced", "fence_after", &fenced_after),
        ] {
            let mut sidecar = scene.sidecar(name, &ca, &Scene::settings().with(setting, value));
            sidecar.wait_ready(scene.network.pod(name).unwrap()).unwrap();
            sidecars.push(sidecar);
        }
        Self { ca, sidecars }
    }

    /// The long run has an hour, in which the CA is restarted and a policy changes.
    fn normal_life(&mut self, scene: &Scene, prometheus: &Prometheus<'_>) {
        let normal = if nightly() { NORMAL_HOUR } else { NORMAL };
        let began = Instant::now();
        let mut quarters: u32 = 0;
        let rounds = talk(scene, normal, || {
            if nightly() && began.elapsed() > (quarters + 1) * NORMAL_HOUR / 4 {
                quarters += 1;
                scene.files.write_policy("strict", &format!("{STRICT}# {quarters}\n")).unwrap();
                self.ca.kill9().unwrap();
                self.ca = scene.ca();
            }
        });
        let fired = prometheus.has_fired(normal.as_secs() + 60).unwrap();
        assert!(fired.is_empty(), "{fired:?} in normal life");
        let seen = format!("0 in {} s, {rounds} connections", normal.as_secs());
        shown!("O2", "alerts in normal life", seen, "exactly");
    }
}

#[test]
fn each_alert_fires_within_a_minute_of_its_real_fault_and_none_before() {
    let scene = Scene::make();
    let mut running = Running::start(&scene);
    let prometheus = scene.prometheus();
    wait_until(WITHIN, "all of the mesh is scraped", || {
        Ok((prometheus.scraped()? == running.sidecars.len() + 1).then_some(()))
    })
    .unwrap();
    running.normal_life(&scene, &prometheus);

    let (mut at_once, mut after_a_while) = (Expected::default(), Expected::default());
    let mut faults = faults::begin(&scene, &running, &mut at_once, &mut after_a_while);
    let mut seen: BTreeSet<_> = at_once.names().collect();
    let first = at_once.fire(&prometheus, WITHIN).unwrap();
    faults.held.clear();

    let now = Instant::now();
    running.ca.kill9().unwrap();
    faults.old_ca.kill9().unwrap();
    after_a_while.expect("RingmailCaAway", None, now);
    after_a_while.expect("RingmailRenewalFailing", Some("server"), now);
    after_a_while.expect("RingmailCertificateExpiring", Some("server"), now);
    seen.extend(after_a_while.names());
    let slowest = first.max(after_a_while.fire(&prometheus, WITHIN).unwrap());
    let elsewhere = [&alerts::ON_KUBERNETES[..], &alerts::WRITTEN_ALONE].concat();
    let rules: BTreeSet<_> = all_rules().into_iter().map(|rule| rule.alert).collect();
    let expected: BTreeSet<_> =
        rules.into_iter().filter(|alert| !elsewhere.contains(&alert.as_str())).collect();
    assert_eq!(seen, expected);
    shown!(
        "O2",
        "alerts that fired for their real fault in namespaces under Prometheus",
        seen.len(),
        format!("every rule but {}", elsewhere.join(", "))
    );
    shown!("O2", "the slowest of them after its fault", format!("{} s", slowest.as_secs()), "< 60 s");
    drop(prometheus);
    let _ = std::fs::remove_dir_all(&scene.folder);
}

fn all_rules() -> Vec<alerts::Rule> {
    alerts::rules().unwrap().groups.into_iter().flat_map(|group| group.rules).collect()
}

#[test]
fn each_alert_fires_within_a_minute_of_a_written_fault_and_none_in_a_written_hour() {
    let rules = alerts::file();
    promtool(&["check", "rules", rules.to_str().unwrap()]).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("promtool");
    let file = |name: &str| folder.join(name).display().to_string();
    promtool(&["test", "rules", &file("faults.yaml"), &file("hour.yaml")]).unwrap();
    let written = std::fs::read_to_string(file("faults.yaml")).unwrap();
    let alerts = all_rules();
    for rule in &alerts {
        assert!(
            written.contains(&format!("- name: {}\n", rule.alert)),
            "{} has no written fault",
            rule.alert
        );
    }
    shown!(
        "O2",
        "alerts that fired within a minute of a written fault (promtool)",
        alerts.len(),
        "every rule"
    );
    shown!("O2", "alerts in an hour of normal life as written (promtool)", 0, "exactly");
}
