//! What a proxy's settings file says about the mesh and about its own pod.
//!
//! Only the keys that decide something are read, with the proxy's defaults; the proxy itself checks the others. Variables of its
//! environment, which override the file, are not known here.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use ringmail_policy::{Pod, Settings};
use serde::Deserialize;

/// The proxy's defaults of the settings that are read here.
mod defaults {
    pub(super) const NAMESPACE: &str = "default";
    pub(super) const POLICY_DIR: &str = "/etc/ringmail/policy";
    pub(super) const ROOT_NAMESPACE: &str = "istio-system";
    pub(super) const SERVICE_ACCOUNT: &str = "default";
    pub(super) const TRUST_DOMAIN: &str = "cluster.local";
}

/// What a proxy does with a connection that leaves the mesh.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outside {
    #[default]
    Passthrough,
    Refuse,
}

/// The keys that decide, as they are written.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct File {
    trust_domain: Option<String>,
    trust_domain_aliases: Vec<String>,
    namespace: Option<String>,
    service_account: Option<String>,
    pod_name: Option<String>,
    labels: BTreeMap<String, String>,
    pod_addresses: Vec<String>,
    policy_dir: Option<PathBuf>,
    root_namespace: Option<String>,
    mesh_ranges: Vec<String>,
    outbound_outside: Outside,
}

/// What holds for the mesh, and the pod that the settings belong to.
#[derive(Debug)]
pub(super) struct MeshSettings {
    pub(super) settings: Settings,
    pub(super) policy_dir: PathBuf,
    pub(super) outside: Outside,
    /// Its addresses are known only where the file names them.
    pub(super) own: Pod,
    pub(super) own_name: Option<String>,
}

impl MeshSettings {
    /// Reads a settings file; a directory stands for the policies in it, under default settings.
    pub(super) fn read(config: &Path, policy_dir: Option<&Path>) -> Result<Self> {
        let mut mesh = if config.is_dir() {
            Self::from_file(File { policy_dir: Some(config.to_owned()), ..File::default() })?
        } else {
            let text = std::fs::read_to_string(config)
                .with_context(|| format!("{}: cannot be read", config.display()))?;
            Self::parse(&text).with_context(|| config.display().to_string())?
        };
        if let Some(directory) = policy_dir {
            directory.clone_into(&mut mesh.policy_dir);
        }
        Ok(mesh)
    }

    /// Reads the text of a settings file.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let file: Option<File> = match serde_saphyr::from_str(text) {
            Ok(file) => file,
            Err(error) => bail!("expected a mapping of settings: {error}"),
        };
        Self::from_file(file.unwrap_or_default())
    }

    fn from_file(file: File) -> Result<Self> {
        let text = |value: Option<String>, default: &str| value.unwrap_or_else(|| default.to_owned());
        let domain = text(file.trust_domain, defaults::TRUST_DOMAIN);
        let settings = Settings {
            trust_domain: value("trust_domain", "a trust domain", &domain)?,
            trust_domain_aliases: values(
                "trust_domain_aliases",
                "a trust domain",
                &file.trust_domain_aliases,
            )?,
            root_namespace: text(file.root_namespace, defaults::ROOT_NAMESPACE),
            mesh_ranges: values("mesh_ranges", "a range such as 10.0.0.0/8", &file.mesh_ranges)?,
        };
        let addresses: Vec<IpAddr> = values("pod_addresses", "an IP address", &file.pod_addresses)?;
        let own = Pod {
            namespace: text(file.namespace, defaults::NAMESPACE),
            labels: file.labels,
            service_account: text(file.service_account, defaults::SERVICE_ACCOUNT),
            addresses,
        };
        let policy_dir = file.policy_dir.unwrap_or_else(|| defaults::POLICY_DIR.into());
        Ok(Self { settings, policy_dir, outside: file.outbound_outside, own, own_name: file.pod_name })
    }
}

fn value<T: FromStr<Err: Display>>(name: &str, expected: &str, text: &str) -> Result<T> {
    text.parse().or_else(|error| bail!("{name}: read {text:?}, expected {expected}: {error}"))
}

fn values<T: FromStr<Err: Display>>(name: &str, expected: &str, texts: &[String]) -> Result<Vec<T>> {
    texts.iter().map(|text| value(name, expected, text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_means_the_proxys_defaults() {
        let mesh = MeshSettings::parse("").unwrap();
        assert_eq!(mesh.settings.trust_domain.to_string(), "cluster.local");
        assert_eq!(mesh.settings.root_namespace, "istio-system");
        assert_eq!(mesh.policy_dir, Path::new("/etc/ringmail/policy"));
        assert_eq!(mesh.outside, Outside::Passthrough);
        assert_eq!((&*mesh.own.namespace, &*mesh.own.service_account), ("default", "default"));
    }

    #[test]
    fn every_key_that_decides_is_read_and_others_are_passed_over() {
        let mesh = MeshSettings::parse(
            "trust_domain: example.org\ntrust_domain_aliases: [old.org]\nnamespace: ignite\nservice_account: n1\n\
             labels: {app: ignite, version: 2}\npod_addresses: [10.77.0.1, '::1']\npolicy_dir: /p\n\
             root_namespace: mesh\nmesh_ranges: [10.0.0.0/8]\noutbound_outside: refuse\nlog_level: debug\n",
        )
        .unwrap();
        assert_eq!(mesh.settings.trust_domain_aliases[0].to_string(), "old.org");
        assert_eq!(mesh.own.labels["version"], "2");
        assert_eq!(mesh.own.addresses.len(), 2);
        assert_eq!(mesh.settings.mesh_ranges[0].to_string(), "10.0.0.0/8");
        assert_eq!(mesh.outside, Outside::Refuse);
    }

    #[test]
    fn a_wrong_value_is_named_with_its_key_and_what_was_expected() {
        for (text, expected) in [
            ("mesh_ranges: [ten]", "mesh_ranges: read \"ten\", expected a range such as 10.0.0.0/8"),
            ("trust_domain: UPPER", "trust_domain: read \"UPPER\", expected a trust domain"),
            ("pod_addresses: [x]", "pod_addresses: read \"x\", expected an IP address"),
            ("outbound_outside: maybe", "maybe"),
            ("- a list", "expected a mapping of settings"),
        ] {
            let error = format!("{:#}", MeshSettings::parse(text).unwrap_err());
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
