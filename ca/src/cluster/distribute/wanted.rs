//! Which namespaces lack the bundle. Pure: events in, the next write out.
//!
//! Nothing is due before both lists are complete, or a start would write into every namespace. Of each
//! ConfigMap only a digest is kept.

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::digest::{SHA256, digest};
use kube::runtime::watcher::Event;
use tokio::time::Instant;

type Digest = [u8; 32];

/// The bundle, where it is to be and where it is.
pub(super) struct Wanted {
    text: String,
    digest: Option<Digest>,
    /// A namespace that has the bundle whether it is listed or not.
    always: Option<String>,
    namespaces: Listed<BTreeSet<String>>,
    maps: Listed<BTreeMap<String, Option<Digest>>>,
    /// Namespaces to be written, and when.
    due: BTreeMap<String, Instant>,
}

/// A collection that is listed anew now and then; until the list is complete, the last one counts.
#[derive(Default)]
struct Listed<C> {
    complete: Option<C>,
    listing: C,
}

impl<C: Default> Listed<C> {
    fn begin(&mut self) {
        self.listing = C::default();
    }

    fn end(&mut self) {
        self.complete = Some(std::mem::take(&mut self.listing));
    }
}

fn digest_of(text: &str) -> Option<Digest> {
    digest(&SHA256, text.as_bytes()).as_ref().try_into().ok()
}

impl Wanted {
    pub(super) fn new(text: String, always: Option<String>) -> Self {
        let digest = digest_of(&text);
        let (namespaces, maps) = (Listed::default(), Listed::default());
        Self { text, digest, always, namespaces, maps, due: BTreeMap::new() }
    }

    /// The bundle's text.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Another bundle.
    pub(super) fn bundle(&mut self, text: String, now: Instant) {
        self.digest = digest_of(&text);
        self.text = text;
        self.compare_all(now);
    }

    /// News of a namespace.
    pub(super) fn namespace(&mut self, event: Event<String>, now: Instant) {
        match event {
            Event::Init => self.namespaces.begin(),
            Event::InitApply(name) => {
                self.namespaces.listing.insert(name);
            }
            Event::InitDone => {
                self.namespaces.end();
                self.compare_all(now);
            }
            Event::Apply(name) => {
                self.namespaces.complete.get_or_insert_default().insert(name.clone());
                self.compare(&name, now);
            }
            Event::Delete(name) => {
                self.namespaces.complete.get_or_insert_default().remove(&name);
                self.compare(&name, now);
            }
        }
    }

    /// News of a ConfigMap: its namespace and its text.
    pub(super) fn map(&mut self, event: Event<(String, String)>, now: Instant) {
        match event {
            Event::Init => self.maps.begin(),
            Event::InitApply((namespace, text)) => {
                self.maps.listing.insert(namespace, digest_of(&text));
            }
            Event::InitDone => {
                self.maps.end();
                self.compare_all(now);
            }
            Event::Apply((namespace, text)) => {
                self.maps.complete.get_or_insert_default().insert(namespace.clone(), digest_of(&text));
                self.compare(&namespace, now);
            }
            Event::Delete((namespace, _)) => {
                self.maps.complete.get_or_insert_default().remove(&namespace);
                self.compare(&namespace, now);
            }
        }
    }

    /// The namespace whose turn is first.
    pub(super) fn next(&self) -> Option<(String, Instant)> {
        self.due.iter().min_by_key(|(_, due)| **due).map(|(name, due)| (name.clone(), *due))
    }

    /// The bundle is there now.
    pub(super) fn written(&mut self, namespace: &str) {
        self.due.remove(namespace);
        self.maps.complete.get_or_insert_default().insert(namespace.to_owned(), self.digest);
    }

    /// It could not be written, and is due again at `again`.
    pub(super) fn refused(&mut self, namespace: &str, again: Instant) {
        if let Some(due) = self.due.get_mut(namespace) {
            *due = again;
        }
    }

    fn compare_all(&mut self, now: Instant) {
        let known = self.namespaces.complete.iter().flatten().chain(self.due.keys()).chain(&self.always);
        for namespace in known.cloned().collect::<BTreeSet<_>>() {
            self.compare(&namespace, now);
        }
    }

