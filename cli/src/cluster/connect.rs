//! Which cluster is asked, as kubectl chooses it.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

use super::ClusterError;

/// An API server that is there answers a connection at once.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// A page of a list takes an API server seconds at most.
const READ_WITHIN: Duration = Duration::from_secs(30);

/// How the cluster is chosen.
#[derive(Args, Clone, Debug)]
pub(crate) struct ClusterArgs {
    /// The kubeconfig; without it KUBECONFIG, then ~/.kube/config, then the pod that this runs in
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig, instead of the current one
    #[arg(long, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// The namespace that ringmail-control runs in, whose ConfigMap ringmail holds the mesh's settings
    #[arg(long, value_name = "NAME", default_value = "ringmail-system")]
    pub(crate) mesh_namespace: String,
}

/// A cluster that can be asked.
pub(crate) struct Connection {
    pub(crate) client: Client,
    /// For messages: the API server's URL.
    pub(crate) place: String,
    /// The namespace of the context.
    pub(crate) namespace: String,
}

/// Reads the kubeconfig and makes a client; nothing is asked yet.
pub(crate) async fn connect(args: &ClusterArgs) -> Result<Connection, ClusterError> {
    let mut config = configure(args).await?;
    config.connect_timeout = Some(CONNECT_WITHIN);
    config.read_timeout = Some(READ_WITHIN);
    config.default_retry = false;
    let place = config.cluster_url.to_string().trim_end_matches('/').to_owned();
    let namespace = config.default_namespace.clone();
    let client = Client::try_from(config).map_err(|error| ClusterError::api(&place, "connect", &error))?;
    Ok(Connection { client, place, namespace })
}

async fn configure(args: &ClusterArgs) -> Result<Config, ClusterError> {
    let path = args.kubeconfig.clone().or_else(from_environment);
    let path = path.unwrap_or_else(|| std::env::home_dir().unwrap_or_default().join(".kube").join("config"));
    let failed =
        |error: &KubeconfigError| ClusterError::Kubeconfig { path: path.clone(), cause: error.to_string() };
    let read = match &args.kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    };
    let kubeconfig = match read {
        Ok(kubeconfig) => kubeconfig,
        Err(KubeconfigError::ReadConfig(cause, missing)) if args.kubeconfig.is_none() => {
            let no_kubeconfig = ClusterError::NoKubeconfig { path: missing, cause: cause.to_string() };
            return match args.context {
                None => Config::incluster().map_err(|_| no_kubeconfig),
                Some(_) => Err(no_kubeconfig),
            };
        }
        Err(KubeconfigError::ReadConfig(cause, _)) => {
            return Err(ClusterError::Kubeconfig { path, cause: format!("cannot be read: {cause}") });
        }
        Err(error) => return Err(failed(&error)),
    };
    let known: Vec<_> = kubeconfig.contexts.iter().map(|context| context.name.clone()).collect();
    if let Some(context) = args.context.clone().filter(|context| !known.contains(context)) {
        return Err(ClusterError::NoContext { path, context, known });
    }
    let options = KubeConfigOptions { context: args.context.clone(), ..KubeConfigOptions::default() };
    Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| failed(&error))
}

fn from_environment() -> Option<PathBuf> {
    std::env::var_os("KUBECONFIG").filter(|value| !value.is_empty()).map(PathBuf::from)
}
