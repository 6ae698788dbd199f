//! `ringmail-proxy`: the sidecar. Binds its ports before anything else, then serves them in a data plane
//! that a small parent process starts again when it crashes.

#![forbid(unsafe_code)]

use std::{ffi::OsString, process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::Parser;
use ringmail_process::{causes, memory};
use ringmail_proxy::{
    config::Cli,
    data_plane::{self, DataPlane, DataPlaneError},
    listen::Sockets,
    parent::Parent,
    telemetry, wait,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => {
            telemetry::end(None);
            ExitCode::from(code)
        }
        Err(error) => {
            telemetry::end(Some(&format!("ringmail-proxy: {}", causes::each_once(error.chain()))));
            ExitCode::from(error.downcast_ref().map_or(1, DataPlaneError::exit_code))
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<u8> {
    memory::keep_private().context("keep the memory private")?;
    if let Some(page) = cli.print_docs {
        print!("{}", page.text());
        return Ok(0);
    }
    let file = cli.config;
    if cli.data_plane {
        DataPlane::of_parent(file)?.run()?;
        return Ok(0);
    }
    let (loaded, text) = data_plane::settings(file.as_deref())?;
    if let Some(seconds) = cli.wait {
        wait::until_ready(loaded.config.health_port, Duration::from_secs(seconds))?;
        return Ok(0);
    }
    let sockets = Sockets::bind(&loaded.config)?;
    if cli.no_parent {
        DataPlane::alone(file, loaded, sockets).run()?;
        return Ok(0);
    }
    telemetry::init(&loaded.config.log_level, loaded.config.log_format)?;
    let arguments =
        file.map(|file| vec![OsString::from("--config"), file.into_os_string()]).unwrap_or_default();
    let code = Parent::new(sockets, text, arguments)?.run()?;
    Ok(u8::try_from(code).unwrap_or(1))
}
