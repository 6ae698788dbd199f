//! Simulated proxies against one `ringmail-control`: the real protocol, no data plane. Prints what each costs in the
//! server's memory, and how long a change of a pod takes to reach those who asked for it.
//!
//! Pods are real objects of a real API server, on a node that nobody runs; their addresses are written by this program.
//! Everything is in one namespace and on one node, both removed at the end.

use std::{
    collections::HashMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::Parser;
use http::Uri;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::{
    authentication::v1::TokenRequest,
    core::v1::{Namespace, Node, Pod, ServiceAccount},
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use ringmail_xds::{
    Resource,
    discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node as XdsNode},
    ringmail::{Destination, Inbound},
    security::Authorization,
    service,
    workload::Address,
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
    version::TLS13,
};
use serde_json::json;
use tokio::{net::TcpStream, sync::mpsc, task::JoinSet, time};
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Streaming, transport::Endpoint};

const NAME: &str = "ringmail-load";
/// Requests to the API server at once.
const AT_ONCE: usize = 16;
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, Parser)]
struct CommandLine {
    /// Where control is
    #[arg(long, default_value = "127.0.0.1:15012")]
    control: String,
    /// The name in its certificate
    #[arg(long, default_value = "localhost")]
    server_name: String,
    /// PEM of the roots it is verified under
    #[arg(long)]
    roots: PathBuf,
    /// Its process, to see its memory
    #[arg(long)]
    pid: u32,
    /// Proxies
    #[arg(long, default_value_t = 100)]
    proxies: usize,
    /// Pods that come and go
    #[arg(long, default_value_t = 100)]
    pods: usize,
    /// How many of these each proxy asks for
    #[arg(long, default_value_t = 20)]
    peers: usize,
    /// Pods replaced per second
    #[arg(long, default_value_t = 50)]
    rate: u32,
    /// For so many seconds
    #[arg(long, default_value_t = 20)]
    seconds: u64,
}

/// When a pod's address was written, and when each proxy learnt of it.
#[derive(Default)]
struct Times {
    written: HashMap<String, Instant>,
    took: Vec<Duration>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let line = CommandLine::parse();
    let client = Client::try_default().await?;
    clean(&client).await?;
    let measured = measure(&line, &client).await;
    clean(&client).await?;
    measured
}

async fn clean(client: &Client) -> anyhow::Result<()> {
    let at_once = DeleteParams::default().grace_period(0);
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAME);
    let _ = pods.delete_collection(&at_once, &Default::default()).await;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let _ = namespaces.delete(NAME, &DeleteParams::default()).await;
    let _ = Api::<Node>::all(client.clone()).delete(NAME, &at_once).await;
    let end = Instant::now() + PATIENCE;
    while namespaces.get_opt(NAME).await?.is_some() {
        if Instant::now() > end {
            bail!("the namespace {NAME} does not go away");
        }
        time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

async fn measure(line: &CommandLine, client: &Client) -> anyhow::Result<()> {
    let namespace = serde_json::from_value(json!({ "metadata": { "name": NAME } }))?;
    Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await?;
    let node =
        serde_json::from_value(json!({ "metadata": { "name": NAME }, "spec": { "unschedulable": true } }))?;
    Api::<Node>::all(client.clone()).create(&PostParams::default(), &node).await?;
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), NAME);
    while accounts.get_opt("default").await?.is_none() {
        time::sleep(Duration::from_millis(100)).await;
    }
    let began = Instant::now();
    let slots = (0..line.pods).map(|slot| (format!("slot-{slot}-0"), slot_ip(slot)));
    let own = (0..line.proxies).map(|proxy| (format!("proxy-{proxy}"), proxy_ip(proxy)));
    let made = each(slots.chain(own).collect(), |(name, ip)| put_pod(client.clone(), name, ip)).await?;
    let uids: HashMap<String, String> = made.into_iter().collect();
    println!("{} pods in {:.1?}", uids.len(), began.elapsed());

    let before = resident(line.pid)?;
    let (began, times) = (Instant::now(), Arc::new(Mutex::new(Times::default())));
    let proxies = (0..line.proxies).map(|proxy| (proxy, uids[&format!("proxy-{proxy}")].clone())).collect();
    let streams = each(proxies, |(proxy, uid)| {
        let (line, client) = (line.clone(), client.clone());
        async move {
            let token = token(client, &format!("proxy-{proxy}"), &uid).await?;
            connect(&line, proxy, &token).await
        }
    });
    let streams = streams.await?;
    println!("{} streams in {:.1?}", streams.len(), began.elapsed());
    let mut readers = JoinSet::new();
    for (requests, answers) in streams {
        readers.spawn(read(requests, answers, Arc::clone(&times)));
    }
    time::sleep(Duration::from_secs(3)).await;
    let after = resident(line.pid)?;
    println!(
        "control: {} KB before, {} KB with {} proxies of {} peers: {} KB each",
        before,
        after,
        line.proxies,
        line.peers,
        after.saturating_sub(before) / line.proxies
    );
    churn(line, client, &times).await?;
    println!("control: {} KB after the churn; proxies left {}", resident(line.pid)?, readers.len());
    let mut took = times.lock().unwrap_or_else(PoisonError::into_inner).took.clone();
    took.sort();
    if took.is_empty() {
        bail!("no proxy learnt anything");
    }
    let at = |share: usize| took[(took.len() - 1) * share / 100];
    println!(
        "{} arrivals: p50 {:.1?}, p90 {:.1?}, p99 {:.1?}, last {:.1?}",
        took.len(),
        at(50),
        at(90),
        at(99),
        at(100)
    );
    Ok(())
}

