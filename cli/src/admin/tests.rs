//! The admin client against a server that says what it should, and what it should not.

use std::net::TcpListener;
use std::thread;

use serde_json::Value;

use super::*;

/// Answers one connection with these bytes, and returns the address and what was asked.
fn serve(answer: &'static [u8]) -> (String, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = [0; 1024];
        let read = stream.read(&mut asked).unwrap();
        stream.write_all(answer).unwrap();
        String::from_utf8_lossy(&asked[..read]).into_owned()
    });
    (address, server)
}

fn asked_of(answer: &'static [u8]) -> Result<Value, AdminError> {
    let (address, server) = serve(answer);
    let read = get_json(&address, "/certs");
    server.join().unwrap();
    read
}

#[test]
fn an_answer_is_read_with_and_without_its_length() {
    let (address, server) = serve(b"HTTP/1.0 200 OK\r\nContent-Length: 8\r\n\r\n{\"a\": 1}");
    let value: Value = get_json(&address, "/certs").unwrap();
    assert_eq!(value["a"], 1);
    assert!(server.join().unwrap().starts_with("GET /certs HTTP/1.0\r\nHost: 127.0.0.1:"));
    assert_eq!(asked_of(b"HTTP/1.1 200 OK\r\n\r\n[2]").unwrap()[0], 2);
}

#[test]
fn a_wrong_answer_names_the_address_and_what_was_read() {
    for (answer, expected) in [
        (&b"HTTP/1.1 404 Not Found\r\n\r\nno such page"[..], "answered 404 Not Found: \"no such page\""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[1]", "ended after 3 of 9 bytes"),
        (b"HTTP/1.1 200 OK\r\n\r\n[1", "expected the JSON"),
        (b"SSH-2.0-OpenSSH\r\n", "read \"SSH-2.0-OpenSSH\", expected an answer over HTTP"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "expected an answer over HTTP"),
        (b"", "read nothing"),
    ] {
        let error = asked_of(answer).unwrap_err().to_string();
        assert!(error.starts_with("http://127.0.0.1:"), "{error}");
        assert!(error.contains("/certs: ") && error.contains(expected), "{error}");
    }
}

#[test]
fn nobody_there_is_told_with_a_hint() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let error = get_json::<Value>(&address, "/certs").unwrap_err().to_string();
    assert!(error.contains("cannot connect") && error.contains("loopback of its pod"), "{error}");
}

#[test]
fn an_address_that_is_none_is_told_as_it_was_given() {
    let error = get_json::<Value>("here:there", "/certs").unwrap_err().to_string();
    assert!(error.starts_with("admin address \"here:there\": "), "{error}");
}

#[test]
fn the_port_of_the_admin_endpoint_is_the_default() {
    for (given, expected) in [
        ("127.0.0.1", "127.0.0.1:15000"),
        ("127.0.0.1:1", "127.0.0.1:1"),
        ("localhost", "localhost:15000"),
        ("localhost:1", "localhost:1"),
        ("::1", "[::1]:15000"),
        ("[::1]", "[::1]:15000"),
        ("[::1]:1", "[::1]:1"),
        ("http://127.0.0.1:1/", "127.0.0.1:1"),
    ] {
        assert_eq!(with_port(given), expected, "{given}");
    }
}
