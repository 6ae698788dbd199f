use std::convert::Infallible;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use hyper::body::{Bytes, Frame};
use hyper::client::conn::http2 as client;
use nix::sys::socket::{setsockopt, sockopt};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{PrivateKeyDer, ServerName};
use tokio_rustls::TlsConnector;

use super::*;

/// What the kernel holds for each end: as little as it lets, so that what waits does so in the program.
const SOCKET_BYTES: usize = 1;
const FRAME: usize = 1024;
/// The 64 KiB of HTTP/2, and on the way of them what a record, its frames and the kernel hold: 38 KiB were seen.
const BUFFERED: RangeInclusive<usize> = 64 * 1024..=144 * 1024;
const WIDE: u32 = 1 << 30;
/// Longer than any step on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Answers everything with a body that has no end, and counts what it was asked for of it.
#[derive(Default)]
struct Endless {
    given: Arc<AtomicUsize>,
}

struct EndlessBody(Arc<AtomicUsize>);

impl Body for EndlessBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.fetch_add(FRAME, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[7; FRAME])))))
    }
}

impl Answers for Endless {
    type Body = EndlessBody;

    async fn answer(&self, _: Request<Incoming>, visit: Visit) -> Response<EndlessBody> {
        drop(visit.busy);
        Response::new(EndlessBody(Arc::clone(&self.given)))
    }
}

/// A door on a socket of this machine.
struct Fixture {
    address: SocketAddr,
    connector: TlsConnector,
    /// What its answers were asked to give.
    given: Arc<AtomicUsize>,
    _ending: watch::Sender<bool>,
}

impl Fixture {
    async fn open() -> Self {
        let ours = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = ours.cert.der().clone();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], PrivateKeyDer::from(ours.signing_key))
            .unwrap();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.alpn_protocols = vec![b"h2".to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        setsockopt(&listener, sockopt::SndBuf, &SOCKET_BYTES).unwrap();
        let (address, answers) = (listener.local_addr().unwrap(), Arc::new(Endless::default()));
        let given = Arc::clone(&answers.given);
        let door = Arc::new(Door {
            answers,
            limits: Arc::new(ConnectionLimits::new(9, 9, Source::Address)),
            deadlines: Deadlines { handshake: PATIENCE, idle: PATIENCE, grace: PATIENCE },
            streams: 9,
            metrics: DoorMetrics::register(&prometheus::Registry::new(), "door").unwrap(),
        });
        let (ending, shutdown) = watch::channel(false);
        tokio::spawn(door.run(listener, Arc::new(tls), shutdown));
        Self { address, connector: TlsConnector::from(Arc::new(client)), given, _ending: ending }
    }

    async fn connect(&self) -> TokioIo<tokio_rustls::client::TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        setsockopt(&stream, sockopt::RcvBuf, &SOCKET_BYTES).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TokioIo::new(self.connector.connect(name, stream).await.unwrap())
    }

    /// What its answers were asked to give, once that is no more than a moment ago.
    async fn given(&self) -> usize {
        let mut before = 0;
        loop {
            sleep(Duration::from_millis(300)).await;
            match self.given.load(Ordering::Relaxed) {
                now if now == before && now > 0 => return now,
                now => before = now,
            }
        }
    }
}

#[tokio::test]
async fn what_waits_for_a_client_that_does_not_read_has_64_kib_at_most() {
    let fixture = Fixture::open().await;
    let mut builder = client::Builder::new(TokioExecutor::new());
    // It is the door that bounds what waits, and not this client.
    builder.initial_stream_window_size(WIDE).initial_connection_window_size(WIDE);
    let (mut sender, connection) = builder.handshake(fixture.connect().await).await.unwrap();
    let mut connection = pin!(connection);
    let request = Request::builder().uri("https://localhost/").body(String::new()).unwrap();
    tokio::select! {
        answer = sender.send_request(request) => assert!(answer.is_ok(), "{answer:?}"),
        end = &mut connection => panic!("the connection is over: {end:?}"),
    }
    let given = fixture.given().await;
    assert!(BUFFERED.contains(&given), "{given} of {BUFFERED:?}");
}
