//! Bad networks: loss, delay with reordering, narrow links, links that are down, resets, and a kernel that loses track.
//!
//! Each shape is put on one pod, by rules and queues of that pod's own namespace, and is taken off when the value that stands for it
//! is dropped. What leaves a pod is shaped where it leaves, what comes to it before anything else there sees it; two pods are
//! shaped by two values. The network's own bridge is left alone: its packets pass no rules.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::ops::Range;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nfq::{Message, Queue, Verdict};

use crate::netns::Namespace;
use crate::network::{Network, Pod};

/// The queue that delayed packets wait in. Every namespace counts its own.
const QUEUE: u16 = 1;

/// More packets than any test has under way. What does not fit is dropped, as by a router.
const LONGEST_QUEUE: u32 = 65_536;

/// How often it is looked whether a packet has waited long enough. Far below any delay that is asked for.
const TICK: Duration = Duration::from_millis(1);

/// A full table of tracked connections beyond this would take gigabytes.
const MOST_TRACKED: u64 = 2_000_000;

/// Entries made by one run of `conntrack`, which reads them from a file.
const ENTRIES_AT_ONCE: u64 = 20_000;

/// A rule of iptables in a pod, until it is dropped.
#[derive(Debug)]
pub struct Rule<'a> {
    pod: &'a Pod,
    rule: Vec<String>,
}

impl<'a> Rule<'a> {
    /// Puts `rule`, all that follows the name of the chain, at the head of a chain of a table.
    fn insert(pod: &'a Pod, table: &str, chain: &str, rule: &[&str]) -> Result<Self> {
        let rule = ["-t", table, "-I", chain].iter().chain(rule).map(|&word| word.to_owned()).collect();
        let rule = Self { pod, rule };
        rule.run()?;
        Ok(rule)
    }

    fn run(&self) -> Result<()> {
        let words: Vec<_> = self.rule.iter().map(String::as_str).collect();
        self.pod.namespace().run("iptables", &words).map(drop)
    }
}

impl Drop for Rule<'_> {
    fn drop(&mut self) {
        if let Some(command) = self.rule.get_mut(2) {
            *command = "-D".to_owned();
        }
        if let Err(error) = self.run() {
            eprintln!("lab: a rule stays in {}: {error:#}", self.pod.name());
        }
    }
}

/// Drops what comes to a pod from the network, each packet with this probability.
pub fn lose(pod: &Pod, probability: f64) -> Result<Rule<'_>> {
    let probability = probability.to_string();
    let rule =
        ["-i", "eth0", "-m", "statistic", "--mode", "random", "--probability", &probability, "-j", "DROP"];
    Rule::insert(pod, "mangle", "PREROUTING", &rule)
}

/// A link of a pod that lets this many bits a second out, and holds back what is more; until it is dropped.
#[derive(Debug)]
pub struct Narrow<'a>(&'a Pod);

/// Narrows what leaves a pod, to a rate as `tc` reads it: `8mbit`.
pub fn narrow<'a>(pod: &'a Pod, rate: &str) -> Result<Narrow<'a>> {
    let line = format!("qdisc add dev eth0 root tbf rate {rate} burst 32kb latency 200ms");
    pod.namespace().run("tc", &line.split(' ').collect::<Vec<_>>())?;
    Ok(Narrow(pod))
}

impl Drop for Narrow<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.namespace().run("tc", &["qdisc", "del", "dev", "eth0", "root"]) {
            eprintln!("lab: the link of {} stays narrow: {error:#}", self.0.name());
        }
    }
}

/// Packets to a pod that wait before they arrive, each for a time of its own, so that later ones overtake; until it is dropped.
#[derive(Debug)]
pub struct Delay<'a> {
    rule: Option<Rule<'a>>,
    stop: Arc<AtomicBool>,
    holding: Option<JoinHandle<Result<()>>>,
}

/// Delays every packet that comes to a pod by some time within `range`, chosen by a generator that begins with `seed`.
pub fn delay(pod: &Pod, range: Range<Duration>, seed: u64) -> Result<Delay<'_>> {
    ensure!(range.start < range.end, "a delay from {:?} to {:?}", range.start, range.end);
    let stop = Arc::new(AtomicBool::new(false));
    let (asked, name) = (Arc::clone(&stop), pod.namespace().name().to_owned());
    let (opened, opens) = sync_channel(1);
    let holding = thread::Builder::new()
        .name("delay".to_owned())
        .spawn(move || Namespace::existing(&name).enter(move || hold(&range, seed, &asked, &opened))?)?;
    let mut delay = Delay { rule: None, stop, holding: Some(holding) };
    opens.recv().context("open a queue of packets")?;
    let number = QUEUE.to_string();
    let rule = ["-i", "eth0", "-j", "NFQUEUE", "--queue-num", &number];
    delay.rule = Some(Rule::insert(pod, "mangle", "PREROUTING", &rule)?);
    Ok(delay)
}