/// Replaces pods at the rate: each by one of another name with the same address.
async fn churn(line: &CommandLine, client: &Client, times: &Arc<Mutex<Times>>) -> anyhow::Result<()> {
    let mut tick = time::interval(Duration::from_secs(1) / line.rate);
    let mut work = JoinSet::new();
    let (began, mut count) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(line.seconds) {
        tick.tick().await;
        let (slot, generation) = (count % line.pods, count / line.pods);
        count += 1;
        let (client, times) = (client.clone(), Arc::clone(times));
        work.spawn(async move {
            let pods: Api<Pod> = Api::namespaced(client.clone(), NAME);
            let at_once = DeleteParams::default().grace_period(0);
            let _ = pods.delete(&format!("slot-{slot}-{generation}"), &at_once).await;
            let name = format!("slot-{slot}-{}", generation + 1);
            let (name, _) = put_pod(client, name, slot_ip(slot)).await?;
            let mut times = times.lock().unwrap_or_else(PoisonError::into_inner);
            times.written.entry(name).or_insert_with(Instant::now);
            anyhow::Ok(())
        });
    }
    let mut failed = 0;
    while let Some(done) = work.join_next().await {
        failed += usize::from(!matches!(done, Ok(Ok(()))));
    }
    println!("{count} pods replaced in {:.1?}, {failed} failed", began.elapsed());
    time::sleep(Duration::from_secs(2)).await;
    Ok(())
}

fn slot_ip(slot: usize) -> String {
    format!("10.251.{}.{}", slot / 250, slot % 250 + 1)
}

fn proxy_ip(proxy: usize) -> String {
    format!("10.252.{}.{}", proxy / 250, proxy % 250 + 1)
}

/// KB.
fn resident(pid: u32) -> anyhow::Result<usize> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("VmRSS")?;
    Ok(line.split_whitespace().nth(1).context("VmRSS")?.parse()?)
}

/// Does `work` for each item, some at once.
async fn each<I, T, F>(items: Vec<I>, work: impl Fn(I) -> F) -> anyhow::Result<Vec<T>>
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

