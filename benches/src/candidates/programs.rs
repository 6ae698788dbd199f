//! Where the candidates' programs are, and which of them there are not.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use ringmail_lab::mesh::{find_programs, shared_temporary_place};
use tempfile::TempDir;

use super::Candidate;

/// Where Debian puts HAProxy.
const HAPROXY: &str = "/usr/sbin/haproxy";

/// Digits of a digest that are shown: no two builds share them.
const DIGEST_SHOWN: usize = 16;

/// The programs, as the caller names them; those of peers where there are any.
#[derive(Clone, Debug)]
pub struct Programs {
    /// This program: the load and the relay.
    pub bench: PathBuf,
    /// The folder of `ringmail-init`, `ringmail-ca` and `ringmail-proxy`.
    pub ringmail: PathBuf,
    /// Another build of `ringmail-proxy`.
    pub baseline: Option<PathBuf>,
    /// HAProxy.
    pub haproxy: Option<PathBuf>,
    /// Envoy.
    pub envoy: Option<PathBuf>,
    /// ztunnel.
    pub ztunnel: Option<PathBuf>,
    /// linkerd2-proxy.
    pub linkerd: Option<PathBuf>,
}

/// Makes a temporary folder that every user reaches, as the proxies run as another.
pub fn open_folder() -> Result<TempDir> {
    let folder = tempfile::Builder::new().prefix("ringmail-bench-").tempdir_in(shared_temporary_place()?)?;
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755))
        .with_context(|| format!("open {} to all", folder.path().display()))?;
    Ok(folder)
}

impl Programs {
    /// Ringmail's own, from `ringmail` or from beside the running program, HAProxy where Debian puts it, and no other.
    pub fn find(bench: PathBuf, ringmail: Option<PathBuf>) -> Result<Self> {
        let haproxy = Some(PathBuf::from(HAPROXY)).filter(|path| path.exists());
        Ok(Self {
            bench,
            ringmail: ringmail.map_or_else(find_programs, Ok)?,
            baseline: None,
            haproxy,
            envoy: None,
            ztunnel: None,
            linkerd: None,
        })
    }

    /// Copies what proxies are started from to a folder that every user reaches, each once.
    pub fn copied_to(&self, folder: &Path) -> Result<Self> {
        let copy = |from: &Path, name: &str| -> Result<PathBuf> {
            let to = folder.join(name);
            fs::copy(from, &to).with_context(|| format!("copy {}", from.display()))?;
            fs::set_permissions(&to, Permissions::from_mode(0o755))?;
            Ok(to)
        };
        let maybe = |from: &Option<PathBuf>, name| from.as_deref().map(|from| copy(from, name)).transpose();
        Ok(Self {
            bench: copy(&self.bench, "ringmail-bench")?,
            ringmail: self.ringmail.clone(),
            baseline: maybe(&self.baseline, "ringmail-proxy-baseline")?,
            haproxy: self.haproxy.clone(),
            envoy: maybe(&self.envoy, "envoy")?,
            ztunnel: maybe(&self.ztunnel, "ztunnel")?,
            linkerd: maybe(&self.linkerd, "linkerd2-proxy")?,
        })
    }

    /// Ringmail's init, which captures for every candidate.
    pub(super) fn init(&self) -> PathBuf {
        self.ringmail.join("ringmail-init")
    }

    /// The program of a candidate's proxies; none for one that has none. An error says how to get it.
    pub fn proxy_of(&self, candidate: Candidate) -> Result<Option<PathBuf>> {
        let named = |path: &Option<PathBuf>, how: &'static str| path.clone().context(how).map(Some);
        match candidate {
            Candidate::Plain => Ok(None),
            Candidate::RelayCopy | Candidate::RelaySplice => Ok(Some(self.bench.clone())),
            Candidate::HaproxyPlain | Candidate::Haproxy | Candidate::HaproxyDefault => {
                named(&self.haproxy, "no haproxy: install Debian's package, or name one with --haproxy")
            }
            Candidate::Envoy | Candidate::EnvoyDefault => {
                named(&self.envoy, "no envoy: name one with --envoy")
            }
            Candidate::Ztunnel => named(&self.ztunnel, "no ztunnel: name one with --ztunnel"),
            Candidate::Linkerd => named(&self.linkerd, "no linkerd2-proxy: name one with --linkerd"),
            Candidate::Ringmail => Ok(Some(self.ringmail.join("ringmail-proxy"))),
            Candidate::RingmailBaseline => named(&self.baseline, "no other build: name one with --baseline"),
        }
    }

