//! An interrupted run leaves nothing behind. A program of its own, since signals belong to a whole process: the test runs
//! itself once more, interrupts that, and looks at what stays.

#![expect(clippy::unwrap_used, reason = "a test fails where it meets what it did not expect")]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringmail_lab::network::Network;
use ringmail_lab::process::{Launch, wait_until};
use ringmail_lab::{interrupt, netns};

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("interrupted") => be_interrupted(),
        Some(_) | None => {
            for signal in [Signal::SIGINT, Signal::SIGTERM] {
                an_interrupted_run_leaves_nothing_behind(signal);
            }
        }
    }
}

fn be_interrupted() {
    interrupt::catch().unwrap();
    let network = Network::create(&["n1"]).unwrap();
    let pod = network.pod("n1").unwrap();
    let sleeper = pod.spawn(Command::new("sleep").arg("60"), &Launch::new("sleeper", "/dev/null")).unwrap();
    println!("{}", sleeper.pid());
    let error = wait_until::<()>(Duration::from_secs(30), "nothing", || Ok(None)).unwrap_err();
    assert_eq!(error.to_string(), "interrupted");
}

fn an_interrupted_run_leaves_nothing_behind(signal: Signal) {
    let mut run = Command::new(std::env::current_exe().unwrap())
        .arg("interrupted")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    BufReader::new(run.stdout.take().unwrap()).read_line(&mut said).unwrap();
    let sleeper = format!("/proc/{}", said.trim_end());
    let named = || std::fs::read_dir("/run/netns").unwrap().map(|entry| entry.unwrap().file_name());
    let prefix = format!("rm-{}-", run.id());
    let left = || named().filter(|name| name.to_string_lossy().starts_with(&prefix)).count();
    assert!(std::fs::exists(&sleeper).unwrap() && left() == 2, "the run made a pod, a switch and a process");

    kill(Pid::from_raw(run.id().cast_signed()), signal).unwrap();
    assert!(run.wait().unwrap().success());
    assert!(!std::fs::exists(&sleeper).unwrap() && left() == 0, "something stays after {signal}");
    assert!(netns::sweep_leftovers().unwrap().iter().all(|name| !name.starts_with(&prefix)));
    println!("an interrupted run leaves nothing behind: {signal}: ok");
}
