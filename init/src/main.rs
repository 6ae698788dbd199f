//! The init container of a pod: hands its arguments and environment to [`ringmail_init::run`].

#![forbid(unsafe_code)]

use std::process::ExitCode;

use ringmail_init::config::{self, Parsed};
use ringmail_init::run;

fn main() -> ExitCode {
    let settings = match config::parse(std::env::args_os(), std::env::vars_os()) {
        Ok(Parsed::Settings(settings)) => settings,
        Ok(Parsed::Help(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("ringmail-init: {error}");
            return ExitCode::from(run::EXIT_USAGE);
        }
    };
    match run::run(&settings, &mut std::io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringmail-init: failed: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
