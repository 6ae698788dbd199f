//! The alert rules under a real Prometheus: each fires within a minute of its fault, and none in normal life.
//!
//! The programs are real, and so are the faults. What no namespace can show (control, which needs an API server, and an
//! hour within a minute) is shown by promtool, on series written by hand: `promtool/`.

#![expect(clippy::unwrap_used, reason = "a step that fails fails its scenario, in a helper too")]

use std::{
    collections::BTreeMap,
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
    process::{Signal, wait_until},
    sidecar::{Sidecar, SidecarSettings, start_sidecars},
    wire,
};
use ringmail_tests::{
    alerts, nightly,
    prometheus::{Firing, Prometheus, Target, promtool},
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
/// Scraped and judged so often.
const INTERVAL: Duration = Duration::from_secs(1);

/// In normal life these two talk to each other.
const TALKING: [&str; 2] = ["client", "server"];
const NAMES: [&str; 9] =
    ["client", "server", "narrow", "full", "untrusted", "lonely", "ca", "ca-old", "prometheus"];

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
        Self { files, old_files, network: Network::create(&NAMES).unwrap(), folder }
    }

    fn settings() -> SidecarSettings {
        SidecarSettings::new("app").with("certificate_ttl", TTL)
    }

    fn sidecar(&self, name: &str, ca: &Ca, settings: &SidecarSettings) -> Sidecar {
        Sidecar::start(self.network.pod(name).unwrap(), &self.files, ca, settings, &self.folder).unwrap()
    }

    fn prometheus(&self) -> Prometheus {
        let sidecars = NAMES[..6].iter().map(|name| (self.network.pod(name).unwrap(), Target::Sidecar));
        let cas = NAMES[6..8].iter().map(|name| (self.network.pod(name).unwrap(), Target::Ca));
        let targets: Vec<_> = sidecars.chain(cas).collect();
        let home = self.network.pod("prometheus").unwrap();
        Prometheus::start(home, &targets, INTERVAL, &self.folder).unwrap()
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

/// What is to fire: the alert, the pod that it is about, and when its fault began.
type Expected = BTreeMap<Firing, Instant>;

fn expect(expected: &mut Expected, alert: &str, pod: Option<&str>, since: Instant) {
    expected.insert(Firing { alert: alert.to_owned(), pod: pod.map(str::to_owned) }, since);
}

/// Waits until all have fired, and answers the longest time that one of them took.
fn all_fire(scene: &Scene, prometheus: &Prometheus, mut expected: Expected) -> Duration {
    let home = scene.network.pod("prometheus").unwrap();
    let mut slowest = Duration::ZERO;
    while !expected.is_empty() {
        let firing = prometheus.firing(home).unwrap();
        expected.retain(|alert, since| {
            let fires = firing.contains(alert);
            let took = since.elapsed();
            assert!(fires || took < WITHIN, "{alert:?} does not fire; {firing:?} do");
            if fires {
                println!("{alert:?} after {took:?}");
                slowest = slowest.max(took);
            }
            !fires
        });
        sleep(Duration::from_millis(200));
    }
    slowest
}

#[test]
fn each_alert_fires_within_a_minute_of_its_real_fault_and_none_before() {
    let scene = Scene::make();
    let (network, files) = (&scene.network, &scene.files);
    let settings = CaSettings { flags: vec!["--ttl", TTL], ..CaSettings::default() };
    let mut ca = Ca::start(network, "ca", files, &settings, &scene.folder).unwrap();
    let mut sidecars =
        start_sidecars(network, &TALKING, (files, &ca), &Scene::settings(), &scene.folder).unwrap();
    for (name, limit) in [("narrow", "max_connections_per_source"), ("full", "max_connections")] {
        let mut sidecar = scene.sidecar(name, &ca, &Scene::settings().with(limit, "2"));
        sidecar.wait_ready(network.pod(name).unwrap()).unwrap();
        sidecars.push(sidecar);
    }
    let prometheus = scene.prometheus();
    let home = network.pod("prometheus").unwrap();
    wait_until(WITHIN, "all of the mesh is scraped", || {
        Ok((prometheus.scraped(home)? == sidecars.len() + 1).then_some(()))
    })
    .unwrap();

    // The long run has an hour, in which the CA is restarted and a policy changes.
    let normal = if nightly() { NORMAL_HOUR } else { NORMAL };
    let began = Instant::now();
    let mut quarters: u32 = 0;
    let rounds = talk(&scene, normal, || {
        if nightly() && began.elapsed() > (quarters + 1) * NORMAL_HOUR / 4 {
            quarters += 1;
            files.write_policy("strict", &format!("{STRICT}# {quarters}\n")).unwrap();
            ca.kill9().unwrap();
            ca = Ca::start(network, "ca", files, &settings, &scene.folder).unwrap();
        }
    });
    let fired = prometheus.has_fired(home, normal.as_secs() + 60).unwrap();
    assert!(fired.is_empty(), "{fired:?} in normal life");
    shown!(
        "O2",
        "alerts in normal life",
        format!("0 in {} s, {rounds} connections", normal.as_secs()),
        "exactly"
    );

    let (mut at_once, mut after_a_while) = (Expected::new(), Expected::new());
    let now = Instant::now();
    scene.refused("server", 10, b"GET / HTTP/1.1\r\n\r\n");
    expect(&mut at_once, "RingmailConnectionsRefused", Some("server"), now);
    // A record of a handshake that holds none.
    scene.refused("server", 10, b"\x16\x03\x01\x00\x08\x01\x00\x00\x04aaaa");
    expect(&mut at_once, "RingmailHandshakesFailing", Some("server"), now);
    let held: Vec<_> =
        ["narrow", "full"].iter().flat_map(|name| [(); 4].map(|()| scene.knock(name))).collect();
    expect(&mut at_once, "RingmailLimitReached", Some("narrow"), now);
    expect(&mut at_once, "RingmailAcceptPaused", Some("full"), now);
    for pid in sidecars[0].data_plane().unwrap() {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).unwrap();
    }
    expect(&mut at_once, "RingmailDataPlaneRestarted", Some("client"), now);
    let _untrusted = untrusted(&scene, &ca);
    expect(&mut after_a_while, "RingmailNotReady", Some("untrusted"), now);
    expect(&mut at_once, "RingmailCaRefusing", Some("ca"), now);
    let nowhere =
        Scene::settings().with("discovery", "control").with("discovery_address", "https://10.77.0.99:15012");
    let _lonely = scene.sidecar("lonely", &ca, &nowhere);
    expect(&mut after_a_while, "RingmailDiscoveryDown", Some("lonely"), now);
    files.write_policy("broken", "kind: PeerAuthentication\nspec: [not, a, mapping]\n").unwrap();
    expect(&mut at_once, "RingmailPolicyRejected", Some("server"), now);
    let mut old_ca = scene.old_ca();
    expect(&mut at_once, "RingmailRootExpiring", Some("ca-old"), now);
    expect(&mut at_once, "RingmailSignerExpiring", Some("ca-old"), now);
    let alerts = at_once.len();
    let first = all_fire(&scene, &prometheus, at_once);
    drop(held);

    let now = Instant::now();
    ca.kill9().unwrap();
    old_ca.kill9().unwrap();
    expect(&mut after_a_while, "RingmailCaAway", None, now);
    expect(&mut after_a_while, "RingmailRenewalFailing", Some("server"), now);
    expect(&mut after_a_while, "RingmailCertificateExpiring", Some("server"), now);
    let alerts = alerts + after_a_while.len();
    let slowest = first.max(all_fire(&scene, &prometheus, after_a_while));
    shown!("O2", "alerts that fired for their real fault under Prometheus", alerts, "14");
    shown!("O2", "the slowest of them after its fault", format!("{} s", slowest.as_secs()), "< 60 s");
    drop(prometheus);
    let _ = std::fs::remove_dir_all(&scene.folder);
}

/// A sidecar whose token the CA does not know.
fn untrusted(scene: &Scene, ca: &Ca) -> Sidecar {
    let token = scene.files.file("forged.token");
    std::fs::write(&token, "forged").unwrap();
    let settings = Scene::settings().with("token_file", &token.display().to_string());
    scene.sidecar("untrusted", ca, &settings)
}

#[test]
fn each_alert_fires_within_a_minute_of_a_written_fault_and_none_in_a_written_hour() {
    let rules = alerts::file();
    promtool(&["check", "rules", rules.to_str().unwrap()]).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("promtool");
    let file = |name: &str| folder.join(name).display().to_string();
    promtool(&["test", "rules", &file("faults.yaml"), &file("hour.yaml")]).unwrap();
    let written = std::fs::read_to_string(file("faults.yaml")).unwrap();
    let groups = alerts::rules().unwrap().groups;
    let alerts: Vec<_> = groups.iter().flat_map(|group| &group.rules).collect();
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
