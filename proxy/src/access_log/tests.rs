use std::{
    io,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
    time::{Duration, UNIX_EPOCH},
};

use ringmail_policy::{Outbound, Resources, Settings};

use super::*;
use crate::{
    ledger::Ledger,
    record::{Direction, Protection, Record},
};

const WORKLOAD: &str = "
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: ignite-1, namespace: ignite, labels: {security.istio.io/tlsMode: istio}}
spec: {address: 10.0.0.8, serviceAccount: node, labels: {app: ignite}}
";

fn ledger() -> (Arc<Ledger>, Lines) {
    let (log, lines) = AccessLog::collecting();
    (Arc::new(Ledger::new(log)), lines)
}

fn filled(direction: Direction) -> Record {
    let record = Record::open(&ledger().0, direction, "10.0.0.8:4000".parse().unwrap());
    record.destination("10.0.0.7:47500".parse().unwrap());
    record.protection(Protection::MutualTls);
    record.decided_by(&"AuthorizationPolicy ignite/ring rule 0");
    let resources = Resources::parse([("w.yaml", WORKLOAD)]).unwrap();
    let outbound = Outbound::compile(&resources, &Settings::new("cluster.local".parse().unwrap()));
    record.peer_workload(outbound.workload("10.0.0.8".parse().unwrap()).unwrap());
    let live = record.live();
    live.peer_identity.set("spiffe://cluster.local/ns/ignite/sa/node".parse().unwrap()).unwrap();
    live.own_identity.set("spiffe://cluster.local/ns/ignite/sa/own".parse().unwrap()).unwrap();
    live.peer_serial.set("0a1b".to_owned()).unwrap();
    live.own_serial.set("0c2d".to_owned()).unwrap();
    live.handshake.set(Duration::from_micros(812)).unwrap();
    live.bytes.add_from_downstream(18);
    live.bytes.add_to_downstream(42);
    record
}

fn line(record: &Record, reason: Reason, error: Option<&str>) -> Line {
    let now = UNIX_EPOCH + Duration::from_millis(1_800_000_000_123);
    Line::at(now, Duration::from_millis(1500), record.live(), reason, error)
}

#[test]
fn an_inbound_line_has_every_field_in_its_order() {
    let record = filled(Direction::Inbound);
    let id = record.live().id;
    assert_eq!(
        line(&record, Reason::ApplicationReset, Some("read: connection reset")).text(),
        format!(
            "time=2027-01-15T08:00:00.123Z id={id} direction=inbound reason=application_reset side=application \
             src.addr=10.0.0.8:4000 src.workload=ignite-1 src.namespace=ignite \
             src.identity=spiffe://cluster.local/ns/ignite/sa/node \
             dst.addr=10.0.0.7:47500 dst.identity=spiffe://cluster.local/ns/ignite/sa/own \
             protection=mutual_tls decided_by=\"AuthorizationPolicy ignite/ring rule 0\" \
             bytes_sent=42 bytes_recv=18 duration_ms=1500 handshake_ms=0.812 \
             peer.serial=0a1b own.serial=0c2d error=\"read: connection reset\" \
             advice=\"look at this pod's application: it reset the connection or ended\""
        )
    );
}

#[test]
fn an_outbound_line_names_the_peer_as_destination() {
    let text = line(&filled(Direction::Outbound), Reason::Complete, None).text();
    assert!(text.contains(" src.addr=10.0.0.8:4000 src.identity=spiffe://cluster.local/ns/ignite/sa/own "));
    assert!(text.contains(
        " dst.addr=10.0.0.7:47500 dst.workload=ignite-1 dst.namespace=ignite \
         dst.identity=spiffe://cluster.local/ns/ignite/sa/node "
    ));
    assert!(!text.contains("error=") && !text.contains("advice="));
}

#[test]
fn a_connection_refused_at_once_has_a_line_without_what_is_not_known() {
    let record = Record::open(&ledger().0, Direction::Inbound, "[fd00::8]:4000".parse().unwrap());
    let id = record.live().id;
    assert_eq!(
        line(&record, Reason::NoPolicy, None).text(),
        format!(
            "time=2027-01-15T08:00:00.123Z id={id} direction=inbound reason=no_policy side=local \
             src.addr=[fd00::8]:4000 protection=undecided bytes_sent=0 bytes_recv=0 duration_ms=1500 \
             advice=\"{}\"",
            Reason::NoPolicy.advice()
        )
    );
}

