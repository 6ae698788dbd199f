//! Put, get and both, by size of the values and number of threads, on a ring to which nothing happens.

use std::time::Duration;

use anyhow::{Context, Result};
use ringmail_lab::ignite::{Atomicity, Keys, Measured, Measurement, Operation};

use super::Options;
use super::cpu::Used;
use super::samples::{Quantity, Sink};
use super::world::World;
use crate::results::Better;

/// The cache of the cells: FULL_SYNC, one backup.
const CACHE: &str = "cells";

/// Bytes that the keys of one size hold at most: they must fit into three small nodes, and into the client that checks them.
const BYTES_OF_A_SIZE: u32 = 64 << 20;

/// Keys of one size: enough for every partition to have some.
const MOST_KEYS: u32 = 10_000;

/// So far are the first keys of the sizes apart.
const KEYS_APART: u64 = 1_000_000;

/// A request that fills is as large as this at most.
const FILL_BYTES: u32 = 8 << 20;

/// The longest warm-up of a single cell; the JVMs were warmed up before.
const CELL_WARM_UP: Duration = Duration::from_secs(2);

/// Measures every cell. Every other round goes backwards, for JVMs get faster with time.
pub(super) fn measure_all(world: &World, options: &Options, round: usize, sink: &mut Sink<'_>) -> Result<()> {
    world.client.create_cache(CACHE, 1, Atomicity::Atomic)?;
    let mut cells = Vec::new();
    for (keys, operation) in
        sizes(options).into_iter().flat_map(|keys| Operation::ALL.map(|operation| (keys, operation)))
    {
        cells.extend(options.threads.iter().map(|threads| Measurement {
            operation,
            threads: *threads,
            keys,
            warm_up: options.counted().min(CELL_WARM_UP),
            counted: options.counted(),
        }));
    }
    for keys in sizes(options) {
        let batch = (FILL_BYTES / keys.value_bytes).clamp(1, 500);
        world.client.fill_keys(CACHE, keys, batch.into())?;
    }
    warm_up(world, &cells, options.warm_up())?;
    if round % 2 == 1 {
        cells.reverse();
    }
    for cell in &cells {
        let name = cell_name(cell);
        let before = world.processes.used()?;
        let measured = world.client.measure(CACHE, cell).with_context(|| name.clone())?;
        let used = world.processes.used()?.since(before);
        take(cell, &measured, used, sink);
    }
    Ok(())
}

/// Lets the JVMs see every kind of operation, and often: with the most threads there will be.
fn warm_up(world: &World, cells: &[Measurement], whole: Duration) -> Result<()> {
    let most = cells.iter().map(|cell| cell.threads).max();
    let busiest: Vec<_> = cells.iter().filter(|cell| Some(cell.threads) == most).collect();
    let Some(each) = whole.checked_div(u32::try_from(busiest.len())?) else { return Ok(()) };
    for cell in busiest {
        let warming = Measurement { warm_up: Duration::ZERO, counted: each, ..*cell };
        world.client.measure(CACHE, &warming).context("warm up")?;
    }
    Ok(())
}

fn sizes(options: &Options) -> Vec<Keys> {
    let keys = |(number, size): (u64, &u32)| Keys {
        from: number * KEYS_APART,
        count: (BYTES_OF_A_SIZE / size).clamp(1, MOST_KEYS).into(),
        value_bytes: *size,
    };
    (0u64..).zip(&options.sizes).map(keys).collect()
}

fn cell_name(cell: &Measurement) -> String {
    format!("{}-{}-{}", cell.operation.as_str(), cell.keys.value_bytes, cell.threads)
}

fn take(cell: &Measurement, measured: &Measured, used: Used, sink: &mut Sink<'_>) {
    let has_sidecars = sink.candidate().has_sidecars();
    let mut take = |what: &str, title: &str, unit, better, sample| {
        let quantity = Quantity {
            id: format!("ignite-{}-{what}", cell_name(cell)),
            group: format!("Ignite: {}", cell.operation.as_str()),
            title: format!("{title}, {}, {}", size_text(cell.keys.value_bytes), threads_text(cell.threads)),
            unit,
            better,
        };
        sink.take(quantity, sample);
    };
    take("rate", "operations", "1/s", Better::Higher, Some(measured.per_second));
    for (what, latency) in [("p50", measured.p50), ("p99", measured.p99), ("p999", measured.p999)] {
        let title = what.replace("p999", "p99.9");
        take(what, &title, "us", Better::Lower, Some(micros(latency)));
    }
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 operations are done in a run")]
    let per_operation = |used: Duration| micros(used) / measured.all as f64;
    take("cpu", "CPU of all processes per operation", "us", Better::Lower, Some(per_operation(used.all)));
    let sidecars = has_sidecars.then(|| per_operation(used.sidecars));
    take("sidecar-cpu", "CPU of the sidecars per operation", "us", Better::Lower, sidecars);
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

fn size_text(bytes: u32) -> String {
    if bytes.is_multiple_of(1024) { format!("{} KiB", bytes / 1024) } else { format!("{bytes} B") }
}

fn threads_text(threads: u32) -> String {
    if threads == 1 { "1 thread".to_owned() } else { format!("{threads} threads") }
}
