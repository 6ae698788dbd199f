//! Settings to rules, without touching the machine.
//!
//! The rules use the owner match, REDIRECT and connection tracking only (TPROXY when that mode is asked for):
//! no multiport and no comment match, because kernels lack them often and neither buys anything here. Only the
//! memory of refused connects needs the recent match too, and its UDP datagram is all that is not about TCP. Each direction has one chain that decides by
//! leaving early (RETURN) and one that captures, so that what is excluded always wins over what is included.

use std::collections::BTreeSet;

use ipnet::IpNet;

use crate::config::{CLOSED_PORT, Cidrs, Mode, Ports, Settings};

/// What every chain of ours begins with, and no chain of anybody else.
pub const CHAIN_PREFIX: &str = "RINGMAIL_";

/// The loopback interface: a pod's talk with itself is never captured.
const LOOPBACK: &str = "lo";

/// An IP family: each has tables, chains and a kernel switch of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A table of iptables that holds rules of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// The guard lives here.
    Filter,
    /// The INVALID drop lives here, and TPROXY.
    Mangle,
    /// REDIRECT lives here.
    Nat,
}

/// A chain that holds rules of ours: the kernel's own that we hook into, and ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Chain {
    /// Kernel's: packets that leave the pod, after NAT has chosen their destination.
    FilterOutput,
    /// Drops refusals of connections to the proxy's ports.
    Guard,
    /// Takes note of the destinations that the proxy names as refused.
    Refusals,
    /// Kernel's: packets that arrive, before NAT.
    ManglePrerouting,
    /// Drops packets that connection tracking calls INVALID.
    Invalid,
    /// Decides which inbound connections are captured (TPROXY).
    MangleInbound,
    /// Captures inbound connections (TPROXY).
    InTproxy,
    /// Kernel's: first packets of connections that arrive.
    NatPrerouting,
    /// Decides which inbound connections are captured (REDIRECT).
    NatInbound,
    /// Captures inbound connections (REDIRECT).
    InRedirect,
    /// Kernel's: first packets of connections that leave.
    NatOutput,
    /// Decides by user, interface and destination which outbound connections are captured.
    Outbound,
    /// Captures outbound connections, by port.
    OutRedirect,
}

/// What a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// All that is captured.
    Tcp,
    /// What the proxy tells the kernel by.
    Udp,
}

/// One condition of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// Destination address.
    Destination(IpNet),
    /// Source address.
    Source(IpNet),
    /// Interface that the packet came in by.
    InInterface(String),
    /// Interface that the packet goes out by.
    OutInterface(String),
    /// Source port.
    SourcePort(u16),
    /// Destination port.
    DestinationPort(u16),
    /// RST and ACK without SYN: how a kernel refuses a connection.
    Refusal,
    /// User that owns the sending socket.
    OwnerUid(u32),
    /// Group that owns the sending socket.
    OwnerGid(u32),
    /// Always met; the destination address is noted in the list of this name.
    Note(String),
    /// The destination address was in the list of this name, and is no more.
    Forget(String),
    /// The destination address was noted in the list of this name within the last second.
    Noted(String),
    /// State in connection tracking.
    State(State),
}

/// States of connection tracking that rules of ours ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Belongs to no connection and cannot begin one.
    Invalid,
    /// No answer has been seen yet.
    New,
}

/// What a rule does with a packet that meets all its conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The packet is gone, and nobody is told.
    Drop,
    /// Go on in a chain of ours.
    Jump(Chain),
    /// Send the connection to this local port.
    Redirect(u16),
    /// Leave this chain.
    Return,
    /// Hand the connection to the transparent listener on this local port.
    Tproxy(u16),
}

/// One rule of one chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Where it stands.
    pub chain: Chain,
    /// What it is about.
    pub protocol: Protocol,
    /// All must hold.
    pub matches: Vec<Match>,
    /// What happens then.
    pub target: Target,
}

/// All rules of one family, in order within each chain. Rules of the kernel's chains are the hooks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleSet {
    /// The family that the rules are for.
    pub family: Family,
    /// Rules, grouped by chain in the order of [`Chain`].
    pub rules: Vec<Rule>,
}

impl Family {
    /// The name used in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }

    /// Whether the network belongs to this family.
    pub fn has(self, network: &IpNet) -> bool {
        match (self, network) {
            (Self::V4, IpNet::V4(_)) | (Self::V6, IpNet::V6(_)) => true,
            (Self::V4, IpNet::V6(_)) | (Self::V6, IpNet::V4(_)) => false,
        }
    }
}

impl Table {
    /// The tables in the order they are restored: the guard first and the capture last, so that traffic is
    /// never captured without it.
    pub const ALL: [Self; 3] = [Self::Filter, Self::Mangle, Self::Nat];

    /// The name that iptables gives it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Mangle => "mangle",
            Self::Nat => "nat",
        }
    }
}

