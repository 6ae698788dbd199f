use tokio::net::TcpListener;

use super::*;

/// Where a connect is not answered: a listener whose backlog is full, with what fills it.
fn unanswering() -> (socket2::Socket, Vec<socket2::Socket>, SocketAddr) {
    use socket2::{Domain, SockAddr, Socket, Type};
    let socket = || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let listener = socket();
    listener.bind(&SockAddr::from(SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let fill = |_| {
        let client = socket();
        client.set_nonblocking(true).unwrap();
        let _ = client.connect(&address);
        client
    };
    let clients = (0..4).map(fill).collect();
    (listener, clients, address.as_socket().unwrap())
}

#[tokio::test]
async fn an_address_that_does_not_answer_leaves_time_for_the_others() {
    let (_listener, _clients, silent) = unanswering();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let good = listener.local_addr().unwrap();
    let within = ADDRESS_SHARE_MIN * 2;
    for addresses in [[silent, good], [good, silent]] {
        let stream = dial_any(&addresses, Instant::now() + within, 0.0).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good);
    }
    let error = dial_any(&[silent], Instant::now() + within / 2, 0.0).await.unwrap_err();
    assert_eq!(error.to_string(), format!("no answer of {silent} within 1.0 s"));
    assert!(dial_any(&[], Instant::now() + within, 0.0).await.is_err());
}

#[tokio::test]
async fn each_address_is_the_first_for_some() {
    let listeners = [TcpListener::bind("127.0.0.1:0").await, TcpListener::bind("127.0.0.1:0").await];
    let addresses = listeners.each_ref().map(|listener| listener.as_ref().unwrap().local_addr().unwrap());
    for (random, first) in [(0.0, 0), (0.49, 0), (0.5, 1), (0.99, 1), (1.0, 0)] {
        let stream = dial_any(&addresses, Instant::now() + CONNECT_DEADLINE, random).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), addresses[first], "{random}");
    }
}
