//! The run, phase by phase, and the rows that each of them gives.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::time::sleep;

use crate::{
    CommandLine, certificate,
    churn::{self, Churned, slot_ip, slot_name},
    cluster::{Cluster, Server, each},
    connection::Target,
    metrics::Queue,
    process::{Look, Machine, Processes, Seen},
    proxy::{self, Learnt, Proxy},
    sidecar::Sidecar,
    table::{Table, percentile, spread},
};

/// Of control's memory, for each proxy.
const MAX_KB_PER_PROXY: usize = 200;
/// Proxies beside which control without any proxy, some 20 MB, is little.
const ENOUGH: usize = 500;
/// From the request that gives a pod its address until 99 of 100 proxies that ask for it have it.
const MAX_P99: Duration = Duration::from_secs(1);
/// Pods in the cluster beside which the sidecar is looked at first.
const FEW: usize = 10;
/// What a sidecar may use more beside many pods than beside few: what one and the same load differs by.
const MAX_GROWTH: f64 = 1.15;
/// The share of the asked rate below which the churn was not the one that was asked for.
const LEAST_RATE: f64 = 0.95;
/// Until what was sent at first has been taken, and allocators have settled.
const SETTLE: Duration = Duration::from_secs(5);

/// See the module.
pub(crate) struct Phases {
    line: CommandLine,
    cluster: Cluster,
    table: Table,
    uids: HashMap<String, String>,
}

/// Control or the CA.
struct Subject {
    server: Server,
    target: Target,
    processes: Processes,
}

impl Phases {
    pub(crate) fn new(line: CommandLine, cluster: Cluster) -> Self {
        Self { line, cluster, table: Table::default(), uids: HashMap::new() }
    }

    pub(crate) async fn run(mut self) -> anyhow::Result<Table> {
        let control = self.subject("ringmail-control", self.line.control, self.line.control_pid).await?;
        let ca = self.subject("ringmail-ca", self.line.ca, None).await?;
        let at_first = control.processes.resident()?;
        self.cluster.prepare().await?;
        let few: Vec<_> = self.pods().into_iter().take(FEW).collect();
        let many: Vec<_> = self.pods().into_iter().skip(FEW).collect();
        self.put(few).await?;
        let beside_few = self.beside().await?;
        let began = Instant::now();
        self.put(many).await?;
        eprintln!("{} pods in {:.1?}", self.uids.len(), began.elapsed());
        let tokens = self.tokens().await?;
        self.certificates(&ca, &tokens).await?;
        let learnt = self.streams(&control, at_first, tokens).await?;
        let beside_many = match &beside_few {
            Some((sidecar, _)) => Some(sidecar.seen_for(Duration::from_secs(self.line.look)).await?),
            None => None,
        };
        let look = beside_few.as_ref().map(|(sidecar, _)| sidecar.look()).transpose()?;
        self.churn(&control, &learnt).await?;
        if let (Some((_, few)), Some(many), Some(look)) = (beside_few, beside_many, look) {
            self.sidecar_rows(few, many, look.end()?);
        }
        Ok(self.table)
    }

    async fn subject(
        &mut self,
        name: &str,
        address: Option<std::net::SocketAddr>,
        pid: Option<u32>,
    ) -> anyhow::Result<Subject> {
        let server = self.cluster.server(name, address).await?;
        let processes = match (&server.pod, pid) {
            (_, Some(pid)) => Processes::one(pid),
            (Some((_, uid)), None) => Processes::of_pod(uid, name)?,
            (None, None) => anyhow::bail!("{} is no pod's address, and no process is named", server.address),
        };
        let where_it_is =
            server.pod.as_ref().map_or_else(|| server.address.to_string(), |(pod, _)| pod.clone());
        self.table.tell(name, where_it_is);
        let roots = self.cluster.roots().await?;
        let target = Target::new(server.address, self.cluster.server_name(name), &roots, &self.line.source)?;
        Ok(Subject { server, target, processes })
    }

