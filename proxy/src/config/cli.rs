//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use super::docs;

/// The command line of `ringmail-proxy`.
#[derive(Clone, Debug, Parser)]
#[command(name = "ringmail-proxy", version, about = "Mutual TLS around opaque TCP: the sidecar of the mesh")]
#[command(after_long_help = docs::help())]
pub struct Cli {
    /// The settings: a YAML mapping; without it the environment has them all
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Serve connections on sockets inherited from the parent process, which starts this one
    #[arg(long, hide = true)]
    pub data_plane: bool,
    /// Run as one process: a crash then ends the proxy
    #[arg(long)]
    pub no_parent: bool,
    /// Serve nothing: wait until the proxy of this pod is ready, at most so many seconds
    #[arg(long, value_name = "SECONDS")]
    pub wait: Option<u64>,
    /// Print a reference page made from the code
    #[arg(long, value_name = "PAGE", hide = true)]
    pub print_docs: Option<Page>,
}

/// A reference page that is made from the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Page {
    /// Every setting.
    Config,
    /// Every metric.
    Metrics,
    /// Every reason a connection ends for.
    Reasons,
}

impl Page {
    /// The page's text, in Markdown.
    pub fn text(self) -> String {
        match self {
            Self::Config => docs::settings_page(),
            Self::Metrics => docs::metrics_page(),
            Self::Reasons => docs::reasons_page(),
        }
    }

    /// The page's file in `docs/`.
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Config => "config.md",
            Self::Metrics => "metrics.md",
            Self::Reasons => "reasons.md",
        }
    }
}
