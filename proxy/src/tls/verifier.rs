//! The SPIFFE rules in the shape rustls asks for.
//!
//! rustls wants a yes or no; the data plane also needs to know *who* was verified, under which root,
//! or which rule refused the peer. A handshake is polled on one thread and never re-entered, so the
//! verifier leaves its verdict in a slot of that thread and the poll that called it picks it up at
//! once: see [`take_verdict`].

use std::{cell::RefCell, sync::Arc};

use ringmail_identity::{PeerError, TrustBundle, Usage, VerifiedPeer};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};

use super::known_chains::KnownChains;

thread_local! {
    static VERDICT: RefCell<Option<Result<VerifiedPeer, PeerError>>> = const { RefCell::new(None) };
}

/// The verdict of the verification that ran inside the handshake poll that just returned, if one ran.
pub(super) fn take_verdict() -> Option<Result<VerifiedPeer, PeerError>> {
    VERDICT.with_borrow_mut(Option::take)
}

/// Verifies peers of both sides under one trust bundle.
#[derive(Debug)]
pub(super) struct PeerVerifier {
    bundle: Arc<TrustBundle>,
    known: KnownChains,
    algorithms: WebPkiSupportedAlgorithms,
}

impl PeerVerifier {
    pub(super) fn new(bundle: Arc<TrustBundle>, provider: &CryptoProvider) -> Self {
        Self { bundle, known: KnownChains::default(), algorithms: provider.signature_verification_algorithms }
    }

    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        usage: Usage,
        now: UnixTime,
    ) -> Result<(), Error> {
        let chain: Vec<_> = std::iter::once(end_entity)
            .chain(intermediates)
            .map(|der| CertificateDer::from(der.as_ref()))
            .collect();
        let verdict = match self.known.find(&chain, usage, now) {
            Some(peer) => Ok(peer),
            None => self.bundle.verify(&chain, usage, now).inspect(|peer| {
                self.known.remember(&chain, usage, peer, now);
            }),
        };
        let answer = match &verdict {
            Ok(_) => Ok(()),
            Err(error) => {
                let cause = OtherError(Arc::new(Refused(error.to_string())));
                Err(Error::InvalidCertificate(CertificateError::Other(cause)))
            }
        };
        VERDICT.with_borrow_mut(|slot| *slot = Some(verdict));
        answer
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // A hint would tell every stranger the names of the roots, and every peer has one certificate only.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(end_entity, intermediates, Usage::Client, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls12_is_not_spoken())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for PeerVerifier {
    /// The name is not looked at: a workload's identity is its URI SAN alone, and the handshake's
    /// caller compares it with what discovery said.
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(end_entity, intermediates, Usage::Server, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls12_is_not_spoken())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn tls12_is_not_spoken() -> Error {
    Error::General("a tls 1.2 signature in a tls 1.3 handshake".to_owned())
}
