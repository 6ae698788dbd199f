mod outage;
mod roots;

use std::{fs, path::Path, sync::Mutex};

use proptest::prelude::*;
use tokio::{task::JoinHandle, time::sleep};

use super::*;
use crate::control_plane::ServerError;
use crate::{
    credentials::{
        status::Status,
        test_ca::{OWN, TestCa, TestClock, publisher},
    },
    tls::CredentialsRx,
};

const LIFE: Duration = Duration::from_secs(1200);
const LIMIT: usize = 1 << 20;

type Answer = Box<dyn Fn(&TestClock) -> Result<Issued, IssueError> + Send + Sync>;

/// A source that answers as it is told, and remembers when it was asked.
#[derive(Clone)]
struct FakeSource {
    clock: TestClock,
    answer: Arc<Mutex<Answer>>,
    asked: Arc<Mutex<Vec<Instant>>>,
    /// How long each answer takes.
    takes: Arc<Mutex<Duration>>,
}

impl Source for FakeSource {
    async fn issue(&self) -> Result<Issued, IssueError> {
        self.asked.lock().unwrap().push(Instant::now());
        let takes = *self.takes.lock().unwrap();
        if !takes.is_zero() {
            sleep(takes).await;
        }
        (self.answer.lock().unwrap())(&self.clock)
    }
}

impl FakeSource {
    fn answers(&self, answer: impl Fn(&TestClock) -> Result<Issued, IssueError> + Send + Sync + 'static) {
        *self.answer.lock().unwrap() = Box::new(answer);
    }

    /// When it was asked, from the first time on.
    fn asked(&self) -> Vec<Duration> {
        let asked = self.asked.lock().unwrap();
        asked.iter().map(|at| *at - asked[0]).collect()
    }

