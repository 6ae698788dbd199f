use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use ringmail_policy::Mode;
use tokio::time::{sleep, timeout};

use super::*;
use crate::{snapshot::Snapshots, watched_file::FileError};

const STRICT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: ignite}
spec: {mtls: {mode: STRICT}}
";
const PERMISSIVE: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: permissive, namespace: ignite}
spec: {mtls: {mode: PERMISSIVE}}
";

struct Scene {
    dir: tempfile::TempDir,
    snapshots: Snapshots,
    status: Arc<Status>,
}

impl Scene {
    fn watching(directory: &Path, dir: tempfile::TempDir) -> Self {
        Self::reading(directory, dir, directory::read)
    }

    fn reading(directory: &Path, dir: tempfile::TempDir, read: Read) -> Self {
        let (sender, snapshots) = tokio::sync::watch::channel(None);
        let status = Arc::<Status>::default();
        let settings = Settings::new("cluster.local".parse().unwrap());
        let pod = Pod { namespace: "ignite".to_owned(), ..Pod::default() };
        let mut discovery = Files::watching(directory.to_owned(), settings, pod, sender, Arc::clone(&status));
        discovery.read = read;
        tokio::spawn(discovery.run());
        Self { dir, snapshots, status }
    }

    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        Self::watching(&path, dir)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join(name), text).unwrap();
    }

    fn version(&self) -> u64 {
        self.snapshots.borrow().as_ref().map_or(0, |snapshot| snapshot.version)
    }

    fn mode(&self) -> Option<Mode> {
        self.snapshots.borrow().as_ref().map(|snapshot| snapshot.inbound.mode(47500).mode)
    }

    /// Waits for a version, and answers how long it took.
    async fn reaches(&mut self, version: u64) -> Duration {
        let start = Instant::now();
        let reached = self
            .snapshots
            .wait_for(|snapshot| snapshot.as_ref().is_some_and(|snapshot| snapshot.version >= version));
        drop(timeout(Duration::from_secs(5), reached).await.expect("no such version came").unwrap());
        start.elapsed()
    }
}

#[tokio::test]
async fn changes_of_every_kind_apply_within_a_second() {
    let mut scene = Scene::start();
    scene.reaches(1).await;
    scene.write("a.yaml", STRICT);
    assert!(scene.reaches(2).await < Duration::from_secs(1));
    assert_eq!(scene.mode(), Some(Mode::Strict));
    scene.write("a.yaml", PERMISSIVE);
    assert!(scene.reaches(3).await < Duration::from_secs(1));
    assert_eq!(scene.mode(), Some(Mode::Permissive));
    fs::rename(scene.dir.path().join("a.yaml"), scene.dir.path().join("b.yml")).unwrap();
    assert!(scene.reaches(4).await < Duration::from_secs(1));
    fs::remove_file(scene.dir.path().join("b.yml")).unwrap();
    assert!(scene.reaches(5).await < Duration::from_secs(1));
    assert_eq!(scene.status.applied(), 5);
    assert_eq!(scene.status.rejected(), 0);
}

#[tokio::test]
async fn a_file_that_is_still_being_written_is_not_applied_in_between() {
    let mut scene = Scene::start();
    scene.reaches(1).await;
    // Cut after the first document, it would be a valid and different policy.
    let text = format!("{STRICT}---{}", PERMISSIVE.replace("namespace: ignite", "namespace: other"));
    for end in (0..text.len()).step_by(text.len() / 12) {
        scene.write("a.yaml", &text[..end]);
        sleep(Duration::from_millis(90)).await;
        assert_eq!(scene.version(), 1);
        assert_eq!(scene.status.rejected(), 0);
    }
    scene.write("a.yaml", STRICT);
    scene.reaches(2).await;
    assert_eq!(scene.mode(), Some(Mode::Strict));
}

