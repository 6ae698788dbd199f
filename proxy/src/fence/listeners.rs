//! What the application listens on, from the kernel's tables of sockets.
//!
//! A container sees no process of another one, but it sees every socket of its pod, with the user it belongs
//! to and the number of its inode, which no later socket gets. So a listener that is still there is an
//! application that did not restart.

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io::{self, Read},
    net::{IpAddr, Ipv6Addr},
};

use nix::unistd::geteuid;

/// The tables of this process's network namespace. The second is missing where there is no IPv6.
const TABLES: [&str; 2] = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];

/// Bytes read of a table, some 28000 sockets: the kernel lists those that listen first.
const MAX_TABLE: u64 = 4 * 1024 * 1024;

/// The state of a socket that listens, as the tables write it.
const LISTEN: &str = "0A";

/// Listening sockets that others can reach: their ports by inode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Listeners(pub(super) BTreeMap<u64, u16>);

impl Listeners {
    /// Those of every user but this process's own: its ports are the sidecar's.
    pub(super) fn read() -> io::Result<Self> {
        let mut listeners = BTreeMap::new();
        for table in TABLES {
            let mut text = Vec::new();
            match File::open(table) {
                Ok(file) => file.take(MAX_TABLE).read_to_end(&mut text)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            listeners.extend(parse(&String::from_utf8_lossy(&text), geteuid().as_raw()));
        }
        Ok(Self(listeners))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn share_any(&self, other: &Self) -> bool {
        self.0.keys().any(|inode| other.0.contains_key(inode))
    }
}

/// The ports, each once.
impl fmt::Display for Listeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ports: Vec<u16> = self.0.values().copied().collect();
        ports.sort_unstable();
        ports.dedup();
        f.write_str(if ports.len() == 1 { "port" } else { "ports" })?;
        ports.iter().try_for_each(|port| write!(f, " {port}"))
    }
}

/// Inode and port of each socket in `table` that listens, is not `own_uid`'s, and not on loopback: nothing of
/// what comes from outside reaches it there.
fn parse(table: &str, own_uid: u32) -> impl Iterator<Item = (u64, u16)> {
    let rows = table.lines().filter_map(Row::parse);
    rows.filter(move |row| row.uid != own_uid && !is_loopback(row.ip)).map(|row| (row.inode, row.port))
}

struct Row {
    ip: IpAddr,
    port: u16,
    uid: u32,
    inode: u64,
}

impl Row {
    /// None for the heading, for a socket that does not listen, and for one without an inode, which is the
    /// kernel's own.
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace();
        let local = fields.nth(1)?;
        let state = fields.nth(1)?;
        let (uid, inode) = (fields.nth(3)?.parse().ok()?, fields.nth(1)?.parse().ok()?);
        if state != LISTEN || inode == 0 {
            return None;
        }
        let (ip, port) = local.split_once(':')?;
        Some(Self { ip: address(ip)?, port: u16::from_str_radix(port, 16).ok()?, uid, inode })
    }
}

/// Words of four bytes, each printed as a number of this machine.
fn address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    match hex.len() {
        8 => Some(IpAddr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (chunk, at) in bytes.chunks_exact_mut(4).zip([0, 8, 16, 24]) {
                chunk.copy_from_slice(&word(at)?);
            }
            Some(IpAddr::V6(Ipv6Addr::from(bytes)))
        }
        _ => None,
    }
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    /// As a little-endian machine prints them.
    #[cfg(target_endian = "little")]
    #[test]
    fn reachable_listeners_of_others_are_found_and_nothing_else() {
        let heading = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
        let row = |local: &str, state: &str, uid: u32, inode: u64| {
            let zeros = local.split_once(':').map_or(0, |(ip, _)| ip.len());
            format!(
                "   0: {local} {:0zeros$}:0000 {state} 00000000:00000000 00:00000000 00000000 {uid:5}        0 {inode} 1 0000000000000000 100 0 0 10 0",
                0
            )
        };
        let found = |line: &str| parse(&format!("{heading}\n{line}\n"), 1337).collect::<Vec<_>>();
        let v6 = "000077FD000000000000000001000000";
        for (case, line, expected) in [
            ("every address", row("00000000:2A30", "0A", 0, 7), vec![(7, 10800)]),
            ("the pod's", row("07F40A0A:B98C", "0A", 1000, 8), vec![(8, 47500)]),
            ("IPv6", row(&format!("{v6}:2A30"), "0A", 0, 9), vec![(9, 10800)]),
            ("every address of IPv6", row(&format!("{:032}:2A30", 0), "0A", 0, 9), vec![(9, 10800)]),
            ("the proxy's own", row("00000000:3A9E", "0A", 1337, 7), vec![]),
            ("established", row("00000000:2A30", "01", 0, 7), vec![]),
            ("loopback", row("0100007F:2A30", "0A", 0, 7), vec![]),
            ("another loopback", row("0B00007F:8A25", "0A", 0, 7), vec![]),
            ("loopback of IPv6", row("00000000000000000000000001000000:2A30", "0A", 0, 7), vec![]),
            ("mapped loopback", row("0000000000000000FFFF00000100007F:2A30", "0A", 0, 7), vec![]),
            ("no inode", row("00000000:2A30", "0A", 0, 0), vec![]),
            ("cut off", row("00000000:2A30", "0A", 0, 7)[..60].to_owned(), vec![]),
            ("no address", row("0000:2A30", "0A", 0, 7), vec![]),
            ("no port", row("00000000:12345", "0A", 0, 7), vec![]),
            ("not ASCII", "\u{fffd}: \u{fffd} é 0A".to_owned(), vec![]),
        ] {
            assert_eq!(found(&line), expected, "{case}: {line}");
        }
    }

    #[test]
    fn the_kernels_own_tables_are_read() {
        let listeners: Vec<TcpListener> = [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv4Addr::LOCALHOST.into()]
            .map(|ip| TcpListener::bind((ip, 0)).unwrap())
            .into();
        let port = |index: usize| listeners[index].local_addr().unwrap().port();
        let table = std::fs::read_to_string(TABLES[0]).unwrap();
        // No user has this id: nobody's are left out.
        let all: Vec<u16> = parse(&table, u32::MAX).map(|(_, port)| port).collect();
        assert!(all.contains(&port(0)), "{table}");
        assert!(!all.contains(&port(1)), "{table}");
        let others = Listeners::read().unwrap();
        assert!(!others.0.values().any(|seen| *seen == port(0)), "one's own count: {others}");
    }

    #[test]
    fn ports_are_named_once_and_in_order() {
        let listeners = Listeners([(9, 47500), (3, 10800), (4, 10800)].into());
        assert_eq!(listeners.to_string(), "ports 10800 47500");
        assert_eq!(Listeners([(9, 47500)].into()).to_string(), "port 47500");
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC*", fields in proptest::collection::vec("[0-9A-F:é]{0,34}", 0..14)) {
            let _ = parse(&text, 0).count();
            let _ = parse(&fields.join(" "), 0).count();
        }
    }
}
