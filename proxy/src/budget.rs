//! What the proxy may hold at once: derived, in this one place, from what the container may take of memory and of open files.
//!
//! A proxy that is killed for memory takes every connection with it, so it holds no more connections than fit in at their worst,
//! when no reader reads any more in either direction; the others wait in the backlog and cost the proxy nothing. What the kernel
//! counts differs by the version of its control groups: in both a socket's own structures, and in version 2 also the bytes in its
//! buffers. How large those get is the kernel's and the pod's sysctls' to say (`net.ipv4.tcp_rmem`, `tcp_wmem`), and it makes
//! them smaller when memory runs out; nothing is set aside for them here (ARCHITECTURE.md).

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::info;

use crate::{
    admin, cgroup,
    config::Config,
    copy::PIPE_DESCRIPTORS,
    slab::{MAX_LENT_BULK, Size},
};

/// Both processes, what they have read of settings, policies and certificates, their threads, and what the kernel keeps of
/// them: stacks, tables of pages, files that are mapped.
const FIXED_BYTES: u64 = 10 << 20;

/// A worker's heap, beside what it lends.
const BYTES_PER_WORKER: u64 = 1 << 20;

/// A connection that no reader reads from, in both directions: a small slab for each and half a record that has come in (17 KiB
/// each), what it holds while it is idle (4 KiB), and its two sockets in the kernel (8 KiB). One in its handshake holds less.
const BYTES_PER_CONNECTION: u64 = 64 << 10;

/// The part of the limit that slabs for bulk may take: of every so many bytes one.
const SHARE_OF_BULK: u64 = 8;

/// A worker lends this many slabs for bulk however little there is: with fewer, one slow reader would slow all.
const MIN_LENT_BULK: usize = 2;

/// Descriptors kept free beside those that are counted below: twelve listeners, the standard streams, the parent's
/// socket, files that are read, a renewal, a lookup of a name and a peer that is told its end.
const BASE_DESCRIPTORS: usize = 64;

/// What a runtime holds for itself: an epoll instance and its copy, what wakes it, and what tells it signals.
const DESCRIPTORS_PER_RUNTIME: usize = 4;

/// The control thread's runtime and the acceptor's.
const OTHER_RUNTIMES: usize = 2;

/// Two sockets per proxied connection.
const DESCRIPTORS_PER_CONNECTION: u64 = 2;

/// A proxy that cannot hold this many is not worth starting, so a tiny limit still gives this.
const MIN_CONNECTIONS: usize = 16;

/// What may be held at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Connections, of all workers together.
    pub connections: usize,
    /// Slabs for bulk that one worker lends.
    pub bulk_slabs: usize,
}

impl Budget {
    /// Raises the soft limit of descriptors to the hard one, asks the kernel what this process may take, and says what comes of
    /// it.
    pub fn of(config: &Config) -> Self {
        let (memory, descriptors) = (cgroup::memory_limit(), raise_descriptor_limit());
        let budget = Self::within(memory, descriptors, config);
        let Self { connections, bulk_slabs } = budget;
        let memory = memory.map_or_else(|| "unlimited".to_owned(), |bytes| format!("{} KiB", bytes >> 10));
        info!(connections, bulk_slabs, %memory, descriptors, "connections held at most, and slabs for bulk of each worker");
        budget
    }

    /// What fits into so many bytes and descriptors. The settings may ask for more connections than memory holds at their worst,
    /// but not for more than there are descriptors for.
    fn within(memory: Option<u64>, descriptors: u64, config: &Config) -> Self {
        let by_descriptors = connections_within(descriptors, config.workers);
        let by_memory = memory.map(|limit| in_memory(limit, config.workers));
        let connections = match (config.max_connections, by_memory) {
            (0, Some(by_memory)) => by_memory.connections.min(by_descriptors),
            (0, None) => by_descriptors,
            (set, _) => set.min(by_descriptors),
        };
        Self { connections, bulk_slabs: by_memory.map_or(MAX_LENT_BULK, |by_memory| by_memory.bulk_slabs) }
    }
}

fn in_memory(limit: u64, workers: usize) -> Budget {
    let workers = u64::try_from(workers).unwrap_or(u64::MAX).max(1);
    let bulk_bytes = Size::Bulk.bytes() as u64;
    let bulk_slabs = usize::try_from(limit / SHARE_OF_BULK / workers / bulk_bytes).unwrap_or(usize::MAX);
    let bulk_slabs = bulk_slabs.clamp(MIN_LENT_BULK, MAX_LENT_BULK);
    let of_worker = BYTES_PER_WORKER + bulk_slabs as u64 * bulk_bytes;
    let left = limit.saturating_sub(FIXED_BYTES).saturating_sub(workers.saturating_mul(of_worker));
    let connections = usize::try_from(left / BYTES_PER_CONNECTION).unwrap_or(usize::MAX);
    Budget { connections: connections.max(MIN_CONNECTIONS), bulk_slabs }
}

