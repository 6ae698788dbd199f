//! A node that dies under load, and one that joins a ring with data.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringmail_lab::ignite::{Atomicity, EventKind, Keys, now_ms};
use ringmail_lab::process::wait_until;

use super::cpu::Processes;
use super::samples::{Quantity, Sink};
use super::world::{PODS, RING, World};
use crate::results::Better;

/// The node that dies and comes back: neither the coordinator nor its successor.
const VICTIM: &str = RING[2];

/// The heading of both.
const GROUP: &str = "Ignite: faults and joining";

/// The cache of the keys that are asked for while a node dies.
const RECOVERY_CACHE: &str = "recovery";

/// Threads, and keys of each: enough that each node is the primary of some forty, few enough that each is asked for again
/// within a small part of the time that is measured.
const RECOVERY_THREADS: u32 = 8;
const RECOVERY_KEYS: Keys = Keys { from: 0, count: 16, value_bytes: 100 };

/// So long the load runs before the kill, and after the last key was served again: a later pause is part of the same fault.
const AROUND_THE_KILL: Duration = Duration::from_secs(2);

/// Ignite gives a silent node 10 s; beyond several times that nobody comes back.
const RECOVERY_DEADLINE: Duration = Duration::from_secs(90);

/// The cache that is moved to a joining node.
const REBALANCE_CACHE: &str = "rebalance";

/// Large enough that pages, not rows, are what is moved; small enough that every partition holds about the same.
const REBALANCE_VALUE_BYTES: u32 = 16 << 10;

/// Values in one request of the fill.
const FILL_BATCH: u64 = 256;

/// Values between two looks whether the run was interrupted.
const FILL_CHUNK: u64 = 8 * FILL_BATCH;

/// A gigabyte takes seconds; ten minutes are a ring that hangs.
const REBALANCE_DEADLINE: Duration = Duration::from_secs(600);

/// Kills a node while every key is put and read in turn. The ring is one of two nodes afterwards.
pub(super) fn fail_over(world: &mut World, sink: &mut Sink<'_>) -> Result<()> {
    world.client.create_cache(RECOVERY_CACHE, 1, Atomicity::Atomic)?;
    world.ring.wait_rebalanced()?;
    world.client.begin_recovery(RECOVERY_CACHE, RECOVERY_THREADS, RECOVERY_KEYS)?;
    wait(AROUND_THE_KILL)?;
    let killed = now_ms();
    world.ring.node_mut(VICTIM)?.kill9()?;
    wait_until(RECOVERY_DEADLINE, "every key is served again", || {
        Ok((world.client.recovery_since(killed)?.unserved == 0).then_some(()))
    })?;
    wait(AROUND_THE_KILL)?;
    let recovery = world.client.recovery_since(killed)?;
    world.client.end_recovery()?;
    world.ring.wait_whole(RING.len() - 1)?;
    for (id, title, duration) in [
        ("ignite-failover-all", "killed node: until every key is served again", recovery.all_served),
        ("ignite-failover-gap", "killed node: longest wait of a thread", recovery.longest_gap),
    ] {
        sink.take(quantity(id, title, "ms"), Some(duration.as_secs_f64() * 1e3));
    }
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 operations are done in a run")]
    let errors = recovery.errors as f64;
    sink.take(
        quantity("ignite-failover-errors", "killed node: operations that failed", "operations"),
        Some(errors),
    );
    Ok(())
}

/// Fills two nodes and lets the third join, which then receives about `megabytes`. The samples are per 10^9 bytes that it did
/// receive, for which partitions it gets is drawn anew for each ring.
pub(super) fn rebalance(world: &mut World, megabytes: u32, sink: &mut Sink<'_>) -> Result<()> {
    world.client.create_cache(REBALANCE_CACHE, 1, Atomicity::Atomic)?;
    fill(world, keys_for(megabytes))?;
    wait_rebalanced(world, REBALANCE_DEADLINE)?;
    let pod = world.network.pod(VICTIM)?;
    let begun = now_ms();
    world.ring.start_node(pod)?;
    // The coordinator has seen it join before, when the ring was formed.
    world.ring.node(RING[0])?.wait_event(REBALANCE_DEADLINE, "it joins", |event| {
        event.at_ms >= begun && matches!(&event.kind, EventKind::Joined { node, .. } if node == VICTIM)
    })?;
    let processes = Processes::find(&world.network, &PODS)?;
    let before = processes.used()?;
    let node = world.ring.node(VICTIM)?;
    node.wait_started()?;
    let moved = wait_until(REBALANCE_DEADLINE, "the joining node holds its share", || {
        ensure!(node.is_rebalanced()?, "it still waits for partitions");
        node.moved(REBALANCE_CACHE)
    })?;
    let used = processes.used()?.since(before);
    ensure!(moved.entries > 0, "{VICTIM} has joined and holds nothing");
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
    let gigabytes = (moved.entries * u64::from(REBALANCE_VALUE_BYTES)) as f64 / 1e9;
    let mut take = |id, title, unit, duration: Option<Duration>| {
        sink.take(quantity(id, title, unit), duration.map(|duration| duration.as_secs_f64() / gigabytes));
    };
    let sidecars = (processes.sidecars() > 0).then_some(used.sidecars);
    take("ignite-rebalance-time", "joining node: until its share has moved", "s/GB", Some(moved.took));
    take("ignite-rebalance-cpu", "joining node: CPU of nodes and sidecars", "CPU-s/GB", Some(used.all));
    take("ignite-rebalance-sidecar-cpu", "joining node: CPU of the sidecars", "CPU-s/GB", sidecars);
    Ok(())
}

/// With one backup two nodes hold all of it each, and the third is to hold two thirds.
fn keys_for(megabytes: u32) -> Keys {
    let bytes = u64::from(megabytes) * 1_000_000 * 3 / 2;
    Keys { from: 0, count: bytes.div_ceil(REBALANCE_VALUE_BYTES.into()), value_bytes: REBALANCE_VALUE_BYTES }
}

fn fill(world: &World, keys: Keys) -> Result<()> {
    let mut from = keys.from;
    while from < keys.from + keys.count {
        ringmail_lab::interrupt::check()?;
        let count = FILL_CHUNK.min(keys.from + keys.count - from);
        world.client.fill_keys(REBALANCE_CACHE, Keys { from, count, ..keys }, FILL_BATCH).context("fill")?;
        from += count;
    }
    Ok(())
}

fn wait_rebalanced(world: &mut World, deadline: Duration) -> Result<()> {
    wait_until(deadline, "every partition is where it belongs", || {
        for node in world.ring.running()? {
            ensure!(node.is_rebalanced()?, "{} still waits for partitions", node.name());
        }
        Ok(Some(()))
    })
}

fn wait(time: Duration) -> Result<()> {
    std::thread::sleep(time);
    ringmail_lab::interrupt::check()
}

fn quantity(id: &str, title: &str, unit: &'static str) -> Quantity {
    Quantity {
        id: id.to_owned(),
        group: GROUP.to_owned(),
        title: title.to_owned(),
        unit,
        better: Better::Lower,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_thirds_of_the_keys_are_what_is_to_be_moved() {
        let keys = keys_for(1000);
        let bytes = keys.count * u64::from(keys.value_bytes);
        assert!(bytes * 2 / 3 >= 1_000_000_000 && bytes * 2 / 3 < 1_001_000_000, "{bytes}");
    }
}
