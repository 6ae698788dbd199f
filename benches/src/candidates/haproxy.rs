//! HAProxy: one listener per pod, which dials where the captured connection was going.

use std::fmt::Write;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use ringmail_lab::sidecar::{INBOUND_PORT, OUTBOUND_PORT};

use super::certificates::{Authority, Identity, Naming};
use super::start::{Ground, Started};

/// Whether and how it speaks TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tls {
    /// Not at all.
    Off,
    /// X25519, and no session is resumed.
    FullHandshakes,
    /// What it does by itself: sessions are resumed.
    Defaults,
}

/// Which of the two proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Outbound,
    Inbound,
}

pub(super) fn start(ground: &Ground<'_>, tls: Tls) -> Result<Started> {
    ground.capture(&[])?;
    let authority = Authority::new()?;
    let mut started = Started::default();
    for (pod, side) in ground.pods()?.into_iter().zip([Side::Outbound, Side::Inbound]) {
        let identity = authority.issue(&ground.folder.join(pod.name()), Naming::Spiffe)?;
        let file = ground.folder.join(format!("haproxy-{}.cfg", pod.name()));
        fs::write(&file, config(side, tls, &identity, ground.setup.workers)?)
            .with_context(|| format!("write {}", file.display()))?;
        let mut command = Command::new(ground.program()?);
        command.arg("-db").arg("-f").arg(&file);
        started.proxy(ground, pod, command)?;
    }
    Ok(started)
}

fn config(side: Side, tls: Tls, identity: &Identity, workers: usize) -> Result<String> {
    let (port, listen, dial) = match side {
        Side::Outbound => (OUTBOUND_PORT, String::new(), dialling(tls, identity)),
        Side::Inbound => (INBOUND_PORT, listening(tls, identity), String::new()),
    };
    let mut text = String::new();
    writeln!(text, "global\n  nbthread {workers}")?;
    if tls != Tls::Off {
        for way in ["bind", "server"] {
            writeln!(text, "  ssl-default-{way}-options ssl-min-ver TLSv1.3")?;
            writeln!(text, "  ssl-default-{way}-ciphersuites TLS_AES_128_GCM_SHA256")?;
        }
    }
    writeln!(
        text,
        "defaults\n  mode tcp\n  timeout connect 15s\n  timeout client 1h\n  timeout server 1h\n\
         listen mesh\n  bind 0.0.0.0:{port}{listen}\n  server original 0.0.0.0{dial}"
    )?;
    Ok(text)
}

fn listening(tls: Tls, identity: &Identity) -> String {
    let base =
        format!(" ssl crt {} ca-file {} verify required", identity.both.display(), identity.root.display());
    match tls {
        Tls::Off => String::new(),
        Tls::FullHandshakes => base + " curves X25519 no-tls-tickets",
        Tls::Defaults => base,
    }
}

fn dialling(tls: Tls, identity: &Identity) -> String {
    let base =
        format!(" ssl crt {} ca-file {} verify required", identity.both.display(), identity.root.display());
    match tls {
        Tls::Off => String::new(),
        Tls::FullHandshakes => base + " no-ssl-reuse",
        Tls::Defaults => base,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_side_that_faces_the_other_pod_speaks_tls() {
        let folder = tempfile::tempdir().unwrap();
        let identity = Authority::new().unwrap().issue(folder.path(), Naming::Spiffe).unwrap();
        let of = |side, tls| config(side, tls, &identity, 2).unwrap();
        let outbound = of(Side::Outbound, Tls::FullHandshakes);
        assert!(outbound.contains("bind 0.0.0.0:15001\n") && outbound.contains("no-ssl-reuse"), "{outbound}");
        let inbound = of(Side::Inbound, Tls::FullHandshakes);
        assert!(
            inbound.contains("no-tls-tickets\n") && inbound.ends_with("server original 0.0.0.0\n"),
            "{inbound}"
        );
        assert!(!of(Side::Inbound, Tls::Defaults).contains("no-tls-tickets"));
        assert!(!of(Side::Outbound, Tls::Off).contains("ssl"));
    }
}
