//! What one client asks for of one type, and what it has been sent. Pure.
//!
//! A name that is asked for stands for resources: a workload, or a Service and the workloads behind it. A resource is
//! wanted for as long as any name stands for it, and sent when its version is not the one that was sent last. What has
//! not been sent yet is not kept: it is made from the world when it can be sent.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem,
    net::IpAddr,
    sync::Arc,
};

use ringmail_xds::{address_name, discovery::NamedResource};

use super::world::{Answer, Encoded, Version};

/// See the module.
#[derive(Debug)]
pub(crate) struct Subscription {
    type_url: &'static str,
    asks: HashMap<IpAddr, Ask>,
    wanted: HashMap<Arc<str>, Wanted>,
}

/// A name that is asked for.
#[derive(Debug, Default)]
struct Ask {
    stands_for: Box<[Arc<str>]>,
    /// The client has been told that there is nothing.
    told_nothing: bool,
}

/// A resource.
#[derive(Debug, Default)]
struct Wanted {
    asks: u32,
    sent: Option<Version>,
}

/// What is to be sent.
#[derive(Debug, Default)]
pub(crate) struct Push {
    pub(crate) resources: Vec<NamedResource>,
    pub(crate) removed: Vec<String>,
}

impl Push {
    pub(crate) fn is_empty(&self) -> bool {
        self.resources.is_empty() && self.removed.is_empty()
    }
}

/// A push in the making.
#[derive(Default)]
struct Draft {
    resources: BTreeMap<Arc<str>, (Arc<Encoded>, Vec<String>)>,
    unwanted: Vec<Arc<str>>,
    removed: BTreeSet<String>,
}

impl Subscription {
    pub(crate) fn new(type_url: &'static str) -> Self {
        Self { type_url, asks: HashMap::new(), wanted: HashMap::new() }
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.asks.contains_key(&address)
    }

    pub(crate) fn len(&self) -> usize {
        self.asks.len()
    }

    pub(crate) fn asked(&self) -> impl Iterator<Item = IpAddr> {
        self.asks.keys().copied()
    }

    /// Takes what the client holds from an earlier stream. What of it is not asked for by then is removed with the
    /// first [`subscribe`](Self::subscribe).
    pub(crate) fn resume(&mut self, versions: &BTreeMap<String, String>) {
        for (name, version) in versions {
            let sent = Some(Version::read(version));
            self.wanted.insert(name.as_str().into(), Wanted { asks: 0, sent });
        }
    }

    /// Asks for more. What was asked for is sent also where it has been sent already, but for what the client holds
    /// as it `resumes`.
    pub(crate) fn subscribe(
        &mut self,
        addresses: &[IpAddr],
        resumes: bool,
        answer: impl Fn(IpAddr) -> Vec<Answer>,
    ) -> Push {
        for address in addresses {
            let ask = self.asks.entry(*address).or_default();
            ask.told_nothing = false;
        }
        let mut draft = Draft::default();
        for address in addresses {
            self.answer(&mut draft, *address, !resumes, &answer);
        }
        if resumes {
            let unwanted = self.wanted.iter().filter(|(_, wanted)| wanted.asks == 0);
            draft.unwanted.extend(unwanted.map(|(name, _)| Arc::clone(name)));
        }
        self.finish(draft)
    }

    /// Asks for less. A client forgets what it no longer asks for, also where something else stands for it: that is
    /// sent again.
    pub(crate) fn unsubscribe(
        &mut self,
        addresses: &[IpAddr],
        answer: impl Fn(IpAddr) -> Vec<Answer>,
    ) -> Push {
        let mut draft = Draft::default();
        let mut shared = BTreeSet::new();
        let gone: Vec<_> = addresses.iter().filter_map(|address| self.asks.remove(address)).collect();
        for ask in gone {
            for name in &ask.stands_for {
                self.release(&mut draft, name);
                if let Some(wanted) = self.wanted.get_mut(name).filter(|wanted| wanted.asks > 0) {
                    wanted.sent = None;
                    shared.insert(Arc::clone(name));
                }
            }
        }
        if !shared.is_empty() {
            let again = |ask: &Ask| ask.stands_for.iter().any(|name| shared.contains(name));
            let again: Vec<_> =
                self.asks.iter().filter(|(_, ask)| again(ask)).map(|(address, _)| *address).collect();
            for address in again {
                self.answer(&mut draft, address, false, &answer);
            }
        }
        self.finish(draft)
    }

    /// Looks again at names whose answers may differ now.
    pub(crate) fn refresh(
        &mut self,
        addresses: impl IntoIterator<Item = IpAddr>,
        answer: impl Fn(IpAddr) -> Vec<Answer>,
    ) -> Push {
        let mut draft = Draft::default();
        for address in addresses {
            self.answer(&mut draft, address, false, &answer);
        }
        self.finish(draft)
    }

    fn answer(
        &mut self,
        draft: &mut Draft,
        address: IpAddr,
        again: bool,
        answer: &impl Fn(IpAddr) -> Vec<Answer>,
    ) {
        let Some(ask) = self.asks.get_mut(&address) else { return };
        let answers = answer(address);
        let before =
            mem::replace(&mut ask.stands_for, answers.iter().map(|(name, _)| Arc::clone(name)).collect());
        let told = mem::replace(&mut ask.told_nothing, answers.is_empty());
        if answers.is_empty() && !told {
            draft.removed.insert(address_name(address));
        }
        for (place, (name, encoded)) in answers.into_iter().enumerate() {
            let wanted = self.wanted.entry(Arc::clone(&name)).or_default();
            wanted.asks += 1;
            if again || wanted.sent != Some(encoded.version) {
                let (_, aliases) = draft.resources.entry(name).or_insert_with(|| (encoded, Vec::new()));
                // Only the first is what was asked for; the others stand behind it.
                if place == 0 {
                    aliases.push(address_name(address));
                }
            }
        }
        for name in &before {
            self.release(draft, name);
        }
    }

    fn release(&mut self, draft: &mut Draft, name: &Arc<str>) {
        if let Some(wanted) = self.wanted.get_mut(name) {
            wanted.asks = wanted.asks.saturating_sub(1);
            if wanted.asks == 0 {
                draft.unwanted.push(Arc::clone(name));
            }
        }
    }

    fn finish(&mut self, draft: Draft) -> Push {
        let Draft { resources, unwanted, mut removed } = draft;
        for name in unwanted {
            if self.wanted.get(&name).is_some_and(|wanted| wanted.asks == 0) {
                let sent = self.wanted.remove(&name).is_some_and(|wanted| wanted.sent.is_some());
                if sent {
                    removed.insert(name.to_string());
                }
            }
        }
        let mut push = Push { resources: Vec::new(), removed: removed.into_iter().collect() };
        for (name, (encoded, mut aliases)) in resources {
            let Some(wanted) = self.wanted.get_mut(&name) else { continue };
            wanted.sent = Some(encoded.version);
            aliases.retain(|alias| **alias != *name);
            push.resources.push(encoded.named(self.type_url, &name, aliases));
        }
        push
    }
}

#[cfg(test)]
mod tests;
