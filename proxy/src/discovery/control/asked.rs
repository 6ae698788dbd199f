//! Which addresses are asked for: the own ones for ever, and as many others as the bound allows.
//!
//! What nobody answers to goes first when there are too many, since a port scan of the application's has tens of
//! thousands of those; then what was asked for first. An address that was dropped is asked for again when somebody
//! dials it, at the price of one round trip.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

/// Addresses asked for at once. A node of a large ring has a few hundred peers and services.
pub(super) const MAX_ASKED: usize = 4096;

/// The addresses that are asked for; see the module.
#[derive(Debug, Default)]
pub(super) struct Asked {
    own: Vec<IpAddr>,
    /// By a number that only grows, in the order in which they were asked for.
    others: HashMap<IpAddr, u64>,
    order: BTreeMap<u64, IpAddr>,
    /// Those of them at which nobody answers.
    nobody: BTreeSet<u64>,
    next: u64,
}

/// What is to be said to the server after a question.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) subscribe: Vec<IpAddr>,
    pub(super) unsubscribe: Vec<IpAddr>,
}

impl Change {
    pub(super) fn is_empty(&self) -> bool {
        self.subscribe.is_empty() && self.unsubscribe.is_empty()
    }
}

impl Asked {
    pub(super) fn new(own: Vec<IpAddr>) -> Self {
        Self { own, ..Self::default() }
    }

    /// Asks for `address`; nothing to say where it is asked for already.
    pub(super) fn ask(&mut self, address: IpAddr) -> Change {
        if self.contains(address) {
            return Change::default();
        }
        let mut change = Change { subscribe: vec![address], unsubscribe: Vec::new() };
        if self.others.len() >= MAX_ASKED {
            change.unsubscribe.extend(self.drop_one());
        }
        self.others.insert(address, self.next);
        self.order.insert(self.next, address);
        self.next += 1;
        change
    }

    /// Notes that nobody answers at `address`, for now.
    pub(super) fn nobody_at(&mut self, address: IpAddr) {
        self.nobody.extend(self.others.get(&address));
    }

    /// Notes that somebody does.
    pub(super) fn somebody_at(&mut self, address: IpAddr) {
        if let Some(number) = self.others.get(&address) {
            self.nobody.remove(number);
        }
    }

    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.own.contains(&address) || self.others.contains_key(&address)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = IpAddr> {
        self.own.iter().copied().chain(self.others.keys().copied())
    }

    fn drop_one(&mut self) -> Option<IpAddr> {
        let number = self.nobody.pop_first().or_else(|| self.order.keys().next().copied())?;
        let address = self.order.remove(&number)?;
        self.others.remove(&address);
        Some(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: usize) -> IpAddr {
        std::net::Ipv4Addr::from(0x0a00_0000 + u32::try_from(number).unwrap()).into()
    }

    fn full() -> Asked {
        let mut asked = Asked::new(vec![address(0)]);
        for number in 1..=MAX_ASKED {
            assert!(asked.ask(address(number)).unsubscribe.is_empty());
        }
        asked
    }

    #[test]
    fn an_address_is_asked_for_once_and_the_own_ones_are_already() {
        let mut asked = Asked::new(vec![address(0)]);
        assert!(asked.ask(address(0)).is_empty());
        assert_eq!(asked.ask(address(1)).subscribe, [address(1)]);
        assert!(asked.ask(address(1)).is_empty());
        assert_eq!(asked.all().count(), 2);
    }

    #[test]
    fn when_there_are_too_many_the_first_goes_and_never_an_own_one() {
        let mut asked = full();
        for number in 1..=3 {
            let change = asked.ask(address(MAX_ASKED + number));
            assert_eq!(change.unsubscribe, [address(number)]);
        }
        assert!(asked.contains(address(0)));
        assert_eq!(asked.all().count(), MAX_ASKED + 1);
    }

    #[test]
    fn what_nobody_answers_to_goes_before_all_others_while_that_is_so() {
        let mut asked = full();
        for number in [7, 9] {
            asked.nobody_at(address(number));
        }
        asked.somebody_at(address(7));
        let dropped: Vec<_> =
            (1..=2).flat_map(|number| asked.ask(address(MAX_ASKED + number)).unsubscribe).collect();
        assert_eq!(dropped, [address(9), address(1)]);
    }

    #[test]
    fn a_scan_without_end_is_held_within_the_bound() {
        let mut asked = Asked::new(Vec::new());
        for number in 0..10 * MAX_ASKED {
            asked.ask(address(number));
            asked.nobody_at(address(number));
            asked.nobody_at(address(number));
        }
        assert_eq!(asked.all().count(), MAX_ASKED);
        assert_eq!((asked.order.len(), asked.nobody.len()), (MAX_ASKED, MAX_ASKED));
    }

    #[test]
    fn an_address_that_was_dropped_and_is_asked_for_anew_is_among_the_newest() {
        let mut asked = full();
        asked.nobody_at(address(1));
        asked.nobody_at(address(1));
        assert_eq!(asked.ask(address(MAX_ASKED + 1)).unsubscribe, [address(1)]);
        assert_eq!(asked.ask(address(1)).unsubscribe, [address(2)]);
        assert_eq!(asked.ask(address(MAX_ASKED + 2)).unsubscribe, [address(3)]);
    }
}
