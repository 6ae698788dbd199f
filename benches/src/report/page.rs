//! The page, in Markdown: everything that a reader needs to judge the figures and to make them again.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::candidates::{OURS, description, in_order};
use super::headings::{Group, groups};
use super::numbers::{estimate, quantity, ratio};
use super::statistics::{Estimate, median, present};
use super::targets::{Row, Verdict};
use crate::results::{Better, Figure, Results};

/// How the page and what belongs to it are made anew.
const GENERATED: &str = "<!-- Made from benchmark/results.json; `RINGMAIL_WRITE_DOCS=1 cargo test -p ringmail-bench --test report` writes it anew. -->";

/// What a reader should know of the method before any figure.
const METHOD: &str = "\
Every candidate carries the same load on the same path, one after another within a round, in an order that is another one in
each round. A machine is faster in one minute than in the next, so candidates are compared within a round: a ratio is the
median of the rounds' ratios, and behind it stands where 95 of 100 such medians lie when the rounds are drawn anew with
replacement (bootstrap, fixed seed); fewer than five rounds have no such interval. Where it holds 1, the rounds show no
difference. Absolute figures are those of one machine; the ratios are what is claimed.
";

/// What the ids of their figures begin with.
const OF_IGNITE: &str = "ignite-";

/// What a reader should know of the rings before the figures of them.
const IGNITE: &str = "
Ignite: three nodes and a thin client, each in a pod of its own, all on one machine; caches with one backup, FULL_SYNC. The
client's threads share its connections, it knows which node holds a key, and every value that is read is compared with what
was put. A killed node: eight threads put and read all keys in turn, and the time counts from the kill until each key was
served by an operation begun after it. A joining node: from its first demand for a partition until it holds the last,
divided by what it received. `relay-copy` there is two relays without TLS in each pod: what no sidecar can better by much.
";

/// Letters of a cell: a reason for what is missing may carry the end of a log, which is in the results.
const LONGEST_CELL: usize = 300;

/// How the known mistakes of such benchmarks are avoided.
const MISTAKES: &str = "\
| mistake | what is done instead |
|---|---|
| the order is always the same, so that somebody always follows the heaviest | candidates rotate and reverse from round to round, and are compared within a round |
| congestion control that paces (bbr) caps a veth far below what it carries | the routes of the pods ask for cubic; a machine without it is named above |
| timers of 1 ms in an open-loop generator are most of the latency that it reports | threads sleep to an absolute time on a timer without slack, the lag of each send is recorded, and a run that lagged is repeated or left out and named |
| TIME_WAIT and connection tracking fill up and slow down whoever comes later | the client closes by reset, and each candidate has namespaces of its own with tables that nobody used before |
| CPU time in ticks of 10 ms | control groups or each process's CPU clock, to the microsecond or better |
| a proxy that quietly forwards plaintext wins | what passes between the pods is captured and judged before anything is measured |
| resumed handshakes beside full ones | resumption is off on both sides where rates of connections are compared; a peer's own default stands beside it under its own name |
| JVMs that are still being compiled | load of every kind before the first measurement, a fixed heap, and every other round backwards |
";

