//! The story of one run: for each IP family look, apply, prove; one line per step, and a last clear line.
//!
//! Fails closed: a family that the pod can be reached by and that cannot be captured fails the run, and with it
//! the pod. Only a family that the pod has no address of is skipped, and the output says so.

use std::io::{self, Write};

use thiserror::Error;

use crate::apply::{self, ApplyError, Change};
use crate::backend::{ChooseError, Survey, ToolError};
use crate::config::{Action, IpFamilies, Settings};
use crate::diagnose::Obstacle;
use crate::pod::Pod;
use crate::readback::Installed;
use crate::render;
use crate::rules::{Family, RuleSet};
use crate::verify::{self, Guard, Outbound, VerifyError};

/// A flag or variable cannot be used (`EX_USAGE` of sysexits.h, as the others).
pub const EXIT_USAGE: u8 = 64;
/// A program, a kernel feature or an address family is missing (`EX_UNAVAILABLE`).
pub const EXIT_UNAVAILABLE: u8 = 69;
/// iptables refused the rules, or holds others than were written (`EX_CANTCREAT`).
pub const EXIT_REFUSED: u8 = 73;
/// The output cannot be written or the namespace cannot be looked at (`EX_IOERR`).
pub const EXIT_IO: u8 = 74;
/// The rules are in place but do not hold (`EX_PROTOCOL`).
pub const EXIT_NOT_PROVEN: u8 = 76;
/// Not permitted (`EX_NOPERM`).
pub const EXIT_NOT_PERMITTED: u8 = 77;

/// Why a run did not do what it was asked to.
#[derive(Debug, Error)]
pub enum RunError {
    /// The rules are not in place.
    #[error("{}: {source}", .family.name())]
    Apply {
        /// Of this family.
        family: Family,
        /// Why.
        source: ApplyError,
    },
    /// There is no backend to use.
    #[error("{}: {source}", .family.name())]
    Choose {
        /// For this family.
        family: Family,
        /// Why.
        source: ChooseError,
    },
    /// Every family was skipped, so the pod would run without capture.
    #[error("neither ipv4 nor ipv6 could be captured")]
    NothingCaptured,
    /// The output or the namespace's interfaces.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The rules are in place but do not hold.
    #[error("{}: {source}", .family.name())]
    Verify {
        /// For this family.
        family: Family,
        /// What was seen.
        source: VerifyError,
    },
}

impl RunError {
    /// The exit code that tells this failure from others.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Apply { source: ApplyError::Tools(errors), .. } => {
                errors.first().map_or(EXIT_REFUSED, tool_code)
            }
            Self::Apply {
                source: ApplyError::NotAsWritten { .. } | ApplyError::LeftBehind { .. }, ..
            } => EXIT_REFUSED,
            Self::Choose { source: ChooseError::Unusable(error), .. } => tool_code(error),
            Self::Choose { source: ChooseError::BothHoldRules { .. }, .. } => EXIT_REFUSED,
            Self::Choose { source: ChooseError::OtherHoldsRules { .. }, .. } => EXIT_REFUSED,
            Self::NothingCaptured => EXIT_UNAVAILABLE,
            Self::Io(_) => EXIT_IO,
            Self::Verify { .. } => EXIT_NOT_PROVEN,
        }
    }

    /// Whether this machine cannot capture the family at all, as opposed to refusing or failing to.
    fn is_unavailable(&self) -> bool {
        self.exit_code() == EXIT_UNAVAILABLE
    }
}

/// Does what the settings ask for, in the network namespace of this thread, and tells it to `out`.
///
/// # Errors
/// [`RunError`], whose [`RunError::exit_code`] is the process's.
pub fn run(settings: &Settings, out: &mut impl Write) -> Result<(), RunError> {
    let families: &[Family] = match settings.ip_families {
        IpFamilies::Auto | IpFamilies::Both => &[Family::V4, Family::V6],
        IpFamilies::V4 => &[Family::V4],
        IpFamilies::V6 => &[Family::V6],
    };
    if settings.dry_run {
        return Ok(print_rules(settings, families, out)?);
    }
    let pod = Pod::look()?;
    for family in [Family::V4, Family::V6].into_iter().filter(|family| !families.contains(family)) {
        if pod.has_address(family) {
            writeln!(
                out,
                "{}: left out by --ip-families, although the pod has such an address",
                family.name()
            )?;
        }
    }
    let mut done = Vec::new();
    for family in families.iter().copied() {
        let result = match settings.action {
            Action::Apply { verify } => capture(settings, family, out)
                .and_then(|()| if verify { prove(settings, family, &pod, out) } else { Ok(()) }),
            Action::Remove => release(family, out),
        };
        match result {
            Ok(()) => done.push(family.name()),
            Err(error) if is_skippable(settings, family, &pod, &error) => {
                writeln!(out, "{}: skipped, the pod has no address of this family; {error}", family.name())?;
            }
            Err(error) => return Err(error),
        }
    }
    finish(settings, &done, out)
}

fn finish(settings: &Settings, done: &[&str], out: &mut impl Write) -> Result<(), RunError> {
    if done.is_empty() {
        return Err(RunError::NothingCaptured);
    }
    let families = done.join(" and ");
    match settings.action {
        Action::Apply { verify } => writeln!(
            out,
            "ringmail-init: done: {families} tcp is captured, inbound to port {}, outbound to port {}{}",
            settings.inbound_port,
            settings.outbound_port,
            if verify { "" } else { " (not proven: --skip-verify)" }
        )?,
        Action::Remove => writeln!(out, "ringmail-init: done: no rules of ours are left for {families}")?,
    }
    Ok(())
}

