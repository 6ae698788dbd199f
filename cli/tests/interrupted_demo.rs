//! The demo leaves nothing behind, also when somebody loses patience. Needs root.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};

/// Printed when the namespaces are there and the first JVMs are about to be.
const JVMS_START: &str = "[ 3/";

/// Reads until `mark` was printed; what was printed is in the error of the test.
fn read_until(demo: &mut Child, mark: &str) {
    let stdout = demo.stdout.as_mut().unwrap();
    let (mut printed, mut byte) = (Vec::new(), [0]);
    while !String::from_utf8_lossy(&printed).contains(mark) {
        let read = stdout.read(&mut byte).unwrap();
        assert!(read > 0, "the demo ended early: {}", String::from_utf8_lossy(&printed));
        printed.push(byte[0]);
    }
}

/// The namespaces of the lab process whose parent is `outer`.
fn namespaces_of_child(outer: u32) -> Vec<PathBuf> {
    let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let is_childs = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let owner =
            name.strip_prefix("rm-").and_then(|rest| rest.split('-').next()).unwrap_or_default().to_owned();
        let status = fs::read_to_string(format!("/proc/{owner}/status")).unwrap_or_default();
        status.lines().any(|line| line == format!("PPid:\t{outer}"))
    };
    entries.map(|entry| entry.path()).filter(is_childs).collect()
}

#[test]
fn an_interrupt_takes_everything_down() {
    assert!(Uid::effective().is_root(), "needs root: it makes network namespaces");
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let temporary = tempfile::tempdir_in("/tmp").unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(temporary.path(), open).unwrap();
        let mut demo = Command::new(env!("CARGO_BIN_EXE_ringmail"))
            .arg("demo")
            .env("TMPDIR", temporary.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        read_until(&mut demo, JVMS_START);
        let namespaces = namespaces_of_child(demo.id());
        assert_eq!(namespaces.len(), 6, "five pods and the switch: {namespaces:?}");
        kill(Pid::from_raw(demo.id().cast_signed()), signal).unwrap();
        let output = demo.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(said, format!("ringmail: demo: ended by {signal}; everything is taken down\n"));
        assert_eq!(
            namespaces.iter().filter(|path| path.exists()).collect::<Vec<_>>(),
            Vec::<&PathBuf>::new()
        );
        assert_eq!(left_in(temporary.path()), Vec::<PathBuf>::new());
    }
}

fn left_in(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}