/// The commands of somebody who wants to see for themselves.
const REPRODUCE: &str = "\
```
make bench                                  # the peers from Debian and PyPI, release binaries, all figures, this page: four hours
make bench BENCH='--ztunnel PATH --linkerd PATH'    # and the peers that are in no package
RINGMAIL_BENCH_IGNITE_ROUNDS=0 make bench   # without Ignite
target/release/ringmail-bench run --help    # the network's figures: candidates, rounds, seconds
target/release/ringmail-bench ignite --help # those with Ignite
target/release/ringmail-bench report --in target/bench/results.json --in target/bench/ignite.json --out docs/benchmark --readme README.md
```

As root, on Linux with namespaces and iptables; those with Ignite need Java 17 and Maven. Nothing in the machine's own network
changes, and an interrupted run takes everything with it.
";

/// The whole page; `folder` is where its plots are, as seen from it.
pub(super) fn page(results: &Results, targets: &[Row], folder: &str) -> String {
    let mut page = format!("# Benchmark\n\n{GENERATED}\n\n{METHOD}");
    if results.figures.iter().any(|figure| figure.id.starts_with(OF_IGNITE)) {
        page += IGNITE;
    }
    let _ = write!(
        page,
        "\nBegun {}, {} of measuring. All samples are in [results.json]({folder}/results.json).\n\n",
        moment(&results.began),
        duration(results.took_s)
    );
    page += "| candidate | what it is |\n|---|---|\n";
    for name in in_order(&results.figures) {
        let _ = writeln!(page, "| {name} | {} |", description(name));
    }
    page += &targets_section(targets, folder);
    for group in groups(results) {
        page += &group_section(&group, folder);
    }
    page += &pairs("What is missing, and why", ("what", "why"), &results.missing, "Nothing.");
    page += &pairs("The machine", ("", ""), &results.machine, "Not recorded.");
    page += &pairs("Versions", ("candidate", "version"), &results.versions, "Not recorded.");
    page += &commands(&results.commands);
    let _ =
        write!(page, "\n## Running it yourself\n\n{REPRODUCE}\n## Mistakes that are avoided\n\n{MISTAKES}");
    page
}

fn targets_section(targets: &[Row], folder: &str) -> String {
    let counted = |verdict| targets.iter().filter(|row| row.verdict == verdict).count();
    let mut text = format!(
        "\n## Targets\n\nThe project's own, set before. `met` and `missed` need the whole interval on one side of the target, \
         `open` is what\nthe rounds do not decide, or too few of them; where a target is no ratio, all rounds have to be on one side. {} met, {} open, {} missed, {} not measured.\n\n\
         ![What was reached of each target]({folder}/targets.svg)\n\n| figure | target | reached | verdict |\n|---|---|---|---|\n",
        counted(Verdict::Met),
        counted(Verdict::Open),
        counted(Verdict::Missed),
        counted(Verdict::NotMeasured)
    );
    for Row { figure, target, reached, verdict, .. } in targets {
        let _ = writeln!(text, "| {figure} | {target} | {reached} | {} |", verdict.as_str());
    }
    text
}

fn group_section(group: &Group<'_>, folder: &str) -> String {
    let names = in_order(group.figures.iter().copied());
    let mut text = format!(
        "\n## {}\n\n![{} by candidate]({folder}/{})\n\nMedians; below each, {OURS} divided by it, with the interval.\n\n| figure |",
        group.heading,
        group.heading,
        group.file()
    );
    for name in &names {
        let _ = write!(text, " {name} |");
    }
    text += "\n|---|";
    text += &"---:|".repeat(names.len());
    text.push('\n');
    for figure in &group.figures {
        let good = match figure.better {
            Better::Higher => "more is better",
            Better::Lower => "less is better",
        };
        let _ = write!(text, "| {}, {} ({good}) |", figure.title, figure.unit);
        for name in &names {
            let _ = write!(text, " {} |", cell(figure, name));
        }
        text.push('\n');
    }
    text
}

/// A candidate's median, and how Ringmail compares with it.
fn cell(figure: &Figure, candidate: &str) -> String {
    let Some(samples) = figure.samples.get(candidate) else { return String::new() };
    let Some(middle) = median(&present(samples)) else { return String::new() };
    let middle = quantity(middle);
    let compared = figure.samples.get(OURS).filter(|_| candidate != OURS);
    match compared.and_then(|ours| Estimate::of_ratio(ours, samples)) {
        None => middle,
        Some(compared) if compared.interval.is_none() || compared.shows_difference() => {
            format!("{middle}<br>{}", estimate(&compared, ratio))
        }
        Some(compared) => format!("{middle}<br>no difference shown, {}", estimate(&compared, ratio)),
    }
}

fn pairs(heading: &str, (left, right): (&str, &str), pairs: &BTreeMap<String, String>, none: &str) -> String {
    let mut text = format!("\n## {heading}\n\n");
    if pairs.is_empty() {
        let _ = writeln!(text, "{none}");
        return text;
    }
    let _ = write!(text, "| {left} | {right} |\n|---|---|\n");
    for (name, value) in pairs {
        let _ = writeln!(text, "| {} | {} |", one_line(name), one_line(value));
    }
    text
}

fn commands(commands: &BTreeMap<String, String>) -> String {
    let mut text = "\n## Commands\n\n".to_owned();
    for (name, command) in commands {
        let _ = write!(text, "{name}:\n\n```\n{}\n```\n\n", command.trim_end());
    }
    text.trim_end().to_owned() + "\n"
}

/// What a cell of a table can hold: one line, the beginning of what is longer.
fn one_line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let cut = match line.char_indices().nth(LONGEST_CELL) {
        Some((end, _)) => format!("{} ...", &line[..end]),
        None => line,
    };
    cut.replace('|', "\\|")
}

/// A moment of RFC 3339 to the minute; as it is if it is none.
fn moment(text: &str) -> String {
    match text.get(..16).and_then(|minute| minute.split_once('T')) {
        Some((day, time)) if text.ends_with('Z') => format!("{day} {time} UTC"),
        Some(_) | None => text.to_owned(),
    }
}

fn duration(seconds: u64) -> String {
    match (seconds / 3600, seconds % 3600 / 60) {
        (0, 0) => format!("{seconds} s"),
        (0, minutes) => format!("{minutes} min"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}
