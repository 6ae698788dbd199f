//! Real Ignite as a user runs it: three nodes, one backup, thin clients, and whatever carries their bytes.
//!
//! Per round, every candidate gets a ring of its own, on which all measurements are done one after another, and which is then
//! taken down: two rings at once would share the machine's cores.
//!
//! - `wrapping`: the candidates.
//! - `world`: pods, sidecars, ring and client of one candidate, seen to encrypt where they should.
//! - `envoy`: its sidecars.
//! - `relay`: the floor.
//! - `cells`: what is measured on a ring to which nothing happens.
//! - `faults`: a node that dies, and one that joins.
//! - `cpu`: what the processes in the pods have used.
//! - `samples`: what was measured so far, by figure and round.

mod cells;
mod cpu;
mod envoy;
mod faults;
mod machine;
mod relay;
mod samples;
mod world;
mod wrapping;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use ringmail_lab::ignite::{IgniteVersion, Installation, KeyStores};
use ringmail_lab::interrupt;

use self::samples::Samples;
use self::world::{Place, World};
pub use self::wrapping::Wrapping;
use crate::candidates::open_folder;
use crate::folders::without_folders;
use crate::results::{check_place, write};
use crate::root;

/// The largest of the usual values, and the smallest that the lab can check.
const VALUE_BYTES: std::ops::RangeInclusive<u32> = 24..=1 << 20;

/// Worker threads of each sidecar, Ringmail's and Envoy's alike.
const WORKERS: usize = 2;

/// What `ringmail-bench ignite` is told.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Rounds; in each, every candidate is measured once, in another order than in the round before.
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// Seconds that each measurement counts, after as long a warm-up, but 2 s at most.
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
    /// Seconds of load before the first measurement of a ring, for its JVMs to compile what is hot.
    #[arg(long, default_value_t = 45.0)]
    pub warm_up: f64,
    /// Bytes of the values, separated by commas. 100,1024,65536 by default.
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1024, 65_536], hide_default_value = true)]
    pub sizes: Vec<u32>,
    /// Threads of the client, which share its connections, separated by commas. 1,16 by default.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16], hide_default_value = true)]
    pub threads: Vec<u32>,
    /// Megabytes (10^6 bytes) that a joining node is to receive; 0 leaves the joining out.
    #[arg(long, default_value_t = 1000)]
    pub rebalance_mb: u32,
    /// What to measure, separated by commas. All by default.
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = Wrapping::ALL, hide_default_value = true)]
    pub candidates: Vec<Wrapping>,
    /// The folder with the built ringmail-proxy, ringmail-init and ringmail-ca.
    #[arg(long, default_value = "target/release")]
    pub binaries: PathBuf,
    /// Envoy itself; without it that candidate is named as missing.
    #[arg(long)]
    pub envoy: Option<PathBuf>,
    /// The release of Ignite.
    #[arg(long, default_value_t = IgniteVersion::V2_17)]
    pub ignite: IgniteVersion,
    /// Where the results go.
    #[arg(long, default_value = "target/bench/ignite.json")]
    pub out: PathBuf,
}

impl Options {
    fn counted(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    fn warm_up(&self) -> Duration {
        Duration::from_secs_f64(self.warm_up)
    }

    fn check(&self) -> Result<()> {
        ensure!(self.rounds > 0, "--rounds 0: expected 1 or more");
        for (flag, seconds) in [("--seconds", self.seconds), ("--warm-up", self.warm_up)] {
            ensure!((0.1..=600.0).contains(&seconds), "{flag} {seconds}: expected 0.1 to 600");
        }
        for size in &self.sizes {
            ensure!(VALUE_BYTES.contains(size), "--sizes {size}: expected {VALUE_BYTES:?}");
        }
        ensure!(
            self.threads.iter().all(|threads| (1..=256).contains(threads)),
            "--threads: expected 1 to 256"
        );
        Ok(())
    }
}

/// Measures every candidate and writes the results after each, so that an interrupted run leaves what it has.
pub fn run(options: &Options) -> Result<()> {
    interrupt::catch()?;
    options.check()?;
    check_place(&options.out)?;
    root::needed()?;
    let folder = open_folder()?;
    let candidates = present(options);
    let takes_part = |candidate| candidates.present.contains(&candidate);
    let envoy = takes_part(Wrapping::Envoy).then(|| copy_envoy(options, folder.path()));
    let relay = takes_part(Wrapping::RelayCopy).then(|| relay::copied_to(folder.path()));
    let run = Run {
        options,
        folder: folder.path(),
        installation: Installation::prepare(options.ignite)?,
        stores: KeyStores::create(&folder.path().join("keystores"), ["node", "client"])?,
        envoy: envoy.transpose()?,
        relay: relay.transpose()?,
    };
    let mut samples = Samples::begin(machine::results(options)?, options.rounds);
    for (candidate, reason) in &candidates.missing {
        eprintln!("bench: missing {}: {reason}", candidate.as_str());
        samples.miss(candidate.as_str(), reason);
    }
    let ended = run.take_rounds(&candidates.present, &mut samples);
    if let Err(error) = &ended {
        samples.miss("the end of the run", &format!("{error:#}"));
    }
    write(&without_folders(samples.results()), &options.out)?;
    ended?;
    ensure!(samples.any(), "nothing could be measured; why stands above and in {}", options.out.display());
    Ok(())
}

/// What all rings of a run are made from.
struct Run<'a> {
    options: &'a Options,
    folder: &'a Path,
    installation: Installation,
    stores: [KeyStores; 2],
    envoy: Option<PathBuf>,
    relay: Option<PathBuf>,
}

