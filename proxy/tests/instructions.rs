//! What a handshake and a mebibyte cost, in instructions: a guard that no busy machine can trip.
//!
//! The test runs its own program under callgrind, once for one of them and once for several more: what starting up
//! costs is in both counts, and their difference is that of the rest.

#![expect(clippy::unwrap_used, reason = "a step that fails fails its test, in a helper too")]
#![cfg(target_arch = "x86_64")]

mod kit;

use std::{fs, process::Command};

use kit::{
    Ca, RECORD_LAYER, pair,
    wire::{NO_POLICY, PATIENCE, run, wire},
};
use ringmail_evidence::shown;
use ringmail_proxy::tls;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Instructions of one handshake, both sides and the test's own sockets: the default key exchange, P-256, chains that
/// are known from the first. Several runs lie within 0.2 % of each other, as nonces and key shares do.
const HANDSHAKE: u64 = 4_718_000;

/// Instructions of one MiB through both relays, as above. Several runs lie within 0.4 %: how much a read finds is the
/// kernel's to say.
const MEBIBYTE: u64 = 4_963_000;

/// What may come on top, in percent: several times what runs differ by.
const MARGIN: u64 = 2;

/// The variable that tells the counted program what to do, and how often.
const WORK: &str = "RINGMAIL_COUNTED";

const MIB: usize = 1 << 20;

/// The first makes what all others share, and its reads are still small.
const FEW: u64 = 1;
const MANY: u64 = FEW + 20;

async fn handshakes(count: u64) {
    let ca = Ca::new("root");
    let (client, server) = (ca.credentials("n1"), ca.credentials("n2"));
    for _ in 0..count {
        let (near, far) = pair().await;
        let address = near.peer_addr().unwrap().ip();
        let (connected, accepted) = tokio::join!(
            tls::connect(near, address, &client, PATIENCE),
            tls::accept(far, Vec::new(), &server, PATIENCE)
        );
        connected.unwrap();
        accepted.unwrap();
    }
}

async fn mebibytes(count: u64) {
    let mut wire = wire(NO_POLICY).await;
    let (chunk, mut buffer) = (vec![7; MIB], vec![0; MIB]);
    for _ in 0..count {
        let (written, read) = tokio::join!(wire.a.write_all(&chunk), wire.b.read_exact(&mut buffer));
        written.unwrap();
        read.unwrap();
    }
}

#[tokio::test]
#[ignore = "the program that the test beside it counts"]
async fn counted() {
    // By itself, without anybody who counts, it does one.
    let work = std::env::var(WORK).unwrap_or_else(|_| "handshakes 1".to_owned());
    let (what, count) = work.split_once(' ').unwrap();
    let count = count.parse().unwrap();
    match what {
        "handshakes" => run(handshakes(count)).await,
        "mebibytes" => run(mebibytes(count)).await,
        other => panic!("{WORK}: expected handshakes or mebibytes, got {other}"),
    }
}

/// Instructions of this program while it does `count` times `what`.
fn instructions(what: &str, count: u64) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let profile = folder.path().join("profile");
    let mut command = Command::new("valgrind");
    command.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", profile.display()));
    command.arg(std::env::current_exe().unwrap()).args(["counted", "--exact", "--ignored"]);
    // The figures are those of the record layer that is the default.
    command.env_remove(RECORD_LAYER).env(WORK, format!("{what} {count}"));
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    let text = fs::read_to_string(profile).unwrap();
    let total = text.lines().find_map(|line| line.strip_prefix("totals: ")).unwrap();
    total.trim().parse().unwrap()
}

#[test]
fn a_handshake_and_a_mebibyte_cost_no_more_instructions_than_they_did() {
    let mut over = Vec::new();
    for (what, known) in [("handshakes", HANDSHAKE), ("mebibytes", MEBIBYTE)] {
        let each = (instructions(what, MANY) - instructions(what, FEW)) / (MANY - FEW);
        let most = known * (100 + MARGIN) / 100;
        println!("{what}: {each} instructions each, {known} are known, at most {most}");
        shown!("P5", format!("instructions of the {what}, each"), each, format!("<= {most}"));
        if each > most {
            over.push(format!("{what}: {each} instructions each, at most {most}"));
        }
    }
    // Where more is meant, or another compiler makes it, the figures above are written anew.
    assert!(over.is_empty(), "{over:?}");
}
