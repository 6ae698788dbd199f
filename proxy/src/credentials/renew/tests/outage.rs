//! A CA that is away, comes back, has too much to do, or shows another time: over hours, on a clock of the test's.

use ringmail_evidence::shown;

use super::*;
use crate::{
    admin::{State, readiness, test_state::TestState},
    credentials::publisher::unix_time,
    metrics::Metrics,
    tls::Credentials,
};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const AWAY: Duration = Duration::from_secs(9 * 3600);

/// Two sidecars with certificates of one CA.
struct Pair {
    scenes: [Scene; 2],
    life: Duration,
}

impl Pair {
    fn running(life: Duration) -> Self {
        let (first, one) = Scene::new();
        let (second, two) = Scene::new();
        let second = Scene { ca: Arc::clone(&first.ca), clock: first.clock.clone(), ..second };
        fs::write(second.roots_file(), &first.ca.root).unwrap();
        // The second's publisher has a clock of its own, which goes with tokio's as the first's does.
        let pair = Self { scenes: [first.run(one), second.run(two)], life };
        pair.ca_is_back();
        pair
    }

    fn ca_is_back(&self) {
        for scene in &self.scenes {
            let (ca, life) = (Arc::clone(&scene.ca), self.life);
            scene.source.answers(move |clock| Ok(ca.issue(OWN, clock.now(), life)));
        }
    }

    fn ca_is_away(&self) {
        for scene in &self.scenes {
            scene.source.answers(|_| Err(away()));
        }
    }

    fn held(&self) -> [Arc<Credentials>; 2] {
        [0, 1].map(|side| self.scenes[side].credentials.borrow().clone().expect("certificates are held"))
    }

    /// A handshake each way, at the time that the clock shows.
    fn handshakes(&self) -> Result<(), rustls::Error> {
        let [one, two] = self.held();
        let now = unix_time(self.scenes[0].clock.now());
        one.handshake_at(&two, now)?;
        two.handshake_at(&one, now)
    }

    /// How long until the first of the two asks for its next certificate.
    fn next_renewal(&self) -> Duration {
        let now = self.scenes[0].clock.now();
        let at = |scene: &Scene| scene.status.next_attempt().expect("a renewal is planned");
        let next = self.scenes.iter().map(at).min().unwrap();
        next.duration_since(now).unwrap_or_default()
    }
}

/// What admin and metrics show of these credentials, once policies are in.
fn shown_of(scene: &Scene) -> Arc<State> {
    let test = TestState::ready("");
    let state = Arc::into_inner(test.state).expect("nobody else has it yet");
    Arc::new(State {
        credentials: scene.credentials.clone(),
        identity_status: Arc::clone(&scene.status),
        ..state
    })
}

fn gauge(state: &Arc<State>, name: &str) -> f64 {
    let text = Metrics::new(Arc::clone(state)).unwrap().scrape().unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
}

