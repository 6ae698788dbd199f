//! The objects of the run: a node that nobody runs, a namespace of pods on it, a namespace of real pods.

use std::{
    future::Future,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use k8s_openapi::api::{
    authentication::v1::TokenRequest,
    core::v1::{ConfigMap, Namespace, Node, Pod, ServiceAccount},
};
use kube::{
    Api, Client, Config, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::sleep};

use crate::CommandLine;

/// Requests to the API server at once, but for the churn's.
const AT_ONCE: usize = 16;
/// Until objects are there, or gone.
const PATIENCE: Duration = Duration::from_secs(120);
const AGAIN: Duration = Duration::from_millis(200);
/// The port of discovery and of certificates.
const PORT: u16 = 15012;
const BUNDLE: &str = "ringmail-ca-root-cert";
const BUNDLE_KEY: &str = "root-cert.pem";

/// A running pod of the control plane.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    /// Its pod's name and UID; nothing where it runs in none.
    pub(crate) pod: Option<(String, String)>,
}

/// See the module.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) client: Client,
    system: String,
    name: String,
}

impl Cluster {
    pub(crate) async fn open(line: &CommandLine) -> anyhow::Result<Self> {
        let config = match &line.kubeconfig {
            Some(path) => {
                let file = Kubeconfig::read_from(path)?;
                Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?
            }
            None => Config::infer().await?,
        };
        let client = Client::try_from(config)?;
        Ok(Self { client, system: line.system.clone(), name: line.name.clone() })
    }

    /// The namespace of the proxies' pods, and of those that come and go.
    pub(crate) fn simulated(&self) -> String {
        format!("{}-pods", self.name)
    }

    /// The namespace of the pods that run.
    pub(crate) fn real(&self) -> String {
        format!("{}-load", self.name)
    }

    pub(crate) fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// The server of this name at `address`, else the first of its pods that runs.
    pub(crate) async fn server(&self, name: &str, address: Option<SocketAddr>) -> anyhow::Result<Server> {
        let labelled = ListParams::default().labels(&format!("app.kubernetes.io/name={name}"));
        let pods = self.pods(&self.system).list(&labelled).await?;
        let ip = |pod: &Pod| pod.status.as_ref()?.pod_ip.as_ref()?.parse::<IpAddr>().ok();
        let found = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        let mut found = found.filter(|pod| match address {
            Some(address) => ip(pod) == Some(address.ip()),
            None => is_ready(pod),
        });
        let pod = found.next();
        let address = address.or_else(|| Some(SocketAddr::new(ip(pod?)?, PORT)));
        let address = address.with_context(|| format!("no pod of {name} runs in {}", self.system))?;
        Ok(Server { address, pod: pod.map(|pod| (pod.name_any(), pod.uid().unwrap_or_default())) })
    }

    /// The name in a server's certificate.
    pub(crate) fn server_name(&self, name: &str) -> String {
        format!("{name}.{}.svc", self.system)
    }