    fn times(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

fn away() -> IssueError {
    let cause = std::io::ErrorKind::ConnectionRefused.into();
    ServerError::Unreachable { server: "ca ca:15012".to_owned(), cause }.into()
}

struct Scene {
    ca: Arc<TestCa>,
    clock: TestClock,
    source: FakeSource,
    credentials: CredentialsRx,
    status: Arc<Status>,
    dir: tempfile::TempDir,
    task: Option<JoinHandle<()>>,
}

impl Scene {
    /// A loop that is not running yet, whose source issues good certificates.
    fn new() -> (Self, Renewal<FakeSource>) {
        let ca = Arc::new(TestCa::new("one"));
        let clock = TestClock::new();
        let (publisher, credentials, status) = publisher();
        let asked = Arc::default();
        let issuer = Arc::clone(&ca);
        let good: Answer = Box::new(move |clock| Ok(issuer.issue(OWN, clock.now(), LIFE)));
        let source = FakeSource {
            clock: clock.clone(),
            answer: Arc::new(Mutex::new(good)),
            asked,
            takes: Arc::default(),
        };
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("roots"), &ca.root).unwrap();
        let roots = WatchedFiles::new(vec![dir.path().join("roots")], LIMIT);
        let renewal = Renewal::new(source.clone(), publisher.clock(clock.clock()), roots);
        (Self { ca, clock, source, credentials, status, dir, task: None }, renewal)
    }

    fn running() -> Self {
        let (scene, renewal) = Self::new();
        scene.run(renewal)
    }

    fn run(mut self, renewal: Renewal<FakeSource>) -> Self {
        self.task = Some(tokio::spawn(renewal.run()));
        self
    }

    fn roots_file(&self) -> impl AsRef<Path> {
        self.dir.path().join("roots")
    }

    fn serial(&self) -> Option<String> {
        self.credentials.borrow().as_ref().map(|held| held.svid.serial().to_owned())
    }

    fn roots(&self) -> usize {
        self.credentials.borrow().as_ref().map_or(0, |held| held.bundle.roots().len())
    }

    fn errors(&self, reason: RefreshErrorReason) -> u64 {
        self.status.errors().into_iter().find(|(known, _)| *known == reason).unwrap().1
    }
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

#[tokio::test(start_paused = true)]
async fn renews_at_half_life_again_and_again() {
    let scene = Scene::running();
    sleep(LIFE * 5).await;
    let asked = scene.source.asked();
    for pair in asked.windows(2) {
        let pause = seconds(pair[1] - pair[0]);
        assert!((0.44..0.56).contains(&(pause / seconds(LIFE))), "{pause}");
    }
    assert!((9..=12).contains(&asked.len()), "{}", asked.len());
    assert_eq!(scene.status.refreshes_ok(), asked.len() as u64);
    let pauses: std::collections::BTreeSet<_> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses.len() > 1, "renewals have no jitter");
}

#[tokio::test(start_paused = true)]
async fn a_life_of_twenty_seconds_is_renewed_each_ten() {
    let (scene, renewal) = Scene::new();
    let ca = Arc::clone(&scene.ca);
    scene.source.answers(move |clock| Ok(ca.issue(OWN, clock.now(), Duration::from_secs(20))));
    let scene = scene.run(renewal);
    sleep(Duration::from_secs(200)).await;
    assert!((17..=23).contains(&scene.source.times()), "{}", scene.source.times());
    assert_eq!(scene.status.refreshes_ok(), scene.source.times() as u64);
}

#[tokio::test(start_paused = true)]
async fn while_the_ca_is_away_the_old_certificate_stays_and_the_pauses_grow() {
    let scene = Scene::running();
    sleep(Duration::from_secs(1)).await;
    let serial = scene.serial().unwrap();
    scene.source.answers(|_| Err(away()));
    sleep(LIFE * 3 / 4).await;
    assert_eq!(scene.serial(), Some(serial.clone()));
    let asked = scene.source.asked();
    let pauses: Vec<f64> = asked[1..].windows(2).map(|pair| seconds(pair[1] - pair[0])).collect();
    for (pause, expected) in pauses.iter().zip([0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0]) {
        // The loop looks four times a second.
        assert!((expected * 0.8..expected * 1.2 + 0.25).contains(pause), "{pauses:?}");
    }
    assert!(pauses.len() > 8 && pauses.iter().all(|pause| *pause < 300.0), "{pauses:?}");
    assert_eq!(scene.errors(RefreshErrorReason::CaUnreachable), asked.len() as u64 - 1);
    let told = scene.status.last_error().unwrap().to_string();
    assert_eq!(told, "ca_unreachable: ca ca:15012 cannot be reached: connection refused");
    assert!(scene.status.next_attempt().unwrap() > scene.clock.now());

    let ca = Arc::clone(&scene.ca);
    scene.source.answers(move |clock| Ok(ca.issue(OWN, clock.now(), LIFE)));
    sleep(Duration::from_secs(300)).await;
    assert_ne!(scene.serial(), Some(serial));
    assert!(scene.status.last_error().is_none());
}

#[tokio::test(start_paused = true)]
async fn after_expiry_the_proxy_is_back_within_five_seconds_of_the_ca() {
    let scene = Scene::running();
    sleep(Duration::from_secs(1)).await;
    scene.source.answers(|_| Err(away()));
    sleep(LIFE * 2).await;
    let serial = scene.serial().expect("what is held is not taken away");
    let ca = Arc::clone(&scene.ca);
    scene.source.answers(move |clock| Ok(ca.issue(OWN, clock.now(), LIFE)));
    sleep(Duration::from_secs(5)).await;
    assert_ne!(scene.serial(), Some(serial));
}

#[tokio::test(start_paused = true)]
async fn without_a_first_certificate_nothing_is_published_and_the_pause_stays_short() {
    let (scene, renewal) = Scene::new();
    scene.source.answers(|_| Err(away()));
    let scene = scene.run(renewal);
    sleep(Duration::from_secs(600)).await;
    assert!(scene.credentials.borrow().is_none());
    let asked = scene.source.asked();
    assert!(asked.windows(2).all(|pair| pair[1] - pair[0] < Duration::from_secs(5)), "{asked:?}");
    assert!((150..400).contains(&asked.len()), "{}", asked.len());
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_is_not_ours_is_never_published() {
    let other = Arc::new(TestCa::new("two"));
    type Forge = fn(&TestCa, &TestCa, SystemTime) -> Issued;
    let cases: [(&str, RefreshErrorReason, &str, Forge); 5] = [
        (
            "another id",
            RefreshErrorReason::WrongIdentity,
            "expected spiffe://cluster.local/ns/ignite/sa/node",
            |ca, _, now| ca.issue("spiffe://cluster.local/ns/ignite/sa/other", now, LIFE),
        ),
        ("another root", RefreshErrorReason::Untrusted, "own certificate as a client", |ca, other, now| {
            Issued { roots: ca.root.clone().into_bytes(), ..other.issue(OWN, now, LIFE) }
        }),
        ("another key", RefreshErrorReason::Malformed, "does not match the leaf", |ca, _, now| Issued {
            key: ca.issue(OWN, now, LIFE).key,
            ..ca.issue(OWN, now, LIFE)
        }),
        ("an expired one", RefreshErrorReason::Untrusted, "own certificate as a client", |ca, _, now| {
            ca.issue(OWN, now - LIFE * 2, LIFE)
        }),
        ("no root", RefreshErrorReason::Malformed, "root", |ca, _, now| {
            let leaf = ca.issue(OWN, now, LIFE);
            Issued { roots: leaf.chain.clone(), ..leaf }
        }),
    ];
    for (name, reason, text, forge) in cases {
        let scene = Scene::running();
        sleep(Duration::from_secs(1)).await;
        let serial = scene.serial().unwrap();
        let (ca, foreign) = (Arc::clone(&scene.ca), Arc::clone(&other));
        scene.source.answers(move |clock| Ok(forge(&ca, &foreign, clock.now())));
        sleep(LIFE * 2).await;
        assert_eq!(scene.serial(), Some(serial), "{name}");
        assert!(scene.errors(reason) > 1, "{name}: {:?}", scene.status.errors());
        let told = scene.status.last_error().unwrap().text;
        assert!(told.contains(text), "{name}: {told}");
    }
}

#[tokio::test(start_paused = true)]
async fn steps_of_the_clock_make_no_storm() {
    for step in [1200, -1200, 86_400 * 365, -86_400 * 365, 300, -300] {
        let scene = Scene::running();
        sleep(Duration::from_secs(10)).await;
        scene.clock.step(step);
        // The CA's clock stays right.
        let (ca, right) = (Arc::clone(&scene.ca), TestClock::new());
        scene.source.answers(move |_| Ok(ca.issue(OWN, right.now(), LIFE)));
        sleep(Duration::from_secs(120)).await;
        // One at the start, and at worst the short pause of a proxy that holds nothing valid.
        assert!(scene.source.times() < 60, "{step}: {}", scene.source.times());
        scene.clock.step(0);
        sleep(Duration::from_secs(301)).await;
        let held = scene.credentials.borrow().clone().unwrap();
        assert!(system_time(held.svid.not_after()) > scene.clock.now(), "{step}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_put_back_does_not_put_off_the_renewal() {
    let scene = Scene::running();
    sleep(Duration::from_secs(10)).await;
    scene.clock.step(-1200);
    sleep(LIFE * 6 / 10).await;
    assert!(scene.source.times() > 1);
}

#[tokio::test(start_paused = true)]
async fn a_clock_put_forward_to_half_life_renews_once() {
    let scene = Scene::running();
    sleep(Duration::from_secs(10)).await;
    scene.clock.step(800);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(scene.source.times(), 2);
}

#[tokio::test(start_paused = true)]
async fn kept_credentials_serve_without_the_source_until_their_own_half_life() {
    let (scene, renewal) = Scene::new();
    let issued = scene.ca.issue(OWN, scene.clock.now() - LIFE / 4, LIFE);
    let kept = Kept::new(&issued, scene.clock.now() - LIFE / 4);
    let scene = scene.run(renewal.restore(&kept));
    assert!(scene.serial().is_some(), "published before the loop has run");
    sleep(LIFE / 8).await;
    assert_eq!(scene.source.times(), 0);
    sleep(LIFE / 4).await;
    assert_eq!(scene.source.times(), 1);
}

#[tokio::test(start_paused = true)]
async fn kept_credentials_that_have_expired_are_not_used() {
    let (scene, renewal) = Scene::new();
    let then = scene.clock.now() - LIFE * 2;
    let kept = Kept::new(&scene.ca.issue(OWN, then, LIFE), then);
    let renewal = renewal.restore(&kept);
    assert!(scene.credentials.borrow().is_none());
    let scene = scene.run(renewal);
    sleep(Duration::from_secs(1)).await;
    assert!(scene.serial().is_some());
    assert_eq!(scene.source.times(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn no_sequence_of_clock_steps_panics(steps in proptest::collection::vec(-4_000_000_000i64..4_000_000_000, 1..6)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let scene = Scene::running();
            for step in steps {
                sleep(Duration::from_secs(2)).await;
                // Before 1970 a clock cannot tell the time that certificates have.
                scene.clock.step(0);
                let unix = scene.clock.now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
                scene.clock.step(step.max(-i64::try_from(unix).unwrap() + 1_000));
            }
            sleep(Duration::from_secs(30)).await;
            assert!(!scene.task.as_ref().unwrap().is_finished());
        });
    }
}