/// The worst moment: the CA goes away right before the first of the two would have asked it.
#[tokio::test(start_paused = true)]
async fn a_ca_that_is_away_for_nine_hours_costs_no_handshake_and_no_readiness() {
    let pair = Pair::running(DAY);
    sleep(Duration::from_secs(1)).await;
    sleep(pair.next_renewal() - Duration::from_secs(2)).await;
    pair.ca_is_away();
    let state = shown_of(&pair.scenes[0]);
    let before: Vec<_> = pair.scenes.iter().map(Scene::serial).collect();
    let (mut done, mut failed, mut unready) = (0, 0, 0);
    for _ in 0..AWAY.as_secs() / 60 {
        sleep(Duration::from_secs(60)).await;
        done += 2;
        failed += usize::from(pair.handshakes().is_err());
        unready += usize::from(readiness(&state).is_err());
        let expires = gauge(&state, "control_identity_cert_expiration_timestamp_seconds");
        assert!(expires == pair.held()[0].svid.not_after().as_secs() as f64);
    }
    assert_eq!(pair.scenes.iter().map(Scene::serial).collect::<Vec<_>>(), before, "nobody could have issued");
    let left = pair.held()[0].svid.not_after().as_secs() - unix_time(pair.scenes[0].clock.now()).as_secs();
    let asked: u64 = pair.scenes.iter().map(|scene| scene.errors(RefreshErrorReason::CaUnreachable)).sum();
    shown!("F1", "handshakes failed in 9 simulated hours without the CA", format!("{failed} of {done}"), "0");
    shown!("F1", "readiness lost in 9 simulated hours, in looks once a minute", unready, "0");
    shown!("F1", "times that the two sidecars asked in 9 hours", asked, "100 to 300");
    shown!("F1", "minutes of the certificate left after 9 hours", left / 60, ">= 100");
    assert_eq!((failed, unready), (0, 0));
    assert!((100..300).contains(&asked), "{asked}");
    assert!(
        left >= 100 * 60,
        "renewal comes at 55 % at the latest, so 10.8 h are left when it does: {left} s"
    );

    pair.ca_is_back();
    sleep(Duration::from_secs(6 * 60)).await;
    let after: Vec<_> = pair.scenes.iter().map(Scene::serial).collect();
    assert!(
        before.iter().zip(&after).all(|(before, after)| before != after),
        "renewed within the longest pause"
    );
    pair.handshakes().unwrap();
}

#[tokio::test(start_paused = true)]
async fn beyond_its_end_both_sides_refuse_and_five_seconds_after_the_ca_both_are_back() {
    let pair = Pair::running(LIFE);
    sleep(Duration::from_secs(1)).await;
    pair.ca_is_away();
    sleep(LIFE * 2).await;
    let refused = pair.handshakes().unwrap_err().to_string();
    assert!(refused.contains("expired") || refused.contains("Expired"), "{refused}");
    pair.ca_is_back();
    let began = Instant::now();
    while pair.handshakes().is_err() {
        sleep(Duration::from_millis(100)).await;
    }
    let took = began.elapsed();
    shown!(
        "F7",
        "simulated seconds from the CA's return to the next handshake",
        format!("{:.1}", seconds(took)),
        "< 5"
    );
    assert!(took < Duration::from_secs(5), "{took:?}");
}

/// When each of `proxies` asks after a CA's return, in seconds from it. Every proxy failed since its own renewal was due.
fn returns(proxies: usize, left_at_return: Duration, away_for: Duration) -> Vec<f64> {
    let returned = seconds(away_for);
    let one = |_| {
        // Certificates are of any age: each proxy began to ask at a time of its own.
        let mut at = random() * returned;
        let mut failures = 0;
        while at < returned {
            failures += 1;
            let left = (left_at_return + away_for).saturating_sub(Duration::from_secs_f64(at));
            at += seconds(retry_after(
                failures,
                if left_at_return.is_zero() { Duration::ZERO } else { left },
                random(),
            ));
        }
        at - returned
    };
    (0..proxies).map(one).collect()
}

/// How many ask in the busiest second.
fn busiest(returns: &[f64]) -> usize {
    let mut seconds = std::collections::HashMap::new();
    for at in returns {
        *seconds.entry(at.floor() as u64).or_insert(0) += 1;
    }
    seconds.into_values().max().unwrap_or_default()
}

#[test]
fn a_thousand_proxies_that_waited_do_not_return_together() {
    let holding = busiest(&returns(1_000, HOUR * 5, AWAY));
    let returned = returns(1_000, Duration::ZERO, AWAY);
    let empty = busiest(&returned);
    let last = returned.iter().copied().fold(0.0, f64::max);
    shown!(
        "F2",
        "of 1,000 that hold a certificate, in the busiest second of the CA's return",
        holding,
        "<= 30"
    );
    shown!("F2", "of 1,000 that hold none, in the busiest second", empty, "<= 500");
    shown!("F2", "seconds until the last of those has asked", format!("{last:.1}"), "< 4");
    assert!(holding <= 30 && empty <= 500 && last < 4.0, "{holding} {empty} {last}");
}

