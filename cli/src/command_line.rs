//! The command line, in clap's words.

use std::path::PathBuf;

use clap::{Args, Parser};

use crate::cluster::ClusterArgs;
use crate::describe::DescribeArgs;
use crate::explain::{Party, Target};
use crate::inject::InjectArgs;
use crate::output::Format;

/// The command line of `ringmail`.
#[derive(Debug, Parser)]
#[command(name = "ringmail", version, about = "Looks into a Ringmail mesh")]
#[command(
    after_help = "Exit codes: 0 yes, 1 it could not be done, 2 no (explain: the connection is refused; certs: none is valid; inject: a workload cannot have a \
                  sidecar), 64 usage.\n\
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
    /// Tell what the mesh makes of a pod of the cluster, and why
    Describe(DescribeArgs),
    /// Say what happens to a connection, and which resource decides it: in the cluster, or by a proxy's files
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
    /// Who connects: namespace/name of a pod or WorkloadEntry, or an IP address
    #[arg(long, value_name = "NAME OR ADDRESS")]
    pub(crate) from: Party,
    /// Where to, as the application dials it: namespace/pod:port, service.namespace:port or address:port
    #[arg(long, value_name = "PLACE:PORT")]
    pub(crate) to: Target,
    /// Policies that are taken as if they had been applied: a file, a directory or - for standard input
    #[arg(short, long = "filename", value_name = "FILE", conflicts_with = "config")]
    pub(crate) files: Vec<PathBuf>,
    /// The namespace of objects in those files that name none; without it that of the context
    #[arg(short, long, value_name = "NAME", conflicts_with = "config")]
    pub(crate) namespace: Option<String>,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    /// Without a cluster: a proxy's settings file, whose policy_dir is read; or the policy directory itself, under
    /// default settings
    #[arg(long, value_name = "FILE OR DIRECTORY", conflicts_with_all = ["kubeconfig", "context"])]
    pub(crate) config: Option<PathBuf>,
    /// Read policies from here instead of the settings' policy_dir, which names a path inside the pod
    #[arg(long, value_name = "DIRECTORY", requires = "config")]
    pub(crate) policy_dir: Option<PathBuf>,
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
