//! The tables of hostile certificates, handshakes and records through a whole sidecar, by a client on its inbound side
//! and by a server on its outbound side: how it ends, its reason in the access log and in the metric, in bounded time
//! and memory, while good clients do not notice.

#![expect(clippy::unwrap_used, reason = "a step that fails fails its test, in a helper too")]

mod neighbours;

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use ringmail_evidence::shown;
use ringmail_lab::wire;
use ringmail_tests::{
    adversary::{
        ALERT, Ending, HANDSHAKE,
        certificates::{Case, DOMAINS, EARLY, ENDED, NAMES, PURPOSES, ROOTS, SHAPES, TAKEN, made},
        ending, ends_on_this_layer,
        handshakes::{ANSWERS, Answers, Dials, MALFORMED, PLAINTEXT, Tools, VERSIONS},
        hello, holds_of_this_layer, read_to_end, record,
        records::{self, Says},
        session::{self, Session, Shown, behave},
        throw,
    },
    arena::{Arena, NEIGHBOUR, Trial, VICTIM, at_once, timed},
    streams::OWN_PORT,
    world::SERVICE_ACCOUNT,
};

/// Of TLS: a certificate that is refused for whatever reason, one that is asked for, a signature that is wrong, and a
/// peer that is somebody else.
const CERTIFICATE_UNKNOWN: u8 = 46;
const CERTIFICATE_REQUIRED: u8 = 116;
const DECRYPT_ERROR: u8 = 51;
const ACCESS_DENIED: u8 = 49;

/// Nothing that is refused takes longer. Only silence takes as long as its deadline of 2 s; the rest is the machine's.
const REFUSED_WITHIN: Duration = Duration::from_secs(10);

const CERTIFICATES: [(&str, &[Case]); 7] = [
    ("A3", DOMAINS),
    ("A4", ROOTS),
    ("A5", ENDED),
    ("A6", EARLY),
    ("A7", PURPOSES),
    ("A8", NAMES),
    ("A19", SHAPES),
];

/// Of the test that runs, for each of `rows`.
fn tell(rows: &[&str], what: &str, (cases, longest): (usize, Duration)) {
    assert!(longest < REFUSED_WITHIN, "{what}: {longest:?}");
    for row in rows {
        let all = format!("{cases} of {cases}");
        shown!(row, format!("{what}, each with its end, reason and metric"), all, "exactly");
        shown!(row, format!("{what}: the longest, ms"), longest.as_millis(), "<= 10000");
    }
}

/// A client that shows it.
fn show(arena: &Arena, case: &Case, shown: Shown) -> Trial {
    let tcp = arena.attack().unwrap();
    let source = tcp.local_addr().unwrap();
    let reason = case.of_client;
    let (ended, took) = timed(|| {
        if reason == TAKEN {
            let mut session = Session::as_client(tcp.try_clone().unwrap(), shown).unwrap();
            session.say(ALERT, &[1, 0]).unwrap();
            tcp.shutdown(Shutdown::Write).unwrap();
            session.ending()
        } else {
            behave(&tcp, &mut session::client(shown, &Arc::default()).unwrap().into())
        }
    });
    let expected = Ending::Alert(match reason {
        // Its own goodbye comes back.
        TAKEN => 0,
        "handshake_failed" => DECRYPT_ERROR,
        "no_client_certificate" => CERTIFICATE_REQUIRED,
        _ => CERTIFICATE_UNKNOWN,
    });
    // More than a message may have is refused before it is one, and without a word.
    let expected = if case.name.contains("300 KB") { Ending::Fin } else { expected };
    Trial { name: case.name.to_owned(), source, reason, ends: Some((expected, ended)), took }
}

