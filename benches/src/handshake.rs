//! What a resumed session would save: handshakes in memory, both sides on one core, full and resumed alternately.
//!
//! The proxy makes a full handshake for each connection: a resumed one would outlive the certificate and the bundle it
//! was verified under. This tells what that costs. Every chain is verified anew here; the proxy remembers for a while.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use nix::time::{ClockId, clock_gettime};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::client::{ClientSessionMemoryCache, Resumption};
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig, ServerConnection};

/// The name in the leaf and in the request for it: rustls's own verifiers know no SPIFFE.
const NAME: &str = "bench.ignite";

/// Sessions that both sides keep: one is used at a time.
const SESSIONS: usize = 16;

/// Records and alerts of one handshake, with room.
const FLIGHT: usize = 1 << 16;

/// Key exchanges, by the names of the field.
pub const EXCHANGES: [(&str, &'static dyn SupportedKxGroup); 3] = [
    ("X25519", kx_group::X25519),
    ("secp256r1", kx_group::SECP256R1),
    ("X25519MLKEM768", kx_group::X25519MLKEM768),
];

/// How much is measured.
#[derive(Clone, Copy, Debug, Args)]
pub struct HandshakeArguments {
    /// Rounds; each measures every kind once.
    #[arg(long, default_value_t = 15)]
    pub rounds: usize,
    /// Handshakes of each kind in a round.
    #[arg(long, default_value_t = 200)]
    pub handshakes: u32,
}

/// Microseconds of CPU for both sides of one handshake by one key exchange: one value for each round.
#[derive(Clone, Debug, Default)]
pub struct Costs {
    /// With certificates.
    pub full: Vec<f64>,
    /// By a ticket of the connection before.
    pub resumed: Vec<f64>,
}

/// Measures and prints a line for each key exchange.
///
/// # Errors
/// When a handshake fails, or is not of the kind that was meant.
pub fn handshake(arguments: &HandshakeArguments) -> Result<()> {
    println!(
        "microseconds of CPU for both sides of a mutual handshake with P-256, medians of {}",
        arguments.rounds
    );
    for (name, group) in EXCHANGES {
        println!("{name}: {}", measure(group, arguments)?);
    }
    Ok(())
}

/// Both kinds by `group`, alternately.
///
/// # Errors
/// As [`handshake`].
pub fn measure(group: &'static dyn SupportedKxGroup, arguments: &HandshakeArguments) -> Result<Costs> {
    ensure!(arguments.rounds > 0 && arguments.handshakes > 0, "expected at least one round of one handshake");
    let (full, resuming) = (Sides::new(group, false)?, Sides::new(group, true)?);
    // The first leaves the ticket for the second.
    resuming.shake()?;
    let mut costs = Costs::default();
    for _ in 0..arguments.rounds {
        costs.full.push(full.cost(arguments.handshakes, HandshakeKind::Full)?);
        costs.resumed.push(resuming.cost(arguments.handshakes, HandshakeKind::Resumed)?);
    }
    Ok(costs)
}

impl fmt::Display for Costs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ratios: Vec<f64> =
            self.resumed.iter().zip(&self.full).map(|(resumed, full)| resumed / full).collect();
        let [full, resumed, ratio] = [&self.full, &self.resumed, &ratios].map(|values| Middle::of(values));
        write!(f, "full {full:.0}, resumed {resumed:.0}, ratio {ratio:.2}")
    }
}

/// A median with its extremes.
struct Middle(f64, f64, f64);

impl Middle {
    fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        Self(at(sorted.len() / 2), at(0), at(sorted.len().saturating_sub(1)))
    }
}

impl fmt::Display for Middle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(1);
        let Self(median, least, most) = self;
        write!(f, "{median:.digits$} ({least:.digits$} to {most:.digits$})")
    }
}

/// A client and a server that know each other.
struct Sides {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    name: ServerName<'static>,
}

impl Sides {
    fn new(group: &'static dyn SupportedKxGroup, resumes: bool) -> Result<Self> {
        let provider = Arc::new(CryptoProvider { kx_groups: vec![group], ..default_provider() });
        let (roots, chain, key) = identity()?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier.build()?)
            .with_single_cert(chain.clone(), key.clone_key().into())?;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key.into())?;
        if resumes {
            server.session_storage = ServerSessionMemoryCache::new(SESSIONS);
            server.send_tls13_tickets = 1;
            client.resumption = Resumption::store(Arc::new(ClientSessionMemoryCache::new(SESSIONS)));
        } else {
            server.session_storage = Arc::new(NoServerSessionStorage {});
            server.send_tls13_tickets = 0;
            client.resumption = Resumption::disabled();
        }
        Ok(Self { client: client.into(), server: server.into(), name: NAME.try_into()? })
    }

    /// Microseconds of CPU of each of so many handshakes.
    fn cost(&self, handshakes: u32, kind: HandshakeKind) -> Result<f64> {
        let before = cpu_time()?;
        for _ in 0..handshakes {
            let made = self.shake()?;
            ensure!(made == kind, "expected a handshake of the kind {kind:?}, got {made:?}");
        }
        Ok((cpu_time()? - before).as_secs_f64() * 1e6 / f64::from(handshakes))
    }

    fn shake(&self) -> Result<HandshakeKind> {
        let mut client = ClientConnection::new(Arc::clone(&self.client), self.name.clone())?;
        let mut server = ServerConnection::new(Arc::clone(&self.server))?;
        let mut flight = Vec::with_capacity(FLIGHT);
        while client.wants_write() || server.wants_write() {
            flight.clear();
            while client.wants_write() {
                client.write_tls(&mut flight)?;
            }
            read(&mut server, &flight)?;
            flight.clear();
            while server.wants_write() {
                server.write_tls(&mut flight)?;
            }
            read(&mut client, &flight)?;
        }
        ensure!(!client.is_handshaking() && !server.is_handshaking(), "a handshake came to no end");
        client.handshake_kind().context("a handshake of no kind")
    }
}

fn read<Data>(
    side: &mut impl std::ops::DerefMut<Target = rustls::ConnectionCommon<Data>>,
    flight: &[u8],
) -> Result<()> {
    let mut rest = flight;
    while !rest.is_empty() {
        side.read_tls(&mut rest)?;
        side.process_new_packets()?;
    }
    Ok(())
}

/// CPU time of this thread.
fn cpu_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// A root, and a chain of one leaf with its key.
fn identity() -> Result<(Arc<RootCertStore>, Vec<CertificateDer<'static>>, PrivatePkcs8KeyDer<'static>)> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::DnsName(NAME.try_into()?)];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let leaf = params.signed_by(&key, &root)?;
    let mut roots = RootCertStore::empty();
    roots.add(root.der().clone())?;
    Ok((Arc::new(roots), vec![leaf.der().clone()], key.serialize_der().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resumed_handshake_is_one_and_costs_less_than_a_full_one() {
        let costs = measure(kx_group::X25519, &HandshakeArguments { rounds: 3, handshakes: 20 }).unwrap();
        let Middle(full, ..) = Middle::of(&costs.full);
        let Middle(resumed, ..) = Middle::of(&costs.resumed);
        assert!(0.0 < resumed && resumed < full, "{costs}");
    }

    #[test]
    fn nothing_is_no_measurement() {
        let error = measure(kx_group::X25519, &HandshakeArguments { rounds: 0, handshakes: 1 }).unwrap_err();
        assert_eq!(error.to_string(), "expected at least one round of one handshake");
    }
}
