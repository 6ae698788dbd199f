//! What a client is sent when it asks, asks no longer and comes back.

use std::collections::HashMap;

use ringmail_xds::ringmail::Membership;

use super::*;

/// Who answers where: names with a content each.
#[derive(Default)]
struct Answers(HashMap<IpAddr, Vec<(&'static str, &'static str)>>);

impl Answers {
    fn set(&mut self, at: &str, answers: &[(&'static str, &'static str)]) {
        self.0.insert(address(at), answers.to_vec());
    }

    fn at(&self, at: IpAddr) -> Vec<Answer> {
        let answers = self.0.get(&at).into_iter().flatten();
        answers.map(|(name, content)| ((*name).into(), encoded(content))).collect()
    }
}

fn encoded(content: &str) -> Arc<Encoded> {
    // Any message will do.
    let message = ringmail_xds::ringmail::Memberships {
        services: vec![Membership { service: content.to_owned(), chosen: true }],
    };
    Encoded::new(&message)
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn sent(push: &Push) -> (Vec<&str>, Vec<&str>) {
    let resources = push.resources.iter().map(|resource| &*resource.name).collect();
    (resources, push.removed.iter().map(String::as_str).collect())
}

/// A workload that is asked for, and stands behind a service that is asked for.
fn shared() -> (Answers, Subscription) {
    let mut answers = Answers::default();
    answers.set("10.0.0.1", &[("uid", "1")]);
    answers.set("10.96.0.1", &[("service", "1"), ("uid", "1"), ("other", "1")]);
    let mut subscription = Subscription::new("type");
    let push =
        subscription.subscribe(&[address("10.0.0.1"), address("10.96.0.1")], false, |at| answers.at(at));
    assert_eq!(sent(&push), (vec!["other", "service", "uid"], vec![]));
    let aliases: Vec<_> = push.resources.iter().map(|resource| resource.aliases.clone()).collect();
    assert_eq!(aliases, [vec![], vec!["/10.96.0.1".to_owned()], vec!["/10.0.0.1".to_owned()]]);
    (answers, subscription)
}

#[test]
fn nothing_is_said_once_and_again_only_when_it_is_asked_for_again() {
    let mut subscription = Subscription::new("type");
    let nobody = |_| Vec::new();
    let at = [address("10.0.0.1")];
    assert_eq!(sent(&subscription.subscribe(&at, false, nobody)), (vec![], vec!["/10.0.0.1"]));
    assert!(subscription.refresh(at, nobody).is_empty());
    assert_eq!(sent(&subscription.subscribe(&at, false, nobody)), (vec![], vec!["/10.0.0.1"]));
}

#[test]
fn what_has_not_changed_is_not_sent_unless_it_is_asked_for_again() {
    let (answers, mut subscription) = shared();
    let both = [address("10.0.0.1"), address("10.96.0.1")];
    assert!(subscription.refresh(both, |at| answers.at(at)).is_empty());
    let push = subscription.subscribe(&[address("10.0.0.1")], false, |at| answers.at(at));
    assert_eq!(sent(&push), (vec!["uid"], vec![]));
}

#[test]
fn an_address_that_goes_from_one_to_another_never_shows_nobody() {
    let (mut answers, mut subscription) = shared();
    answers.set("10.0.0.1", &[("later", "1")]);
    answers.set("10.96.0.1", &[("service", "1"), ("other", "1")]);
    let both = [address("10.96.0.1"), address("10.0.0.1")];
    let push = subscription.refresh(both, |at| answers.at(at));
    assert_eq!(sent(&push), (vec!["later"], vec!["uid"]));
}

#[test]
fn what_stands_behind_a_service_goes_with_it_unless_it_is_asked_for_itself() {
    let (answers, mut subscription) = shared();
    let push = subscription.unsubscribe(&[address("10.96.0.1")], |at| answers.at(at));
    // The client forgot whatever it knew by that name; what is wanted besides is sent again.
    assert_eq!(sent(&push), (vec!["uid"], vec!["other", "service"]));
    assert_eq!(subscription.len(), 1);
}

#[test]
fn a_workload_that_is_no_longer_asked_for_stays_known_behind_its_service() {
    let (answers, mut subscription) = shared();
    let push = subscription.unsubscribe(&[address("10.0.0.1")], |at| answers.at(at));
    assert_eq!(sent(&push), (vec!["uid"], vec![]));
}

#[test]
fn a_client_that_comes_back_is_sent_differences_only() {
    let (mut answers, _) = shared();
    let version = |content: &str| encoded(content).version.to_string();
    let held = [
        ("uid", version("1")),
        ("other", version("of long ago")),
        ("gone", version("1")),
        ("odd", "of another server".to_owned()),
    ];
    let held = held.into_iter().map(|(name, version)| (name.to_owned(), version)).collect();
    answers.set("10.0.0.9", &[]);
    let mut subscription = Subscription::new("type");
    subscription.resume(&held);
    let asked = [address("10.0.0.1"), address("10.96.0.1"), address("10.0.0.9")];
    let push = subscription.subscribe(&asked, true, |at| answers.at(at));
    assert_eq!(sent(&push), (vec!["other", "service"], vec!["/10.0.0.9", "gone", "odd"]));
}

#[test]
fn a_client_that_comes_back_and_asks_for_nothing_loses_what_it_holds() {
    let mut subscription = Subscription::new("type");
    subscription.resume(&[("uid".to_owned(), "1".to_owned())].into());
    assert_eq!(sent(&subscription.subscribe(&[], true, |_| Vec::new())), (vec![], vec!["uid"]));
}