impl Run<'_> {
    /// A candidate that fails in a round is named missing in it, and the run goes on.
    fn take_rounds(&self, candidates: &[Wrapping], samples: &mut Samples) -> Result<()> {
        let rounds = self.options.rounds;
        for round in 0..rounds {
            for candidate in order(candidates, round) {
                let (what, began) = (format!("{}, round {}", candidate.as_str(), round + 1), Instant::now());
                let outcome = measure(candidate, &self.place(candidate, round), round, samples);
                interrupt::check()?;
                let told = outcome.as_ref().map_or_else(|error| format!("{error:#}"), |()| "done".to_owned());
                eprintln!("{what} of {rounds}: {told}, {:.0} s", began.elapsed().as_secs_f64());
                if let Err(error) = outcome {
                    samples.miss(&what, &format!("{error:#}"));
                }
                write(&without_folders(samples.results()), &self.options.out)?;
            }
        }
        Ok(())
    }

    fn place(&self, candidate: Wrapping, round: usize) -> Place<'_> {
        Place {
            folder: self.folder.join(format!("{round}-{}", candidate.as_str())),
            installation: &self.installation,
            stores: &self.stores,
            envoy: self.envoy.as_deref(),
            relay: self.relay.as_deref(),
            options: self.options,
        }
    }
}

fn copy_envoy(options: &Options, folder: &Path) -> Result<PathBuf> {
    copy_program(&Wrapping::Envoy.program(options).context("no --envoy was given")?, &folder.join("envoy"))
}

/// The sidecars' user may not be able to reach a program where it is; Ringmail's are copied by the lab.
fn copy_program(from: &Path, to: &Path) -> Result<PathBuf> {
    fs::copy(from, to).with_context(|| format!("copy {}", from.display()))?;
    open_to_all(to)?;
    Ok(to.to_owned())
}

/// Candidates that can be measured, and those that cannot with the reason.
struct Candidates {
    present: Vec<Wrapping>,
    missing: Vec<(Wrapping, String)>,
}

fn present(options: &Options) -> Candidates {
    let mut candidates = Candidates { present: Vec::new(), missing: Vec::new() };
    for candidate in &options.candidates {
        match candidate.missing(options) {
            Some(reason) => candidates.missing.push((*candidate, reason)),
            None => candidates.present.push(*candidate),
        }
    }
    candidates
}

/// The candidates of a round: every second round goes backwards over the one before, and each pair of rounds begins with
/// another candidate, so that nobody always follows the same.
fn order(candidates: &[Wrapping], round: usize) -> Vec<Wrapping> {
    let mut order = candidates.to_vec();
    if !order.is_empty() {
        order.rotate_left(round / 2 % candidates.len());
    }
    if !round.is_multiple_of(2) {
        order.reverse();
    }
    order
}

fn measure(candidate: Wrapping, place: &Place<'_>, round: usize, samples: &mut Samples) -> Result<()> {
    fs::create_dir_all(&place.folder).with_context(|| format!("make {}", place.folder.display()))?;
    open_to_all(&place.folder)?;
    let mut world = World::new(candidate, place)?;
    let mut sink = samples.of(candidate, round);
    cells::measure_all(&world, place.options, round, &mut sink)?;
    faults::fail_over(&mut world, &mut sink)?;
    if place.options.rebalance_mb > 0 {
        faults::rebalance(&mut world, place.options.rebalance_mb, &mut sink)?;
    }
    drop(world);
    fs::remove_dir_all(&place.folder).with_context(|| format!("remove {}", place.folder.display()))
}

/// The sidecars run as a user of their own.
fn open_to_all(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("open {} to the sidecars' user", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_twice_as_many_rounds_as_candidates_each_is_as_often_in_every_place() {
        for candidates in (0..=Wrapping::ALL.len()).map(|count| &Wrapping::ALL[..count]) {
            let orders: Vec<_> = (0..2 * candidates.len()).map(|round| order(candidates, round)).collect();
            for place in 0..candidates.len() {
                for candidate in candidates {
                    let held = orders.iter().filter(|order| order[place] == *candidate).count();
                    assert_eq!(held, 2, "{candidate:?} in place {place}: {orders:?}");
                }
            }
        }
        assert!(order(&[], 1).is_empty());
    }
}
