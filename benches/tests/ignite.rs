//! A short run with a real ring: every figure gets a sample, and nothing is left behind. Needs root, Java 17 and Maven.

use std::{collections::BTreeSet, fs, path::PathBuf};

use clap::Parser;
use ringmail_bench::{
    ignite::{self, Options},
    report,
};

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    options: Options,
}

#[test]
fn a_ring_with_its_own_tls_is_measured_loses_a_node_and_gets_it_back() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("ignite.json");
    let mut options = Arguments::parse_from(
        "bench --rounds 1 --seconds 0.5 --warm-up 0.5 --sizes 1024 --threads 2 --rebalance-mb 8 \
         --candidates ignite-tls,envoy --out"
            .split_whitespace()
            .chain([out.to_str().unwrap()]),
    )
    .options;
    options.envoy = Some(PathBuf::from("/there/is/none"));
    ignite::run(&options).unwrap();

    let results = report::read(&[out]).unwrap();
    let measured: BTreeSet<_> = results
        .figures
        .iter()
        .filter(|figure| figure.samples.get("ignite-tls").is_some_and(|samples| samples[0].is_some()))
        .map(|figure| figure.id.as_str())
        .collect();
    for operation in ["put", "get", "mixed"] {
        for what in ["rate", "p50", "p99", "p999", "cpu"] {
            let id = format!("ignite-{operation}-1024-2-{what}");
            assert!(measured.contains(id.as_str()), "{id} is not in {measured:?}");
        }
    }
    for id in ["ignite-failover-all", "ignite-failover-gap", "ignite-rebalance-time", "ignite-rebalance-cpu"]
    {
        assert!(measured.contains(id), "{id} is not in {measured:?}");
    }
    assert_eq!(results.missing.keys().collect::<Vec<_>>(), ["envoy"], "{:?}", results.missing);
    let left: Vec<_> = fs::read_dir("/run/netns")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(&format!("rm-{}-", std::process::id())))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
