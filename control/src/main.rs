//! `ringmail-control`: reads the settings, starts the log, serves until told to end.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use prometheus::Registry;
use ringmail_control::discovery::{self, DiscoveryConfig};
use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// EX_USAGE of sysexits.
const USAGE: u8 = 64;

/// Tells proxies about each other.
#[derive(Debug, Parser)]
#[command(name = "ringmail-control", version)]
struct CommandLine {
    /// The mesh's settings, YAML
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The namespace of this program, where its Lease is
    #[arg(long, value_name = "NAME", default_value = "ringmail-system")]
    namespace: String,
    /// The name of this replica, the pod's; without it, the host's
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct File {
    #[serde(default)]
    discovery: DiscoveryConfig,
}

fn main() -> ExitCode {
    let line = match CommandLine::try_parse() {
        Ok(line) => line,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    tracing_subscriber::fmt().with_ansi(false).with_writer(std::io::stderr).init();
    let settings = read(&line).and_then(|file| {
        let identity = line.identity.clone().or_else(|| std::env::var("HOSTNAME").ok());
        let identity = identity.context("expected --identity or HOSTNAME, got neither")?;
        Ok(file.discovery.settings(&line.namespace, &identity)?)
    });
    let settings = match settings {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("ringmail-control: {error:#}");
            return USAGE.into();
        }
    };
    match serve(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn read(line: &CommandLine) -> anyhow::Result<File> {
    let Some(path) = &line.config else { return Ok(File::default()) };
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_saphyr::from_str(&text).with_context(|| path.display().to_string())
}

fn serve(settings: discovery::Settings) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("runtime")?;
    runtime.block_on(async {
        let (end, ending) = watch::channel(false);
        let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
        tokio::spawn(async move {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            end.send_replace(true);
        });
        let client = kube::Client::try_default().await.context("the API server")?;
        discovery::run(settings, client, Registry::new(), ending).await.context("discovery")
    })
}
