//! What a run says of itself before its first sample: versions and commands beside the machine.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::world::JVM_FLAGS;
use super::{Options, WORKERS, Wrapping};
use crate::results::{Results, SCHEMA};
use crate::run::machine::machine;

/// Results without figures.
pub(super) fn results(options: &Options) -> Result<Results> {
    Ok(Results {
        schema: SCHEMA,
        began: OffsetDateTime::now_utc().format(&Rfc3339).context("write the time")?,
        took_s: 0,
        machine: machine(),
        versions: versions(options)?,
        commands: commands(options),
        figures: Vec::new(),
        missing: BTreeMap::new(),
    })
}

fn versions(options: &Options) -> Result<BTreeMap<String, String>> {
    let java = Command::new("java").arg("-version").output().context("start java -version")?;
    let java = String::from_utf8_lossy(&java.stderr).lines().next().unwrap_or_default().to_owned();
    let mut versions =
        BTreeMap::from([("ignite".to_owned(), options.ignite.to_string()), ("java".to_owned(), java)]);
    for candidate in &options.candidates {
        if let (Some(program), None) = (candidate.program(options), candidate.missing(options)) {
            versions.insert(candidate.as_str().to_owned(), version_of(&program)?);
        }
    }
    Ok(versions)
}

/// The first line that a program prints of its version, without the path by which some call themselves.
fn version_of(program: &Path) -> Result<String> {
    let output = Command::new(program).arg("--version").output();
    let output = output.with_context(|| format!("start {} --version", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().map(str::trim).find(|line| !line.is_empty());
    let line = line.with_context(|| format!("{} --version says nothing", program.display()))?;
    Ok(line.strip_prefix(&*program.to_string_lossy()).unwrap_or(line).trim().to_owned())
}

fn commands(options: &Options) -> BTreeMap<String, String> {
    let candidates: Vec<_> = options.candidates.iter().map(|candidate| candidate.as_str()).collect();
    let list = |numbers: &[u32]| numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let envoy = options.envoy.as_ref().map(|_| " --envoy ENVOY").unwrap_or_default();
    let command = format!(
        "ringmail-bench ignite --rounds {} --seconds {} --warm-up {} --sizes {} --threads {} --rebalance-mb {} \
         --candidates {}{envoy} --ignite {}",
        options.rounds,
        options.seconds,
        options.warm_up,
        list(&options.sizes),
        list(&options.threads),
        options.rebalance_mb,
        candidates.join(","),
        options.ignite
    );
    let of_candidate =
        |candidate: &Wrapping| (format!("ignite, {}", candidate.as_str()), command_of(*candidate));
    let all = [
        ("ignite".to_owned(), command),
        ("ignite, each node and the client".to_owned(), format!("java {}", JVM_FLAGS.join(" "))),
    ];
    all.into_iter().chain(options.candidates.iter().map(of_candidate)).collect()
}

/// What is started for a candidate, or set.
fn command_of(candidate: Wrapping) -> String {
    match candidate {
        Wrapping::Plain => "# Ignite's defaults".to_owned(),
        Wrapping::IgniteTls => {
            "# SslContextFactory: TLSv1.3, TLS_AES_128_GCM_SHA256, P-256, both sides with a certificate; \
                                discovery, communication, thin clients"
                .to_owned()
        }
        Wrapping::RelayCopy => {
            "ringmail-bench relay --by copy --segment 1460 --port PORT # two in each pod".to_owned()
        }
        Wrapping::Ringmail => {
            format!("ringmail-proxy --config POD.yaml # workers: {WORKERS}, access_log: off, STRICT")
        }
        Wrapping::Envoy => {
            format!("envoy -c POD.json --concurrency {WORKERS} --disable-hot-restart --log-level error")
        }
    }
}
