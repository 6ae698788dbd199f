//! What a cluster looks like, for the one who reads why a test failed.

use std::fmt::Write as _;

use super::kubectl::Kubectl;

/// The last events and lines of a log say why; those before them are the story of a start.
const EVENTS: usize = 40;
const LOG_LINES: &str = "--tail=20";

/// A cluster where nothing works has many pods, and each costs several requests.
const PODS: usize = 10;

/// Nodes, pods, events, and what the containers of pods that are not ready have said.
pub(super) fn resources(kubectl: &Kubectl) -> String {
    let mut text = String::new();
    section(&mut text, kubectl, &["get", "nodes", "-o", "wide"]);
    section(&mut text, kubectl, &["get", "pods", "-A", "-o", "wide"]);
    let events = said(kubectl, &["get", "events", "-A", "--sort-by=.lastTimestamp", "--no-headers"]);
    let lines: Vec<_> = events.lines().collect();
    let last = lines[lines.len().saturating_sub(EVENTS)..].join("\n");
    // Writing to a String does not fail.
    let _ = writeln!(text, "-- last events:\n{last}");
    for (namespace, pod) in not_ready(kubectl).into_iter().take(PODS) {
        section(&mut text, kubectl, &["describe", "pod", "-n", &namespace, &pod]);
        let logs = ["logs", "-n", &namespace, &pod, "--all-containers", "--prefix", LOG_LINES];
        section(&mut text, kubectl, &logs);
    }
    text
}

fn section(text: &mut String, kubectl: &Kubectl, args: &[&str]) {
    let _ = writeln!(text, "-- kubectl {}:\n{}", args.join(" "), said(kubectl, args).trim_end());
}

/// What it printed, or why it failed: a report is made of whatever still answers.
fn said(kubectl: &Kubectl, args: &[&str]) -> String {
    kubectl.run(args).unwrap_or_else(|error| format!("{error:#}"))
}

fn not_ready(kubectl: &Kubectl) -> Vec<(String, String)> {
    let path = "jsonpath={range .items[*]}{.metadata.namespace}{\" \"}{.metadata.name}{\" \"}{.status.phase}{\" \"}\
                {.status.conditions[?(@.type==\"Ready\")].status}{\"\\n\"}{end}";
    let listed = kubectl.run(&["get", "pods", "-A", "-o", path]).unwrap_or_default();
    let words = listed.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    words
        .filter_map(|words| match words[..] {
            [_, _, "Succeeded", ..] | [_, _, _, "True"] => None,
            [namespace, name, ..] => Some((namespace.to_owned(), name.to_owned())),
            _ => None,
        })
        .collect()
}
