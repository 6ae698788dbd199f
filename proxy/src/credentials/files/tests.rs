use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, sleep};

use super::*;
use crate::{
    credentials::{
        kept::Kept,
        status::Status,
        test_ca::{OWN, TestCa, publisher},
    },
    tls::CredentialsRx,
};

const LIFE: Duration = Duration::from_secs(3600);

struct Scene {
    dir: tempfile::TempDir,
    ca: TestCa,
    credentials: CredentialsRx,
    status: Arc<Status>,
}

fn paths(dir: &Path) -> Files {
    Files { cert: dir.join("tls.crt"), key: dir.join("tls.key"), bundle: dir.join("ca.crt") }
}

impl Scene {
    fn new() -> (Self, FileRenewal) {
        let dir = tempfile::tempdir().unwrap();
        let (publisher, credentials, status) = publisher();
        let renewal = FileRenewal::new(paths(dir.path()), publisher);
        (Self { dir, ca: TestCa::new("one"), credentials, status }, renewal)
    }

    fn running() -> Self {
        let (scene, renewal) = Self::new();
        tokio::spawn(renewal.run());
        scene
    }

    fn issue(&self) -> Issued {
        self.ca.issue(OWN, SystemTime::now(), LIFE)
    }

    fn write(&self, issued: &Issued) {
        let files = paths(self.dir.path());
        fs::write(files.cert, &issued.chain).unwrap();
        fs::write(files.key, &issued.key).unwrap();
        fs::write(files.bundle, &issued.roots).unwrap();
    }

    fn serial(&self) -> Option<String> {
        self.credentials.borrow().as_ref().map(|held| held.svid.serial().to_owned())
    }

    /// Waits for other credentials than those of `serial`, and answers how long it took.
    async fn moves_on_from(&self, serial: Option<String>) -> Duration {
        let start = Instant::now();
        while self.serial() == serial {
            assert!(start.elapsed() < Duration::from_secs(5), "{:?}", self.status.last_error());
            sleep(Duration::from_millis(10)).await;
        }
        start.elapsed()
    }

    fn reason(&self) -> Option<RefreshErrorReason> {
        self.status.last_error().map(|error| error.reason)
    }
}

#[tokio::test]
async fn a_swap_of_all_three_files_applies_within_a_second() {
    let scene = Scene::running();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(scene.reason(), Some(RefreshErrorReason::Files), "they are not there yet");
    for _ in 0..3 {
        let serial = scene.serial();
        scene.write(&scene.issue());
        assert!(scene.moves_on_from(serial).await < Duration::from_secs(1));
        assert_eq!(scene.reason(), None);
    }
    assert_eq!(scene.status.refreshes_ok(), 3);
}

#[tokio::test]
async fn files_that_do_not_belong_together_or_are_cut_are_never_applied() {
    let scene = Scene::running();
    scene.write(&scene.issue());
    scene.moves_on_from(None).await;
    let serial = scene.serial();
    let (next, files) = (scene.issue(), paths(scene.dir.path()));
    fs::write(&files.cert, &next.chain).unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!((scene.serial(), scene.reason()), (serial.clone(), Some(RefreshErrorReason::Malformed)));
    assert!(scene.status.last_error().unwrap().text.contains("does not match"));
    fs::write(&files.key, &next.key[..next.key.len() / 2]).unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!((scene.serial(), scene.reason()), (serial.clone(), Some(RefreshErrorReason::Malformed)));
    fs::write(&files.key, &next.key).unwrap();
    scene.moves_on_from(serial).await;
    assert_eq!(scene.reason(), None);
}

#[tokio::test]
async fn files_of_another_identity_or_under_another_root_are_never_applied() {
    let scene = Scene::running();
    scene.write(&scene.issue());
    scene.moves_on_from(None).await;
    let serial = scene.serial();
    scene.write(&scene.ca.issue("spiffe://cluster.local/ns/x/sa/y", SystemTime::now(), LIFE));
    sleep(Duration::from_secs(1)).await;
    assert_eq!((scene.serial(), scene.reason()), (serial.clone(), Some(RefreshErrorReason::WrongIdentity)));
    let other = TestCa::new("two");
    scene.write(&Issued { roots: other.root.into_bytes(), ..scene.issue() });
    sleep(Duration::from_secs(1)).await;
    assert_eq!((scene.serial(), scene.reason()), (serial, Some(RefreshErrorReason::Untrusted)));
}

#[tokio::test]
async fn a_certificate_that_is_not_valid_yet_is_taken_once_it_is() {
    let scene = Scene::running();
    // Dated back by two minutes, it begins to be valid in three seconds.
    scene.write(&scene.ca.issue(OWN, SystemTime::now() + Duration::from_secs(123), LIFE));
    sleep(Duration::from_secs(1)).await;
    assert_eq!((scene.serial(), scene.reason()), (None, Some(RefreshErrorReason::Untrusted)));
    sleep(RETRY).await;
    scene.moves_on_from(None).await;
}

#[tokio::test]
async fn kept_credentials_serve_while_the_files_are_away() {
    let (scene, renewal) = Scene::new();
    let kept = Kept::new(&scene.issue(), SystemTime::now());
    let renewal = renewal.restore(&kept);
    assert!(scene.serial().is_some());
    tokio::spawn(renewal.run());
    sleep(Duration::from_secs(1)).await;
    assert!(scene.serial().is_some());
    let serial = scene.serial();
    scene.write(&scene.issue());
    scene.moves_on_from(serial).await;
}
