//! The loads of a round, and who takes part in each.

use crate::candidates::{Candidate, Exchange};
use crate::load::{Direction, Shape};

use super::arguments::Group;

/// Messages per second of the open loop: far below what the weakest candidate can do, so that what is measured is how
/// long a message takes and not how long it waits.
pub(super) const OPEN_LOOP_RATE: u64 = 2000;

/// Connections of the open loop, so that one slow answer holds up no other.
const OPEN_LOOP_CONNECTIONS: usize = 16;

/// One load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    /// What its figures begin with.
    pub(super) id: String,
    /// What a reader sees of it.
    pub(super) title: String,
    /// The figures it belongs to.
    pub(super) group: Group,
    /// What is put on a candidate.
    pub(super) shape: Shape,
    /// The key exchange that the candidates are compared at, where new connections are made.
    pub(super) exchange: Option<Exchange>,
}

impl Cell {
    /// Whether a candidate carries it.
    pub(super) fn is_for(&self, candidate: Candidate) -> bool {
        match self.exchange {
            None => !candidate.is_for_connections_alone(),
            // Linkerd's proxy cannot be told another; those without a handshake each are shown once.
            Some(Exchange::X25519) => candidate != Candidate::Linkerd,
            Some(Exchange::X25519MlKem768) => {
                matches!(candidate, Candidate::Linkerd | Candidate::Ringmail | Candidate::RingmailBaseline)
            }
        }
    }
}

/// All loads of these figures, in the order in which a round takes them.
pub(super) fn cells(groups: &[Group]) -> Vec<Cell> {
    let mut cells = Vec::new();
    for group in groups {
        match group {
            Group::Bulk => cells.extend(bulk()),
            Group::Rr => cells.extend(requests()),
            Group::Conn => cells.extend(connections()),
            // Taken apart: no load, or one on proxies that have done nothing else.
            Group::Memory | Group::Resumption | Group::Size | Group::Syscalls => {}
        }
    }
    cells
}

fn bulk() -> Vec<Cell> {
    let mut cells = Vec::new();
    for (direction, way) in [(Direction::Up, "up"), (Direction::Down, "down")] {
        for streams in [1, 8] {
            cells.push(Cell {
                id: format!("bulk-{way}-{streams}"),
                title: format!("{streams} {} {way}", if streams == 1 { "stream" } else { "streams" }),
                group: Group::Bulk,
                shape: Shape::Bulk { direction, streams },
                exchange: None,
            });
        }
    }
    cells
}

fn requests() -> Vec<Cell> {
    let mut cells = Vec::new();
    for size in [128, 4096] {
        for connections in [1, 32, 256] {
            let noun = if connections == 1 { "connection" } else { "connections" };
            cells.push(Cell {
                id: format!("rr-{size}-{connections}"),
                title: format!("{size} B, {connections} {noun}"),
                group: Group::Rr,
                shape: Shape::Request { size, connections },
                exchange: None,
            });
        }
        cells.push(Cell {
            id: format!("open-{size}"),
            title: format!("{size} B, {OPEN_LOOP_RATE} a second"),
            group: Group::Rr,
            shape: Shape::Schedule { size, rate: OPEN_LOOP_RATE, connections: OPEN_LOOP_CONNECTIONS },
            exchange: None,
        });
    }
    cells
}

fn connections() -> Vec<Cell> {
    let mut cells = Vec::new();
    for exchange in Exchange::ALL {
        for in_flight in [8, 64] {
            cells.push(Cell {
                id: format!("conn-{in_flight}-{}", exchange.name().to_lowercase()),
                title: format!("{in_flight} in flight, {}", exchange.name()),
                group: Group::Conn,
                shape: Shape::Connect { in_flight },
                exchange: Some(exchange),
            });
        }
    }
    cells
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_load_has_an_id_of_its_own() {
        let cells = cells(&Group::ALL);
        let ids: BTreeSet<_> = cells.iter().map(|cell| &cell.id).collect();
        assert_eq!(ids.len(), cells.len());
        assert!(
            ids.contains(&"bulk-up-1".to_owned()) && ids.contains(&"conn-64-x25519mlkem768".to_owned()),
            "{ids:?}"
        );
    }

    #[test]
    fn connections_are_compared_at_the_same_key_exchange() {
        let cells = cells(&[Group::Conn]);
        let at = |id: &str| cells.iter().find(|cell| cell.id == id).unwrap();
        let (classic, hybrid) = (at("conn-8-x25519"), at("conn-8-x25519mlkem768"));
        assert!(classic.is_for(Candidate::Envoy) && classic.is_for(Candidate::EnvoyDefault));
        assert!(!classic.is_for(Candidate::Linkerd) && hybrid.is_for(Candidate::Linkerd));
        assert!(classic.is_for(Candidate::Ringmail) && hybrid.is_for(Candidate::Ringmail));
        assert!(!hybrid.is_for(Candidate::Haproxy));
        assert!(!super::cells(&[Group::Bulk])[0].is_for(Candidate::EnvoyDefault));
    }
}
