//! The command line, in clap's words.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser};

use crate::explain::Party;
use crate::inject::InjectArgs;
use crate::output::Format;

/// The command line of `ringmail`.
#[derive(Debug, Parser)]
#[command(name = "ringmail", version, about = "Looks into a Ringmail mesh")]
#[command(
    after_help = "Exit codes: 0 yes, 1 it could not be done, 2 no (explain: the connection is refused; certs: none is valid; inject: a workload\n                        cannot have a sidecar), 64 usage.\n\
                        Colour is used on a terminal only, and never when NO_COLOR is set."
)]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    pub(crate) subcommand: Subcommand,
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Subcommand {
    /// Show the certificate chain a proxy presents, and the roots it trusts
    Certs(AdminArgs),
    /// Show the live connections of a proxy
    Connections(AdminArgs),
    /// Show a real Ignite ring, first plain, then inside the mesh (needs root)
    Demo(DemoArgs),
    /// Say what happens to a connection, and which resource decides it
    Explain(ExplainArgs),
    /// Put sidecars into manifests; what is no workload passes through as it is
    Inject(InjectArgs),
}

#[derive(Args, Debug)]
pub(crate) struct AdminArgs {
    /// The proxy's admin endpoint, host or host:port; it listens on the loopback of its pod, port 15000
    #[arg(value_name = "ADMIN ADDRESS")]
    pub(crate) address: String,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

#[derive(Args, Debug)]
pub(crate) struct ExplainArgs {
    /// A proxy's settings file, whose policy_dir is read; or the policy directory itself, under default settings
    #[arg(long, value_name = "FILE OR DIRECTORY")]
    pub(crate) config: PathBuf,
    /// Read policies from here instead of the settings' policy_dir, which names a path inside the pod
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) policy_dir: Option<PathBuf>,
    /// Who connects: an IP address, or namespace/name of a WorkloadEntry
    #[arg(long, value_name = "ADDRESS OR NAME")]
    pub(crate) from: Party,
    /// Where to: the IP address and port that the application dials
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) to: SocketAddr,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    /// The release of Ignite to run
    #[arg(long, value_name = "2.16.0 OR 2.17.0", default_value = "2.17.0")]
    pub(crate) ignite: ringmail_lab::ignite::IgniteVersion,
    /// Keep the logs, settings and captures here instead of in a folder that is removed at the end
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) keep: Option<PathBuf>,
    /// Perform in this folder: what the outer process tells the inner one
    #[arg(long, hide = true)]
    pub(crate) inside: Option<PathBuf>,
}
