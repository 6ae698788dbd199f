//! The file of the CA's roots beside what the CA names.

use ringmail_identity::MAX_ROOTS;

use super::*;
use crate::credentials::schedule::ROOT_REMOVED_SPREAD;

#[tokio::test(start_paused = true)]
async fn a_new_root_in_the_file_is_trusted_within_a_second_and_asks_nobody() {
    let scene = Scene::running();
    sleep(Duration::from_secs(2)).await;
    let (serial, generation) = (scene.serial(), scene.credentials.borrow().as_ref().unwrap().generation);
    let two = TestCa::new("two");
    fs::write(scene.roots_file(), [scene.ca.root.as_str(), &two.root].concat()).unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(scene.roots(), 2);
    assert_eq!(scene.serial(), serial);
    assert_eq!(scene.credentials.borrow().as_ref().unwrap().generation, generation + 1);
    assert_eq!(scene.source.times(), 1);
}

#[tokio::test(start_paused = true)]
async fn roots_rotate_by_overlap_and_the_old_one_leaves_with_its_last_mention() {
    let scene = Scene::running();
    let (one, two) = (Arc::clone(&scene.ca), Arc::new(TestCa::new("two")));
    let both = [one.root.as_str(), &two.root].concat();
    sleep(Duration::from_secs(2)).await;
    assert_eq!(scene.roots(), 1);
    // The new root is announced by the answers first: leaves are still under the old one.
    let (ca, roots) = (Arc::clone(&one), both.clone());
    scene.source.answers(move |clock| {
        Ok(Issued { roots: roots.clone().into_bytes(), ..ca.issue(OWN, clock.now(), LIFE) })
    });
    sleep(LIFE * 6 / 10).await;
    assert_eq!(scene.roots(), 2, "the answer alone brings a root");
    fs::write(scene.roots_file(), &both).unwrap();
    // Leaves move to the new root.
    let (ca, roots) = (Arc::clone(&two), both.clone());
    scene.source.answers(move |clock| {
        Ok(Issued { roots: roots.clone().into_bytes(), ..ca.issue(OWN, clock.now(), LIFE) })
    });
    sleep(LIFE * 6 / 10).await;
    assert_eq!(scene.roots(), 2);
    // The answers stop to carry the old one, the file does not yet.
    let ca = Arc::clone(&two);
    scene.source.answers(move |clock| Ok(ca.issue(OWN, clock.now(), LIFE)));
    sleep(LIFE * 6 / 10).await;
    assert_eq!(scene.roots(), 2, "the file alone keeps a root");
    fs::write(scene.roots_file(), &two.root).unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(scene.roots(), 1, "nobody names the old root any more");
}

