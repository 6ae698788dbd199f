//! What `iptables-save` says is installed, reduced to what is ours.
//!
//! Ours are the chains with our prefix, the rules in them, and the rules elsewhere that jump to them. The
//! backends and versions print the same rule a little differently; [`Installed::parse`] takes those differences
//! away, so that a comparison of text is a comparison of rules.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::render;
use crate::rules::{CHAIN_PREFIX, RuleSet, Table};

/// The masks that the recent match has when none is given.
const WHOLE_ADDRESSES: [&str; 2] = ["255.255.255.255", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"];

/// One rule as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The table it is in.
    pub table: Table,
    /// The chain it is in.
    pub chain: String,
    /// Conditions and target, as `iptables-save` prints them.
    pub rule: String,
}

/// Rules and chains of ours that a backend holds for one family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Installed {
    chains: BTreeSet<(Table, String)>,
    lines: Vec<Line>,
}

/// The first place where what is installed is not what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Where: table and chain, for example `nat OUTPUT`.
    pub place: String,
    /// The rule that should stand there; none if there should be no more.
    pub expected: Option<String>,
    /// The rule that stands there; none if there is no more.
    pub found: Option<String>,
}

impl Line {
    /// The command that appends the rule.
    pub fn append(&self) -> String {
        format!("-A {} {}", self.chain, self.rule)
    }

    /// The command that deletes the rule.
    pub fn delete(&self) -> String {
        format!("-D {} {}", self.chain, self.rule)
    }

    /// The command that puts the rule at the top of its chain.
    pub fn insert(&self) -> String {
        format!("-I {} 1 {}", self.chain, self.rule)
    }

    fn is_hook(&self) -> bool {
        !self.chain.starts_with(CHAIN_PREFIX)
    }
}

impl Installed {
    /// Reads the output of `iptables-save`; lines that are not ours are passed over.
    pub fn parse(saved: &str) -> Self {
        let mut installed = Self::default();
        let mut table = None;
        for text in saved.lines().map(str::trim) {
            if let Some(name) = text.strip_prefix('*') {
                table = Table::ALL.into_iter().find(|table| table.name() == name);
            } else if let Some(table) = table {
                installed.take(table, text);
            }
        }
        installed
    }

    /// What `iptables-save` will say once these rules are in place.
    pub fn expected(rules: &RuleSet) -> Self {
        Self {
            chains: rules.chains().iter().map(|chain| (chain.table(), chain.name().to_owned())).collect(),
            lines: rules.rules.iter().map(render::line).collect(),
        }
    }

    /// Whether nothing of ours is there.
    pub fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.lines.is_empty()
    }

    /// How many rules of ours are there, hooks included.
    pub fn rules(&self) -> usize {
        self.lines.len()
    }

    /// Names of our chains in a table.
    pub fn chains(&self, table: Table) -> impl Iterator<Item = &str> {
        self.chains.iter().filter(move |(of, _)| *of == table).map(|(_, name)| name.as_str())
    }

    /// Rules in chains of others that jump to ours.
    pub fn hooks(&self, table: Table) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(move |line| line.table == table && line.is_hook())
    }

    /// The first difference between what was asked for and what is there; order within a chain counts.
    pub fn difference(&self, wanted: &RuleSet) -> Option<Difference> {
        let expected = Self::expected(wanted);
        for (table, chain) in self.places().union(&expected.places()) {
            let (want, have) = (expected.rules_in(*table, chain), self.rules_in(*table, chain));
            let place = format!("{} {chain}", table.name());
            for row in 0..want.len().max(have.len()) {
                let (expected, found) = (want.get(row), have.get(row));
                if expected != found {
                    let text = |rule: Option<&&str>| rule.map(|rule| (*rule).to_owned());
                    return Some(Difference { place, expected: text(expected), found: text(found) });
                }
            }
            // A chain that is there or missing as a whole, without a rule to tell by.
            let key = (*table, chain.clone());
            if self.chains.contains(&key) != expected.chains.contains(&key) {
                return Some(Difference { place, expected: None, found: None });
            }
        }
        None
    }

    fn take(&mut self, table: Table, text: &str) {
        if let Some(chain) = text.strip_prefix(':') {
            let name = chain.split_whitespace().next().unwrap_or_default();
            if name.starts_with(CHAIN_PREFIX) {
                self.chains.insert((table, name.to_owned()));
            }
        } else if let Some((chain, rule)) = text.strip_prefix("-A ").and_then(|rest| rest.split_once(' ')) {
            let target = rule.split_whitespace().skip_while(|word| *word != "-j" && *word != "-g").nth(1);
            let jumps_to_us = target.is_some_and(|target| target.starts_with(CHAIN_PREFIX));
            if chain.starts_with(CHAIN_PREFIX) || jumps_to_us {
                self.lines.push(Line { table, chain: chain.to_owned(), rule: normal(rule) });
            }
        }
    }

    fn places(&self) -> BTreeSet<(Table, String)> {
        let lines = self.lines.iter().map(|line| (line.table, line.chain.clone()));
        lines.chain(self.chains.iter().cloned()).collect()
    }

    fn rules_in(&self, table: Table, chain: &str) -> Vec<&str> {
        let lines = self.lines.iter().filter(|line| line.table == table && line.chain == chain);
        lines.map(|line| line.rule.as_str()).collect()
    }
}

