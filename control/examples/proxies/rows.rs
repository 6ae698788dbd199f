//! Figures and their bounds: what is judged, apart from how it is measured.

use std::time::Duration;

use crate::{
    CommandLine,
    churn::Churned,
    process::Seen,
    table::{Table, percentile, spread},
};

/// Of control's memory, for each proxy.
const MAX_KB_PER_PROXY: usize = 200;
/// Proxies beside which control without any proxy, some 20 MB, is little.
const ENOUGH: usize = 500;
/// From the moment in which the API server has taken the write of a pod's address until 99 of 100 proxies that ask for
/// it have it. What the API server takes for that is its own, and is told beside it.
const MAX_P99: Duration = Duration::from_secs(1);
/// What a sidecar may use more beside many pods than beside few: what one and the same load differs by.
const MAX_GROWTH: f64 = 1.15;
/// The share of the asked rate below which the churn was not the one that was asked for.
const LEAST_RATE: f64 = 0.95;
/// Pods in the cluster beside which the sidecar is looked at first.
pub(crate) const FEW: usize = 10;

const RATE: &str = "pods replaced per second";
const DISTRIBUTED: &str = "of it, after the api server has taken it";
const CPU_BY_BYTE: &str = "a sidecar's cpu by byte, many to few";
/// Figures that are the machine's before they are control's or a sidecar's.
pub(crate) const OF_TIME: [&str; 3] = [RATE, DISTRIBUTED, CPU_BY_BYTE];

/// Control's memory in KB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// Before there were any of the pods.
    pub(crate) at_first: usize,
    /// With the pods, before the first stream.
    pub(crate) with_pods: usize,
    pub(crate) with_streams: usize,
}

/// What the sidecar used beside few pods, beside all of them, and while they were replaced.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beside {
    pub(crate) few: Seen,
    pub(crate) many: Seen,
    pub(crate) churn: Seen,
}

pub(crate) fn memory(table: &mut Table, line: &CommandLine, memory: Memory) {
    let Memory { at_first, with_pods, with_streams } = memory;
    table.tell("control: memory without these pods", kb(at_first));
    table.tell("control: memory with them", kb(with_pods));
    table.tell("control: memory with all streams", kb(with_streams));
    let (whole, more) = (with_streams / line.proxies, with_streams.saturating_sub(at_first) / line.proxies);
    table.tell("control: memory more than at first, by proxy", kb(more));
    // Memory of an earlier run may still be there to be used again: where the process' own share is small, all counts.
    let counted = if line.proxies >= ENOUGH { whole } else { more };
    let bound = (format!("at most {MAX_KB_PER_PROXY} KB"), counted <= MAX_KB_PER_PROXY);
    table.bound("control: all memory, by proxy", kb(whole), bound);
}

pub(crate) fn churn(table: &mut Table, line: &CommandLine, churned: &Churned) {
    let times = &churned.times;
    // Every proxy that asks for an address learns of each pod that gets it.
    let asked = line.proxies * line.peers / line.pods;
    let rate = per_second(churned.replaced, churned.elapsed);
    let least = f64::from(line.rate) * LEAST_RATE;
    table.tell("pods replaced", churned.replaced.to_string());
    let bound = (format!("at least {least:.1}"), rate >= least);
    table.bound(RATE, format!("{rate:.1}"), bound);
    table.tell("proxies that ask for each", asked.to_string());
    let (due, came) = (churned.replaced * asked, times.whole.len());
    table.bound("arrivals at proxies", came.to_string(), (format!("all {due}"), came == due));
    table.tell("the api server answers the write in", spread(&times.answered));
    table.tell("a watch of our own has it after", spread(&times.watched));
    table.tell("a proxy has it after", spread(&times.whole));
    table.tell("this process' own clock is late by", format!("p99 {} ms", churned.late.as_millis()));
    let mut distributed = times.distributed.clone();
    distributed.sort();
    // A process that is late sees both ends late, and the time between them too short.
    let p99 = percentile(&distributed, 99) + churned.late;
    let bound = (format!("p99 and that lateness below {MAX_P99:?}"), p99 < MAX_P99);
    table.bound(DISTRIBUTED, spread(&distributed), bound);
}

