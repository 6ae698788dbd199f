//! A storm of refused connections is ten lines a second and a sum that misses none; what ends in order has its line always.

#![expect(clippy::unwrap_used, reason = "a step that fails fails its scenario, in a helper too")]

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use ringmail_evidence::shown;
use ringmail_lab::{
    ca::{Ca, CaSettings},
    mesh::MeshFiles,
    network::{Network, Pod},
    process::wait_until,
    sidecar::{Sidecar, SidecarSettings, start_sidecars},
    wire,
};
use ringmail_tests::{
    nightly, said,
    streams::{OWN_PORT, listen},
    world::{STRICT, scenario_folder},
};

const STRANGERS: usize = 1_000;
/// By night the storm lasts for half a minute.
const STORMS: usize = 30;
/// Connections in order, at once with the storm.
const FRIENDS: u64 = 200;
/// The sum is told a second after the first line that it stands for.
const TOLD_WITHIN: Duration = Duration::from_secs(20);

/// What the access log says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Lines {
    /// Of refused plaintext, in full.
    refused: u64,
    /// Sums.
    sums: u64,
    /// Of refused plaintext, in sums.
    summed: u64,
    /// Of connections in order.
    complete: u64,
}

impl Lines {
    fn read(sidecar: &Sidecar) -> Self {
        let log = sidecar.log_text();
        let with = |part: &str| log.lines().filter(|line| line.contains(part)).count() as u64;
        let refused = with("reason=plaintext_refused");
        let told = said::told(&log).get("plaintext_refused").copied().unwrap_or_default();
        Self {
            refused,
            sums: with(" left_out="),
            summed: told - refused,
            complete: with("direction=inbound reason=complete"),
        }
    }
}

/// Connects, says something in plaintext, and is refused.
fn refused(from: &Pod, to: SocketAddr, times: usize) {
    from.namespace()
        .enter(|| {
            for _ in 0..times {
                let mut stream = std::net::TcpStream::connect(to).unwrap();
                let _ = stream.write_all(b"GET / HTTP/1.1\r\n\r\n");
                let _ = stream.read(&mut [0; 16]);
            }
        })
        .unwrap();
}

#[test]
fn a_storm_of_refused_connections_is_ten_lines_a_second_and_the_sum_misses_none() {
    let folder = scenario_folder().unwrap();
    let files = MeshFiles::create(&folder.join("mesh"), None).unwrap();
    files.write_policy("strict", STRICT).unwrap();
    let network = Network::create(&["client", "server", "stranger", "ca"]).unwrap();
    let [client, server, stranger] = ["client", "server", "stranger"].map(|name| network.pod(name).unwrap());
    let ca = Ca::start(&network, "ca", &files, &CaSettings::default(), &folder).unwrap();
    let settings = SidecarSettings::new("app");
    let mesh = (&files, &ca);
    let sidecars = start_sidecars(&network, &["client", "server"], mesh, &settings, &folder).unwrap();
    let sidecar = &sidecars[1];
    let to = SocketAddr::new(server.ip(), OWN_PORT);
    let listener = listen(server).unwrap();

    let storms = if nightly() { STORMS } else { 1 };
    let start = Instant::now();
    thread::scope(|scope| {
        // Four at once, and each as fast as it can.
        for _ in 0..4 {
            scope.spawn(|| refused(stranger, to, STRANGERS * storms / 4));
        }
        scope.spawn(|| {
            for _ in 0..FRIENDS {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read_to_end(&mut Vec::new());
            }
        });
        for _ in 0..FRIENDS {
            let mut stream = wire::connect(client.namespace(), to).unwrap();
            stream.write_all(b"hello").unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            stream.read_to_end(&mut Vec::new()).unwrap();
        }
    });
    let seconds = start.elapsed().as_secs() + 1;

    let all = (STRANGERS * storms) as u64;
    let lines = wait_until(TOLD_WITHIN, "every connection is told of", || {
        let lines = Lines::read(sidecar);
        anyhow::ensure!(lines.refused + lines.summed == all, "{lines:?} of {all}");
        anyhow::ensure!(lines.complete == FRIENDS, "{lines:?}");
        Ok(Some(lines))
    })
    .unwrap();
    let counted = said::ended(sidecar, server, "plaintext_refused").unwrap();
    assert!((counted - all as f64).abs() < 0.5, "{counted}");
    let metrics = said::metrics(sidecar, server).unwrap();
    let left_out = said::sum(&metrics, "ringmail_access_log_left_out_total", &[]);
    assert!((left_out - lines.summed as f64).abs() < 0.5, "{left_out}: {lines:?}");
    // The storm may begin in the middle of a second, and the last sum comes in a second of its own.
    let bound = 10 * (seconds + 2);
    assert!(lines.refused + lines.sums <= bound, "{lines:?} in {seconds} s");
    let text = sidecar.log_text();
    let line = text.lines().find(|line| line.contains("reason=plaintext_refused")).unwrap();
    for part in ["src.addr=10.77.0.3:", "dst.addr=10.77.0.2:7777", "advice=\"give the source a sidecar"] {
        assert!(line.contains(part), "{part} in {line}");
    }
    shown!(
        "O1",
        format!("lines of a sidecar about {all} refused connections at once"),
        format!("{} in {seconds} s", lines.refused + lines.sums),
        format!("<= {bound}")
    );
    shown!(
        "O1",
        format!("of {all} refused connections, told by a line or a sum"),
        lines.refused + lines.summed,
        "all"
    );
    drop(sidecars);
    let _ = std::fs::remove_dir_all(&folder);
}