#[tokio::test]
async fn invalid_input_keeps_the_last_good_one_and_is_told_until_it_is_repaired() {
    let mut scene = Scene::start();
    scene.write("a.yaml", STRICT);
    scene.reaches(1).await;
    sleep(LOOK_EVERY * 4).await;
    let version = scene.version();
    scene.write("b.yaml", &STRICT.replace("name: strict", "name: other").replace("STRICT", "MAYBE"));
    sleep(Duration::from_secs(1)).await;
    assert_eq!((scene.version(), scene.mode()), (version, Some(Mode::Strict)));
    assert_eq!(scene.status.rejected(), 1, "one state is refused once");
    let told = scene.status.last_error().unwrap().text;
    assert!(told.contains("b.yaml") && told.contains("expected") && told.contains("MAYBE"), "{told}");
    scene.write("b.yaml", "");
    scene.reaches(version + 1).await;
    assert!(scene.status.last_error().is_none());
}

#[tokio::test]
async fn a_missing_directory_is_not_an_empty_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy");
    let mut scene = Scene::watching(&path, dir);
    sleep(Duration::from_secs(1)).await;
    assert!(scene.snapshots.borrow().is_none());
    let told = scene.status.last_error().unwrap().text;
    assert!(told.contains("policy: No such file"), "{told}");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("a.yaml"), STRICT).unwrap();
    scene.reaches(1).await;
    fs::rename(&path, scene.dir.path().join("gone")).unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(scene.mode(), Some(Mode::Strict), "the last good one stays");
    assert!(scene.status.last_error().is_some());
    fs::rename(scene.dir.path().join("gone"), &path).unwrap();
    sleep(Duration::from_secs(1)).await;
    assert!(scene.status.last_error().is_none());
}

#[tokio::test]
async fn a_file_that_cannot_be_read_for_a_while_is_read_again_and_told_once() {
    /// As when the system is out of descriptors for the first second.
    fn failing_at_first(directory: &Path, sight: &Sight) -> Result<Vec<Text>, DirectoryError> {
        static FAILED: AtomicUsize = AtomicUsize::new(0);
        if FAILED.fetch_add(1, Ordering::Relaxed) >= 3 {
            return directory::read(directory, sight);
        }
        let source = std::io::Error::from_raw_os_error(nix::libc::EMFILE);
        Err(FileError::Read { path: directory.join("a.yaml"), source }.into())
    }
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.yaml"), STRICT).unwrap();
    let path = dir.path().to_owned();
    let mut scene = Scene::reading(&path, dir, failing_at_first);
    scene.reaches(1).await;
    assert_eq!(scene.mode(), Some(Mode::Strict));
    assert_eq!(scene.status.rejected(), 1);
    assert!(scene.status.last_error().is_none());
}

#[tokio::test]
async fn the_swap_of_links_by_which_a_config_map_changes_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    for (version, text) in [("..v1", STRICT), ("..v2", PERMISSIVE)] {
        fs::create_dir(dir.path().join(version)).unwrap();
        fs::write(dir.path().join(version).join("p.yaml"), text).unwrap();
    }
    symlink("..v1", dir.path().join("..data")).unwrap();
    symlink("..data/p.yaml", dir.path().join("p.yaml")).unwrap();
    let path = dir.path().to_owned();
    let mut scene = Scene::watching(&path, dir);
    scene.reaches(1).await;
    assert_eq!(scene.mode(), Some(Mode::Strict));
    symlink("..v2", scene.dir.path().join("..next")).unwrap();
    fs::rename(scene.dir.path().join("..next"), scene.dir.path().join("..data")).unwrap();
    assert!(scene.reaches(2).await < Duration::from_secs(1));
    assert_eq!(scene.mode(), Some(Mode::Permissive));
}

#[tokio::test]
async fn a_directory_that_is_old_applies_at_the_first_look() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.yaml"), STRICT).unwrap();
    sleep(Duration::from_millis(2100)).await;
    let path = dir.path().to_owned();
    let mut scene = Scene::watching(&path, dir);
    let took = scene.reaches(1).await;
    assert!(took < LOOK_EVERY, "{took:?}");
}