impl Drop for Delay<'_> {
    fn drop(&mut self) {
        self.rule = None;
        self.stop.store(true, Ordering::Relaxed);
        if let Some(Ok(Err(error))) = self.holding.take().map(JoinHandle::join) {
            eprintln!("lab: delaying ended: {error:#}");
        }
    }
}

/// Takes packets off the queue and lets each go when its time has come; all that are left when it is asked to stop.
fn hold(range: &Range<Duration>, mut random: u64, stop: &AtomicBool, opened: &SyncSender<()>) -> Result<()> {
    let mut queue = Queue::open()?;
    queue.bind(QUEUE)?;
    queue.set_queue_max_len(QUEUE, LONGEST_QUEUE)?;
    // Nobody reads them.
    queue.set_copy_range(QUEUE, 1)?;
    queue.set_nonblocking(true);
    // Whoever asked for it waits for this, or is gone.
    let _ = opened.send(());
    let spread = u64::try_from((range.end - range.start).as_micros())?.max(1);
    let (mut held, mut count) = (BTreeMap::<(Instant, u64), Message>::new(), 0u64);
    loop {
        let stopping = stop.load(Ordering::Relaxed);
        while let Some(packet) = next(&mut queue)? {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let waits = range.start + Duration::from_micros((random >> 33) % spread);
            count += 1;
            held.insert((Instant::now() + waits, count), packet);
        }
        let now = Instant::now();
        while held.first_key_value().is_some_and(|((due, _), _)| *due <= now || stopping) {
            if let Some((_, mut packet)) = held.pop_first() {
                packet.set_verdict(Verdict::Accept);
                queue.verdict(packet)?;
            }
        }
        if stopping {
            return Ok(());
        }
        thread::sleep(TICK);
    }
}

fn next(queue: &mut Queue) -> Result<Option<Message>> {
    match queue.recv() {
        Ok(packet) => Ok(Some(packet)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
        Err(error) => Err(error).context("read from a queue of packets"),
    }
}

/// A pod whose cable is pulled, until it is dropped.
#[derive(Debug)]
pub struct Unplugged<'a> {
    network: &'a Network,
    port: String,
}

/// Pulls a pod's cable at the bridge's end: nobody is told anything.
pub fn unplug<'a>(network: &'a Network, pod: &Pod) -> Result<Unplugged<'a>> {
    let place = network.pods().iter().position(|each| each.name() == pod.name());
    let number = place.with_context(|| format!("{} is no pod of this network", pod.name()))? + 1;
    let unplugged = Unplugged { network, port: format!("port{number}") };
    unplugged.network.switch().ip_batch(&format!("link set {} nomaster\n", unplugged.port))?;
    Ok(unplugged)
}

impl Drop for Unplugged<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.network.switch().ip_batch(&format!("link set {} master br0\n", self.port)) {
            eprintln!("lab: {} stays unplugged: {error:#}", self.port);
        }
    }
}

/// Resets all TCP connections of a pod to or from this port, as seen by their own ends, and says how many sockets that were.
pub fn reset_connections(pod: &Pod, port: u16) -> Result<usize> {
    let filter = format!("( sport = :{port} or dport = :{port} )");
    let said = pod.namespace().run("ss", &["-K", "-H", "-t", "-n", "state", "established", &filter])?;
    Ok(said.lines().count())
}

/// Makes the kernel forget every connection that it tracks in a pod: translations of addresses among it.
pub fn forget_connections(pod: &Pod) -> Result<()> {
    conntrack(pod, &["-F"])
}

/// Makes the kernel forget the tracked connections to or from a port of a pod.
pub fn forget_connections_of(pod: &Pod, port: u16) -> Result<()> {
    conntrack(pod, &["-D", "-p", "tcp", "--orig-port-dst", &port.to_string()])
}

/// Fills the table of tracked connections of a pod's namespace with others that live for an hour, and says how many fit in. The
/// bound is the machine's; what is counted against it is this namespace's own.
pub fn fill_tracking(pod: &Pod) -> Result<u64> {
    let number = |name: &str| -> Result<u64> {
        let read = || std::fs::read_to_string(format!("/proc/sys/net/netfilter/{name}"));
        pod.namespace().enter(read)??.trim().parse().with_context(|| format!("read {name}"))
    };
    forget_what_ends(pod);
    let most = number("nf_conntrack_max")?;
    ensure!(most <= MOST_TRACKED, "the kernel tracks {most} connections, too many to fill");
    let file = std::env::temp_dir().join(format!("tracked-{}-{}", std::process::id(), pod.name()));
    let mut made = 0;
    while number("nf_conntrack_count")? < most {
        ensure!(made < 2 * most, "{made} entries were made, and the table is not full");
        std::fs::write(&file, entries(made, ENTRIES_AT_ONCE.min(most)))?;
        // Beyond the last one that fits in, the kernel refuses them.
        let _ = conntrack(pod, &["--load-file", &file.to_string_lossy()]);
        made += ENTRIES_AT_ONCE;
    }
    std::fs::remove_file(&file)?;
    Ok(most)
}