fn print_rules(settings: &Settings, families: &[Family], out: &mut impl Write) -> io::Result<()> {
    for family in families.iter().copied() {
        let rules = RuleSet::new(settings, family);
        let (verb, text) = match settings.action {
            Action::Apply { .. } => ("apply", render::apply(&rules, &Installed::default())),
            Action::Remove => ("remove", render::remove(&Installed::expected(&rules))),
        };
        writeln!(out, "# {}: to {verb}; nothing was changed", family.name())?;
        out.write_all(text.as_bytes())?;
    }
    Ok(())
}

/// Puts the rules in place; without memory of refused connects where the match for it is missing and nobody asked.
fn capture(settings: &Settings, family: Family, out: &mut impl Write) -> Result<(), RunError> {
    let may_do_without = !settings.ring_ports.is_empty() && !settings.ring_ports_required;
    match put_in_place(settings, family, out) {
        Err(RunError::Apply { source, .. }) if may_do_without && source.may_be_recent_match() => {
            put_in_place(&settings.without_ring_ports(), family, out)?;
            writeln!(
                out,
                "{}: refused connects are not remembered (--ring-ports), this kernel or iptables has no recent \
                 match: load it with `modprobe xt_recent` on the node",
                family.name()
            )?;
            Ok(())
        }
        outcome @ (Ok(()) | Err(_)) => outcome,
    }
}

fn put_in_place(settings: &Settings, family: Family, out: &mut impl Write) -> Result<(), RunError> {
    let wanted = RuleSet::new(settings, family);
    let tools = Survey::look(family).choose(family, settings.backend);
    let tools = tools.map_err(|source| RunError::Choose { family, source })?;
    let applied = apply::apply(&wanted, tools).map_err(|source| RunError::Apply { family, source })?;
    let (count, backend, name) = (wanted.rules.len(), applied.backend(), family.name());
    match applied.change {
        Change::None => {
            writeln!(out, "{name}: all {count} rules are in place already ({backend}), nothing changed")?
        }
        Change::Created => {
            writeln!(out, "{name}: {count} rules put in place ({backend}) and read back as written")?
        }
        Change::Replaced => {
            writeln!(
                out,
                "{name}: rules that differed were replaced by {count} ({backend}), read back as written"
            )?;
        }
    }
    Ok(())
}

fn prove(settings: &Settings, family: Family, pod: &Pod, out: &mut impl Write) -> Result<(), RunError> {
    let name = family.name();
    let failed = |source| RunError::Verify { family, source };
    if !pod.has_address(family) && !verify::has_loopback(family) {
        writeln!(
            out,
            "{name}: read back only, the pod has neither an address nor a loopback of this family"
        )?;
        return Ok(());
    }
    match verify::outbound(settings, family, pod).map_err(failed)? {
        Outbound::Redirected(destination) => writeln!(
            out,
            "{name}: outbound proven, a connect to {destination} arrived on port {} with its original destination",
            settings.outbound_port
        )?,
        Outbound::AnsweredByProxy(destination) => writeln!(
            out,
            "{name}: outbound proven, a connect to {destination} was answered by the listener on port {}",
            settings.outbound_port
        )?,
        Outbound::NotTried(why) => {
            writeln!(out, "{name}: outbound read back only, a connect was not tried: {}", why.reason())?;
        }
    }
    if !settings.closed_port_guard {
        writeln!(out, "{name}: closed-port guard is off: a proxy that is not running refuses connections")?;
        return Ok(());
    }
    for port in [settings.outbound_port, settings.inbound_port] {
        match verify::guard(family, port).map_err(failed)? {
            Guard::Silent => {
                writeln!(out, "{name}: guard proven, a connect to closed port {port} stays unanswered")?
            }
            Guard::PortInUse => {
                writeln!(out, "{name}: guard read back only, somebody listens on port {port}")?
            }
        }
    }
    Ok(())
}

fn release(family: Family, out: &mut impl Write) -> Result<(), RunError> {
    let failed = |source| RunError::Apply { family, source };
    let tools =
        Survey::look(family).holding_rules().map_err(|error| failed(ApplyError::Tools(vec![error])))?;
    if tools.is_empty() {
        writeln!(out, "{}: no rules of ours, nothing to remove", family.name())?;
    }
    for (tool, _) in tools {
        let count = apply::remove(&tool).map_err(failed)?;
        writeln!(out, "{}: {count} rules removed ({})", family.name(), tool.backend())?;
    }
    Ok(())
}

fn is_skippable(settings: &Settings, family: Family, pod: &Pod, error: &RunError) -> bool {
    let may_skip = match settings.ip_families {
        IpFamilies::Auto => true,
        IpFamilies::V4 | IpFamilies::V6 | IpFamilies::Both => false,
    };
    may_skip && error.is_unavailable() && !pod.has_address(family)
}

fn tool_code(error: &ToolError) -> u8 {
    match error {
        ToolError::NotInstalled { .. } => EXIT_UNAVAILABLE,
        ToolError::Io { .. } => EXIT_IO,
        ToolError::Refused { obstacle, .. } => match obstacle {
            Obstacle::Missing(_) => EXIT_UNAVAILABLE,
            Obstacle::NotPermitted(_) => EXIT_NOT_PERMITTED,
            Obstacle::Locked | Obstacle::Other => EXIT_REFUSED,
        },
    }
}
