//! Flags and environment in, validated [`Settings`] out.
//!
//! Flags carry the names that users of Istio's annotations expect. Every flag can also be given as an
//! environment variable (`--inbound-port` is `RINGMAIL_INIT_INBOUND_PORT`); a flag wins over its variable.
//! What cannot be honoured is refused here, all faults at once, so that no later room meets it.

use std::collections::BTreeSet;
use std::ffi::OsString;

use clap::{ArgAction, CommandFactory, FromArgMatches, Parser, ValueEnum, parser::ValueSource};
use thiserror::Error;

mod values;

pub use values::{Cidrs, Ports, ValueError};
use values::{Interfaces, Uids};

/// What every environment variable of this program begins with.
pub const ENVIRONMENT_PREFIX: &str = "RINGMAIL_INIT_";

/// Ports of the sidecar beside the two it captures to: admin (loopback), Istio-shaped metrics and readiness,
/// readiness, Linkerd-shaped metrics. The kubelet and Prometheus reach them directly, so they are never
/// captured inbound.
pub const SIDECAR_PORTS: [u16; 4] = [4191, 15000, 15020, 15021];

/// A port on which nothing may listen: connects to a destination that the proxy reported as refused are sent there,
/// and the kernel refuses them as it would for a dead application. A datagram to it has its address forgotten.
pub const CLOSED_PORT: u16 = 15002;

/// Command-line flags as typed. See [`Settings`] for what they mean.
#[derive(Debug, Parser)]
#[command(
    name = "ringmail-init",
    version,
    about,
    max_term_width = 110,
    args_override_self = true,
    after_help = "Exit codes: 0 done; 64 wrong usage; 69 a program, kernel feature or address family is missing;\n\
    73 iptables refused the rules; 74 an input or output error; 76 the rules are in place but do not hold;\n\
    77 not permitted.\n\
    Every flag is also read from the environment: --inbound-port from RINGMAIL_INIT_INBOUND_PORT."
)]
pub struct Flags {
    /// Ports whose inbound connections are captured: `*` or a comma-separated list
    #[arg(long, value_name = "PORTS", default_value = "*")]
    inbound_include_ports: Ports,
    /// Ports whose inbound connections are left alone; wins over the include
    #[arg(long, value_name = "PORTS", default_value = "")]
    inbound_exclude_ports: Ports,
    /// Sources whose inbound connections are left alone
    #[arg(long, value_name = "CIDRS", default_value = "")]
    inbound_exclude_cidrs: Cidrs,
    /// Ports whose outbound connections are captured: `*` or a comma-separated list
    #[arg(long, value_name = "PORTS", default_value = "*")]
    outbound_include_ports: Ports,
    /// Ports whose outbound connections are left alone; wins over the include
    #[arg(long, value_name = "PORTS", default_value = "")]
    outbound_exclude_ports: Ports,
    /// Ports whose outbound connections are captured to any destination, beside what the two includes capture together
    #[arg(long, value_name = "PORTS", default_value = "")]
    outbound_add_ports: Ports,
    /// Destinations whose outbound connections are captured, if the port is too: `*` or CIDRs of either family
    #[arg(long, value_name = "CIDRS", default_value = "*")]
    outbound_include_cidrs: Cidrs,
    /// Destinations whose outbound connections are left alone; wins over the include
    #[arg(long, value_name = "CIDRS", default_value = "")]
    outbound_exclude_cidrs: Cidrs,
    /// Users, by number, whose outbound connections are left alone, beside the proxy's own
    #[arg(long, value_name = "UIDS", default_value = "")]
    exclude_uids: Uids,
    /// Interfaces whose connections are left alone in both directions, beside `lo`
    #[arg(long, value_name = "NAMES", default_value = "")]
    exclude_interfaces: Interfaces,
    /// User that the proxy runs as: its connections are never captured
    #[arg(long, value_name = "UID", default_value_t = 1337)]
    proxy_uid: u32,
    /// Group that the proxy runs as: its connections are never captured
    #[arg(long, value_name = "GID", default_value_t = 1337)]
    proxy_gid: u32,
    /// Port that the proxy accepts captured inbound connections on
    #[arg(long, value_name = "PORT", default_value_t = 15006)]
    inbound_port: u16,
    /// Port that the proxy accepts captured outbound connections on
    #[arg(long, value_name = "PORT", default_value_t = 15001)]
    outbound_port: u16,
    /// How inbound connections are captured. `tproxy` keeps their destination, but the proxy must then be
    /// started with transparent listeners (IP_TRANSPARENT, NET_ADMIN), which ringmail-proxy does not offer yet
    #[arg(long, value_enum, default_value_t = Mode::Redirect)]
    mode: Mode,
    /// IP families to capture. `auto` takes both, and skips one only if the pod has no address of it
    #[arg(long, value_enum, default_value_t = IpFamilies::Auto)]
    ip_families: IpFamilies,
    /// Which iptables to use. `auto` keeps the one that already holds our rules, else tries nft, then legacy
    #[arg(long, value_enum, default_value_t = BackendChoice::Auto)]
    backend: BackendChoice,
    /// Drop inbound packets that connection tracking calls INVALID, which otherwise reset healthy connections
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set,
        num_args = 0..=1, default_missing_value = "true")]
    invalid_drop: bool,
    /// Drop the kernel's refusal of connections to the proxy's ports, so that a proxy that is not running looks
    /// like a slow network and not like a dead node
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set,
        num_args = 0..=1, default_missing_value = "true")]
    closed_port_guard: bool,
    /// Ports whose refused connects are remembered: a destination that the proxy found refused when the
    /// application connected to it without a word is refused by the kernel for a moment. Needs the recent match
    /// (xt_recent); left out where that is missing, unless this flag is given. Empty for none
    #[arg(long, value_name = "PORTS", default_value = "47500")]
    ring_ports: Ports,
    /// Print the text for iptables-restore and change nothing
    #[arg(long, value_name = "BOOL", default_value_t = false, action = ArgAction::Set,
        num_args = 0..=1, default_missing_value = "true")]
    dry_run: bool,
    /// Remove every rule of ours from every backend
    #[arg(long, value_name = "BOOL", default_value_t = false, action = ArgAction::Set,
        num_args = 0..=1, default_missing_value = "true")]
    remove: bool,
    /// Do not prove the rules once they are in place
    #[arg(long, value_name = "BOOL", default_value_t = false, action = ArgAction::Set,
        num_args = 0..=1, default_missing_value = "true")]
    skip_verify: bool,
}