/// The form that [`render::line`] writes: no `-m tcp` (implied by the protocol), no defaults of TPROXY and of
/// the recent match, networks with their prefix and in the shortest spelling.
fn normal(rule: &str) -> String {
    let mut words = rule.split_whitespace().peekable();
    let mut kept: Vec<String> = Vec::new();
    while let Some(word) = words.next() {
        let value = words.peek().copied().unwrap_or_default();
        let is_implied = match word {
            "-m" => value == "tcp" || value == "udp",
            "--mask" => WHOLE_ADDRESSES.contains(&value),
            "--on-ip" => value == "0.0.0.0" || value == "::",
            "--tproxy-mark" => value == "0x0/0x0",
            _ => false,
        };
        if is_implied {
            words.next();
        } else if word == "-d" || word == "-s" {
            kept.push(word.to_owned());
            kept.extend(words.next().map(network));
        } else {
            kept.push(word.to_owned());
        }
    }
    kept.join(" ")
}

fn network(text: &str) -> String {
    let parsed = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    parsed.map_or_else(|_| text.to_owned(), |network| network.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAVED: &str = "\
# Generated by iptables-nft-save v1.8.9 (nf_tables)
*nat
:PREROUTING ACCEPT [0:0]
:RINGMAIL_OUTBOUND - [0:0]
:OTHERS - [0:0]
-A PREROUTING -p tcp -j OTHERS
-A OUTPUT -p tcp -j RINGMAIL_OUTBOUND
-A RINGMAIL_OUTBOUND -d 192.0.2.1 -p tcp -m tcp --dport 80 -j RETURN
-A OTHERS -j ACCEPT
COMMIT
*raw
:RINGMAIL_X - [0:0]
COMMIT
";

    #[test]
    fn only_our_chains_and_the_rules_that_jump_to_them_are_taken() {
        let installed = Installed::parse(SAVED);
        assert_eq!(installed.chains(Table::Nat).collect::<Vec<_>>(), ["RINGMAIL_OUTBOUND"]);
        let hooks: Vec<String> = installed.hooks(Table::Nat).map(Line::delete).collect();
        assert_eq!(hooks, ["-D OUTPUT -p tcp -j RINGMAIL_OUTBOUND"]);
        assert_eq!(installed.rules(), 2);
    }

    #[test]
    fn spellings_of_the_same_rule_are_one() {
        for (saved, expected) in [
            (
                "-d 192.0.2.1 -p tcp -m tcp --dport 80 -j RETURN",
                "-d 192.0.2.1/32 -p tcp --dport 80 -j RETURN",
            ),
            ("-d 2001:DB8:0::/48 -p tcp -j X", "-d 2001:db8::/48 -p tcp -j X"),
            (
                "-p tcp -j TPROXY --on-port 15006 --on-ip :: --tproxy-mark 0x0/0x0",
                "-p tcp -j TPROXY --on-port 15006",
            ),
            ("-p tcp -m owner --uid-owner 1337 -j RETURN", "-p tcp -m owner --uid-owner 1337 -j RETURN"),
            (
                "-p udp -m udp --dport 1 -m recent --set --name X --mask 255.255.255.255 --rdest -j DROP",
                "-p udp --dport 1 -m recent --set --name X --rdest -j DROP",
            ),
            (
                "-m recent --set --name X --mask ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff --rdest -j DROP",
                "-m recent --set --name X --rdest -j DROP",
            ),
            (
                "-m recent --set --name X --mask 255.255.255.0 --rdest -j DROP",
                "-m recent --set --name X --mask 255.255.255.0 --rdest -j DROP",
            ),
        ] {
            assert_eq!(normal(saved), expected);
        }
    }
}