impl Chain {
    /// The name that iptables gives it.
    pub fn name(self) -> &'static str {
        match self {
            Self::FilterOutput | Self::NatOutput => "OUTPUT",
            Self::ManglePrerouting | Self::NatPrerouting => "PREROUTING",
            Self::Guard => "RINGMAIL_GUARD",
            Self::Refusals => "RINGMAIL_REFUSALS",
            Self::Invalid => "RINGMAIL_INVALID",
            Self::MangleInbound | Self::NatInbound => "RINGMAIL_INBOUND",
            Self::InTproxy => "RINGMAIL_IN_TPROXY",
            Self::InRedirect => "RINGMAIL_IN_REDIRECT",
            Self::Outbound => "RINGMAIL_OUTBOUND",
            Self::OutRedirect => "RINGMAIL_OUT_REDIRECT",
        }
    }

    /// The table it is in.
    pub fn table(self) -> Table {
        match self {
            Self::FilterOutput | Self::Guard | Self::Refusals => Table::Filter,
            Self::ManglePrerouting | Self::Invalid | Self::MangleInbound | Self::InTproxy => Table::Mangle,
            Self::NatPrerouting | Self::NatInbound | Self::InRedirect => Table::Nat,
            Self::NatOutput | Self::Outbound | Self::OutRedirect => Table::Nat,
        }
    }

    /// Whether the chain is ours, not the kernel's.
    pub fn is_ours(self) -> bool {
        self.name().starts_with(CHAIN_PREFIX)
    }
}

impl RuleSet {
    /// The rules that these settings mean for one family.
    pub fn new(settings: &Settings, family: Family) -> Self {
        let mut rules = Vec::new();
        if settings.closed_port_guard {
            rules.extend(guard(settings));
        }
        rules.extend(refusals(settings, family));
        if settings.invalid_drop {
            rules.push(rule(Chain::ManglePrerouting, [], Target::Jump(Chain::Invalid)));
            rules.push(rule(Chain::Invalid, [Match::State(State::Invalid)], Target::Drop));
        }
        rules.extend(inbound(settings, family));
        rules.extend(outbound(settings, family));
        // Stable, so that the order within a chain stays as written above.
        rules.sort_by_key(|rule| rule.chain);
        Self { family, rules }
    }

    /// Chains of ours that the rules stand in or jump to.
    pub fn chains(&self) -> BTreeSet<Chain> {
        let targets = self.rules.iter().filter_map(|rule| match rule.target {
            Target::Jump(chain) => Some(chain),
            Target::Drop | Target::Redirect(_) | Target::Return | Target::Tproxy(_) => None,
        });
        self.rules.iter().map(|rule| rule.chain).filter(|chain| chain.is_ours()).chain(targets).collect()
    }
}

/// The proxy's own resets pass; any other RST with ACK from its ports is the kernel saying that nobody listens.
fn guard(settings: &Settings) -> Vec<Rule> {
    let own_dial = [Match::DestinationPort(settings.outbound_port), Match::OwnerUid(settings.proxy_uid)];
    let mut rules = vec![
        rule(Chain::FilterOutput, [], Target::Jump(Chain::Guard)),
        // The kernel sends the proxy's dial there where its addresses and ports are those of a captured connection that the
        // proxy has just reset: the old translation still counts, whoever connects.
        rule(Chain::Guard, own_dial, Target::Drop),
        rule(Chain::Guard, [Match::OwnerUid(settings.proxy_uid)], Target::Return),
    ];
    for port in [settings.outbound_port, settings.inbound_port] {
        rules.push(rule(Chain::Guard, [Match::SourcePort(port), Match::Refusal], Target::Drop));
    }
    rules
}

/// A datagram of the proxy's to a refused destination has it noted, one to the closed port has it forgotten. Neither
/// leaves: they are all that the proxy has to know of the kernel.
fn refusals(settings: &Settings, family: Family) -> Vec<Rule> {
    if settings.ring_ports.is_empty() {
        return Vec::new();
    }
    let mut rules = vec![rule(Chain::FilterOutput, [], Target::Jump(Chain::Refusals))];
    for port in &settings.ring_ports {
        let matches = [
            Match::DestinationPort(*port),
            Match::OwnerUid(settings.proxy_uid),
            Match::Note(list_of_refused(*port, family)),
        ];
        rules.push(rule(Chain::Refusals, matches, Target::Drop));
    }
    let to_forget = [Match::DestinationPort(CLOSED_PORT), Match::OwnerUid(settings.proxy_uid)];
    for port in &settings.ring_ports {
        let forget = Match::Forget(list_of_refused(*port, family));
        rules.push(rule(Chain::Refusals, to_forget.iter().cloned().chain([forget]), Target::Drop));
    }
    // What was forgotten already has nothing to do outside either.
    rules.push(rule(Chain::Refusals, to_forget, Target::Drop));
    for rule in &mut rules {
        rule.protocol = Protocol::Udp;
    }
    rules
}

/// A list per port and family: the kernel would cut the addresses of both to the mask of the family that came first.
fn list_of_refused(port: u16, family: Family) -> String {
    match family {
        Family::V4 => format!("{CHAIN_PREFIX}{port}"),
        Family::V6 => format!("{CHAIN_PREFIX}V6_{port}"),
    }
}