/// How inbound connections reach the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// The destination is rewritten; the proxy learns the original by `SO_ORIGINAL_DST`.
    Redirect,
    /// The packet is handed over as it is; the proxy's listener must be transparent.
    Tproxy,
}

/// Which IP families are to be captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum IpFamilies {
    /// Both, but one that cannot be captured is skipped when the pod has no address of it.
    Auto,
    /// IPv4 only, even if the pod has IPv6 addresses.
    V4,
    /// IPv6 only, even if the pod has IPv4 addresses.
    V6,
    /// Both, or fail.
    Both,
}

/// Which implementation of iptables is to be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BackendChoice {
    /// The one that holds our rules already, else the first of nft and legacy that works.
    Auto,
    /// nf_tables through `iptables-nft`.
    Nft,
    /// ip_tables through `iptables-legacy`.
    Legacy,
}

/// What this run is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Put the rules in place, then prove them if asked.
    Apply {
        /// Whether the rules are proven once in place.
        verify: bool,
    },
    /// Remove every rule of ours.
    Remove,
}

/// Validated settings: everything the other rooms need, and nothing that they would have to refuse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Ports captured inbound.
    pub inbound_include_ports: Ports,
    /// Ports never captured inbound, beside the sidecar's own.
    pub inbound_exclude_ports: BTreeSet<u16>,
    /// Sources never captured inbound.
    pub inbound_exclude_cidrs: Vec<ipnet::IpNet>,
    /// Ports captured outbound, if the destination is too.
    pub outbound_include_ports: Ports,
    /// Ports never captured outbound.
    pub outbound_exclude_ports: BTreeSet<u16>,
    /// Ports captured outbound whatever the destination, unless port or destination is excluded.
    pub outbound_add_ports: BTreeSet<u16>,
    /// Destinations captured outbound, if the port is too.
    pub outbound_include_cidrs: Cidrs,
    /// Destinations never captured outbound.
    pub outbound_exclude_cidrs: Vec<ipnet::IpNet>,
    /// Users never captured outbound, beside the proxy's own.
    pub exclude_uids: BTreeSet<u32>,
    /// Interfaces never captured, beside `lo`.
    pub exclude_interfaces: BTreeSet<String>,
    /// The proxy's user.
    pub proxy_uid: u32,
    /// The proxy's group.
    pub proxy_gid: u32,
    /// The proxy's inbound port, not zero.
    pub inbound_port: u16,
    /// The proxy's outbound port, not zero and not the inbound one.
    pub outbound_port: u16,
    /// How inbound connections are captured.
    pub mode: Mode,
    /// IP families captured.
    pub ip_families: IpFamilies,
    /// Which iptables is used.
    pub backend: BackendChoice,
    /// Whether INVALID packets are dropped.
    pub invalid_drop: bool,
    /// Whether the refusal of a connection to the proxy's ports is dropped.
    pub closed_port_guard: bool,
    /// Ports whose refused connects are remembered.
    pub ring_ports: BTreeSet<u16>,
    /// Whether somebody asked for those ports, so that they may not be left out.
    pub ring_ports_required: bool,
    /// Whether the text is printed in place of being applied.
    pub dry_run: bool,
    /// What to do.
    pub action: Action,
}

