use super::*;

fn record(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [&[kind, 3, 3], &length[..], payload].concat()
}

fn protected(length: usize) -> Vec<u8> {
    record(PROTECTED, &vec![0xab; length])
}

/// A hello with the given extensions after 2 + 32 + 1 bytes and the fields of its side.
fn hello_message(side: Hello, extensions: &[u8]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.push(0);
    body.extend(match side {
        Hello::Client => vec![0, 2, 0x13, 0x01, 1, 0],
        Hello::Server => vec![0x13, 0x01, 0],
    });
    body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend(extensions);
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[side.message_type()], &length[1..], &body].concat()
}

fn client_hello() -> Vec<u8> {
    record(HANDSHAKE, &hello_message(Hello::Client, &[0, 0, 0, 0, 0, 43, 0, 5, 4, 3, 3, 3, 4]))
}

fn server_hello() -> Vec<u8> {
    record(HANDSHAKE, &hello_message(Hello::Server, &[0, 43, 0, 2, 3, 4]))
}

fn spec() -> Vec<u8> {
    record(CHANGE_CIPHER_SPEC, &[1])
}

fn client(records: &[Vec<u8>]) -> Result<RecordCounts, (usize, Fault)> {
    read(&records.concat(), Hello::Client)
}

fn read(bytes: &[u8], side: Hello) -> Result<RecordCounts, (usize, Fault)> {
    records(&Stream { bytes: bytes.to_vec(), ..Stream::default() }, side)
}

#[test]
fn both_sides_of_a_handshake_and_its_data_are_tls13() {
    let counts = client(&[client_hello(), spec(), protected(53), protected(LARGEST_PROTECTED)]).unwrap();
    assert_eq!((counts.hellos, counts.change_cipher_specs, counts.protected, counts.cut), (1, 1, 2, 0));
    let counts = read(&[server_hello(), spec(), protected(900)].concat(), Hello::Server).unwrap();
    assert_eq!((counts.hellos, counts.protected), (1, 1));
}

#[test]
fn a_retry_a_hello_in_two_records_a_refusal_and_a_cut_end_are_tls13() {
    let message = hello_message(Hello::Client, &[0, 43, 0, 3, 2, 3, 4]);
    let (one, two) = message.split_at(20);
    let mut old = client_hello();
    old[2] = 1;
    for (case, records) in [
        ("retry", vec![client_hello(), spec(), client_hello(), protected(40)]),
        ("two records", vec![record(HANDSHAKE, one), record(HANDSHAKE, two), protected(40)]),
        ("refusal", vec![client_hello(), record(ALERT, &[2, 48])]),
        ("older version of the first record", vec![old, protected(40)]),
        ("cut in a payload", vec![client_hello(), protected(40), protected(40)[..20].to_vec()]),
        ("cut in a header", vec![client_hello(), protected(40), vec![PROTECTED, 3]]),
        ("nothing", vec![]),
    ] {
        assert!(client(&records).is_ok(), "{case}: {:?}", client(&records));
    }
}