fn inbound(settings: &Settings, family: Family) -> Vec<Rule> {
    let (hook, decide, capture, target) = match settings.mode {
        Mode::Redirect => {
            let target = Target::Redirect(settings.inbound_port);
            (Chain::NatPrerouting, Chain::NatInbound, Chain::InRedirect, target)
        }
        Mode::Tproxy => {
            let target = Target::Tproxy(settings.inbound_port);
            (Chain::ManglePrerouting, Chain::MangleInbound, Chain::InTproxy, target)
        }
    };
    // The nat table sees first packets only. TPROXY must be told, or it would take the answers to the pod's own
    // connections, and drop them because their sockets are not transparent.
    let first = match settings.mode {
        Mode::Redirect => None,
        Mode::Tproxy => Some(Match::State(State::New)),
    };
    let mut rules = vec![
        rule(hook, first, Target::Jump(decide)),
        rule(decide, [Match::InInterface(LOOPBACK.to_owned())], Target::Return),
    ];
    for name in &settings.exclude_interfaces {
        rules.push(rule(decide, [Match::InInterface(name.clone())], Target::Return));
    }
    for port in settings.inbound_untouched_ports() {
        rules.push(rule(decide, [Match::DestinationPort(port)], Target::Return));
    }
    for network in settings.inbound_exclude_cidrs.iter().filter(|network| family.has(network)) {
        rules.push(rule(decide, source(network), Target::Return));
    }
    rules.push(rule(decide, [], Target::Jump(capture)));
    rules.extend(capture_ports(capture, &settings.inbound_include_ports, target));
    rules
}

fn outbound(settings: &Settings, family: Family) -> Vec<Rule> {
    let chain = Chain::Outbound;
    let mut rules = vec![
        rule(Chain::NatOutput, [], Target::Jump(chain)),
        rule(chain, [Match::OutInterface(LOOPBACK.to_owned())], Target::Return),
    ];
    for uid in settings.exempt_uids() {
        rules.push(rule(chain, [Match::OwnerUid(uid)], Target::Return));
    }
    rules.push(rule(chain, [Match::OwnerGid(settings.proxy_gid)], Target::Return));
    for name in &settings.exclude_interfaces {
        rules.push(rule(chain, [Match::OutInterface(name.clone())], Target::Return));
    }
    for port in &settings.outbound_exclude_ports {
        rules.push(rule(chain, [Match::DestinationPort(*port)], Target::Return));
    }
    for network in settings.outbound_exclude_cidrs.iter().filter(|network| family.has(network)) {
        rules.push(rule(chain, destination(network), Target::Return));
    }
    let capture = Target::Jump(Chain::OutRedirect);
    for port in &settings.outbound_add_ports {
        rules.push(rule(chain, [Match::DestinationPort(*port)], capture));
    }
    match &settings.outbound_include_cidrs {
        Cidrs::All => rules.push(rule(chain, [], capture)),
        Cidrs::Only(networks) => {
            for network in networks.iter().filter(|network| family.has(network)) {
                rules.push(rule(chain, destination(network), capture));
            }
        }
    }
    let ports = outbound_ports(settings);
    let is_captured = |port: &&u16| ports.contains(**port) && !settings.outbound_exclude_ports.contains(port);
    for port in settings.ring_ports.iter().filter(is_captured) {
        let matches = [Match::DestinationPort(*port), Match::Noted(list_of_refused(*port, family))];
        rules.push(rule(Chain::OutRedirect, matches, Target::Redirect(CLOSED_PORT)));
    }
    let target = Target::Redirect(settings.outbound_port);
    rules.extend(capture_ports(Chain::OutRedirect, &ports, target));
    rules
}

/// What the capturing chain takes. An added port comes there by any destination, the others by an included one; a
/// connection to an added port and an included destination is captured either way.
fn outbound_ports(settings: &Settings) -> Ports {
    match &settings.outbound_include_ports {
        Ports::All => Ports::All,
        Ports::Only(ports) => Ports::Only(ports.union(&settings.outbound_add_ports).copied().collect()),
    }
}

fn capture_ports(chain: Chain, ports: &Ports, target: Target) -> Vec<Rule> {
    match ports {
        Ports::All => vec![rule(chain, [], target)],
        Ports::Only(ports) => {
            ports.iter().map(|port| rule(chain, [Match::DestinationPort(*port)], target)).collect()
        }
    }
}

/// The network that holds everything is no condition: the kernel does not keep it, so it could not be read back.
fn destination(network: &IpNet) -> Option<Match> {
    (network.prefix_len() > 0).then_some(Match::Destination(*network))
}

fn source(network: &IpNet) -> Option<Match> {
    (network.prefix_len() > 0).then_some(Match::Source(*network))
}

fn rule(chain: Chain, matches: impl IntoIterator<Item = Match>, target: Target) -> Rule {
    Rule { chain, protocol: Protocol::Tcp, matches: matches.into_iter().collect(), target }
}