#[tokio::test(start_paused = true)]
async fn a_ca_that_has_too_much_to_do_is_asked_ever_more_rarely() {
    let scene = Scene::running();
    sleep(Duration::from_secs(1)).await;
    scene.source.answers(|_| {
        let ca = "ca:15012".to_owned();
        Err(IssueError::Refused { ca, code: tonic::Code::ResourceExhausted, message: "too much".to_owned() })
    });
    sleep(LIFE * 9 / 10).await;
    let asked = scene.source.asked();
    let pauses: Vec<f64> = asked[1..].windows(2).map(|pair| seconds(pair[1] - pair[0])).collect();
    assert!(pauses.windows(3).take(4).all(|three| three[2] > three[0]), "{pauses:?}");
    assert_eq!(scene.errors(RefreshErrorReason::CaFailed), asked.len() as u64 - 1);
    assert!(asked.len() < 25, "{}", asked.len());
}

/// The own clock is put off; the CA's stays right.
async fn off_by(step: i64) -> (Scene, usize) {
    let (scene, renewal) = Scene::new();
    let right = scene.clock.clone();
    let mut scene = scene;
    scene.clock = TestClock::new();
    scene.clock.step(step);
    let (publisher, credentials, status) = publisher();
    let publisher = publisher.clock(scene.clock.clock()).comparing_clocks(Duration::from_secs(120));
    let ca = Arc::clone(&scene.ca);
    scene.source.answers(move |_| Ok(ca.issue(OWN, right.now(), DAY)));
    drop(renewal);
    let roots = WatchedFiles::new(vec![scene.dir.path().join("roots")], LIMIT);
    (scene.credentials, scene.status) = (credentials, status);
    let renewal = Renewal::new(scene.source.clone(), publisher, roots);
    let scene = scene.run(renewal);
    sleep(HOUR).await;
    let asked = scene.source.times();
    (scene, asked)
}

const YEAR: i64 = 365 * 24 * 3600;

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_off_is_told_and_makes_no_storm() {
    for (step, holds) in [(0, true), (3600, true), (-3600, false), (YEAR, false), (-YEAR, false), (60, true)]
    {
        let (scene, asked) = off_by(step).await;
        let told = scene.status.clock_skew().unwrap();
        assert!((told - step as f64).abs() <= 2.0, "{step}: {told}");
        assert_eq!(scene.serial().is_some(), holds, "{step}");
        // One that holds nothing asks every three seconds or so; one that holds something asks once.
        let most = if holds { 1 } else { 1_800 };
        assert!(asked <= most, "{step}: {asked} times in an hour");
        if !holds {
            let reason = scene.status.last_error().unwrap();
            assert_eq!(reason.reason, RefreshErrorReason::Untrusted, "{step}: {reason}");
            // Set right, the next try is the last.
            scene.clock.step(0);
            sleep(Duration::from_secs(5)).await;
            assert!(scene.serial().is_some() && scene.status.clock_skew().unwrap().abs() <= 2.0, "{step}");
        }
        shown!(
            "F6",
            format!("requests in an hour with the own clock off by {step} s"),
            asked,
            if holds { "<= 1" } else { "<= 1,800: one each 2 s" }
        );
    }
}

#[tokio::test(start_paused = true)]
async fn steps_of_a_clock_while_certificates_are_held_ask_no_more_than_is_due() {
    let scene = Scene::running();
    let ca = Arc::clone(&scene.ca);
    sleep(Duration::from_secs(10)).await;
    scene.source.answers(move |clock| Ok(ca.issue(OWN, clock.now(), DAY)));
    sleep(LIFE).await;
    let before = scene.source.times();
    for step in [3600, -3600, 0, 3600, -3600, 0, 300, -300, 0] {
        scene.clock.step(step);
        sleep(Duration::from_secs(600)).await;
        assert!(scene.credentials.borrow().is_some());
    }
    let asked = scene.source.times() - before;
    shown!(
        "F6",
        "requests for 9 steps of the clock of up to an hour, with a certificate of a day",
        asked,
        "<= 1"
    );
    assert!(asked <= 1, "{asked}");
}
