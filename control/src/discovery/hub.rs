//! Who asks for what: from what changed to the streams that it concerns, and to no others.

use std::{
    collections::{HashMap, HashSet},
    mem,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::Notify;

use super::world::{Dirty, ObjectKey};

/// Streams of one pod. Two overlap where a connection was lost and only the client has noticed; the older ends.
const STREAMS_PER_POD: usize = 2;

/// A stream as the others see it.
#[derive(Debug)]
pub(crate) struct Link {
    id: u64,
    pod: ObjectKey,
    dirty: Mutex<LinkDirty>,
    /// Something is dirty.
    pub(crate) changed: Notify,
    /// The stream is to end: the same pod has opened another one.
    pub(crate) replaced: Notify,
}

/// What a stream has to look at again. It never grows beyond what the stream asks for.
#[derive(Debug, Default)]
pub(crate) struct LinkDirty {
    pub(crate) addresses: HashSet<IpAddr>,
    pub(crate) own: bool,
    /// When the oldest change that is in here became known.
    pub(crate) since: Option<Instant>,
}

/// Every stream; see the module.
#[derive(Debug)]
pub(crate) struct Hub {
    max_streams: usize,
    index: Mutex<Index>,
}

#[derive(Debug, Default)]
struct Index {
    next: u64,
    links: HashMap<u64, Arc<Link>>,
    by_address: HashMap<IpAddr, HashSet<u64>>,
    by_pod: HashMap<ObjectKey, Vec<u64>>,
}

/// There are as many streams as there may be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} streams are open, and no more are taken")]
pub(crate) struct Full(usize);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Link {
    /// What became dirty since the last call.
    pub(crate) fn take(&self) -> LinkDirty {
        mem::take(&mut lock(&self.dirty))
    }

    fn mark(&self, since: Instant, mark: impl FnOnce(&mut LinkDirty)) {
        let mut dirty = lock(&self.dirty);
        mark(&mut dirty);
        dirty.since.get_or_insert(since);
        drop(dirty);
        self.changed.notify_one();
    }
}

impl Hub {
    pub(crate) fn new(max_streams: usize) -> Self {
        Self { max_streams, index: Mutex::default() }
    }

    #[cfg(test)]
    pub(crate) fn streams(&self) -> usize {
        lock(&self.index).links.len()
    }

    /// Takes a stream of `pod`; the oldest of too many ends.
    pub(crate) fn join(&self, pod: &ObjectKey) -> Result<Arc<Link>, Full> {
        let mut index = lock(&self.index);
        let own = index.by_pod.get(pod).cloned().unwrap_or_default();
        let replaced = if own.len() >= STREAMS_PER_POD { own.first().copied() } else { None };
        if index.links.len() >= self.max_streams && replaced.is_none() {
            return Err(Full(self.max_streams));
        }
        if let Some(id) = replaced {
            if let Some(link) = index.links.get(&id) {
                link.replaced.notify_one();
            }
            index.forget_pod(pod, id);
        }
        let id = index.next;
        index.next += 1;
        let link = Arc::new(Link {
            id,
            pod: pod.clone(),
            dirty: Mutex::default(),
            changed: Notify::new(),
            replaced: Notify::new(),
        });
        index.links.insert(id, Arc::clone(&link));
        index.by_pod.entry(pod.clone()).or_default().push(id);
        Ok(link)
    }

    /// The end of a stream that asked for `addresses`.
    pub(crate) fn leave(&self, link: &Link, addresses: impl Iterator<Item = IpAddr>) {
        let mut index = lock(&self.index);
        index.links.remove(&link.id);
        index.forget_pod(&link.pod, link.id);
        for address in addresses {
            index.forget_address(address, link.id);
        }
    }

    /// From now on changes of `addresses` concern the stream.
    pub(crate) fn ask(&self, link: &Link, addresses: &[IpAddr]) {
        let mut index = lock(&self.index);
        for address in addresses {
            index.by_address.entry(*address).or_default().insert(link.id);
        }
    }

    /// They no longer do.
    pub(crate) fn forget(&self, link: &Link, addresses: impl Iterator<Item = IpAddr>) {
        let mut index = lock(&self.index);
        for address in addresses {
            index.forget_address(address, link.id);
        }
    }

    /// Wakes the streams that `dirty` concerns; the change is known since `since`. Answers how many.
    pub(crate) fn mark(&self, dirty: &Dirty, since: Instant) -> usize {
        let index = lock(&self.index);
        let mut concerned = HashMap::<u64, (Vec<IpAddr>, bool)>::new();
        for address in &dirty.addresses {
            for id in index.by_address.get(address).into_iter().flatten() {
                concerned.entry(*id).or_default().0.push(*address);
            }
        }
        let pods = dirty.pods.iter().filter_map(|pod| index.by_pod.get(pod)).flatten();
        let all = index.links.keys().filter(|_| dirty.all_pods);
        for id in pods.chain(all) {
            concerned.entry(*id).or_default().1 = true;
        }
        for (id, (addresses, own)) in &concerned {
            if let Some(link) = index.links.get(id) {
                link.mark(since, |dirty| {
                    dirty.addresses.extend(addresses);
                    dirty.own |= own;
                });
            }
        }
        concerned.len()
    }
}

impl Index {
    fn forget_pod(&mut self, pod: &ObjectKey, id: u64) {
        if let Some(own) = self.by_pod.get_mut(pod) {
            own.retain(|other| *other != id);
            if own.is_empty() {
                self.by_pod.remove(pod);
            }
        }
    }

    fn forget_address(&mut self, address: IpAddr, id: u64) {
        if let Some(links) = self.by_address.get_mut(&address) {
            links.remove(&id);
            if links.is_empty() {
                self.by_address.remove(&address);
            }
        }
    }
}