#[test]
fn anything_else_is_found_at_its_place() {
    let start = client_hello().len();
    let bad_hello = record(HANDSHAKE, &hello_message(Hello::Client, &[0, 43, 0, 3, 2, 3, 3]));
    let none = record(HANDSHAKE, &hello_message(Hello::Client, &[]));
    for (case, records, expected) in [
        ("plaintext", vec![b"\0\0GG".to_vec()], (0, Fault::NoRecord)),
        (
            "one byte between records",
            vec![client_hello(), protected(40), vec![0], protected(40)],
            (start + 45, Fault::NoRecord),
        ),
        (
            "one byte at the end",
            vec![client_hello(), protected(40), vec![0xff]],
            (start + 45, Fault::NoRecord),
        ),
        (
            "plaintext that looks like a type",
            vec![client_hello(), vec![0x16, 0, 0]],
            (start, Fault::NoRecord),
        ),
        ("data without a hello", vec![protected(40)], (0, Fault::NoTls13Hello)),
        ("tls 1.2 alone", vec![bad_hello], (0, Fault::NoTls13Hello)),
        ("no versions", vec![none], (0, Fault::NoTls13Hello)),
        ("the other side's hello", vec![server_hello()], (0, Fault::NoTls13Hello)),
        (
            "a clear handshake after data",
            vec![client_hello(), protected(40), client_hello()],
            (start + 45, Fault::ClearAfterProtected),
        ),
        (
            "a clear alert after data",
            vec![client_hello(), protected(40), record(ALERT, &[1, 0])],
            (start + 45, Fault::ClearAfterProtected),
        ),
        (
            "data after a refusal",
            vec![client_hello(), record(ALERT, &[2, 48]), protected(40)],
            (start + 7, Fault::NoTls13Hello),
        ),
        (
            "a certificate in the clear",
            vec![client_hello(), record(HANDSHAKE, &[11, 0, 0, 1, 0])],
            (start, Fault::NoTls13Hello),
        ),
        ("too short", vec![client_hello(), protected(16)], (start, Fault::Length)),
        ("too long", vec![client_hello(), protected(LARGEST_PROTECTED + 1)], (start, Fault::Length)),
        ("another spec", vec![client_hello(), record(CHANGE_CIPHER_SPEC, &[2])], (start, Fault::NoRecord)),
    ] {
        assert_eq!(client(&records), Err(expected), "{case}");
    }
}

#[test]
fn a_hole_is_never_clean() {
    let bytes = [client_hello(), protected(40)].concat();
    let length = bytes.len();
    let stream = Stream { bytes, incomplete: true, ..Stream::default() };
    assert_eq!(records(&stream, Hello::Client), Err((length, Fault::Unseen)));
}

#[test]
fn a_stream_joined_in_its_middle_must_go_on_in_records() {
    let whole = [vec![0x55; 300], protected(40), protected(90), protected(20)].concat();
    let joined = |bytes: &[u8]| {
        records(&Stream { bytes: bytes.to_vec(), mid_stream: true, ..Stream::default() }, Hello::Client)
    };
    let counts = joined(&whole).unwrap();
    assert_eq!((counts.before_join, counts.protected), (300, 3));
    assert_eq!(joined(&whole[..whole.len() - 10]).unwrap().protected, 2, "cut at the end as well");
    assert_eq!(joined(&[0x55; 900]), Err((0, Fault::NoPlaceToJoin)));
    let tail = [whole.clone(), b"plain".to_vec()].concat();
    assert_eq!(joined(&tail), Err((whole.len(), Fault::NoRecord)));
    assert_eq!(joined(&[client_hello(), protected(40)].concat()).unwrap().hellos, 1, "joined at its hello");
}

#[test]
fn a_judgement_names_the_offender_and_counts_the_rest() {
    let conversation = |client: &[u8], server: &[u8]| Conversation {
        client: "10.77.0.1:4000".parse().unwrap(),
        server: "10.77.0.2:47500".parse().unwrap(),
        to_server: Stream { bytes: client.to_vec(), ..Stream::default() },
        to_client: Stream { bytes: server.to_vec(), ..Stream::default() },
        reset: false,
    };
    let clean =
        conversation(&[client_hello(), protected(40)].concat(), &[server_hello(), protected(40)].concat());
    let judged = judge([&clean, &conversation(b"", b"")]);
    assert!(judged.is_tls13_only());
    assert_eq!((judged.conversations, judged.empty, judged.counts.protected), (1, 1, 2));
    let judged = judge([&clean, &conversation(b"\0\0GG\xac\xed", b"")]);
    assert!(!judged.is_tls13_only());
    assert_eq!(
        judged.offenders[0].to_string(),
        "10.77.0.1:4000 -> 10.77.0.2:47500: no tls record in the client's stream at byte 0: 00 00 47 47 ac ed"
    );
    assert!(!judge([]).is_tls13_only(), "nothing seen is nothing shown");
}
