//! The decision, by tables: times are milliseconds, and every look is at the application's listeners.

use super::*;
use crate::{
    access_log::AccessLog,
    reason::Reason,
    record::{Direction, Record},
};

const AFTER: Duration = Duration::from_secs(12);

fn listeners(inodes: &[u64]) -> Listeners {
    Listeners(inodes.iter().map(|inode| (*inode, 47500)).collect())
}

fn close(away_ms: u64, inodes: &[u64]) -> Judgement {
    let away = Duration::from_millis(away_ms);
    Judgement::Close(Arc::new(Absence { away, listeners: listeners(inodes) }))
}

fn fence_since(beat: u64, fenced: &[u64]) -> Fence {
    let held = Arc::new(Absence { away: AFTER, listeners: listeners(fenced) });
    let absence = (!fenced.is_empty()).then_some(held);
    Fence::new(AFTER, Remembered { beat: Some(beat), absence }, beat)
}

#[test]
fn the_fence_closes_after_an_absence_while_the_application_ran_and_opens_when_it_has_restarted() {
    for (case, now, fenced, listening, expected) in [
        ("a beat in time", 1_000, &[][..], &[7][..], Judgement::Same),
        ("just not too long", 11_999, &[], &[7], Judgement::Same),
        ("too long", 12_000, &[], &[7], close(12_000, &[7])),
        ("far too long", 90_000, &[], &[7, 8], close(90_000, &[7, 8])),
        ("too long, and no application", 90_000, &[], &[], Judgement::Same),
        ("fenced, and still the same", 1_000, &[7, 8], &[7, 8], Judgement::Same),
        ("fenced, and one of them left", 1_000, &[7, 8], &[8, 9], Judgement::Same),
        ("fenced, and ended", 1_000, &[7, 8], &[], Judgement::Open),
        ("fenced, and restarted", 1_000, &[7, 8], &[9], Judgement::Open),
        ("fenced, and too long again", 12_000, &[7], &[7], close(12_000, &[7])),
        ("fenced, and restarted in another absence", 12_000, &[7], &[9], close(12_000, &[9])),
        ("fenced, and ended in another absence", 12_000, &[7], &[], Judgement::Open),
    ] {
        let fence = fence_since(0, fenced);
        assert_eq!(fence.judge(now, || Ok(listeners(listening))).unwrap(), expected, "{case}");
    }
}

#[test]
fn a_judgement_holds_once_it_is_applied() {
    let fence = fence_since(now(), &[]);
    let mut told = fence.watch();
    assert!(!fence.is_closed() && fence.closed().is_none());
    fence.apply(now(), close(15_000, &[7]));
    assert!(fence.is_closed() && told.has_changed().unwrap());
    assert_eq!(fence.closed().unwrap().away(), Duration::from_secs(15));
    fence.apply(now(), Judgement::Same);
    assert!(fence.is_closed());
    told.mark_unchanged();
    fence.apply(now(), Judgement::Open);
    assert!(!fence.is_closed() && fence.closed().is_none() && told.has_changed().unwrap());
}

#[test]
fn a_process_that_was_stopped_is_closed_before_anything_has_judged_it() {
    let fence = fence_since(now().saturating_sub(12_000), &[]);
    assert!(fence.is_closed());
    assert!(fence.closed().unwrap().away() >= AFTER);
    // The listeners cannot be read: nothing is judged, and it stays closed.
    assert!(fence.judge(now(), || Err(io::ErrorKind::PermissionDenied.into())).is_err());
    assert!(fence.is_closed());
    fence.apply(now(), Judgement::Same);
    assert!(!fence.is_closed());
}

#[test]
fn what_an_earlier_process_fenced_stays_fenced() {
    assert!(fence_since(now(), &[7]).is_closed());
}

#[test]
fn switched_off_it_never_closes() {
    let remembered = Remembered { beat: Some(0), ..fenced_before() };
    let fence = Fence::new(Duration::ZERO, remembered, now());
    assert!(!fence.is_closed() && fence.closed().is_none());
    assert_eq!(fence.judge(u64::MAX, || Ok(listeners(&[7]))).unwrap(), Judgement::Same);
    assert!(!Fence::off().is_closed());
}

fn fenced_before() -> Remembered {
    let absence = Absence { away: AFTER, listeners: listeners(&[7]) };
    Remembered { beat: None, absence: Some(Arc::new(absence)) }
}

#[test]
fn without_a_last_beat_nothing_was_missed() {
    assert!(!Fence::new(AFTER, Remembered::default(), now()).is_closed());
}

#[test]
fn the_absence_says_how_long_what_is_feared_and_what_to_do() {
    let absence = Absence { away: Duration::from_millis(15_250), listeners: listeners(&[7]) };
    let text = absence.to_string();
    for part in ["cut off for 15.2 s", "cluster of its own", "restart the application", "on port 47500"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_closed_fence_leaves_a_ring_port_open_while_the_application_is_connected_to_it_elsewhere() {
    let ledger = Arc::new(Ledger::new(AccessLog::collecting().0));
    let ledgers = [Arc::new(Ledger::new(AccessLog::collecting().0)), Arc::clone(&ledger)];
    let held = |direction, established, port| {
        let record = Record::open(&ledger, direction, "10.0.0.7:4000".parse().unwrap());
        record.destination(format!("10.0.0.8:{port}").parse().unwrap());
        if established {
            record.established();
        }
        record
    };
    let keeps_out = |fence: &Fence, port| fence.keeps_out(port, &[47500], &ledgers).is_some();
    let (closed, open) = (fence_since(now(), &[7]), fence_since(now(), &[]));
    assert!(keeps_out(&closed, 47500), "no connection at all");
    for (case, direction, established, port, let_in) in [
        ("on its way", Direction::Outbound, false, 47500, false),
        ("somebody else's", Direction::Inbound, true, 47500, false),
        ("another port", Direction::Outbound, true, 10800, false),
        ("established", Direction::Outbound, true, 47500, true),
    ] {
        let record = held(direction, established, port);
        assert_eq!(!keeps_out(&closed, 47500), let_in, "{case}");
        assert!(keeps_out(&closed, 10800), "{case}: 10800 is no port of the ring");
        assert!(!keeps_out(&open, 47500) && !keeps_out(&open, 10800));
        record.close(Reason::Complete, None);
        assert!(keeps_out(&closed, 47500), "{case}, and ended");
    }
}
