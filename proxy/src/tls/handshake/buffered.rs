//! The handshake by rustls's buffered stream: the reference.

use std::{
    future::{Future, poll_fn},
    io,
    pin::pin,
    sync::Arc,
};

use rustls::{ClientConfig, CommonState, ServerConfig, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::{
    super::{
        reference::{Prefixed, ReferenceStream},
        stream::{Agreed, Layer},
        verifier::take_verdict,
    },
    Broken, Shaken,
    unbuffered::Failure,
};

/// Bytes that TLS may keep unsent per connection before the other leg is no longer read: four full
/// records. More only adds memory under a slow reader.
const TLS_SEND_BUFFER: usize = 64 * 1024;

pub(super) async fn accept(
    tcp: TcpStream,
    prefix: Vec<u8>,
    config: Arc<ServerConfig>,
) -> Result<Shaken, Broken> {
    let socket = Prefixed::new(prefix, tcp);
    let limit = |session: &mut rustls::ServerConnection| session.set_buffer_limit(Some(TLS_SEND_BUFFER));
    watched(TlsAcceptor::from(config).accept_with(socket, limit).into_fallible(), TlsStream::Server).await
}

pub(super) async fn connect(
    tcp: TcpStream,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
) -> Result<Shaken, Broken> {
    let socket = Prefixed::new(Vec::new(), tcp);
    let limit = |session: &mut rustls::ClientConnection| session.set_buffer_limit(Some(TLS_SEND_BUFFER));
    let connecting = TlsConnector::from(config).connect_with(name, socket, limit);
    watched(connecting.into_fallible(), TlsStream::Client).await
}

async fn watched<S>(
    handshake: impl Future<Output = Result<S, (io::Error, Prefixed)>>,
    wrap: impl FnOnce(S) -> TlsStream<Prefixed>,
) -> Result<Shaken, Broken> {
    let mut handshake = pin!(handshake);
    let mut verdict = None;
    let shaken = poll_fn(|cx| {
        let polled = handshake.as_mut().poll(cx);
        if let Some(fresh) = take_verdict() {
            verdict = Some(fresh);
        }
        polled
    });
    match shaken.await {
        Ok(stream) => {
            let stream = wrap(stream);
            let agreed = agreed(stream.get_ref().1);
            Ok(Shaken { layer: Layer::Reference(Box::new(ReferenceStream::new(stream))), agreed, verdict })
        }
        Err((error, socket)) => {
            Err((Failure { error, is_tls: socket.begins_as_tls(), verdict }, socket.into_inner()))
        }
    }
}

fn agreed(session: &CommonState) -> Agreed {
    Agreed {
        suite: session.negotiated_cipher_suite().map(|suite| suite.suite()),
        group: session.negotiated_key_exchange_group().map(|group| group.name()),
    }
}