/// Forgets whatever would be forgotten in a minute anyway: it would make room among those that stay.
fn forget_what_ends(pod: &Pod) {
    let ended = ["FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE"];
    for family in ["ipv4", "ipv6"] {
        // Where there is none, it fails.
        for state in ended {
            let _ = conntrack(pod, &["-D", "-f", family, "-p", "tcp", "--state", state]);
        }
        let _ = conntrack(pod, &["-D", "-f", family, "-p", "udp"]);
    }
}

/// Lines of `conntrack --load-file`: connections between addresses that nobody has, of which the kernel gives up none by itself.
fn entries(first: u64, count: u64) -> String {
    let line = |number: u64| {
        let [.., a, b, c] = (number / 50_000).to_be_bytes();
        let (source, port) = (format!("198.{}.{b}.{c}", 18 + (a & 1)), number % 50_000 + 1_024);
        format!(
            "-I -p tcp -s {source} -d 198.19.255.255 --sport {port} --dport 9 -t 3600 --state ESTABLISHED -u ASSURED\n"
        )
    };
    (first..first + count).map(line).collect()
}

fn conntrack(pod: &Pod, arguments: &[&str]) -> Result<()> {
    let run = || Command::new("conntrack").args(arguments).output();
    let output = pod.namespace().enter(run)?.context("start conntrack")?;
    if !output.status.success() {
        bail!("conntrack {arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    const PACKETS: u8 = 100;

    /// Numbers of the packets that arrive of so many that were sent from one pod to the other, in the order in which they do.
    fn arrive(from: &Pod, to: &Pod) -> Vec<u8> {
        let bind = |pod: &Pod| pod.namespace().enter(|| UdpSocket::bind((pod.ip(), 9_000)).unwrap()).unwrap();
        let (near, far) = (bind(from), bind(to));
        far.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
        for number in 0..PACKETS {
            near.send_to(&[number], (to.ip(), 9_000)).unwrap();
        }
        let mut byte = [0];
        std::iter::from_fn(|| far.recv(&mut byte).ok().map(|_| byte[0])).collect()
    }

    #[test]
    fn packets_are_lost_delayed_or_cut_off_only_while_the_shape_is_there() {
        let network = Network::create(&["a", "b"]).unwrap();
        let (a, b) = (&network.pods()[0], &network.pods()[1]);
        let all: Vec<u8> = (0..PACKETS).collect();
        assert_eq!(arrive(a, b), all);
        {
            let _loss = lose(b, 0.3).unwrap();
            assert!((30..95).contains(&arrive(a, b).len()));
        }
        {
            let _delay = delay(b, Duration::from_millis(50)..Duration::from_millis(150), 7).unwrap();
            let began = Instant::now();
            let arrived = arrive(a, b);
            assert!(began.elapsed() > Duration::from_millis(500), "{:?}", began.elapsed());
            assert_ne!(arrived, all, "nothing was reordered");
            let mut sorted = arrived;
            sorted.sort_unstable();
            assert_eq!(sorted, all);
        }
        {
            let _cut = unplug(&network, b).unwrap();
            assert!(arrive(a, b).is_empty());
        }
        assert_eq!(arrive(a, b), all);
    }

    #[test]
    fn a_narrow_link_takes_the_time_that_its_rate_gives() {
        let network = Network::create(&["a", "b"]).unwrap();
        let (a, b) = (&network.pods()[0], &network.pods()[1]);
        let _narrow = narrow(a, "1mbit").unwrap();
        let bind = |pod: &Pod| pod.namespace().enter(|| UdpSocket::bind((pod.ip(), 9_001)).unwrap()).unwrap();
        let (near, far) = (bind(a), bind(b));
        far.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let began = Instant::now();
        // 40 KB take 320 ms at a megabit a second, less the 32 that may come at once.
        for _ in 0..40 {
            near.send_to(&[0; 1_000], (b.ip(), 9_001)).unwrap();
        }
        for _ in 0..40 {
            far.recv(&mut [0; 1_000]).unwrap();
        }
        assert!(began.elapsed() > Duration::from_millis(50), "{:?}", began.elapsed());
    }

    #[test]
    fn a_table_of_tracked_connections_that_is_full_takes_no_new_one_until_it_is_flushed() {
        let network = Network::create(&["a", "b"]).unwrap();
        let (a, b) = (&network.pods()[0], &network.pods()[1]);
        // Something must ask for tracking.
        b.namespace()
            .run("iptables", &["-A", "INPUT", "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP"])
            .unwrap();
        assert_eq!(arrive(a, b).len(), usize::from(PACKETS));
        forget_connections(b).unwrap();
        fill_tracking(b).unwrap();
        assert!(arrive(a, b).is_empty());
        forget_connections(b).unwrap();
        assert_eq!(arrive(a, b).len(), usize::from(PACKETS));
    }
}