    fn compare(&mut self, namespace: &str, now: Instant) {
        let (Some(namespaces), Some(maps)) = (&self.namespaces.complete, &self.maps.complete) else { return };
        let lacks = maps.get(namespace).is_none_or(|digest| *digest != self.digest);
        let listed = namespaces.contains(namespace) || self.always.as_deref() == Some(namespace);
        if listed && lacks {
            self.due.entry(namespace.to_owned()).or_insert(now);
        } else {
            self.due.remove(namespace);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn map(namespace: &str, text: &str) -> (String, String) {
        (namespace.to_owned(), text.to_owned())
    }

    fn listed(maps: &[(&str, &str)]) -> (Wanted, Instant) {
        listed_with(None, maps)
    }

    fn listed_with(always: Option<&str>, maps: &[(&str, &str)]) -> (Wanted, Instant) {
        let now = Instant::now();
        let mut wanted = Wanted::new("bundle".to_owned(), always.map(str::to_owned));
        wanted.namespace(Event::Init, now);
        for name in ["a", "b"] {
            wanted.namespace(Event::InitApply(name.to_owned()), now);
        }
        wanted.namespace(Event::InitDone, now);
        assert_eq!(wanted.next(), None, "what is there is not known yet");
        wanted.map(Event::Init, now);
        for (namespace, text) in maps {
            wanted.map(Event::InitApply(map(namespace, text)), now);
        }
        wanted.map(Event::InitDone, now);
        (wanted, now)
    }

    fn next(wanted: &Wanted) -> Option<String> {
        wanted.next().map(|(name, _)| name)
    }

    #[test]
    fn only_what_differs_is_written() {
        let (mut wanted, now) = listed(&[("a", "bundle"), ("b", "other"), ("elsewhere", "other")]);
        assert_eq!(next(&wanted).as_deref(), Some("b"));
        wanted.written("b");
        assert_eq!(wanted.next(), None);
        wanted.map(Event::Apply(map("b", "bundle")), now);
        assert_eq!(wanted.next(), None, "our own write comes back");
    }

    #[test]
    fn a_new_namespace_a_changed_and_a_deleted_map_and_a_new_bundle_are_written() {
        let (mut wanted, now) = listed(&[("a", "bundle"), ("b", "bundle")]);
        wanted.namespace(Event::Apply("c".to_owned()), now);
        assert_eq!(next(&wanted).as_deref(), Some("c"));
        wanted.written("c");
        wanted.map(Event::Apply(map("a", "tampered")), now);
        assert_eq!(next(&wanted).as_deref(), Some("a"));
        wanted.written("a");
        wanted.map(Event::Delete(map("b", "")), now);
        assert_eq!(next(&wanted).as_deref(), Some("b"));
        wanted.written("b");
        wanted.bundle("rotated".to_owned(), now);
        for expected in ["a", "b", "c"] {
            assert_eq!(next(&wanted).as_deref(), Some(expected));
            wanted.written(expected);
        }
        assert_eq!(wanted.next(), None);
    }

    #[test]
    fn a_namespace_that_left_is_left_alone() {
        let (mut wanted, now) = listed(&[]);
        wanted.namespace(Event::Delete("a".to_owned()), now);
        wanted.map(Event::Apply(map("a", "tampered")), now);
        assert_eq!(next(&wanted).as_deref(), Some("b"));
        wanted.namespace(Event::Init, now);
        wanted.namespace(Event::InitDone, now);
        assert_eq!(wanted.next(), None, "gone while nobody watched");
    }

    #[test]
    fn the_own_namespace_need_not_be_listed() {
        let (mut wanted, now) = listed_with(Some("own"), &[("a", "bundle"), ("b", "bundle")]);
        assert_eq!(next(&wanted).as_deref(), Some("own"));
        wanted.written("own");
        wanted.map(Event::Delete(map("own", "")), now);
        assert_eq!(next(&wanted).as_deref(), Some("own"));
    }

    #[test]
    fn a_refused_write_does_not_hold_up_the_others() {
        let (mut wanted, now) = listed(&[]);
        wanted.refused("a", now + Duration::from_secs(5));
        assert_eq!(next(&wanted).as_deref(), Some("b"));
        wanted.written("b");
        assert_eq!(wanted.next(), Some(("a".to_owned(), now + Duration::from_secs(5))));
        wanted.map(Event::Apply(map("a", "bundle")), now);
        assert_eq!(wanted.next(), None, "somebody else wrote it");
    }
}