#[test]
fn a_client_is_known_by_its_certificate_alone_and_refused_for_whatever_is_wrong_with_it() {
    let arena = Arena::new(&[]).unwrap();
    arena.serve().unwrap();
    let forger = arena.forger().unwrap();
    for (row, cases) in CERTIFICATES {
        let before = arena.counts().unwrap();
        let trials: Vec<_> =
            cases.iter().map(|case| show(&arena, case, Some(made(case, &forger).unwrap()))).collect();
        let longest = arena.judge(&before, &trials).unwrap();
        tell(&[row], "certificates of clients in the table", (trials.len(), longest));
    }
    let before = arena.counts().unwrap();
    let none = Case { name: "no certificate", of_client: "no_client_certificate", ..PURPOSES[0] };
    let longest = arena.judge(&before, &[show(&arena, &none, None)]).unwrap();
    tell(&["A2"], "clients without a certificate", (1, longest));
}

/// The victim's application dials; a server shows it.
fn ambush(arena: &Arena, listener: &TcpListener, case: &Case, shown: Shown) -> Trial {
    let shown = shown.unwrap();
    let application = arena.lure().unwrap();
    let source = application.local_addr().unwrap();
    let (tcp, _) = listener.accept().unwrap();
    let reason = case.of_server;
    let (ended, took) = timed(|| {
        if reason == TAKEN {
            let mut session = Session::as_server(tcp.try_clone().unwrap(), shown).unwrap();
            session.say(ALERT, &[1, 0]).unwrap();
            application.shutdown(Shutdown::Write).unwrap();
        } else {
            behave(&tcp, &mut session::server(shown, &Arc::default()).unwrap().into());
        }
        ending(&application)
    });
    let expected = if reason == TAKEN { Ending::Fin } else { Ending::Reset };
    Trial { name: case.name.to_owned(), source, reason, ends: Some((expected, ended)), took }
}

#[test]
fn a_server_is_known_by_its_certificate_alone_and_the_application_sees_a_reset_for_whatever_is_wrong() {
    let arena = Arena::new(&[]).unwrap();
    let listener = arena.ambush().unwrap();
    let forger = arena.forger().unwrap();
    for (row, cases) in CERTIFICATES {
        let before = arena.counts().unwrap();
        let trials: Vec<_> = cases
            .iter()
            .map(|case| ambush(&arena, &listener, case, Some(made(case, &forger).unwrap())))
            .collect();
        let longest = arena.judge(&before, &trials).unwrap();
        tell(&[row], "certificates of servers in the table", (trials.len(), longest));
    }
    somebody_else_is_refused_inside_the_stream(&arena, &listener);
    shown!("A9", "bytes that reached a server of another identity", 0, "exactly");
}

fn somebody_else_is_refused_inside_the_stream(arena: &Arena, listener: &TcpListener) {
    let forger = arena.forger().unwrap();
    let before = arena.counts().unwrap();
    let mut application = arena.lure().unwrap();
    let source = application.local_addr().unwrap();
    let (tcp, _) = listener.accept().unwrap();
    // What it says is for the one whom it dialled.
    application.write_all(b"secret").unwrap();
    let ((told, seen), took) = timed(|| {
        let other = Arc::new(forger.of("another").unwrap());
        (Session::as_server(tcp, other).unwrap().ending(), ending(&application))
    });
    assert_eq!(told, Ending::Alert(ACCESS_DENIED), "and not a byte before it");
    let name = "the right certificate of another".to_owned();
    let ends = Some((Ending::Reset, seen));
    arena.judge(&before, &[Trial { name, source, reason: "identity_mismatch", ends, took }]).unwrap();
}

fn tools(arena: &Arena) -> Tools {
    let good = Arc::new(arena.forger().unwrap().of(SERVICE_ACCOUNT).unwrap());
    Tools { hello: hello::good().unwrap(), good }
}

fn dial(arena: &Arena, tools: &Tools, row: &Dials) -> anyhow::Result<Trial> {
    let tcp = arena.attack()?;
    let source = tcp.local_addr()?;
    let (ended, took) = timed(|| (row.act)(tools, &tcp));
    let ends = Some((row.ends, ended.map_err(|error| error.context(row.name))?));
    Ok(Trial { name: row.name.to_owned(), source, reason: row.reason, ends, took })
}