    /// PEM of the mesh's roots.
    pub(crate) async fn roots(&self) -> anyhow::Result<String> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.system);
        let data = maps.get(BUNDLE).await?.data.unwrap_or_default();
        data.get(BUNDLE_KEY).cloned().with_context(|| format!("{BUNDLE} holds no {BUNDLE_KEY}"))
    }

    /// The namespaces and the node.
    pub(crate) async fn prepare(&self) -> anyhow::Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        for (name, labels) in
            [(self.simulated(), json!({})), (self.real(), json!({ "istio-injection": "enabled" }))]
        {
            let namespace = json!({ "metadata": { "name": name, "labels": labels } });
            namespaces.create(&PostParams::default(), &serde_json::from_value(namespace)?).await?;
            let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &name);
            until("a service account", || async { Ok(accounts.get_opt("default").await?.is_some()) }).await?;
        }
        let node = json!({ "metadata": { "name": self.name }, "spec": { "unschedulable": true } });
        let nodes: Api<Node> = Api::all(self.client.clone());
        nodes.create(&PostParams::default(), &serde_json::from_value(node)?).await?;
        Ok(())
    }

    /// A pod on the node that nobody runs, with an address. Answers its name and UID.
    pub(crate) async fn put_pod(&self, name: &str, ip: &str) -> anyhow::Result<(String, String)> {
        let uid = self.create_pod(name).await?;
        self.address_pod(name, ip).await?;
        Ok((name.to_owned(), uid))
    }

    /// A pod on that node that has no address yet. Answers its UID.
    pub(crate) async fn create_pod(&self, name: &str) -> anyhow::Result<String> {
        let pod = json!({
            "metadata": { "name": name, "labels": { "security.istio.io/tlsMode": "istio", "app": "simulated" } },
            "spec": {
                "nodeName": self.name, "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 0,
                // Nobody says that the node is well, and its pods are to stay.
                "tolerations": [{ "operator": "Exists" }],
                "containers": [{ "name": "none", "image": "none" }],
            },
        });
        let pods = self.pods(&self.simulated());
        let made = pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
        Ok(made.uid().unwrap_or_default())
    }

    /// Gives a pod its address, as its kubelet would.
    pub(crate) async fn address_pod(&self, name: &str, ip: &str) -> anyhow::Result<()> {
        let status = json!({ "status": { "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }] } });
        let pods = self.pods(&self.simulated());
        pods.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await?;
        Ok(())
    }

    /// A token for control and the CA, bound to a pod.
    pub(crate) async fn token(&self, pod: &str, uid: &str) -> anyhow::Result<String> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &self.simulated());
        let request: TokenRequest = serde_json::from_value(json!({
            "spec": {
                "audiences": ["ringmail-ca"], "expirationSeconds": 3600,
                "boundObjectRef": { "apiVersion": "v1", "kind": "Pod", "name": pod, "uid": uid },
            },
        }))?;
        let made = accounts.create_token_request("default", &PostParams::default(), &request).await?;
        Ok(made.status.context("no token")?.token)
    }

    /// A pod that runs, once it is ready. Answers it.
    pub(crate) async fn run_pod(&self, pod: Value) -> anyhow::Result<Pod> {
        let pods = self.pods(&self.real());
        let made = pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
        let name = made.name_any();
        let ready = until(&format!("pod {name}"), || async { Ok(is_ready(&pods.get(&name).await?)) }).await;
        let pod = pods.get(&name).await?;
        ready.with_context(|| format!("its containers wait for {:?}", waits(&pod)))?;
        Ok(pod)
    }

    /// Removes everything that a run makes.
    pub(crate) async fn clean(&self) -> anyhow::Result<()> {
        let at_once = DeleteParams::default().grace_period(0);
        // Of those that run, the kubelet has to be told; nobody is there for the others.
        for (namespace, how) in
            [(self.simulated(), &at_once), (self.real(), &DeleteParams::default().grace_period(1))]
        {
            let _ = self.pods(&namespace).delete_collection(how, &ListParams::default()).await;
        }
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        for name in [self.simulated(), self.real()] {
            let _ = namespaces.delete(&name, &DeleteParams::default()).await;
        }
        let _ = Api::<Node>::all(self.client.clone()).delete(&self.name, &at_once).await;
        for name in [self.simulated(), self.real()] {
            let gone = || async { Ok(namespaces.get_opt(&name).await?.is_none()) };
            until(&format!("the end of namespace {name}"), gone).await?;
        }
        Ok(())
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().filter_map(|status| status.conditions.as_ref()).flatten();
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Why containers do not run.
fn waits(pod: &Pod) -> Vec<String> {
    let status = pod.status.iter();
    let containers = status.flat_map(|status| {
        status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten())
    });
    let waiting = containers.filter_map(|container| container.state.as_ref()?.waiting.as_ref());
    let reasons = waiting.map(|waiting| {
        [&waiting.reason, &waiting.message].into_iter().flatten().cloned().collect::<Vec<_>>().join(": ")
    });
    reasons.collect()
}

async fn until<F>(what: &str, mut done: impl FnMut() -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<bool>>,
{
    let end = Instant::now() + PATIENCE;
    while !done().await? {
        if Instant::now() > end {
            bail!("{what}: waited for {PATIENCE:?} in vain");
        }
        sleep(AGAIN).await;
    }
    Ok(())
}

/// Does `work` for each item, some at once. The answers come in any order.
pub(crate) async fn each<I, T, F>(
    items: impl IntoIterator<Item = I>,
    work: impl Fn(I) -> F,
) -> anyhow::Result<Vec<T>>
where
    F: Future<Output = anyhow::Result<T>> + Send + 'static,
    T: Send + 'static,
{
    let (mut tasks, mut done) = (JoinSet::new(), Vec::new());
    for item in items {
        while tasks.len() >= AT_ONCE {
            done.extend(tasks.join_next().await.transpose()?.transpose()?);
        }
        tasks.spawn(work(item));
    }
    while let Some(result) = tasks.join_next().await {
        done.push(result??);
    }
    Ok(done)
}