/// What the command line asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// A run with these settings.
    Settings(Box<Settings>),
    /// Help or version, already formatted.
    Help(String),
}

/// Why the command line or the environment cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ConfigError {
    /// A flag or a value does not parse, or a variable names no flag.
    #[error("{0}")]
    Usage(String),
    /// Values that parse but cannot be honoured; one sentence each.
    #[error("{}", .0.join("; "))]
    Faults(Vec<String>),
}

impl Settings {
    /// Ports that are never captured inbound: the sidecar's own, then those excluded.
    pub fn inbound_untouched_ports(&self) -> BTreeSet<u16> {
        let mut ports = self.own_ports();
        ports.extend(&self.inbound_exclude_ports);
        ports
    }

    /// Users whose outbound connections are never captured.
    pub fn exempt_uids(&self) -> BTreeSet<u32> {
        let mut uids = self.exclude_uids.clone();
        uids.insert(self.proxy_uid);
        uids
    }

    /// The same settings without memory of refused connects.
    #[must_use]
    pub fn without_ring_ports(&self) -> Self {
        Self { ring_ports: BTreeSet::new(), ..self.clone() }
    }

    fn own_ports(&self) -> BTreeSet<u16> {
        SIDECAR_PORTS.into_iter().chain([self.inbound_port, self.outbound_port]).collect()
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.inbound_port == 0 || self.outbound_port == 0 {
            faults.push("--inbound-port and --outbound-port must not be 0".to_owned());
        }
        if self.inbound_port == self.outbound_port {
            faults.push(format!("--inbound-port and --outbound-port are both {}", self.inbound_port));
        }
        for own in [self.inbound_port, self.outbound_port] {
            if own == CLOSED_PORT && !self.ring_ports.is_empty() {
                faults.push(format!("port {own} must stay closed for --ring-ports"));
            }
            if SIDECAR_PORTS.contains(&own) {
                faults.push(format!("port {own} already belongs to the sidecar's admin or metrics"));
            }
        }
        if self.ring_ports.contains(&CLOSED_PORT) {
            faults.push(format!("--ring-ports names {CLOSED_PORT}, which must stay closed for it"));
        }
        if let Ports::Only(included) = &self.inbound_include_ports {
            for port in included.intersection(&self.own_ports()) {
                faults.push(format!(
                    "--inbound-include-ports names {port}, which is the sidecar's own and never captured"
                ));
            }
        }
        faults
    }
}

