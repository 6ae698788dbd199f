//! Who a workload is, and whose word is taken for it.
//!
//! The proxy and the certificate authority must agree byte for byte on one set of rules: what a SPIFFE
//! ID looks like, which leaf certificate may carry one, and which roots vouch for it. Those rules live
//! here, without sockets and without a clock: the time is always an argument.
//!
//! PEM comes in as bytes. The errors say which block is at fault and why; the file's name is known to
//! the caller alone, who puts it in front.

#![forbid(unsafe_code)]

mod bundle;
mod grammar;
mod key_algorithm;
mod leaf;
mod peer_error;
mod peer_reason;
mod pem;
mod private_key;
mod spiffe_id;
mod svid;
mod text;
mod trust_domain;
mod verify;

pub use bundle::{BundleError, MAX_ROOTS, Root, RootId, TrustBundle};
pub use grammar::{IdError, IdFault, MAX_SPIFFE_ID_LEN, MAX_TRUST_DOMAIN_LEN};
pub use key_algorithm::{KeyAlgorithm, KeyAlgorithmError, MAX_RSA_BITS, MIN_RSA_BITS};
pub use leaf::LeafError;
pub use peer_error::{ChainLimit, PeerError};
pub use peer_reason::PeerReason;
pub use pem::{PemError, pem_fault};
pub use private_key::{KeyError, PrivateKey};
pub use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
pub use spiffe_id::SpiffeId;
pub use svid::{Svid, SvidError};
pub use trust_domain::TrustDomain;
pub use verify::{MAX_CERTIFICATE_LEN, MAX_CHAIN_LEN, Usage, VerifiedPeer};

/// The wall clock's time, for callers that verify against the present.
pub fn now() -> UnixTime {
    UnixTime::now()
}