#[tokio::test(start_paused = true)]
async fn a_root_that_left_the_file_makes_the_proxy_ask_whether_it_is_gone_for_good() {
    let scene = Scene::running();
    let two = Arc::new(TestCa::new("two"));
    let both = [scene.ca.root.as_str(), &two.root].concat();
    fs::write(scene.roots_file(), &both).unwrap();
    sleep(Duration::from_secs(2)).await;
    assert_eq!(scene.roots(), 2);
    let ca = Arc::clone(&two);
    scene.source.answers(move |clock| Ok(ca.issue(OWN, clock.now(), LIFE)));
    fs::write(scene.roots_file(), &two.root).unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(scene.roots(), 2, "the last answer named it");
    sleep(ROOT_REMOVED_SPREAD + Duration::from_secs(1)).await;
    assert_eq!(scene.roots(), 1);
    assert_eq!(scene.source.times(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_removed_root_goes_also_when_the_own_certificate_has_expired() {
    let scene = Scene::running();
    let two = TestCa::new("two");
    fs::write(scene.roots_file(), [scene.ca.root.as_str(), &two.root].concat()).unwrap();
    sleep(Duration::from_secs(2)).await;
    assert_eq!(scene.roots(), 2);
    scene.source.answers(|_| Err(away()));
    sleep(LIFE * 2).await;
    fs::write(scene.roots_file(), &scene.ca.root).unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(scene.roots(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_on_its_way_while_a_root_leaves_the_file_is_not_the_last_word() {
    let (scene, renewal) = Scene::new();
    let two = Arc::new(TestCa::new("two"));
    let both = [scene.ca.root.as_str(), &two.root].concat();
    fs::write(scene.roots_file(), &both).unwrap();
    let (ca, roots) = (Arc::clone(&two), both.clone().into_bytes());
    scene
        .source
        .answers(move |clock| Ok(Issued { roots: roots.clone(), ..ca.issue(OWN, clock.now(), LIFE) }));
    *scene.source.takes.lock().unwrap() = Duration::from_secs(60);
    let scene = scene.run(renewal);
    sleep(Duration::from_secs(2)).await;
    assert_eq!((scene.source.times(), scene.roots()), (1, 0));
    fs::write(scene.roots_file(), &two.root).unwrap();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(scene.roots(), 2, "the answer was given before");
    *scene.source.takes.lock().unwrap() = Duration::ZERO;
    let ca = Arc::clone(&two);
    scene.source.answers(move |clock| Ok(ca.issue(OWN, clock.now(), LIFE)));
    sleep(ROOT_REMOVED_SPREAD * 2).await;
    assert_eq!(scene.roots(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_goes_on_naming_a_removed_root_is_asked_ever_more_rarely() {
    let (scene, renewal) = Scene::new();
    let two = Arc::new(TestCa::new("two"));
    let both = [scene.ca.root.as_str(), &two.root].concat();
    fs::write(scene.roots_file(), &both).unwrap();
    let (ca, roots) = (Arc::clone(&two), both.into_bytes());
    scene
        .source
        .answers(move |clock| Ok(Issued { roots: roots.clone(), ..ca.issue(OWN, clock.now(), LIFE) }));
    let scene = scene.run(renewal);
    sleep(Duration::from_secs(2)).await;
    fs::write(scene.roots_file(), &two.root).unwrap();
    sleep(LIFE / 2).await;
    // At 0..30 s, and 30, 60, 120 and 240 s after one another.
    assert!((5..=6).contains(&scene.source.times()), "{:?}", scene.source.asked());
    let ca = Arc::clone(&two);
    scene.source.answers(move |clock| Ok(ca.issue(OWN, clock.now(), LIFE)));
    sleep(LIFE / 2).await;
    assert_eq!(scene.roots(), 1);
}

#[tokio::test(start_paused = true)]
async fn roots_that_do_not_fit_beside_the_sources_are_applied_once_they_do() {
    let (scene, renewal) = Scene::new();
    let others: String = (1..MAX_ROOTS).map(|number| TestCa::new(&number.to_string()).root).collect();
    let (ca, roots) = (Arc::clone(&scene.ca), (scene.ca.root.clone() + &others).into_bytes());
    scene
        .source
        .answers(move |clock| Ok(Issued { roots: roots.clone(), ..ca.issue(OWN, clock.now(), LIFE) }));
    let scene = scene.run(renewal);
    sleep(Duration::from_secs(2)).await;
    fs::write(scene.roots_file(), scene.ca.root.clone() + &TestCa::new("late").root).unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!((scene.roots(), scene.errors(RefreshErrorReason::Roots)), (MAX_ROOTS, 1));
    let ca = Arc::clone(&scene.ca);
    scene.source.answers(move |clock| Ok(ca.issue(OWN, clock.now(), LIFE)));
    sleep(LIFE * 6 / 10).await;
    assert_eq!(scene.roots(), 2);
    assert!(scene.status.last_error().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_broken_file_of_roots_changes_nothing_and_is_told() {
    let scene = Scene::running();
    sleep(Duration::from_secs(2)).await;
    for broken in ["", "-----BEGIN CERTIFICATE-----\nAAAA", "nonsense"] {
        fs::write(scene.roots_file(), broken).unwrap();
        sleep(Duration::from_secs(1)).await;
        assert_eq!(scene.roots(), 1, "{broken:?}");
        assert_eq!(scene.status.last_error().unwrap().reason, RefreshErrorReason::Roots, "{broken:?}");
    }
    fs::remove_file(scene.roots_file()).unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(scene.roots(), 1);
    assert_eq!(scene.errors(RefreshErrorReason::Roots), 4);
    fs::write(scene.roots_file(), &scene.ca.root).unwrap();
    sleep(Duration::from_secs(1)).await;
    assert!(scene.status.last_error().is_none());
}