/// Reads settings from arguments (the program's name first) and environment.
///
/// # Errors
/// [`ConfigError`] names every flag that cannot be used and what was expected of it.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Parsed, ConfigError> {
    let command = Flags::command();
    let mut arguments = arguments.into_iter();
    let program = arguments.next().unwrap_or_else(|| OsString::from("ringmail-init"));
    let mut all = vec![program];
    // Clap takes the last occurrence, so a flag that follows its variable wins.
    all.extend(environment_flags(&command, environment));
    all.extend(arguments);
    let matches = command.try_get_matches_from(all);
    let flags = matches.and_then(|mut matches| {
        let is_required = matches.value_source("ring_ports") != Some(ValueSource::DefaultValue);
        Ok((Flags::from_arg_matches_mut(&mut matches)?, is_required))
    });
    let (flags, is_required) = match flags {
        Ok(read) => read,
        Err(error) if !error.use_stderr() => return Ok(Parsed::Help(error.to_string())),
        Err(error) => {
            let text = error.to_string();
            return Err(ConfigError::Usage(text.trim_start_matches("error: ").trim_end().to_owned()));
        }
    };
    Ok(Parsed::Settings(Box::new(validate(flags, is_required)?)))
}

/// Variables that are no flag are not a fault: Kubernetes itself adds `<SERVICE>_PORT` and the like.
fn environment_flags(
    command: &clap::Command,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Vec<OsString> {
    let mut flags = Vec::new();
    for (name, value) in environment {
        let known = command.get_arguments().filter_map(clap::Arg::get_long).find(|long| {
            name.to_str() == Some(&format!("{ENVIRONMENT_PREFIX}{}", long.replace('-', "_").to_uppercase()))
        });
        if let Some(long) = known {
            let mut flag = OsString::from(format!("--{long}="));
            flag.push(value);
            flags.push(flag);
        }
    }
    flags
}

fn validate(flags: Flags, ring_ports_required: bool) -> Result<Settings, ConfigError> {
    let mut faults = Vec::new();
    let mut listed = |flag: &str, ports: Ports| match ports {
        Ports::Only(list) => list,
        Ports::All => {
            faults.push(format!("{flag}=*: expected a list; to capture nothing, leave the include empty"));
            BTreeSet::new()
        }
    };
    let inbound_exclude_ports = listed("--inbound-exclude-ports", flags.inbound_exclude_ports);
    let outbound_exclude_ports = listed("--outbound-exclude-ports", flags.outbound_exclude_ports);
    let outbound_add_ports = listed("--outbound-add-ports", flags.outbound_add_ports);
    let ring_ports = listed("--ring-ports", flags.ring_ports);
    let mut listed = |flag: &str, cidrs: Cidrs| match cidrs {
        Cidrs::Only(list) => list,
        Cidrs::All => {
            faults.push(format!("{flag}=*: expected a list; to capture nothing, leave the include empty"));
            Vec::new()
        }
    };
    let inbound_exclude_cidrs = listed("--inbound-exclude-cidrs", flags.inbound_exclude_cidrs);
    let outbound_exclude_cidrs = listed("--outbound-exclude-cidrs", flags.outbound_exclude_cidrs);
    let settings = Settings {
        inbound_include_ports: flags.inbound_include_ports,
        inbound_exclude_ports,
        inbound_exclude_cidrs,
        outbound_include_ports: flags.outbound_include_ports,
        outbound_exclude_ports,
        outbound_add_ports,
        outbound_include_cidrs: flags.outbound_include_cidrs,
        outbound_exclude_cidrs,
        exclude_uids: flags.exclude_uids.0,
        exclude_interfaces: flags.exclude_interfaces.0,
        proxy_uid: flags.proxy_uid,
        proxy_gid: flags.proxy_gid,
        inbound_port: flags.inbound_port,
        outbound_port: flags.outbound_port,
        mode: flags.mode,
        ip_families: flags.ip_families,
        backend: flags.backend,
        invalid_drop: flags.invalid_drop,
        closed_port_guard: flags.closed_port_guard,
        ring_ports,
        ring_ports_required,
        dry_run: flags.dry_run,
        action: if flags.remove { Action::Remove } else { Action::Apply { verify: !flags.skip_verify } },
    };
    faults.extend(settings.faults());
    if faults.is_empty() { Ok(settings) } else { Err(ConfigError::Faults(faults)) }
}

#[cfg(test)]
mod tests;
