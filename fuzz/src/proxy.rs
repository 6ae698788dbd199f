//! What a sidecar is told, asked and connected to with.

use std::cell::LazyCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use ringmail_proxy::config::{Config, Sources, System};
use ringmail_proxy::discovery::{Discovery, Status};
use ringmail_proxy::mode::{DECIDING_BYTES, Speaks, speaks};
use ringmail_proxy::orig_dst::Own;
use ringmail_proxy::record::Direction;

use crate::wishes::Wishes;

const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

const SETTINGS: &str = "
pod_name: n1
namespace: ignite
pod_addresses: [10.0.0.1]
mesh_ranges: [10.0.0.0/8]
discovery: control
";

fn system() -> System {
    System { hostname: "n1".to_owned(), addresses: vec![OWN.into()], cpus: 2 }
}

fn config(text: &str) -> Result<Config, Vec<String>> {
    let sources = Sources { file: Path::new("proxy.yaml"), text, environment: &[], system: &system() };
    let faults =
        |error: ringmail_proxy::config::ConfigError| error.faults().iter().map(ToString::to_string).collect();
    Config::from_sources(&sources).map(|loaded| loaded.config).map_err(faults)
}

/// Settings are read, or each fault is named.
pub(crate) fn settings(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match (config(&text), config(&text)) {
        (Ok(first), Ok(second)) => assert!(first.restart_needed(&second).is_empty()),
        (Err(first), Err(second)) => {
            assert!(!first.is_empty() && first.iter().all(|fault| !fault.is_empty()));
            assert_eq!(first, second);
        }
        (first, second) => panic!("read once as {first:?} and then as {second:?}"),
    }
}

/// Whatever a server says, what follows is the same twice, and no destination outside of what was said is in the mesh.
pub(crate) fn discovery(data: &[u8]) {
    thread_local! {
        static CONFIG: LazyCell<Arc<Config>> = LazyCell::new(|| Arc::new(config(SETTINGS).unwrap()));
    }
    let told = || {
        let (sender, snapshots) = tokio::sync::watch::channel(None);
        let status = Arc::new(Status::default());
        // What is kept for a later process is what a server said, as it said it.
        CONFIG.with(|config| drop(Discovery::new(config, sender, Arc::clone(&status), Some(data), None)));
        snapshots.borrow().clone()
    };
    let (Some(first), Some(second)) = (told(), told()) else { return };
    let known = |outbound: &ringmail_policy::Outbound| {
        let mut known: Vec<String> = outbound.workloads().map(|workload| format!("{workload:?}")).collect();
        known.sort();
        known
    };
    assert_eq!(known(&first.outbound), known(&second.outbound));
    let stranger: SocketAddr = "10.255.255.254:1".parse().unwrap();
    let named = contains(data, b"10.255.255.254") || contains(data, &[10, 255, 255, 254]);
    assert!(named || !first.outbound.in_mesh(stranger.ip()), "nobody has named {stranger}");
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// What the first bytes say does not depend on how they are cut, and is TLS exactly where a ClientHello begins.
pub(crate) fn peek(data: &[u8]) {
    let begins = |bytes: &[u8]| {
        [(0, 0x16..=0x16), (1, 3..=3), (2, 0..=4), (5, 1..=1)]
            .into_iter()
            .all(|(at, range)| bytes.get(at).is_none_or(|byte: &u8| range.contains(byte)))
    };
    for end in 0..=data.len().min(2 * DECIDING_BYTES) {
        let bytes = &data[..end];
        let expected = match (begins(bytes), bytes.len() >= DECIDING_BYTES) {
            (false, _) => Speaks::Plaintext,
            (true, true) => Speaks::Tls,
            (true, false) => Speaks::Unclear,
        };
        assert_eq!(speaks(bytes), expected, "{bytes:02x?}");
    }
}

/// What is dialled is what the kernel said, and never the proxy itself.
pub(crate) fn original_destination(data: &[u8]) {
    thread_local! {
        static OWN_PORTS: LazyCell<(Own, [u16; 6])> = LazyCell::new(|| {
            let config = config(SETTINGS).unwrap();
            let ports = [
                config.outbound_port, config.inbound_port, config.admin_port, config.stats_port, config.health_port,
                config.linkerd_admin_port,
            ];
            (Own::new(&config), ports)
        });
    }
    OWN_PORTS.with(|held| {
        let (own, ports) = &**held;
        let mut wishes = Wishes(data);
        let direction = [Direction::Inbound, Direction::Outbound][usize::from(wishes.one_of(2))];
        let mut address = || {
            let ip: IpAddr = match wishes.one_of(6) {
                0 => OWN.into(),
                1 => Ipv4Addr::LOCALHOST.into(),
                2 => Ipv4Addr::UNSPECIFIED.into(),
                3 => Ipv6Addr::LOCALHOST.into(),
                4 => Ipv6Addr::from_bits(u128::from(wishes.byte())).into(),
                _ => Ipv4Addr::new(10, 0, 0, wishes.byte()).into(),
            };
            let number = wishes.byte();
            let port = ports
                .get(usize::from(number))
                .copied()
                .unwrap_or_else(|| u16::from_be_bytes([number, wishes.byte()]));
            SocketAddr::new(ip, port)
        };
        let (local, destination) = (address(), address());
        let here = destination.ip() == IpAddr::from(OWN)
            || destination.ip().is_loopback()
            || destination.ip().is_unspecified();
        let loops = destination == local || (here && ports.contains(&destination.port()));
        let foreign = direction == Direction::Inbound && !here;
        match own.check(direction, local, destination) {
            Ok(dialled) => {
                assert!(dialled == destination && !loops && !foreign, "{direction:?} {local} {destination}")
            }
            Err(error) => assert!(loops || foreign, "{error}"),
        }
    });
}