#[test]
fn whatever_a_client_says_instead_of_a_handshake_ends_with_its_reason() {
    let arena = Arena::new(&[]).unwrap();
    arena.serve().unwrap();
    let tools = tools(&arena);
    for (rows, what, table) in [
        (&["A1", "A12"][..], "ways to speak no TLS", PLAINTEXT),
        (&["A10"], "clients of other versions and of sessions", VERSIONS),
        (&["A11"], "malformed, cut, huge and flooding clients", MALFORMED),
    ] {
        let before = arena.counts().unwrap();
        let trials = at_once(table, |row| dial(&arena, &tools, row)).unwrap();
        let longest = arena.judge(&before, &trials).unwrap();
        tell(rows, what, (trials.len(), longest));
    }
    a_hello_may_be_cut_anywhere(&arena, &tools);
}

/// At each position: nothing comes behind it, or the rest a moment later.
fn a_hello_may_be_cut_anywhere(arena: &Arena, tools: &Tools) {
    let wire = record(HANDSHAKE, &tools.hello);
    let before = arena.counts().unwrap();
    let cuts: Vec<_> = (1..wire.len()).flat_map(|cut| [(cut, false), (cut, true)]).collect();
    let answered = AtomicUsize::new(0);
    let trials = at_once(&cuts, |&(cut, whole)| {
        let tcp = arena.attack()?;
        let source = tcp.local_addr()?;
        tcp.set_nodelay(true)?;
        throw(&tcp, &wire[..cut]);
        if whole {
            thread::sleep(Duration::from_millis(1));
            throw(&tcp, &wire[cut..]);
        }
        tcp.shutdown(Shutdown::Write)?;
        let ((answer, ended), took) = timed(|| read_to_end(&tcp));
        answered.fetch_add(usize::from(answer.first() == Some(&HANDSHAKE)), Ordering::Relaxed);
        let name = format!("cut at {cut}, the rest: {whole}");
        Ok(Trial { name, source, reason: "handshake_eof", ends: Some((Ending::Reset, ended)), took })
    });
    let trials = trials.unwrap();
    let longest = arena.judge(&before, &trials).unwrap();
    assert_eq!(answered.into_inner(), wire.len() - 1, "hellos in two parts that were answered");
    tell(&["A11"], "hellos cut at each position, with and without the rest", (trials.len(), longest));
}

fn be_dialled(arena: &Arena, listener: &TcpListener, tools: &Tools, row: &Answers) -> Trial {
    let application = arena.lure().unwrap();
    let source = application.local_addr().unwrap();
    let (tcp, _) = listener.accept().unwrap();
    let (ended, took) = timed(|| {
        (row.act)(tools, &tcp).unwrap();
        ending(&application)
    });
    Trial { name: row.name.to_owned(), source, reason: row.reason, ends: Some((row.ends, ended)), took }
}

#[test]
fn whatever_a_server_answers_instead_of_a_handshake_ends_with_its_reason() {
    let arena = Arena::new(&[]).unwrap();
    let listener = arena.ambush().unwrap();
    let tools = tools(&arena);
    let before = arena.counts().unwrap();
    let rows = ANSWERS.iter().filter(|row| holds_of_this_layer(row.name));
    let trials: Vec<_> = rows.map(|row| be_dialled(&arena, &listener, &tools, row)).collect();
    let longest = arena.judge(&before, &trials).unwrap();
    tell(&["A10", "A11", "A12"], "hostile servers", (trials.len(), longest));
}

fn client_says(arena: &Arena, tools: &Tools, row: &Says) -> anyhow::Result<Trial> {
    let tcp = arena.attack()?;
    let source = tcp.local_addr()?;
    let (ended, took) = timed(|| {
        let mut session = Session::as_client(tcp, Some(Arc::clone(&tools.good)))?;
        session.settle()?;
        (row.act)(&mut session).map(|()| session.ending())
    });
    let expected = ends_on_this_layer(row.name, row.ends);
    let ends = Some((expected, ended.map_err(|error| error.context(row.name))?));
    Ok(Trial { name: row.name.to_owned(), source, reason: row.reason, ends, took })
}