    /// All pods on the node that nobody runs, by name and address.
    fn pods(&self) -> Vec<(String, String)> {
        let own = (0..self.line.proxies).map(|proxy| (proxy::name(proxy), proxy::ip(proxy)));
        let slots = (0..self.line.pods).map(|slot| (slot_name(slot, 0), slot_ip(slot)));
        own.chain(slots).collect()
    }

    async fn put(&mut self, pods: Vec<(String, String)>) -> anyhow::Result<()> {
        let made = each(pods, |(name, ip)| {
            let cluster = self.cluster.clone();
            async move { cluster.put_pod(&name, &ip).await }
        });
        self.uids.extend(made.await?);
        Ok(())
    }

    /// The sidecar, and what it uses while there are few pods.
    async fn beside(&self) -> anyhow::Result<Option<(Sidecar, Seen)>> {
        if self.line.without_sidecar {
            return Ok(None);
        }
        let sidecar = Sidecar::start(&self.cluster, &self.line.image).await?;
        let seen = sidecar.seen_for(Duration::from_secs(self.line.look)).await?;
        Ok(Some((sidecar, seen)))
    }

    async fn tokens(&self) -> anyhow::Result<Vec<(usize, String)>> {
        each(0..self.line.proxies, |number| {
            let (cluster, name) = (self.cluster.clone(), proxy::name(number));
            let uid = self.uids.get(&name).cloned();
            async move {
                let uid = uid.with_context(|| format!("{name} has no uid"))?;
                Ok((number, cluster.token(&name, &uid).await?))
            }
        })
        .await
    }

    async fn certificates(&mut self, ca: &Subject, tokens: &[(usize, String)]) -> anyhow::Result<()> {
        let (before, look) = (ca.processes.resident()?, Look::begin(&ca.processes)?);
        let began = Instant::now();
        let took = each(tokens.to_vec(), |(number, token)| {
            let target = ca.target.clone();
            certificate::obtain(target, number, token)
        })
        .await?;
        let (elapsed, seen) = (began.elapsed(), look.end()?);
        let table = &mut self.table;
        table.tell("certificates", took.len().to_string());
        table.tell("certificates per second", format!("{:.0}", per_second(took.len(), elapsed)));
        table.tell("a certificate takes", spread(&took));
        table.tell("ca: memory before", kb(before));
        table.tell("ca: memory after", kb(seen.resident));
        table.tell("ca: cpu", cpu(seen));
        Ok(())
    }

    async fn streams(
        &mut self,
        control: &Subject,
        at_first: usize,
        tokens: Vec<(usize, String)>,
    ) -> anyhow::Result<Arc<Learnt>> {
        let learnt = Arc::new(Learnt::default());
        let (before, look, began) =
            (control.processes.resident()?, Look::begin(&control.processes)?, Instant::now());
        each(tokens, |(number, token)| {
            let peers = (self.line.peers, self.line.pods);
            let proxy = Proxy { number, namespace: self.cluster.simulated(), token, peers };
            proxy.open(control.target.clone(), Arc::clone(&learnt))
        })
        .await?;
        let opened = began.elapsed();
        sleep(SETTLE).await;
        let (seen, proxies) = (look.end()?, self.line.proxies);
        let table = &mut self.table;
        table.tell("streams", learnt.open().to_string());
        table.tell("streams opened per second", format!("{:.0}", per_second(proxies, opened)));
        table.tell("peers of each", self.line.peers.to_string());
        table.tell("control: memory without these pods", kb(at_first));
        table.tell("control: memory with them", kb(before));
        table.tell("control: memory with all streams", kb(seen.resident));
        table.tell("control: cpu while they open", cpu(seen));
        let (whole, more) = (seen.resident / proxies, seen.resident.saturating_sub(at_first) / proxies);
        table.tell("control: memory more than at first, by proxy", kb(more));
        // Memory of an earlier run may still be there to be used again: where the process' own share is small, all counts.
        let counted = if proxies >= ENOUGH { whole } else { more };
        let bound = (format!("at most {MAX_KB_PER_PROXY} KB"), counted <= MAX_KB_PER_PROXY);
        table.bound("control: all memory, by proxy", kb(whole), bound);
        Ok(learnt)
    }