    /// What the program of a candidate says of its version, in its first line, and its size; where it says nothing, its
    /// digest.
    pub fn version_of(&self, candidate: Candidate) -> Result<Option<String>> {
        let Some(program) = self.proxy_of(candidate)? else { return Ok(None) };
        let argument = match candidate {
            Candidate::HaproxyPlain | Candidate::Haproxy | Candidate::HaproxyDefault => "-v",
            Candidate::Ztunnel => "version",
            // It reads no arguments and would start.
            Candidate::Linkerd => {
                return Ok(Some(format!("{}, {}", digest(&program)?, file_size(&program)?)));
            }
            Candidate::Plain
            | Candidate::RelayCopy
            | Candidate::RelaySplice
            | Candidate::Envoy
            | Candidate::EnvoyDefault
            | Candidate::Ringmail
            | Candidate::RingmailBaseline => "--version",
        };
        let output = Command::new(&program).arg(argument).output();
        let output = output.with_context(|| format!("start {} {argument}", program.display()))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.lines().find_map(said_version);
        Ok(Some(match line {
            Some(line) if output.status.success() => format!("{line}, {}", file_size(&program)?),
            Some(_) | None => file_size(&program)?,
        }))
    }
}

/// What a line says of a version: all of it, but Envoy's begins with the path of its program, and ztunnel's holds its own
/// version among those of much else.
fn said_version(line: &str) -> Option<&str> {
    let line = line.trim();
    let version = match (line.split_once(" version: "), line.split_once("Version:\"")) {
        (Some((_, version)), _) => version,
        (None, Some((_, rest))) => rest.split('"').next()?,
        (None, None) => line,
    };
    (!version.is_empty()).then_some(version)
}

/// What tells one build from another where it does not say so itself.
fn digest(program: &Path) -> Result<String> {
    let output = Command::new("sha256sum").arg(program).output().context("start sha256sum")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let digest = text.get(..DIGEST_SHOWN).with_context(|| format!("no digest of {}", program.display()))?;
    Ok(format!("sha256 {digest}..."))
}

fn file_size(program: &Path) -> Result<String> {
    let bytes = fs::metadata(program).with_context(|| format!("look at {}", program.display()))?.len();
    Ok(format!("a program of {:.1} MB", bytes as f64 / 1e6))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_told_without_what_surrounds_it() {
        for (line, version) in [
            ("/opt/envoy  version: 9e55/1.40.0/Clean", Some("9e55/1.40.0/Clean")),
            ("version.BuildInfo{Version:\"62d8\", GitRevision:\"62d8\"}", Some("62d8")),
            ("HAProxy version 2.6.12 2026/10/17", Some("HAProxy version 2.6.12 2026/10/17")),
            ("  ", None),
        ] {
            assert_eq!(said_version(line), version);
        }
    }

    #[test]
    fn what_is_not_there_is_named_with_how_to_get_it() {
        let programs = Programs {
            bench: "/bin/true".into(),
            ringmail: "/nowhere".into(),
            baseline: None,
            haproxy: None,
            envoy: Some("/opt/envoy".into()),
            ztunnel: None,
            linkerd: None,
        };
        assert_eq!(programs.proxy_of(Candidate::Plain).unwrap(), None);
        assert_eq!(programs.proxy_of(Candidate::EnvoyDefault).unwrap(), Some("/opt/envoy".into()));
        for (candidate, flag) in [
            (Candidate::Haproxy, "--haproxy"),
            (Candidate::Ztunnel, "--ztunnel"),
            (Candidate::Linkerd, "--linkerd"),
            (Candidate::RingmailBaseline, "--baseline"),
        ] {
            assert!(programs.proxy_of(candidate).unwrap_err().to_string().contains(flag));
        }
    }
}
