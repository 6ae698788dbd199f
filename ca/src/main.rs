//! `ringmail-ca`: reads the settings, starts the log, serves until told to end.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::Context;
use ringmail_ca::audit;
use ringmail_ca::cluster::rotation::{self, CommandError};
use ringmail_ca::config::{self, LogFormat, Settings};
use ringmail_process::{causes, log, memory};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::{
    Layer as _, filter::LevelFilter, filter::Targets, fmt, layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

/// EX_USAGE of sysexits.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    if let Err(error) = memory::keep_private() {
        eprintln!("memory cannot be kept private: {error}");
        return ExitCode::FAILURE;
    }
    let mut arguments = std::env::args_os();
    if arguments.nth(1).is_some_and(|name| name == "rotate-root") {
        return rotate_root();
    }
    let environment: BTreeMap<_, _> = std::env::vars_os()
        .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
        .collect();
    let collected = match config::collect(std::env::args_os(), &environment) {
        Ok(collected) => collected,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    let settings = match Settings::from_collected(&collected) {
        Ok(settings) => settings,
        Err(faults) => {
            eprintln!("{faults}");
            return USAGE.into();
        }
    };
    start_log(&settings);
    for warning in collected.warnings() {
        tracing::warn!("{warning}");
    }
    let code = match serve(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", causes::each_once(error.chain()));
            ExitCode::FAILURE
        }
    };
    log::tell_rest();
    code
}

/// The text goes to whoever called, so there is no log.
fn rotate_root() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let run = rotation::run(std::env::args_os().skip(1));
    match runtime.map(|runtime| runtime.block_on(run)) {
        Ok(Ok(said)) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Ok(Err(CommandError::Usage(error))) => {
            let _ = error.print();
            if error.use_stderr() { USAGE.into() } else { ExitCode::SUCCESS }
        }
        Ok(Err(CommandError::Rotate(error))) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("runtime: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(settings: Settings) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("runtime")?;
    runtime.block_on(async {
        let (end, ending) = watch::channel(false);
        let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
        tokio::spawn(async move {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            tracing::info!("ending");
            end.send_replace(true);
        });
        Ok(ringmail_ca::run(settings, ending).await?)
    })
}

/// The audit lines pass whatever the level is, and those of issued certificates whatever the pace is.
fn start_log(settings: &Settings) {
    // The settings have been checked: what cannot be parsed here does not arrive.
    let chosen: Targets = settings.log_level.parse().unwrap_or_default();
    let filter = chosen
        .with_target(audit::TARGET, tracing::Level::INFO)
        .with_target(log::TARGET, tracing::Level::WARN)
        // They repeat what is reported here anyway, and write answers that they cannot read, with the tokens
        // and keys in them.
        .with_target("kube_client", LevelFilter::OFF)
        .with_target("kube_runtime", LevelFilter::OFF);
    let pacing = log::Pacing::default().with_records(audit::is_record);
    let lines = fmt::layer();
    let lines = match settings.log_format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Text => lines.with_ansi(false).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(pacing).with(lines).init();
}
