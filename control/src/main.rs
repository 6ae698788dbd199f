//! `ringmail-control`: reads the settings, starts the log, serves until told to end.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use prometheus::Registry;
use ringmail_control::discovery::{self, DiscoveryConfig, Prepared};
use ringmail_control::health::Health;
use ringmail_control::inject::InjectConfig;
use ringmail_control::webhook::{Metrics, Settings, Webhook};
use ringmail_process::{causes, log, memory};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// EX_USAGE of sysexits.
const USAGE: u8 = 64;

/// Puts sidecars into pods, and tells them about each other.
#[derive(Debug, Parser)]
#[command(name = "ringmail-control", version)]
struct CommandLine {
    /// The mesh's settings, YAML
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the API server calls
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "[::]:15017")]
    webhook_listen: SocketAddr,
    /// Where metrics and readiness are
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "[::]:15014")]
    metrics_listen: SocketAddr,
    /// Another name of the webhook's certificate, beside those of its Service
    #[arg(long, value_name = "NAME")]
    serving_name: Vec<String>,
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
    injection: InjectConfig,
    #[serde(default)]
    discovery: DiscoveryConfig,
}

/// What the two jobs are done by.
struct Jobs {
    injection: InjectConfig,
    discovery: discovery::Settings,
}

fn main() -> ExitCode {
    if let Err(error) = memory::keep_private() {
        eprintln!("ringmail-control: memory cannot be kept private: {error}");
        return ExitCode::FAILURE;
    }
    let line = match CommandLine::try_parse() {
        Ok(line) => line,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    start_log();
    let jobs = match jobs(&line) {
        Ok(jobs) => jobs,
        Err(error) => {
            eprintln!("ringmail-control: {}", causes::each_once(error.chain()));
            return USAGE.into();
        }
    };
    let code = match serve(&line, jobs) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", causes::each_once(error.chain()));
            ExitCode::FAILURE
        }
    };
    log::tell_rest();
    code
}

fn start_log() {
    let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(std::io::stderr);
    tracing_subscriber::registry().with(LevelFilter::INFO).with(log::Pacing::default()).with(lines).init();
}

fn jobs(line: &CommandLine) -> anyhow::Result<Jobs> {
    let file = read(line)?;
    let identity = line.identity.clone().or_else(|| std::env::var("HOSTNAME").ok());
    let identity = identity.context("expected --identity or HOSTNAME, got neither")?;
    let discovery = file.discovery.settings(&line.namespace, &identity)?;
    Ok(Jobs { injection: file.injection, discovery })
}

fn read(line: &CommandLine) -> anyhow::Result<File> {
    let Some(path) = &line.config else { return Ok(File::default()) };
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    // The reader's error says what it rests on itself.
    let file = serde_saphyr::from_str(&text).map_err(|error| anyhow::Error::msg(error.to_string()));
    file.with_context(|| path.display().to_string())
}

fn serve(line: &CommandLine, jobs: Jobs) -> anyhow::Result<()> {
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
        let registry = Registry::new();

        let listener = TcpListener::bind(line.webhook_listen).await.context("the webhook's address")?;
        let mut settings = Settings::new(jobs.injection);
        settings.serving_names.extend(line.serving_name.iter().cloned());
        let metrics = Metrics::register(&registry).context("metrics")?;
        let webhook = Webhook::new(settings, client.clone(), metrics);
        let discovery =
            Prepared::new(jobs.discovery, client, &registry, ending.clone()).await.context("discovery")?;

        let pages = TcpListener::bind(line.metrics_listen).await.context("the metrics' address")?;
        let health =
            Health::new(registry, vec![webhook.missing(), discovery.missing()]).context("metrics")?;
        tokio::spawn(health.run(pages));
        // Neither job without the other: a pod that is injected and never told anything would wait for ever.
        tokio::try_join!(
            async { webhook.run(listener, ending.clone()).await.context("the webhook") },
            async { discovery.run(ending.clone()).await.context("discovery") },
        )?;
        Ok(())
    })
}
