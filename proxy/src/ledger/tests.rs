use std::net::Ipv4Addr;

use ringmail_policy::OutsideReason;

use super::*;
use crate::record::Record;

const PEER: &str = "10.244.0.8:47500";

fn ledger() -> Arc<Ledger> {
    Arc::new(Ledger::new(AccessLog::collecting().0))
}

fn open(ledger: &Arc<Ledger>, direction: Direction, destination: SocketAddr) -> Record {
    let record = Record::open(ledger, direction, ([10, 244, 0, 9], 40_000).into());
    record.destination(destination);
    record
}

/// The series of a connection of the mesh that is established now, and its totals.
fn of_the_mesh(ledger: &Arc<Ledger>) -> Option<Totals> {
    let record = open(ledger, Direction::Outbound, PEER.parse().unwrap());
    record.protection(Protection::MutualTls);
    record.established();
    let page = ledger.read();
    let is_it = |series: &Series| series.destination.is_some_and(|address| address.to_string() == PEER);
    page.totals.into_iter().find(|(series, _)| is_it(series)).map(|(_, totals)| totals)
}

#[test]
fn a_port_scan_takes_no_place_of_what_the_mesh_does() {
    let ledger = ledger();
    for port in 1..=3000 {
        let own = (Ipv4Addr::new(10, 244, 0, 7), port).into();
        open(&ledger, Direction::Inbound, own).close(Reason::DialRefused, None);
    }
    let page = ledger.read();
    assert_eq!(page.totals.len(), MAX_UNOPENED + 1);
    let refused: u64 =
        page.totals.values().filter_map(|totals| totals.failed.get(&Reason::DialRefused)).sum();
    assert_eq!(refused, 3000);
    assert_eq!(of_the_mesh(&ledger).unwrap().opened, 1);
}

#[test]
fn destinations_outside_the_mesh_take_no_place_of_what_the_mesh_does() {
    let ledger = ledger();
    for number in 0..3000u16 {
        let [high, low] = number.to_be_bytes();
        let record = open(&ledger, Direction::Outbound, (Ipv4Addr::new(192, 0, high, low), 443).into());
        record.protection(Protection::Outside(OutsideReason::NotInMesh));
        record.established();
        record.live().bytes.add_to_downstream(2);
        assert_eq!(
            ledger.read().totals.values().map(|totals| totals.to_downstream).sum::<u64>(),
            u64::from(number) * 2 + 2
        );
        record.close(Reason::Complete, None);
    }
    let page = ledger.read();
    assert_eq!(page.totals.len(), MAX_FOREIGN + 1);
    for (series, totals) in &page.totals {
        assert_eq!(totals.closed[&Reason::Complete], totals.opened, "{series:?}");
        assert_eq!(totals.to_downstream, totals.opened * 2, "{series:?}");
    }
    assert_eq!(of_the_mesh(&ledger).unwrap().opened, 1);
}

#[test]
fn folded_series_are_bounded_too() {
    let ledger = ledger();
    for number in 0..3000 {
        let record = open(&ledger, Direction::Inbound, (Ipv4Addr::LOCALHOST, number).into());
        record.decided_by(&format_args!("AuthorizationPolicy ignite/deny-{number}"));
        record.close(Reason::PolicyDenied, None);
    }
    assert_eq!(ledger.read().totals.len(), MAX_UNOPENED + MAX_FOLDED + 1);
}