pub(crate) fn streams(table: &mut Table, line: &CommandLine, open: usize) {
    table.bound("streams open at the end", open.to_string(), ("all", open == line.proxies));
}

pub(crate) fn sidecar(table: &mut Table, line: &CommandLine, beside: Beside) {
    let Beside { few, many, churn } = beside;
    let count = line.proxies + line.pods;
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
    let more = many.cpu_by_byte() / few.cpu_by_byte();
    table.bound(CPU_BY_BYTE, format!("{more:.2}"), (bound(), more <= MAX_GROWTH));
}

pub(crate) fn per_second(count: usize, time: Duration) -> f64 {
    u32::try_from(count).map_or(f64::MAX, f64::from) / time.as_secs_f64()
}

pub(crate) fn kb(kb: usize) -> String {
    format!("{kb} KB")
}

pub(crate) fn cpu(seen: Seen) -> String {
    format!("{:.1}% of a cpu, waits for one {:.1}%", seen.cpu * 100.0, seen.waited * 100.0)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::learnt::Times;

    /// A run that keeps every bound, if narrowly.
    #[derive(Clone)]
    struct Run {
        memory: Memory,
        churned: Churned,
        open: usize,
        beside: Beside,
    }

    impl Run {
        fn good() -> Self {
            let seen = Seen { resident: 20_000, cpu: 0.02, waited: 0.0, received: 8e6 };
            let times = Times {
                whole: vec![Duration::from_millis(2000); 30_000],
                distributed: vec![Duration::from_millis(900); 30_000],
                ..Times::default()
            };
            let late = Duration::from_millis(99);
            Self {
                memory: Memory { at_first: 20_000, with_pods: 30_000, with_streams: 200_000 },
                churned: Churned { replaced: 1500, elapsed: Duration::from_secs(31), times, late },
                open: 1000,
                beside: Beside {
                    few: seen,
                    many: Seen { resident: 22_900, cpu: 0.0229, ..seen },
                    churn: Seen { resident: 22_900, cpu: 0.05, ..seen },
                },
            }
        }

        fn broken(&self) -> Vec<String> {
            let (mut table, line) = (Table::default(), CommandLine::parse_from(["proxies"]));
            memory(&mut table, &line, self.memory);
            churn(&mut table, &line, &self.churned);
            streams(&mut table, &line, self.open);
            sidecar(&mut table, &line, self.beside);
            table.broken()
        }
    }

    #[test]
    fn each_bound_is_broken_by_its_own_figure_alone() {
        assert_eq!(Run::good().broken(), Vec::<String>::new());
        type Spoil = fn(&mut Run);
        let cases: [(Spoil, &str); 10] = [
            (|run| run.memory.with_streams = 201_000, "control: all memory, by proxy: 201 KB"),
            (|run| run.churned.elapsed = Duration::from_secs(32), "pods replaced per second: 46.9"),
            (|run| run.churned.times.whole.truncate(29_999), "arrivals at proxies: 29999"),
            (|run| run.churned.times.whole.push(Duration::ZERO), "arrivals at proxies: 30001"),
            (
                |run| run.churned.times.distributed[..301].fill(Duration::from_millis(901)),
                "of it, after the api server has taken it: p50 900 p99 901 last 901 ms",
            ),
            (
                |run| run.churned.late = Duration::from_millis(100),
                "of it, after the api server has taken it: p50 900 p99 900 last 900 ms",
            ),
            (|run| run.open = 999, "streams open at the end: 999"),
            (|run| run.beside.many.resident = 23_100, "a sidecar's memory, many to few: 1.16"),
            (|run| run.beside.churn.resident = 23_100, "a sidecar's memory, many to few: 1.16"),
            (|run| run.beside.many.cpu = 0.0232, "a sidecar's cpu by byte, many to few: 1.16"),
        ];
        for (spoil, expected) in cases {
            let mut run = Run::good();
            spoil(&mut run);
            let broken = run.broken();
            assert!(matches!(&broken[..], [one] if one.starts_with(expected)), "{expected}: {broken:?}");
        }
    }
}
