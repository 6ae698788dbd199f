//! A rule set as text for `iptables-restore --noflush`.
//!
//! Rules are written exactly as `iptables-save` prints them (order of the flags, `/32`, `RST,ACK`), because the
//! second run and the proof compare what is asked for with what is read back.

use std::fmt::Write as _;

use crate::readback::{Installed, Line};
use crate::rules::{Chain, Match, Protocol, Rule, RuleSet, State, Table, Target};

/// How long a refused destination is refused by the kernel at most, in the match's whole seconds. A living proxy has it
/// forgotten sooner; this is for one that dies in between.
const MEMORY_SECONDS: u32 = 1;

/// The text that leads from `installed` to `wanted`, whatever was there before, one COMMIT per table.
pub fn apply(wanted: &RuleSet, installed: &Installed) -> String {
    let mut text = String::new();
    for table in Table::ALL {
        let body = apply_table(wanted, installed, table);
        write_table(&mut text, table, &body);
    }
    text
}

/// The text that removes everything of ours that is installed; empty if nothing is.
pub fn remove(installed: &Installed) -> String {
    let mut text = String::new();
    for table in Table::ALL {
        let mut body = unhook(installed, table);
        let chains: Vec<&str> = installed.chains(table).collect();
        // Flushed first, all of them: a chain that another one jumps to cannot be deleted.
        body.extend(chains.iter().map(|chain| format!("-F {chain}")));
        body.extend(chains.iter().map(|chain| format!("-X {chain}")));
        write_table(&mut text, table, &body);
    }
    text
}

/// The rule as `iptables-save` prints it, from its chain on.
pub fn line(rule: &Rule) -> Line {
    let mut words = Vec::new();
    // Addresses and interfaces stand before the protocol, everything else after it.
    for condition in rule.matches.iter().filter(|condition| is_before_protocol(condition)) {
        words.push(condition_words(condition));
    }
    words.push(match rule.protocol {
        Protocol::Tcp => "-p tcp".to_owned(),
        Protocol::Udp => "-p udp".to_owned(),
    });
    for condition in rule.matches.iter().filter(|condition| !is_before_protocol(condition)) {
        words.push(condition_words(condition));
    }
    words.push(target_words(rule.target));
    Line { table: rule.chain.table(), chain: rule.chain.name().to_owned(), rule: words.join(" ") }
}

fn apply_table(wanted: &RuleSet, installed: &Installed, table: Table) -> Vec<String> {
    let chains: Vec<Chain> = wanted.chains().into_iter().filter(|chain| chain.table() == table).collect();
    let stale: Vec<&str> =
        installed.chains(table).filter(|name| !chains.iter().any(|chain| chain.name() == *name)).collect();
    let mut body = unhook(installed, table);
    body.extend(stale.iter().map(|name| format!("-F {name}")));
    // Naming a chain creates it, or empties it if it is there.
    body.extend(chains.iter().map(|chain| format!(":{} - [0:0]", chain.name())));
    let rules = wanted.rules.iter().filter(|rule| rule.chain.table() == table);
    let (ours, hooks): (Vec<&Rule>, Vec<&Rule>) = rules.partition(|rule| rule.chain.is_ours());
    body.extend(ours.into_iter().map(|rule| line(rule).append()));
    // Hooks go before rules of others, which might accept a packet for good. Inserted one by one at the top,
    // they end up in reverse.
    body.extend(hooks.into_iter().rev().map(|rule| line(rule).insert()));
    body.extend(stale.iter().map(|name| format!("-X {name}")));
    body
}

fn unhook(installed: &Installed, table: Table) -> Vec<String> {
    installed.hooks(table).map(Line::delete).collect()
}

fn write_table(text: &mut String, table: Table, body: &[String]) {
    if body.is_empty() {
        return;
    }
    // Writing to a String cannot fail.
    let _ = write!(text, "*{}\n{}\nCOMMIT\n", table.name(), body.join("\n"));
}

fn is_before_protocol(condition: &Match) -> bool {
    match condition {
        Match::Source(_) | Match::Destination(_) | Match::InInterface(_) | Match::OutInterface(_) => true,
        Match::SourcePort(_) | Match::DestinationPort(_) | Match::Refusal => false,
        Match::OwnerUid(_) | Match::OwnerGid(_) | Match::State(_) => false,
        Match::Forget(_) | Match::Note(_) | Match::Noted(_) => false,
    }
}

fn condition_words(condition: &Match) -> String {
    match condition {
        Match::Destination(network) => format!("-d {network}"),
        Match::Source(network) => format!("-s {network}"),
        Match::InInterface(name) => format!("-i {name}"),
        Match::OutInterface(name) => format!("-o {name}"),
        Match::SourcePort(port) => format!("--sport {port}"),
        Match::DestinationPort(port) => format!("--dport {port}"),
        Match::Refusal => "--tcp-flags SYN,RST,ACK RST,ACK".to_owned(),
        Match::OwnerUid(uid) => format!("-m owner --uid-owner {uid}"),
        Match::OwnerGid(gid) => format!("-m owner --gid-owner {gid}"),
        Match::Forget(list) => format!("-m recent --remove --name {list} --rdest"),
        Match::Note(list) => format!("-m recent --set --name {list} --rdest"),
        Match::Noted(list) => format!("-m recent --rcheck --seconds {MEMORY_SECONDS} --name {list} --rdest"),
        Match::State(State::Invalid) => "-m conntrack --ctstate INVALID".to_owned(),
        Match::State(State::New) => "-m conntrack --ctstate NEW".to_owned(),
    }
}

fn target_words(target: Target) -> String {
    match target {
        Target::Drop => "-j DROP".to_owned(),
        Target::Jump(chain) => format!("-j {}", chain.name()),
        Target::Redirect(port) => format!("-j REDIRECT --to-ports {port}"),
        Target::Return => "-j RETURN".to_owned(),
        Target::Tproxy(port) => format!("-j TPROXY --on-port {port}"),
    }
}