#[test]
fn json_has_the_same_fields_in_the_same_order() {
    let record = filled(Direction::Inbound);
    let line = line(&record, Reason::Complete, Some("said \"no\"\n"));
    let json = line.json();
    let parsed: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(parsed["src.identity"], "spiffe://cluster.local/ns/ignite/sa/node");
    assert_eq!(parsed["bytes_sent"], 42);
    assert_eq!(parsed["handshake_ms"], 0.812);
    assert_eq!(parsed["error"], "said \"no\"\n");
    let order = |key: &str| json.find(&format!("\"{key}\":")).unwrap();
    let keys = ["time", "id", "direction", "reason", "side", "src.addr", "dst.addr", "protection", "error"];
    assert!(keys.windows(2).all(|pair| order(pair[0]) < order(pair[1])), "{json}");
    assert_eq!(json.lines().count(), 1);
}

#[test]
fn nothing_in_a_value_can_start_a_line_or_a_field_or_paint_the_terminal() {
    let record = filled(Direction::Inbound);
    let hostile = "x\"\nreason=complete \r\u{1b}[31m\u{202e}\u{85} \\\" side=local\t";
    let text = line(&record, Reason::PolicyDenied, Some(hostile)).text();
    assert_eq!(text.lines().count(), 1);
    assert!(text.chars().all(|c| !c.is_control() && c != '\u{202e}'), "{text}");
    let (error, _) = text.split_once(" error=").unwrap().1.split_once(" advice=").unwrap();
    assert_eq!(error, r#""x\"\nreason=complete \r\u{1b}[31m\u{202e}\u{85} \\\" side=local\t""#);
}

#[test]
fn a_text_longer_than_its_bound_is_cut_at_a_letter() {
    let record = filled(Direction::Inbound);
    let text = line(&record, Reason::Complete, Some(&"ä".repeat(5000))).text();
    let error = text.split_once(" error=").unwrap().1;
    assert_eq!(error, format!("{:?}", "ä".repeat(1024)));
}

#[test]
fn the_format_changes_while_it_runs_and_off_writes_nothing() {
    let (log, lines) = AccessLog::collecting();
    let record = filled(Direction::Inbound);
    for format in [AccessLogFormat::Json, AccessLogFormat::Off, AccessLogFormat::Text] {
        log.set_format(format);
        log.write(record.live(), Reason::Complete, None);
    }
    let starts: Vec<String> = lines.all().iter().map(|line| line[..5].to_owned()).collect();
    assert_eq!(starts, ["{\"tim", "time="]);
}

#[test]
fn each_record_leaves_one_line_also_when_it_is_dropped() {
    let (ledger, lines) = ledger();
    let source = "10.0.0.8:4000".parse().unwrap();
    Record::open(&ledger, Direction::Inbound, source).close(Reason::PlaintextRefused, None);
    drop(Record::open(&ledger, Direction::Outbound, source));
    let lines = lines.all();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].contains(" reason=plaintext_refused "));
    assert!(lines[1].contains(" reason=aborted "));
}

/// A stdout that nobody reads until the test says so.
struct Stuck {
    entered: SyncSender<()>,
    released: Receiver<()>,
    written: Lines,
}

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.entered.try_send(()).ok();
        self.released.recv().unwrap_or_default();
        self.written.push(String::from_utf8_lossy(bytes).into_owned());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_stuck_stdout_drops_and_counts_lines_instead_of_holding_a_worker() {
    let (release, released) = sync_channel(1);
    let (entered, is_stuck) = sync_channel(1);
    let written = Lines::default();
    let out = Stuck { entered, released, written: written.clone() };
    let log = AccessLog::to_writer(AccessLogFormat::Text, out, 10).unwrap();
    let record = filled(Direction::Inbound);
    log.write(record.live(), Reason::Complete, None);
    is_stuck.recv_timeout(Duration::from_secs(5)).unwrap();
    for _ in 0..100 {
        log.write(record.live(), Reason::Complete, None);
    }
    assert_eq!(log.dropped(), 90, "all but the 10 that the queue takes");
    assert!(!log.flush(Duration::from_millis(10)), "nothing can be flushed to a stuck stdout");
    drop(release);
    let flushed = (0..1000).any(|_| {
        thread::sleep(Duration::from_millis(5));
        log.flush(Duration::from_secs(5))
    });
    assert!(flushed);
    let lines: usize = written.all().iter().map(|batch| batch.lines().count()).sum();
    assert_eq!(lines, 11);
}

struct Closed;

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn lines_for_a_closed_stdout_are_counted_as_dropped() {
    let log = AccessLog::to_writer(AccessLogFormat::Text, Closed, 10).unwrap();
    let record = filled(Direction::Inbound);
    for _ in 0..3 {
        log.write(record.live(), Reason::Complete, None);
    }
    assert!(log.flush(Duration::from_secs(5)));
    assert_eq!(log.dropped(), 3);
}
