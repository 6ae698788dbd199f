//! What cannot be done is said with its remedy and an exit code of its own, and the pod does not start.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use ringmail_evidence::shown;
use ringmail_init::backend::Backend;
use ringmail_init::config::{self, Parsed, Settings};
use ringmail_init::pod::Pod;
use ringmail_init::rules::Family;
use ringmail_init::verify::{self, VerifyError};

use crate::lab::{FAMILIES, Lab, Run, each_case, inside};

const TOOLS: [&str; 2] = ["restore", "save"];

/// A folder with the real programs of these names, and with nothing else.
fn folder_with(programs: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for program in programs {
        for tool in TOOLS {
            let name = format!("{program}-{tool}");
            let real = ["/usr/sbin", "/sbin"].map(|place| Path::new(place).join(&name));
            let real = real.iter().find(|path| path.exists()).expect("iptables is installed");
            symlink(fs::canonicalize(real).unwrap(), folder.path().join(&name)).unwrap();
        }
    }
    folder
}

/// Puts a program there that complains as a kernel without a feature does.
fn complaining(folder: &Path, program: &str, complaint: &str) {
    for (tool, script) in [("save", "exit 0".to_owned()), ("restore", complaint_script(complaint))] {
        let path = folder.join(format!("{program}-{tool}"));
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

fn complaint_script(complaint: &str) -> String {
    format!("[ \"$1\" = --version ] && exit 0\necho \"{complaint}\" >&2\nexit 2")
}

fn run_with(lab: &Lab, folder: &tempfile::TempDir, flags: &[&str]) -> Run {
    lab.init_with_path(flags, Some(folder.path().to_str().unwrap()))
}

fn settings(flags: &[&str]) -> Settings {
    let arguments = ["ringmail-init"].iter().chain(flags).map(std::ffi::OsString::from);
    match config::parse(arguments, []) {
        Ok(Parsed::Settings(settings)) => *settings,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_missing_iptables_names_the_package() {
    let run = run_with(&Lab::new(), &folder_with(&[]), &[]);
    assert_eq!(run.code, Some(69), "{}", run.text);
    assert!(run.text.contains("install the package iptables"), "{}", run.text);
}

#[test]
fn wrong_usage_is_told_and_changes_nothing() {
    let lab = Lab::new();
    let run = lab.init(&["--inbound-port=15001"]);
    assert_eq!(run.code, Some(64), "{}", run.text);
    assert!(!lab.saved(Backend::Nft, Family::V4).contains("RINGMAIL"));
}

#[test]
fn without_net_admin_the_capability_is_named() {
    let lab = Lab::new();
    for backend in ["nft", "legacy", "auto"] {
        let mut command = Command::new("setpriv");
        command.args([
            "--bounding-set=-net_admin,-net_raw",
            env!("CARGO_BIN_EXE_ringmail-init"),
            "--backend",
            backend,
        ]);
        let run = inside(&lab.pod, || Run::of(&mut command));
        assert_eq!(run.code, Some(77), "{backend}: {}", run.text);
        assert!(
            run.text.contains("the container needs the capabilities NET_ADMIN and NET_RAW"),
            "{}",
            run.text
        );
    }
}

/// NET_RAW is for iptables-legacy, which asks the kernel by a raw socket; where nf_tables is there, NET_ADMIN is enough.
#[test]
fn net_raw_is_needed_by_legacy_alone() {
    for (backend, code) in [("nft", 0), ("auto", 0), ("legacy", 77)] {
        let lab = Lab::new();
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set=-all,+net_admin", "--inh-caps=-all"]);
        command.args([env!("CARGO_BIN_EXE_ringmail-init"), "--backend", backend]);
        let run = inside(&lab.pod, || Run::of(&mut command));
        assert_eq!(run.code, Some(code), "{backend}: {}", run.text);
        let named = run.text.contains("the container needs the capabilities NET_RAW");
        assert_eq!(named, code != 0, "{backend}: {}", run.text);
    }
    shown!(
        "S1",
        "capabilities that the init container needs with nf_tables, beside NET_ADMIN",
        0,
        "none of the others"
    );
}

#[test]
fn a_kernel_that_lacks_a_match_for_nft_gets_the_rules_by_legacy() {
    let lab = Lab::new();
    let folder = folder_with(&["iptables-legacy", "ip6tables-legacy"]);
    for program in ["iptables-nft", "ip6tables-nft"] {
        let complaint = "Warning: Extension owner revision 0 not supported, missing kernel module?";
        complaining(folder.path(), program, complaint);
    }
    let run = run_with(&lab, &folder, &[]);
    assert_eq!(run.code, Some(0), "{}", run.text);
    assert_eq!(run.text.matches("put in place (legacy)").count(), 2, "{}", run.text);
}

#[test]
fn a_backend_that_took_half_of_the_rules_is_cleared_before_the_next_is_tried() {
    let lab = Lab::new();
    let folder = folder_with(&["iptables-legacy"]);
    // The filter and mangle tables are taken, then nat is refused.
    let scripts = [
        ("save", "exec iptables-nft-save".to_owned()),
        (
            "restore",
            "[ \"$1\" = --version ] && exit 0
             input=$(cat)
             echo \"$input\" | sed '/^[*]nat/,$d' | iptables-nft-restore --noflush || exit 9
             case \"$input\" in *nat*) echo 'Extension REDIRECT revision 0 not supported' >&2; exit 2;; esac"
                .to_owned(),
        ),
    ];
    for (tool, script) in scripts {
        let path = folder.path().join(format!("iptables-nft-{tool}"));
        fs::write(&path, format!("#!/bin/sh\nPATH=/usr/sbin:/usr/bin:/sbin:/bin\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let run = run_with(&lab, &folder, &["--ip-families=v4"]);
    assert_eq!(run.code, Some(0), "{}", run.text);
    assert!(run.text.contains("put in place (legacy)"), "{}", run.text);
    let saved = lab.saved(Backend::Nft, Family::V4);
    assert!(!saved.contains("RINGMAIL") && saved.contains("*filter"), "{saved}");
}

#[test]
fn a_kernel_without_the_owner_match_is_told_which_module_to_load() {
    let lab = Lab::new();
    let folder = folder_with(&[]);
    let complaint = "Warning: Extension owner revision 0 not supported, missing kernel module?";
    complaining(folder.path(), "iptables-nft", complaint);
    complaining(folder.path(), "iptables-legacy", "iptables-restore: line 8 failed");
    let run = run_with(&lab, &folder, &[]);
    assert_eq!(run.code, Some(69), "{}", run.text);
    assert!(run.text.contains("`modprobe -a nft_compat xt_owner`"), "{}", run.text);
    assert!(run.text.contains("`modprobe -a xt_owner`"), "{}", run.text);
}

#[test]
fn without_the_recent_match_refused_connects_are_not_remembered_unless_somebody_asked() {
    let lab = Lab::new();
    let folder = folder_with(&[]);
    // Stands for a kernel without the match: everything else goes to the real tool.
    for program in ["iptables-nft", "ip6tables-nft"] {
        let restore = format!(
            "[ \"$1\" = --version ] && exit 0
             input=$(cat)
             case \"$input\" in *recent*)
             echo 'Warning: Extension recent revision 0 not supported, missing kernel module?' >&2; exit 2;; esac
             echo \"$input\" | {program}-restore \"$@\""
        );
        for (tool, script) in [("restore", restore), ("save", format!("exec {program}-save"))] {
            let path = folder.path().join(format!("{program}-{tool}"));
            fs::write(&path, format!("#!/bin/sh\nPATH=/usr/sbin:/usr/bin:/sbin:/bin\n{script}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
    let asked = run_with(&lab, &folder, &["--ring-ports=47500"]);
    assert_eq!(asked.code, Some(69), "{}", asked.text);
    assert!(asked.text.contains("missing: recent match; load with `modprobe -a nft_compat xt_recent`"));
    assert!(!lab.saved(Backend::Nft, Family::V4).contains("RINGMAIL"));
    for (run, outcome) in [("first", "23 rules put in place"), ("second", "nothing changed")] {
        let said = run_with(&lab, &folder, &[]);
        assert_eq!(said.code, Some(0), "{run}: {}", said.text);
        assert_eq!(said.text.matches(outcome).count(), 2, "{run}: {}", said.text);
        assert_eq!(said.text.matches("load it with `modprobe xt_recent`").count(), 2, "{run}: {}", said.text);
    }
}

#[test]
fn ipv6_is_skipped_and_said_when_the_pod_has_no_such_address() {
    let lab = Lab::with_ipv4_only();
    let folder = folder_with(&["iptables-nft"]);
    let run = run_with(&lab, &folder, &[]);
    assert_eq!(run.code, Some(0), "{}", run.text);
    assert!(run.text.contains("ipv6: skipped, the pod has no address of this family"), "{}", run.text);
    assert!(run.text.contains("done: ipv4 tcp is captured"), "{}", run.text);
    let required = run_with(&lab, &folder, &["--ip-families=both"]);
    assert_eq!(required.code, Some(69), "{}", required.text);
}

#[test]
fn a_pod_with_an_ipv6_address_that_cannot_be_captured_fails() {
    let lab = Lab::new();
    let folder = folder_with(&["iptables-nft"]);
    let run = run_with(&lab, &folder, &[]);
    assert_eq!(run.code, Some(69), "{}", run.text);
    assert!(run.text.contains("ipv6: no ip6tables-nft-restore in the path"), "{}", run.text);
    let chosen = run_with(&lab, &folder, &["--ip-families=v4"]);
    assert_eq!(chosen.code, Some(0), "{}", chosen.text);
    assert!(chosen.text.contains("ipv6: left out by --ip-families, although the pod has such an address"));
}

#[test]
fn a_namespace_with_ipv6_switched_off_is_captured_all_the_same() {
    let lab = Lab::with_ipv4_only();
    inside(&lab.pod, || fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1")).unwrap();
    let run = lab.init(&[]);
    assert_eq!(run.code, Some(0), "{}", run.text);
    assert!(run.text.contains("ipv6: read back only, the pod has neither"), "{}", run.text);
}

#[test]
fn the_proof_fails_where_outbound_is_not_captured() {
    for family in FAMILIES {
        let lab = Lab::new();
        let outcome = inside(&lab.pod, || verify::outbound(&settings(&[]), family, &Pod::look().unwrap()));
        assert!(matches!(outcome, Err(VerifyError::NotRedirected { .. })), "{outcome:?}");
    }
}

#[test]
fn the_proof_fails_where_the_guard_is_missing() {
    for (backend, family) in each_case() {
        let lab = Lab::new();
        lab.capture(backend, &["--closed-port-guard=false", "--skip-verify"]);
        for port in [15001, 15006] {
            let outcome = inside(&lab.pod, || verify::guard(family, port));
            assert!(matches!(outcome, Err(VerifyError::Refused { .. })), "{outcome:?}");
        }
    }
}

#[test]
fn a_rule_of_others_that_defeats_the_capture_fails_the_run() {
    for (backend, family) in each_case() {
        let lab = Lab::new();
        // Drops what REDIRECT sends to the proxy: every rule of ours reads back as written, and nothing works.
        lab.iptables(backend, family, "-A INPUT -p tcp --dport 15001 -j DROP");
        let run = lab.init(&[&format!("--backend={backend}")]);
        assert_eq!(run.code, Some(76), "{}", run.text);
        assert!(run.text.contains("did not arrive on port 15001"), "{}", run.text);
    }
}

#[test]
fn a_process_that_is_itself_exempt_says_that_it_could_not_try() {
    let run = Lab::new().init(&["--exclude-uids=0"]);
    assert_eq!(run.code, Some(0), "{}", run.text);
    assert_eq!(
        run.text.matches("outbound read back only, a connect was not tried").count(),
        2,
        "{}",
        run.text
    );
}

#[test]
fn a_proxy_that_is_already_running_answers_the_proof() {
    let lab = Lab::new();
    lab.capture(Backend::Nft, &[]);
    let _proxies = (lab.stand_in(15001), lab.stand_in(15006));
    let run = lab.init(&[]);
    assert_eq!(run.code, Some(0), "{}", run.text);
    assert_eq!(run.text.matches("was answered by the listener on port 15001").count(), 2, "{}", run.text);
    assert_eq!(run.text.matches("guard read back only, somebody listens").count(), 4, "{}", run.text);
}
