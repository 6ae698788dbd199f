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
    churn::{self, slot_ip, slot_name},
    cluster::{Cluster, Server, each},
    connection::Target,
    learnt::Learnt,
    metrics::Queue,
    process::{Look, Machine, Processes, Seen},
    proxy::{self, Proxy},
    rows::{self, Beside, FEW, Memory, cpu, kb, per_second},
    sidecar::Sidecar,
    sources,
    table::{Table, spread},
};

/// Until what was sent at first has been taken, and allocators have settled.
const SETTLE: Duration = Duration::from_secs(5);
/// How often pods are replaced anew where the machine had no CPU for control or for this process.
const ATTEMPTS: usize = 3;
/// Threads of one of the two that at each moment could have run and had no CPU, on average, above which the time was
/// the machine's.
const STARVED: f64 = 0.5;

/// See the module.
pub(crate) struct Phases {
    line: CommandLine,
    cluster: Cluster,
    table: Table,
    uids: HashMap<String, String>,
    began: Instant,
}

/// Control or the CA.
struct Subject {
    server: Server,
    target: Target,
    processes: Processes,
}

impl Phases {
    pub(crate) fn new(line: CommandLine, cluster: Cluster) -> Self {
        Self { line, cluster, table: Table::default(), uids: HashMap::new(), began: Instant::now() }
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
        self.reached(&format!("a sidecar beside {FEW} pods"));
        self.put(many).await?;
        self.reached(&format!("{} pods", self.uids.len()));
        let tokens = self.tokens().await?;
        self.reached("their tokens");
        self.certificates(&ca, &tokens).await?;
        self.reached("certificates");
        let learnt = self.streams(&control, at_first, tokens).await?;
        self.reached("streams");
        let beside_many = match &beside_few {
            Some((sidecar, _)) => Some(sidecar.seen_for(Duration::from_secs(self.line.look)).await?),
            None => None,
        };
        let look = beside_few.as_ref().map(|(sidecar, _)| sidecar.look()).transpose()?;
        self.reached("a sidecar beside all of them");
        let starved = self.churn(&control, &learnt).await?;
        rows::streams(&mut self.table, &self.line, learnt.open());
        if let (Some((_, few)), Some(many), Some(look)) = (beside_few, beside_many, look) {
            let beside = Beside { few, many, churn: look.end()? };
            rows::sidecar(&mut self.table, &self.line, beside);
        }
        if let Some(starved) = starved.filter(|_| !self.line.judge_starved) {
            let why = format!("{starved:.2} threads waited for a cpu at each moment, {STARVED} at most may");
            rows::OF_TIME.iter().for_each(|name| self.table.excuse(name, &why));
        }
        self.reached("the churn");
        Ok(self.table)
    }

    /// Says how far the run is.
    fn reached(&self, what: &str) {
        eprintln!("{:3.0} s: {what}", self.began.elapsed().as_secs_f64());
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
        let sources = sources::choose(&self.line.source, server.address.ip(), self.line.proxies)?;
        let target = Target::new(server.address, self.cluster.server_name(name), &roots, sources)?;
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
        table.tell("control: cpu while they open", cpu(seen));
        let memory = Memory { at_first, with_pods: before, with_streams: seen.resident };
        rows::memory(table, &self.line, memory);
        Ok(learnt)
    }

    /// Replaces pods, and does it again where bounds are broken while the machine had no CPU for those that are measured.
    /// Answers how many of their threads waited for one where that was so to the end.
    async fn churn(&mut self, control: &Subject, learnt: &Arc<Learnt>) -> anyhow::Result<Option<f64>> {
        for attempt in 0..ATTEMPTS {
            let (rows, starved) = self.attempt(control, learnt, attempt).await?;
            if rows.broken().is_empty() || starved <= STARVED || attempt + 1 == ATTEMPTS {
                self.table.tell("attempts at the churn", format!("{} of {ATTEMPTS}", attempt + 1));
                self.table.append(rows);
                return Ok(Some(starved).filter(|starved| *starved > STARVED));
            }
            println!(
                "ATTEMPT {} DOES NOT COUNT: {starved:.2} threads waited for a CPU at each moment, of control or of this \
                 process, and {STARVED} at most may. What else runs on this machine?\n{rows}",
                attempt + 1
            );
        }
        Ok(None)
    }

    /// One churn: its rows, and how many threads of control or of this process could not run, on average.
    async fn attempt(
        &self,
        control: &Subject,
        learnt: &Arc<Learnt>,
        attempt: usize,
    ) -> anyhow::Result<(Table, f64)> {
        let before = Queue::read(control.server.address).await?;
        let (look, machine) = (Look::begin(&control.processes)?, Machine::now()?);
        let own = Look::begin(&Processes::one(std::process::id()))?;
        let churned = churn::run(&self.line, &self.cluster, learnt, attempt).await?;
        let (seen, own, busy) = (look.end()?, own.end()?, machine.busy_since()?);
        let queue = Queue::read(control.server.address).await?.since(&before);
        let mut table = Table::default();
        rows::churn(&mut table, &self.line, &churned);
        let said = |percent| format!("{:.0}", queue.percentile(percent) * 1000.0);
        table.tell(
            "of it, from control's watch to the wire",
            format!("p50 <= {} p99 <= {} ms, {} pushes", said(50), said(99), queue.count()),
        );
        table.tell("control: cpu in the churn", cpu(seen));
        table.tell("control: memory after the churn", kb(seen.resident));
        table.tell("the proxies' own cpu in the churn", cpu(own));
        table.tell("the machine in the churn", format!("{:.0}% busy", busy * 100.0));
        Ok((table, seen.waited.max(own.waited)))
    }
}
