//! What every candidate is started from: two pods, rules that capture, and a process in each that carries.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use ringmail_lab::ca::Ca;
use ringmail_lab::network::{Network, Pod};
use ringmail_lab::process::{Child, Launch};
use ringmail_lab::sidecar::{INBOUND_PORT, OUTBOUND_PORT, PROXY_UID, Sidecar, install_rules};

use super::{CLIENT, Candidate, Programs, SERVER, Setup, envoy, haproxy, linkerd, ringmail, ztunnel};

/// What is longer in a command that is shown is cut: the text of a certificate says nothing to a reader.
const SHOWN_VALUE: usize = 120;

/// Where a candidate is started.
pub(super) struct Ground<'a> {
    /// The pods.
    pub(super) network: &'a Network,
    /// A folder that every user reaches.
    pub(super) folder: &'a Path,
    /// The programs, where every user reaches them.
    pub(super) programs: &'a Programs,
    /// What is started.
    pub(super) setup: Setup,
}

/// What runs for a candidate.
#[derive(Default)]
pub(super) struct Started {
    /// The proxies of Ringmail.
    pub(super) sidecars: Vec<Sidecar>,
    /// The proxies of others.
    pub(super) proxies: Vec<Child>,
    /// What proxies need beside them, and is not measured.
    pub(super) helpers: Vec<Child>,
    /// The CA of Ringmail.
    pub(super) ca: Option<Ca>,
    /// The commands of all.
    pub(super) commands: Vec<String>,
}

impl Ground<'_> {
    /// The program of this candidate's proxies.
    pub(super) fn program(&self) -> Result<PathBuf> {
        let candidate = self.setup.candidate;
        self.programs.proxy_of(candidate)?.with_context(|| format!("{} has no proxy", candidate.name()))
    }

    /// The pods of the load, the client's first.
    pub(super) fn pods(&self) -> Result<[&Pod; 2]> {
        Ok([self.network.pod(CLIENT)?, self.network.pod(SERVER)?])
    }

    /// Captures both pods, but for these inbound ports.
    pub(super) fn capture(&self, exclude_inbound: &[u16]) -> Result<()> {
        let ports: Vec<_> = exclude_inbound.iter().map(u16::to_string).collect();
        let flags = match ports.as_slice() {
            [] => Vec::new(),
            some => vec![format!("--inbound-exclude-ports={}", some.join(","))],
        };
        for pod in self.pods()? {
            install_rules(pod, &self.programs.init(), &flags)?;
        }
        Ok(())
    }

    /// Starts a process in a pod as the proxy's user.
    pub(super) fn spawn(&self, pod: &Pod, name: &str, mut command: Command) -> Result<Child> {
        let name = format!("{name}-{}", pod.name());
        let launch = Launch::new(&name, self.folder.join(format!("{name}.log"))).user(PROXY_UID);
        pod.spawn(command.current_dir(self.folder), &launch)
    }
}

impl Started {
    /// Notes a command, and starts it as a proxy.
    pub(super) fn proxy(&mut self, ground: &Ground<'_>, pod: &Pod, command: Command) -> Result<()> {
        self.commands.push(shown(&command));
        self.proxies.push(ground.spawn(pod, ground.setup.candidate.name(), command)?);
        Ok(())
    }
}

/// Starts a candidate's proxies; they may not be ready yet.
pub(super) fn start(ground: &Ground<'_>) -> Result<Started> {
    match ground.setup.candidate {
        Candidate::Plain => Ok(Started::default()),
        Candidate::RelayCopy => relay(ground, "copy"),
        Candidate::RelaySplice => relay(ground, "splice"),
        Candidate::HaproxyPlain => haproxy::start(ground, haproxy::Tls::Off),
        Candidate::Haproxy => haproxy::start(ground, haproxy::Tls::FullHandshakes),
        Candidate::HaproxyDefault => haproxy::start(ground, haproxy::Tls::Defaults),
        Candidate::Envoy => envoy::start(ground, envoy::Handshakes::FullX25519),
        Candidate::EnvoyDefault => envoy::start(ground, envoy::Handshakes::Defaults),
        Candidate::Ztunnel => ztunnel::start(ground),
        Candidate::Linkerd => linkerd::start(ground),
        Candidate::Ringmail | Candidate::RingmailBaseline => ringmail::start(ground),
    }
}

fn relay(ground: &Ground<'_>, by: &str) -> Result<Started> {
    ground.capture(&[])?;
    let mut started = Started::default();
    for (pod, port) in ground.pods()?.into_iter().zip([OUTBOUND_PORT, INBOUND_PORT]) {
        let mut command = Command::new(ground.program()?);
        command.args(["relay", "--by", by, "--port", &port.to_string()]);
        started.proxy(ground, pod, command)?;
    }
    Ok(started)
}

/// A command as a shell takes it, without what is long.
pub(super) fn shown(command: &Command) -> String {
    let cut = |text: &str| match text.char_indices().nth(SHOWN_VALUE) {
        Some((end, _)) => format!("'{}...'", text[..end].lines().next().unwrap_or_default()),
        None => text.to_owned(),
    };
    let variables = command.get_envs().filter_map(|(name, value)| {
        Some(format!("{}={}", name.to_string_lossy(), cut(&value?.to_string_lossy())))
    });
    let program = command.get_program().to_string_lossy().into_owned();
    let arguments = command.get_args().map(|argument| cut(&argument.to_string_lossy()));
    let words: Vec<_> = variables.chain([program]).chain(arguments).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_with_its_variables_and_without_long_values() {
        let mut command = Command::new("proxy");
        command.env("A", "1").env("PEM", format!("-----BEGIN\n{}", "x".repeat(200))).args(["-c", "2"]);
        assert_eq!(shown(&command), "A=1 PEM='-----BEGIN...' proxy -c 2");
    }
}
