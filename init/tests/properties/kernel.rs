//! A small, obvious model of what the kernel does with the text: it takes the commands of `iptables-restore`,
//! prints what `iptables-save` would, and walks a packet through the chains word by word. It knows nothing of
//! the crate's own model of rules, so that a fault in rendering shows as well as a fault in the rules.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

/// Tables by name, chains by name, rules as text in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Kernel {
    chains: BTreeMap<(String, String), Vec<String>>,
}

/// The packet of a connection as the rules see it.
#[derive(Debug, Clone)]
pub(crate) struct Packet {
    pub(crate) in_interface: Option<String>,
    pub(crate) out_interface: Option<String>,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    /// User and group of the sending socket; none for what the kernel sends by itself or forwards.
    pub(crate) owner: Option<(u32, u32)>,
    pub(crate) state: &'static str,
    pub(crate) is_refusal: bool,
    pub(crate) protocol: &'static str,
    /// Whether the list with this name holds the destination.
    pub(crate) noted_in: Option<String>,
}

/// What becomes of a packet in one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Untouched,
    Captured(u16),
    Dropped,
}

impl Kernel {
    /// A kernel with one rule of somebody else in each chain that we hook into.
    pub(crate) fn with_rules_of_others() -> Self {
        let mut kernel = Self::default();
        for (table, chain) in
            [("filter", "OUTPUT"), ("mangle", "PREROUTING"), ("nat", "PREROUTING"), ("nat", "OUTPUT")]
        {
            kernel.chains.insert((table.into(), chain.into()), vec!["-s 203.0.113.9/32 -j RETURN".into()]);
        }
        kernel
    }

    /// Takes a text as `iptables-restore --noflush` does; panics where that would refuse.
    pub(crate) fn restore(&mut self, text: &str) {
        let mut table = String::new();
        for line in text.lines() {
            let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
            let (name, rule) = rest.split_once(' ').unwrap_or((rest, ""));
            let key = (table.clone(), name.to_owned());
            match command {
                "COMMIT" => self.check_jumps(),
                "-A" => self.chain(&key).push(rule.to_owned()),
                "-I" => self.chain(&key).insert(0, rule.strip_prefix("1 ").expect("a position").to_owned()),
                "-D" => {
                    let rules = self.chain(&key);
                    let place = rules.iter().position(|there| there == rule).expect("a rule to delete");
                    rules.remove(place);
                }
                "-F" => self.chain(&key).clear(),
                "-X" => assert_eq!(self.chains.remove(&key), Some(Vec::new()), "{line}: not an empty chain"),
                _ if command.starts_with('*') => table = command[1..].to_owned(),
                _ if command.starts_with(':') => {
                    self.chains.insert((table.clone(), command[1..].to_owned()), Vec::new());
                }
                _ => panic!("{line}: not a command"),
            }
        }
    }

    /// Prints what is there as `iptables-save` does.
    pub(crate) fn save(&self) -> String {
        let mut text = String::new();
        for table in ["filter", "mangle", "nat"] {
            let chains = self.chains.iter().filter(|((of, _), _)| of == table);
            text.push_str(&format!("*{table}\n"));
            for ((_, chain), _) in chains.clone() {
                text.push_str(&format!(":{chain} - [0:0]\n"));
            }
            for ((_, chain), rules) in chains {
                rules.iter().for_each(|rule| text.push_str(&format!("-A {chain} {rule}\n")));
            }
            text.push_str("COMMIT\n");
        }
        text
    }

    /// What the chain does with the packet.
    pub(crate) fn walk(&self, table: &str, chain: &str, packet: &Packet) -> Fate {
        let Some(rules) = self.chains.get(&(table.to_owned(), chain.to_owned())) else {
            return Fate::Untouched;
        };
        for rule in rules {
            let words: Vec<&str> = rule.split_whitespace().collect();
            if !packet.meets(&words) {
                continue;
            }
            let target = words.iter().position(|word| *word == "-j").expect("a target");
            let fate = match words[target + 1] {
                "RETURN" => return Fate::Untouched,
                "DROP" => Fate::Dropped,
                "REDIRECT" | "TPROXY" => Fate::Captured(words[target + 3].parse().unwrap()),
                chain => self.walk(table, chain, packet),
            };
            if fate != Fate::Untouched {
                return fate;
            }
        }
        Fate::Untouched
    }

    fn chain(&mut self, key: &(String, String)) -> &mut Vec<String> {
        self.chains.get_mut(key).unwrap_or_else(|| panic!("{key:?} is not there"))
    }

    fn check_jumps(&self) {
        for ((table, chain), rules) in &self.chains {
            for rule in rules {
                let target =
                    rule.split("-j ").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
                let is_known = ["RETURN", "DROP", "REDIRECT", "TPROXY"].contains(&target)
                    || self.chains.contains_key(&(table.clone(), target.to_owned()));
                assert!(is_known, "{table} {chain}: {rule}: no such target");
            }
        }
    }
}

impl Packet {
    fn meets(&self, words: &[&str]) -> bool {
        let is_note = words.contains(&"--set");
        let mut words = words.iter().copied();
        while let Some(word) = words.next() {
            if word == "-j" {
                return true;
            }
            if word == "--set" || word == "--remove" || word == "--rcheck" || word == "--rdest" {
                continue;
            }
            let value = words.next().expect("every other condition has a value");
            let holds = match word {
                "-m" | "--seconds" => true,
                "--name" => is_note || self.noted_in.as_deref() == Some(value),
                "-p" => value == self.protocol,
                "-s" => value.parse::<IpNet>().unwrap().contains(&self.source),
                "-d" => value.parse::<IpNet>().unwrap().contains(&self.destination),
                "-i" => self.in_interface.as_deref() == Some(value),
                "-o" => self.out_interface.as_deref() == Some(value),
                "--sport" => self.source_port == value.parse::<u16>().unwrap(),
                "--dport" => self.destination_port == value.parse::<u16>().unwrap(),
                "--uid-owner" => self.owner.is_some_and(|(uid, _)| uid == value.parse::<u32>().unwrap()),
                "--gid-owner" => self.owner.is_some_and(|(_, gid)| gid == value.parse::<u32>().unwrap()),
                "--ctstate" => self.state == value,
                "--tcp-flags" => {
                    assert_eq!((value, words.next()), ("SYN,RST,ACK", Some("RST,ACK")));
                    self.is_refusal
                }
                _ => panic!("{word} is not a condition"),
            };
            if !holds {
                return false;
            }
        }
        panic!("a rule without target")
    }
}
