//! A state folder that is full, read-only or failing: what is there stays whole, and whatever cannot be done is said.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use ringmail_evidence::shown;

use crate::support::{Ca, eventually, folder};

/// Room for a root and little else.
const SIZE: &str = "size=256k";

/// A small file system of its own, for as long as this lives.
struct Disk(PathBuf);

impl Disk {
    /// Needs root, as CI has it.
    fn mounted(place: &Path) -> Self {
        fs::create_dir_all(place).unwrap();
        mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), Some(SIZE))
            .expect("these tests need root");
        Self(place.to_owned())
    }

    fn read_only(&self) {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(Some("tmpfs"), &self.0, Some("tmpfs"), flags, Some(SIZE)).unwrap();
    }

    /// Not a byte is left.
    fn fill(&self) {
        let mut size = 64 * 1024;
        for number in 0.. {
            if fs::write(self.0.join(format!("ballast-{number}")), vec![0; size]).is_err() {
                if size == 1 {
                    return;
                }
                size = (size / 2).max(1);
            }
        }
    }

    fn clear(&self) {
        for entry in fs::read_dir(&self.0).unwrap().map(Result::unwrap) {
            if entry.file_name().to_string_lossy().starts_with("ballast") {
                fs::remove_file(entry.path()).unwrap();
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// What is in a key's file, with its mode.
fn key(state: &Path) -> (String, u32) {
    let path = state.join("root.pem");
    let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    (fs::read_to_string(path).unwrap(), mode)
}

/// The whole log of a CA that cannot start.
fn refused(folder: &Arc<tempfile::TempDir>, flags: &[&str]) -> String {
    refused_under(folder, flags, [])
}

/// The same with these variables in its environment.
fn refused_under<const N: usize>(
    folder: &Arc<tempfile::TempDir>,
    flags: &[&str],
    environment: [(&str, String); N],
) -> String {
    let log = Ca::try_start_under(Arc::clone(folder), flags, environment).err().expect("it started");
    log.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn a_full_disk_never_cuts_the_key_short_and_issuing_goes_on() {
    let folder = folder();
    let state = folder.path().join("state");
    let disk = Disk::mounted(&state);
    let flag = ["--state-dir", state.to_str().unwrap()];
    disk.fill();
    // There is no root yet, and none can be made: the start is refused, and nothing of a key is left.
    let said = refused(&folder, &flag);
    assert!(said.contains("No space left on device"), "{said}");
    assert!(!state.join("root.pem").exists() && !state.join(".root.pem.tmp").exists());
    disk.clear();
    let ca = Ca::start_with(Arc::clone(&folder), &flag);
    let (before, mode) = key(&state);
    assert_eq!(mode, 0o600);
    disk.fill();
    for _ in 0..20 {
        ca.leaf().await;
    }
    drop(ca.kill());
    // A root that is there needs no room.
    let ca = Ca::start_with(Arc::clone(&folder), &flag);
    ca.leaf().await;
    assert_eq!(key(&state), (before.clone(), 0o600));
    drop(ca.kill());
    // A damaged one is not replaced by half a new one, whatever the operator allows.
    let half = &before[..before.len() / 2];
    disk.clear();
    fs::write(state.join("root.pem"), half).unwrap();
    disk.fill();
    let said = refused(&folder, &[&flag[..], &["--bootstrap-new-root"]].concat());
    assert!(said.contains("No space left on device"), "{said}");
    let kept = fs::read_to_string(state.join("root.pem"));
    let set_aside = fs::read_to_string(state.join("root.pem.damaged-1"));
    assert!(
        kept.is_ok_and(|text| text == half) || set_aside.is_ok_and(|text| text == half),
        "what was there is lost"
    );
    disk.clear();
    let ca = Ca::start_with(Arc::clone(&folder), &[&flag[..], &["--bootstrap-new-root"]].concat());
    ca.leaf().await;
    assert_eq!(key(&state).1, 0o600);
    shown!("F5", "certificates on a full disk", "21 of 21; the key whole, mode 0600", "all");
}

#[tokio::test]
async fn a_bundle_that_finds_no_room_is_told_and_the_old_one_stays() {
    let folder = folder();
    // The CA's files are on a disk of their own, but for its state and the roots that it is to publish.
    let names = ["tokens.yaml", "jwks.json"];
    let files = names.map(|name| fs::read(folder.path().join(name)).unwrap());
    let disk = Disk::mounted(folder.path());
    for (name, text) in names.into_iter().zip(files) {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let (state, extra) = (elsewhere.path().join("state"), elsewhere.path().join("extra.pem"));
    let foreign =
        [Ca::start(&[]), Ca::start(&[])].map(|ca| fs::read_to_string(ca.path("bundle.pem")).unwrap());
    fs::write(&extra, &foreign[0]).unwrap();
    let flags = ["--state-dir", state.to_str().unwrap(), "--extra-roots", extra.to_str().unwrap()];
    let ca = Ca::start_with(Arc::clone(&folder), &flags);
    let bundle = folder.path().join("bundle.pem");
    let whole = fs::read_to_string(&bundle).unwrap();
    assert_eq!(whole.matches("BEGIN").count(), 2);
    disk.fill();
    fs::write(&extra, foreign.concat()).unwrap();
    let told = ca.line(|line| line.to_string().contains("No space left on device"));
    assert!(["WARN", "ERROR"].contains(&told["level"].as_str().unwrap()), "{told}");
    assert_eq!(fs::read_to_string(&bundle).unwrap(), whole);
    disk.clear();
    eventually("written once there is room", || {
        fs::read_to_string(&bundle).unwrap().matches("BEGIN").count() == 3
    });
    shown!(
        "F5",
        "a bundle that finds no room",
        "told; the old one whole, the new one once there is room",
        "exactly"
    );
}

#[tokio::test]
async fn a_disk_that_turns_read_only_stops_no_issuing_and_a_start_says_why_it_is_none() {
    let folder = folder();
    let state = folder.path().join("state");
    let disk = Disk::mounted(&state);
    let flag = ["--state-dir", state.to_str().unwrap()];
    let ca = Ca::start_with(Arc::clone(&folder), &flag);
    let before = key(&state);
    disk.read_only();
    for _ in 0..20 {
        ca.leaf().await;
    }
    drop(ca.kill());
    let said = refused(&folder, &flag);
    assert!(said.contains("Read-only file system") && said.contains(state.to_str().unwrap()), "{said}");
    assert_eq!(key(&state), before);
    shown!(
        "F5",
        "certificates once the state is read-only; a start on it",
        "20 of 20; refused, and says why",
        "exactly"
    );
}

/// libfiu's libraries, which fail calls of the C library; the Debian package fiu-utils has them.
const FAILING: [&str; 2] = ["/usr/lib/fiu/fiu_run_preload.so", "/usr/lib/fiu/fiu_posix_preload.so"];

/// What a CA says under which each call of this name fails with EIO, until it ends.
fn refused_by_a_failing_disk(folder: &Arc<tempfile::TempDir>, call: &str, flags: &[&str]) -> String {
    for library in FAILING {
        assert!(Path::new(library).exists(), "{library}: install fiu-utils");
    }
    let preload = ("LD_PRELOAD", FAILING.join(" "));
    let enable = ("FIU_ENABLE", format!("enable name={call},failinfo={}", nix::libc::EIO));
    refused_under(folder, flags, [preload, enable])
}

#[tokio::test]
async fn a_failing_disk_refuses_the_start_by_name_and_neither_cuts_a_key_short_nor_leaves_half_of_one() {
    let calls = ["posix/io/sync/fsync", "posix/io/dir/rename"];
    for call in calls {
        let folder = folder();
        let state = folder.path().join("state");
        let flag = ["--state-dir", state.to_str().unwrap()];
        let said = refused_by_a_failing_disk(&folder, call, &flag);
        assert!(said.contains(folder.path().to_str().unwrap()), "{call}: {said}");
        assert_eq!(said.matches("Input/output error").count(), 1, "{call}: {said}");
        // What could not be made to last may be there whole, and is never there in part.
        let ca = Ca::start_with(Arc::clone(&folder), &flag);
        let before = key(&state);
        assert_eq!(before.1, 0o600, "{call}");
        ca.leaf().await;
        drop(ca.kill());
        // A damaged one that is to be replaced: it stays, set aside or in its place.
        let half = &before.0[..before.0.len() / 2];
        fs::write(state.join("root.pem"), half).unwrap();
        let said = refused_by_a_failing_disk(&folder, call, &[&flag[..], &["--bootstrap-new-root"]].concat());
        assert!(said.contains("Input/output error"), "{call}: {said}");
        let kept = [state.join("root.pem"), state.join("root.pem.damaged-1")].map(fs::read_to_string);
        assert!(kept.into_iter().flatten().any(|text| text == half), "{call}: what was there is lost");
    }
    shown!(
        "F5",
        "calls that make a file last and fail with EIO: refused by name, no key lost or cut short",
        format!("{0} of {0}", calls.len()),
        "fsync and rename"
    );
}