fn server_says(arena: &Arena, listener: &TcpListener, tools: &Tools, row: &Says) -> Trial {
    let application = arena.lure().unwrap();
    let source = application.local_addr().unwrap();
    let (tcp, _) = listener.accept().unwrap();
    let ((told, seen), took) = timed(|| {
        let mut session = Session::as_server(tcp, Arc::clone(&tools.good)).unwrap();
        (row.act)(&mut session).unwrap();
        if row.reason == TAKEN {
            application.shutdown(Shutdown::Write).unwrap();
        }
        (session.ending(), ending(&application))
    });
    let sees = if row.reason == TAKEN { Ending::Fin } else { Ending::Reset };
    assert_eq!(seen, sees, "{}: what the application sees", row.name);
    Trial {
        name: row.name.to_owned(),
        source,
        reason: row.reason,
        ends: Some((ends_on_this_layer(row.name, row.ends), told)),
        took,
    }
}

#[test]
fn whatever_a_peer_says_after_a_good_handshake_is_refused_with_its_alert_and_floods_end() {
    let arena = Arena::new(&[]).unwrap();
    arena.serve().unwrap();
    let listener = arena.ambush().unwrap();
    let tools = tools(&arena);
    let before = arena.counts().unwrap();
    let mut trials = Vec::new();
    let holds = |row: &&Says| holds_of_this_layer(row.name);
    for row in records::OF_BOTH.iter().chain(records::OF_CLIENTS).filter(holds) {
        trials.push(client_says(&arena, &tools, row).unwrap());
    }
    for row in records::OF_BOTH.iter().chain(records::OF_SERVERS).filter(holds) {
        trials.push(server_says(&arena, &listener, &tools, row));
    }
    let longest = arena.judge(&before, &trials).unwrap();
    tell(&["A11"], "records after a good handshake, of either side", (trials.len(), longest));
}

/// A connection of the neighbour to the victim's application, through both sidecars.
fn good_client(arena: &Arena) -> TcpStream {
    let to = SocketAddr::new(arena.pod(VICTIM).unwrap().ip(), OWN_PORT);
    wire::connect(arena.pod(NEIGHBOUR).unwrap().namespace(), to).unwrap()
}

#[test]
fn tls_inside_of_the_stream_is_carried_as_bytes() {
    let arena = Arena::new(&[]).unwrap();
    arena.serve().unwrap();
    let mut inner = good_client(&arena);
    let nested =
        [record(HANDSHAKE, &hello::good().unwrap()), hello::of_version(3), hello::of_ssl_2()].concat();
    inner.write_all(&nested).unwrap();
    let mut echoed = vec![0; nested.len()];
    inner.read_exact(&mut echoed).unwrap();
    assert_eq!(echoed, nested);
    shown!("A12", "bytes of nested TLS that came back changed", 0, "exactly");
}

/// More than one source may have in a handshake, and less than all together.
const BEGUN: usize = 200;

#[test]
fn hellos_without_an_end_from_one_source_take_no_turn_from_another() {
    let arena = Arena::new(&[]).unwrap();
    arena.serve().unwrap();
    let tools = tools(&arena);
    let begun: Vec<_> = (0..BEGUN)
        .map(|_| {
            let tcp = arena.attack().unwrap();
            throw(&tcp, &record(HANDSHAKE, &tools.hello)[..6]);
            tcp
        })
        .collect();
    thread::sleep(Duration::from_millis(200));
    let ((), took) = timed(|| {
        let mut good = good_client(&arena);
        good.write_all(b"good").unwrap();
        good.read_exact(&mut [0; 4]).unwrap();
    });
    let ends: Vec<_> = begun.iter().map(|tcp| read_to_end(tcp).1).collect();
    assert!(!ends.contains(&Ending::Open), "left open");
    assert!(took < Duration::from_secs(1), "half of the deadline that the others wait for: {took:?}");
    shown!(
        "A11",
        format!("handshake beside {BEGUN} of another source that say six bytes, ms"),
        took.as_millis(),
        "<= 1000"
    );
}
