//! A worker's books, which it alone writes, while a scrape reads them.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use shuttle::thread;

use crate::{
    access_log::AccessLog,
    ledger::{Ledger, Series},
    reason::Reason,
    record::{Direction, Protection, Record},
};

const CONNECTIONS: u16 = 2;
const MESSAGES: u64 = 2;

/// Connections, closed connections and bytes of each series.
type Counted = HashMap<Series, [u64; 4]>;

fn counted(ledger: &Ledger) -> Counted {
    let page = ledger.read();
    let of = |totals: &crate::ledger::Totals| {
        let closed = totals.closed.values().chain(totals.failed.values()).sum();
        [totals.opened, closed, totals.from_downstream, totals.to_downstream]
    };
    page.totals.iter().map(|(series, totals)| (series.clone(), of(totals))).collect()
}

/// What a scrape has seen of a series never goes back, a series that was there stays, and in the end each connection and each byte
/// is counted once.
pub fn totals_never_go_back() {
    let ledger = Arc::new(Ledger::new(AccessLog));
    let worker = thread::spawn({
        let ledger = Arc::clone(&ledger);
        move || {
            for port in 1..=CONNECTIONS {
                let record = Record::open(&ledger, Direction::Inbound, ([10, 0, 0, 1], port).into());
                record.destination(SocketAddr::from(([10, 0, 0, 2], 47100)));
                record.protection(Protection::MutualTls);
                record.established();
                for _ in 0..MESSAGES {
                    record.live().bytes.add_from_downstream(1);
                    record.live().bytes.add_to_downstream(10);
                }
                // One ends by its story, one by the end of its task.
                if port == 1 {
                    record.close(Reason::Complete, None);
                }
            }
        }
    });
    let scrape = thread::spawn({
        let ledger = Arc::clone(&ledger);
        move || {
            let mut before = Counted::new();
            for _ in 0..4 {
                let now = counted(&ledger);
                for (series, old) in &before {
                    let new = now.get(series).unwrap_or_else(|| panic!("{series:?} is gone"));
                    assert!(
                        old.iter().zip(new).all(|(old, new)| old <= new),
                        "{series:?}: {old:?}, then {new:?}"
                    );
                }
                before = now;
            }
        }
    });
    worker.join().unwrap();
    scrape.join().unwrap();
    let all: Vec<[u64; 4]> = counted(&ledger).into_values().collect();
    let connections = u64::from(CONNECTIONS);
    assert_eq!(all, [[connections, connections, connections * MESSAGES, connections * MESSAGES * 10]]);
}
