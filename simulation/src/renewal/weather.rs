//! What happens to the CA's replicas, made up from a seed.

use std::time::Duration;

use turmoil::Sim;

use super::{
    authority::{Conduct, Does},
    world::REPLICAS,
};

/// Numbers that follow from a seed (SplitMix64).
#[derive(Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Dice that fall in another way.
    pub(super) fn another(&self) -> Self {
        Self(self.clone().next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// In `from..to`.
    pub(super) fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.next() % (to - from)
    }

    /// In 0..1.
    pub(super) fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// How a replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It issues.
    Well,
    /// It is gone, and nobody says so.
    Silent,
    /// Whoever dials it is refused.
    Refusing,
    /// It says that it cannot.
    Busy,
    /// It takes a request and never answers.
    Stuck,
}

/// A replica changes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    pub(super) at: Duration,
    replica: usize,
    from: State,
    to: State,
}

impl Change {
    pub(super) fn apply(&self, sim: &mut Sim<'_>, conducts: &[Conduct]) {
        let name = REPLICAS[self.replica];
        match self.from {
            State::Silent => sim.bounce(name),
            State::Refusing => proxies(|proxy| sim.repair(proxy, name)),
            State::Well | State::Busy | State::Stuck => {}
        }
        conducts[self.replica].is(match self.to {
            State::Busy => Does::SaysBusy,
            State::Stuck => Does::Stalls,
            State::Well | State::Silent | State::Refusing => Does::Answers,
        });
        match self.to {
            State::Silent => sim.crash(name),
            State::Refusing => proxies(|proxy| sim.partition(proxy, name)),
            State::Well | State::Busy | State::Stuck => {}
        }
    }
}

fn proxies(mut act: impl FnMut(String)) {
    (0..super::PROXIES).for_each(|number| act(format!("proxy-{number}")));
}

/// All changes of a life, in their order.
pub(super) struct Weather(Vec<Change>);

impl Weather {
    /// Each replica is well and then not, in turn; how much of its life it is well differs from life to life, and in half of them
    /// the second fails when the first does.
    pub(super) fn made_up(dice: &mut Dice, whole: Duration) -> Self {
        let longest = |share: u64| (whole.as_secs() / share).max(2);
        let mut changes: Vec<Change> = Vec::new();
        let together = dice.between(0, 2) == 0;
        for replica in 0..REPLICAS.len() {
            if together && replica > 0 {
                let same: Vec<_> = changes.iter().map(|change| Change { replica, ..*change }).collect();
                changes.extend(same);
                break;
            }
            let (well, ill) = (longest(dice.between(4, 40)), longest(dice.between(1, 10)));
            let mut at = Duration::ZERO;
            let mut from = State::Well;
            loop {
                let is_well = from == State::Well;
                at += Duration::from_millis(dice.between(100, if is_well { well } else { ill } * 1000));
                if at >= whole {
                    break;
                }
                let to = match dice.between(0, 4) {
                    _ if !is_well => State::Well,
                    0 => State::Silent,
                    1 => State::Refusing,
                    2 => State::Busy,
                    _ => State::Stuck,
                };
                changes.push(Change { at, replica, from, to });
                from = to;
            }
        }
        changes.sort_by_key(|change| change.at);
        Self(changes)
    }

    pub(super) fn changes(&self) -> &[Change] {
        &self.0
    }

    /// When a proxy that asks gets an answer whichever replica it tries first: one is well, and no other takes what it asks without
    /// answering well. A replica that refuses or is silent is passed over; one that is busy or stuck is the one that was asked.
    pub(super) fn reachable(&self, whole: Duration) -> Vec<(Duration, Duration)> {
        let mut states = [State::Well; REPLICAS.len()];
        let mut since = Some(Duration::ZERO);
        let mut windows = Vec::new();
        for change in &self.0 {
            states[change.replica] = change.to;
            let is_well = states.contains(&State::Well)
                && !states.iter().any(|state| matches!(state, State::Busy | State::Stuck));
            match since {
                Some(from) if !is_well => {
                    windows.push((from, change.at));
                    since = None;
                }
                None if is_well => since = Some(change.at),
                Some(_) | None => {}
            }
        }
        windows.extend(since.map(|from| (from, whole)));
        windows
    }
}
