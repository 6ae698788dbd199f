//! The text for iptables-restore of each scenario, compared with a file that a person has read.
//!
//! `RINGMAIL_REGENERATE=1 cargo test -p ringmail-init --test golden` writes the files anew; read the difference.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use ringmail_init::config::{self, Parsed};
use ringmail_init::run;

const SCENARIOS: [(&str, &[&str]); 11] = [
    ("defaults", &[]),
    ("defaults-remove", &["--remove"]),
    (
        "ports",
        &[
            "--inbound-include-ports=47100,47500,10800,11211,8080",
            "--inbound-exclude-ports=8080",
            "--outbound-include-ports=47100,47500",
            "--outbound-exclude-ports=53,443",
        ],
    ),
    ("ring-ports", &["--ring-ports=47500,48500", "--outbound-exclude-ports=48500", "--proxy-uid=2102"]),
    (
        "cidrs",
        &[
            "--outbound-include-cidrs=10.0.0.0/8,192.168.7.9,fd00::/8",
            "--outbound-exclude-cidrs=10.96.0.1/32,fd00:96::/112",
        ],
    ),
    (
        "added-ports-and-sources",
        &[
            "--inbound-exclude-cidrs=10.1.0.0/16,fd00:1::/32",
            "--outbound-include-ports=47100",
            "--outbound-add-ports=10800,443",
            "--outbound-exclude-ports=443",
            "--outbound-include-cidrs=10.0.0.0/8",
        ],
    ),
    ("everything-by-cidr", &["--outbound-include-cidrs=0.0.0.0/0,::/0"]),
    (
        "users-and-interfaces",
        &["--exclude-uids=0,2102", "--exclude-interfaces=net1,tun0", "--proxy-gid=2000"],
    ),
    ("other-ports", &["--inbound-port=4143", "--outbound-port=4140", "--proxy-uid=2102", "--ip-families=v4"]),
    ("bare", &["--closed-port-guard=false", "--ring-ports=", "--invalid-drop=false", "--ip-families=v6"]),
    ("tproxy", &["--mode=tproxy", "--inbound-include-ports=47500"]),
];

#[test]
fn each_scenario_is_written_as_read_before() {
    let mut differing = Vec::new();
    for (name, flags) in SCENARIOS {
        let written = written(flags);
        if compare(&golden(name), &written) {
            differing.push(format!("{name}:\n{written}"));
        }
    }
    assert!(differing.is_empty(), "not as in the golden file:\n{}", differing.join("\n"));
}

#[test]
fn every_golden_file_belongs_to_a_scenario() {
    for file in std::fs::read_dir(directory()).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(SCENARIOS.iter().any(|(scenario, _)| *scenario == name), "{} is left over", path.display());
    }
}

#[test]
fn the_page_about_capture_lists_every_flag_with_its_default() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/capture.md");
    let text = std::fs::read_to_string(&page).unwrap();
    let (before, rest) = text.split_once("<!-- flags -->\n").expect("the marker before the table");
    let (_, after) = rest.split_once("<!-- /flags -->").expect("the marker after the table");
    let expected = format!("{before}<!-- flags -->\n{}<!-- /flags -->{after}", flags_table());
    assert!(!compare(&page, &expected), "docs/capture.md does not list the flags as they are");
}

/// Whether the file differs from the text; with regeneration asked for, it never does.
fn compare(file: &Path, text: &str) -> bool {
    if std::env::var_os("RINGMAIL_REGENERATE").is_some() {
        std::fs::write(file, text).unwrap();
    }
    std::fs::read_to_string(file).ok().as_deref() != Some(text)
}

fn written(flags: &[&str]) -> String {
    let arguments = ["ringmail-init", "--dry-run"].iter().chain(flags).map(OsString::from);
    let Ok(Parsed::Settings(settings)) = config::parse(arguments, []) else { panic!("{flags:?} must parse") };
    let mut out = Vec::new();
    run::run(&settings, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn flags_table() -> String {
    use clap::CommandFactory;
    let mut table = String::from("| flag | default | meaning |\n|---|---|---|\n");
    for argument in config::Flags::command().get_arguments() {
        let Some(long) = argument.get_long() else { continue };
        let default: Vec<_> =
            argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        let default =
            if default.concat().is_empty() { "none".to_owned() } else { format!("`{}`", default.join(",")) };
        let choices: Vec<String> =
            argument.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        let choices = if choices.is_empty() { String::new() } else { format!(" ({})", choices.join(", ")) };
        table.push_str(&format!("| `--{long}` | {default} | {help}{choices} |\n"));
    }
    table
}

fn golden(name: &str) -> PathBuf {
    directory().join(format!("{name}.rules"))
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}