    async fn churn(&mut self, control: &Subject, learnt: &Arc<Learnt>) -> anyhow::Result<()> {
        let before = Queue::read(control.server.address).await?;
        let (look, machine) = (Look::begin(&control.processes)?, Machine::now()?);
        let own = Look::begin(&Processes::one(std::process::id()))?;
        let churned = churn::run(&self.line, &self.cluster, learnt).await?;
        let (seen, own, busy) = (look.end()?, own.end()?, machine.busy_since()?);
        let queue = Queue::read(control.server.address).await?.since(&before);
        self.churn_rows(&churned, learnt);
        let table = &mut self.table;
        let said = |percent| format!("{:.0}", queue.percentile(percent) * 1000.0);
        table.tell(
            "of it, from control's watch to the wire",
            format!("p50 <= {} p99 <= {} ms, {} pushes", said(50), said(99), queue.count()),
        );
        table.tell("control: cpu in the churn", cpu(seen));
        table.tell("control: memory after the churn", kb(seen.resident));
        table.tell("the proxies' own cpu in the churn", cpu(own));
        table.tell("the machine in the churn", format!("{:.0}% busy", busy * 100.0));
        let open = learnt.open();
        table.bound("streams open at the end", open.to_string(), ("all", open == self.line.proxies));
        Ok(())
    }

    fn churn_rows(&mut self, churned: &Churned, learnt: &Learnt) {
        let mut took = learnt.took();
        took.sort();
        // Every proxy that asks for an address learns of each pod that gets it.
        let asked = self.line.proxies * self.line.peers / self.line.pods;
        let table = &mut self.table;
        let rate = per_second(churned.replaced, churned.elapsed);
        let least = f64::from(self.line.rate) * LEAST_RATE;
        table.tell("pods replaced", churned.replaced.to_string());
        table.bound(
            "pods replaced per second",
            format!("{rate:.1}"),
            (format!("at least {least:.1}"), rate >= least),
        );
        table.tell("proxies that ask for each", asked.to_string());
        let due = churned.replaced * asked;
        table.bound("arrivals at proxies", took.len().to_string(), (format!("all {due}"), took.len() >= due));
        table.tell("the api server answers the write in", spread(&churned.answered));
        table.tell("a watch of our own has it after", spread(&churned.watched));
        let p99 = percentile(&took, 99);
        table.bound("a proxy has it after", spread(&took), (format!("p99 below {MAX_P99:?}"), p99 < MAX_P99));
    }

    fn sidecar_rows(&mut self, few: Seen, many: Seen, churn: Seen) {
        let table = &mut self.table;
        let count = self.line.proxies + self.line.pods;
        for (name, seen) in [
            (format!("a sidecar beside {FEW} pods"), few),
            (format!("a sidecar beside {count} pods"), many),
            ("a sidecar in the churn".to_owned(), churn),
        ] {
            let text = format!("{}, {}, {:.1} MB/s", kb(seen.resident), cpu(seen), seen.received / 1e6);
            table.tell(name, text);
        }
        let memory = |seen: Seen| u32::try_from(seen.resident).map_or(f64::MAX, f64::from);
        let most = memory(many).max(memory(churn)) / memory(few);
        let bound = || format!("at most {MAX_GROWTH}");
        table.bound("a sidecar's memory, many to few", format!("{most:.2}"), (bound(), most <= MAX_GROWTH));
        let by_byte = |seen: Seen| seen.cpu / seen.received;
        let more = by_byte(many) / by_byte(few);
        table.bound(
            "a sidecar's cpu by byte, many to few",
            format!("{more:.2}"),
            (bound(), more <= MAX_GROWTH),
        );
    }
}

fn per_second(count: usize, time: Duration) -> f64 {
    u32::try_from(count).map_or(f64::MAX, f64::from) / time.as_secs_f64()
}

fn kb(kb: usize) -> String {
    format!("{kb} KB")
}

fn cpu(seen: Seen) -> String {
    format!("{:.1}% of a cpu, waits for one {:.1}%", seen.cpu * 100.0, seen.waited * 100.0)
}