async fn put_pod(client: Client, name: String, ip: String) -> anyhow::Result<(String, String)> {
    let pods: Api<Pod> = Api::namespaced(client, NAME);
    let pod = serde_json::from_value(json!({
        "metadata": { "name": name, "labels": { "security.istio.io/tlsMode": "istio", "app": "load" } },
        "spec": {
            "nodeName": NAME, "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 0,
            "tolerations": [{ "operator": "Exists" }],
            "containers": [{ "name": "none", "image": "none" }],
        },
    }))?;
    let made = pods.create(&PostParams::default(), &pod).await?;
    let status = json!({ "status": { "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }] } });
    pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await?;
    Ok((name, made.uid().unwrap_or_default()))
}

async fn token(client: Client, pod: &str, uid: &str) -> anyhow::Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client, NAME);
    let request: TokenRequest = serde_json::from_value(json!({
        "spec": {
            "audiences": ["ringmail-ca"], "expirationSeconds": 3600,
            "boundObjectRef": { "apiVersion": "v1", "kind": "Pod", "name": pod, "uid": uid },
        },
    }))?;
    let made = accounts.create_token_request("default", &PostParams::default(), &request).await?;
    Ok(made.status.context("no token")?.token)
}

type Stream = (mpsc::Sender<DeltaDiscoveryRequest>, Streaming<DeltaDiscoveryResponse>);

async fn connect(line: &CommandLine, proxy: usize, token: &str) -> anyhow::Result<Stream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&line.roots)?)?;
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let mut config =
        config.with_protocol_versions(&[&TLS13])?.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (connector, address) = (TlsConnector::from(Arc::new(config)), line.control.clone());
    let name = ServerName::try_from(line.server_name.clone())?;
    let dial = tower::service_fn(move |_: Uri| {
        let (connector, address, name) = (connector.clone(), address.clone(), name.clone());
        async move {
            let stream = TcpStream::connect(address).await?;
            Ok::<_, io::Error>(TokioIo::new(connector.connect(name, stream).await?))
        }
    });
    let channel = Endpoint::from_static("https://control").connect_with_connector(dial).await?;
    let (requests, queue) = mpsc::channel(16);
    let mut request = Request::new(ReceiverStream::new(queue));
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse()?);
    let peers = (0..line.peers).map(|peer| format!("/{}", slot_ip((proxy * 7 + peer) % line.pods)));
    let names: Vec<String> = peers.chain([format!("/{}", proxy_ip(proxy))]).collect();
    for (type_url, names) in [
        (Address::TYPE_URL, names.clone()),
        (Destination::TYPE_URL, names),
        (Authorization::TYPE_URL, Vec::new()),
        (Inbound::TYPE_URL, vec![Inbound::NAME.to_owned()]),
    ] {
        let id = format!("sidecar~{}~proxy-{proxy}.{NAME}~{NAME}.svc.cluster.local", proxy_ip(proxy));
        let node = Some(XdsNode { id, ..XdsNode::default() });
        let type_url = type_url.to_owned();
        let first =
            DeltaDiscoveryRequest { node, type_url, resource_names_subscribe: names, ..Default::default() };
        requests.send(first).await?;
    }
    Ok((requests, service::open(channel, request, 16 * 1024 * 1024).await?))
}

async fn read(
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    mut answers: Streaming<DeltaDiscoveryResponse>,
    times: Arc<Mutex<Times>>,
) {
    while let Ok(Some(answer)) = answers.message().await {
        let now = Instant::now();
        if answer.type_url == Address::TYPE_URL {
            let mut times = times.lock().unwrap_or_else(PoisonError::into_inner);
            for resource in &answer.resources {
                let pod = resource.name.rsplit('/').next().unwrap_or_default();
                if !pod.starts_with("slot-") || pod.ends_with("-0") {
                    continue;
                }
                // The word may be here before the API server's answer to the writer: that is no time at all.
                let written = *times.written.entry(pod.to_owned()).or_insert(now);
                times.took.push(now.saturating_duration_since(written));
            }
        }
        let acknowledged = DeltaDiscoveryRequest {
            type_url: answer.type_url,
            response_nonce: answer.nonce,
            ..DeltaDiscoveryRequest::default()
        };
        if requests.send(acknowledged).await.is_err() {
            return;
        }
    }
}
