//! The real faults that leave the CA as it is, one for each alert.

use std::{net::TcpStream, thread::sleep, time::Instant};

use ringmail_lab::{ca::Ca, process::Signal, sidecar::Sidecar};
use ringmail_tests::{prometheus::Expected, streams::listen};

use super::{FENCED_AFTER, Running, Scene, TOLD_EVERY};

/// What has to be kept while its fault is to last.
pub(crate) struct Faults {
    /// Connections that are at a limit.
    pub(crate) held: Vec<Option<TcpStream>>,
    /// The CA whose root ends soon.
    pub(crate) old_ca: Ca,
    _sidecars: [Sidecar; 2],
    _application: std::net::TcpListener,
}

/// Every fault that leaves the CA as it is.
pub(crate) fn begin(
    scene: &Scene,
    running: &Running,
    at_once: &mut Expected,
    after_a_while: &mut Expected,
) -> Faults {
    let now = Instant::now();
    scene.refused("server", 10, b"GET / HTTP/1.1\r\n\r\n");
    at_once.expect("RingmailConnectionsRefused", Some("server"), now);
    // A record of a handshake that holds none.
    scene.refused("server", 10, b"\x16\x03\x01\x00\x08\x01\x00\x00\x04aaaa");
    at_once.expect("RingmailHandshakesFailing", Some("server"), now);
    let held = ["narrow", "full"].iter().flat_map(|name| [(); 4].map(|()| scene.knock(name))).collect();
    at_once.expect("RingmailLimitReached", Some("narrow"), now);
    at_once.expect("RingmailAcceptPaused", Some("full"), now);
    running.sidecars[0].signal_data_plane(Signal::SIGKILL).unwrap();
    at_once.expect("RingmailDataPlaneRestarted", Some("client"), now);
    let untrusted = untrusted(scene, &running.ca);
    after_a_while.expect("RingmailNotReady", Some("untrusted"), now);
    at_once.expect("RingmailCaRefusing", Some("ca"), now);
    let nowhere =
        Scene::settings().with("discovery", "control").with("discovery_address", "https://10.77.0.99:15012");
    let lonely = scene.sidecar("lonely", &running.ca, &nowhere);
    after_a_while.expect("RingmailDiscoveryDown", Some("lonely"), now);
    scene.files.write_policy("broken", "kind: PeerAuthentication\nspec: [not, a, mapping]\n").unwrap();
    at_once.expect("RingmailPolicyRejected", Some("server"), now);
    let old_ca = scene.old_ca();
    at_once.expect("RingmailRootExpiring", Some("ca-old"), now);
    at_once.expect("RingmailSignerExpiring", Some("ca-old"), now);
    let application = fence(scene, running.sidecars.last().unwrap());
    at_once.expect("RingmailFenced", Some("fenced"), Instant::now());
    Faults { held, old_ca, _sidecars: [untrusted, lonely], _application: application }
}

/// A sidecar whose token the CA does not know.
fn untrusted(scene: &Scene, ca: &Ca) -> Sidecar {
    let token = scene.files.file("forged.token");
    std::fs::write(&token, "forged").unwrap();
    let settings = Scene::settings().with("token_file", &token.display().to_string());
    scene.sidecar("untrusted", ca, &settings)
}

/// A sidecar that was stopped for longer than a ring waits, under an application that went on.
fn fence(scene: &Scene, sidecar: &Sidecar) -> std::net::TcpListener {
    let application = listen(scene.network.pod("fenced").unwrap()).unwrap();
    sleep(TOLD_EVERY);
    sidecar.signal_data_plane(Signal::SIGSTOP).unwrap();
    sleep(FENCED_AFTER + TOLD_EVERY);
    sidecar.signal_data_plane(Signal::SIGCONT).unwrap();
    application
}