fn raise_descriptor_limit() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 0 };
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    }
}

/// Descriptors that are no proxied connection's.
fn reserved(workers: usize) -> u64 {
    let runtimes = workers.saturating_add(OTHER_RUNTIMES).saturating_mul(DESCRIPTORS_PER_RUNTIME);
    let pipes = workers.saturating_mul(PIPE_DESCRIPTORS);
    let admin = admin::PORTS * admin::MAX_CONNECTIONS;
    u64::try_from(runtimes.saturating_add(pipes).saturating_add(BASE_DESCRIPTORS + admin)).unwrap_or(u64::MAX)
}

fn connections_within(descriptors: u64, workers: usize) -> usize {
    let connections = descriptors.saturating_sub(reserved(workers)) / DESCRIPTORS_PER_CONNECTION;
    usize::try_from(connections).unwrap_or(usize::MAX).max(MIN_CONNECTIONS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: u64 = 1 << 20;

    fn config(text: &str) -> Config {
        Config::from_text("test.yaml", text).unwrap()
    }

    #[test]
    fn the_total_leaves_descriptors_for_admin_renewal_every_runtime_and_pipes() {
        assert_eq!(connections_within(256, 1), 58);
        assert_eq!(connections_within(20_000, 1), 9_930);
        assert_eq!(connections_within(20_000, 65), 9_930 - 64 * 18);
        assert_eq!(connections_within(64, 1), MIN_CONNECTIONS);
        assert_eq!(connections_within(20_000, usize::MAX), MIN_CONNECTIONS);
    }

    #[test]
    fn what_is_held_at_its_worst_fits_into_the_limit() {
        for megabytes in [24, 32, 64, 256, 1024] {
            for workers in [1, 2, 4] {
                let limit = megabytes << 20;
                let Budget { connections, bulk_slabs } = in_memory(limit, workers);
                let slabs = (workers * bulk_slabs * Size::Bulk.bytes()) as u64;
                let others = FIXED_BYTES + workers as u64 * BYTES_PER_WORKER;
                let worst = others + slabs + connections as u64 * BYTES_PER_CONNECTION;
                assert!(worst <= limit, "{megabytes} MiB, {workers} workers: {worst}");
                assert!(bulk_slabs >= MIN_LENT_BULK && connections > MIN_CONNECTIONS);
            }
        }
        assert_eq!(in_memory(32 << 20, 1), Budget { connections: 275, bulk_slabs: 15 });
        assert_eq!(in_memory(0, 1), Budget { connections: MIN_CONNECTIONS, bulk_slabs: MIN_LENT_BULK });
    }

    #[test]
    fn the_settings_go_before_memory_but_not_before_descriptors() {
        let derived = |memory, descriptors, text| {
            Budget::within(memory, descriptors, &config(&format!("workers: 1\n{text}"))).connections
        };
        assert_eq!(derived(None, 20_000, ""), 9_930);
        assert_eq!(derived(Some(32 << 20), MANY, ""), 275);
        assert_eq!(derived(Some(1 << 40), 20_000, ""), 9_930);
        assert_eq!(derived(Some(32 << 20), MANY, "max_connections: 1000"), 1_000);
        assert_eq!(derived(None, 256, "max_connections: 1000"), 58);
    }

    #[test]
    fn a_small_slab_and_half_a_record_fit_into_what_is_set_aside_for_them() {
        let held = 3 * Size::Small.bytes() as u64;
        assert!(held + (12 << 10) <= BYTES_PER_CONNECTION, "{held}");
    }

    #[test]
    fn a_runtime_holds_no_more_descriptors_than_are_reserved_for_it() {
        // Other tests open descriptors meanwhile: those of a runtime are told by what they are.
        let held = || {
            let links = std::fs::read_dir("/proc/self/fd").unwrap();
            let names = links.filter_map(|link| std::fs::read_link(link.unwrap().path()).ok());
            names.filter(|name| name.to_string_lossy().starts_with("anon_inode:[event")).count()
        };
        const RUNTIMES: usize = 200;
        let before = held();
        let runtimes: Vec<_> = (0..RUNTIMES)
            .map(|_| tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap())
            .collect();
        // Beside these, one end of the pair of sockets that tells signals.
        let each = held().saturating_sub(before) / RUNTIMES + 1;
        assert!((2..=DESCRIPTORS_PER_RUNTIME).contains(&each), "{each}");
        drop(runtimes);
    }
}
