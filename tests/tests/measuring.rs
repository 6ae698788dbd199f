//! What scenarios measure with, measured itself: an instrument that cannot tell right from wrong proves nothing.

use std::net::{TcpListener, TcpStream};

use ringmail_tests::{
    said,
    streams::{receive, send},
};

#[test]
fn series_are_summed_by_name_and_labels() {
    let text = "a_total{reason=\"x\",direction=\"inbound\"} 2\n\
                a_total{reason=\"y\",direction=\"inbound\"} 4\n\
                a_total_more{reason=\"x\"} 8\nb 16\n";
    assert_eq!(said::sum(text, "a_total", &["reason=\"x\""]), 2.0);
    assert_eq!(said::sum(text, "a_total", &[]), 6.0);
    assert_eq!(said::sum(text, "b", &[]), 16.0);
}

#[test]
fn what_is_sent_is_what_is_expected_and_another_seed_is_not() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    for (expected_seed, equal) in [(7, true), (8, false)] {
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        let sender = std::thread::spawn(move || send(&near, 7, 1_000_001));
        assert_eq!(receive(&far, expected_seed).unwrap(), (1_000_001, equal));
        sender.join().unwrap().unwrap();
    }
}
