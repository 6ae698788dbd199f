//! A whole run in real namespaces, as small as one can be: what goes in is measured, and what comes out says so.

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use ringmail_bench::candidates::{Candidate, Programs};
use ringmail_bench::results::{Results, SCHEMA};
use ringmail_bench::run::{RunArguments, measure};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    run: RunArguments,
}

fn measured(line: &str) -> Result<Results> {
    let arguments = Line::try_parse_from(line.split_whitespace())?.run;
    let programs = Programs::find(PathBuf::from(env!("CARGO_BIN_EXE_ringmail-bench")), None)?;
    let (results, ended) = measure(&arguments, &programs)?;
    ended.map(|()| results)
}

/// The only sample of a figure.
fn sample(results: &Results, figure: &str, candidate: Candidate) -> f64 {
    let found = results.figures.iter().find(|found| found.id == figure);
    let found = found.unwrap_or_else(|| panic!("no {figure}, there are {:?}", ids(results)));
    let samples = &found.samples[candidate.name()];
    assert_eq!(samples.len(), 1, "{figure}");
    samples[0].unwrap_or_else(|| panic!("no sample of {figure}: {:?}", results.missing))
}

fn ids(results: &Results) -> Vec<&str> {
    results.figures.iter().map(|figure| figure.id.as_str()).collect()
}

#[test]
fn bytes_and_connections_are_carried_with_and_without_a_relay_and_what_is_not_there_is_named() {
    let line = "run --rounds 1 --seconds 0.3 --warm-up 0.1 --figures bulk,conn \
                --candidates plain,relay-copy,ringmail-baseline";
    let results = measured(line).unwrap();
    assert_eq!(results.schema, SCHEMA);
    for way in ["up", "down"] {
        for streams in [1, 8] {
            for candidate in [Candidate::Plain, Candidate::RelayCopy] {
                let rate = sample(&results, &format!("bulk-{way}-{streams}-rate"), candidate);
                assert!(rate > 0.01, "{} carries {rate} Gbit/s {way} over {streams}", candidate.name());
            }
            let cpu = sample(&results, &format!("bulk-{way}-{streams}-cpu"), Candidate::RelayCopy);
            assert!(cpu > 0.01 && cpu < 100.0, "two relays need {cpu} CPU-s/GB");
        }
    }
    let plain = sample(&results, "conn-8-x25519-rate", Candidate::Plain);
    let relayed = sample(&results, "conn-8-x25519-rate", Candidate::RelayCopy);
    assert!(
        relayed > 1.0 && relayed < plain,
        "{relayed} connections a second through relays, {plain} without"
    );
    let missing = &results.missing["ringmail-baseline"];
    assert!(missing.contains("--baseline"), "{missing}");
    assert!(
        results.commands["relay-copy"].contains("relay --by copy --port 15006"),
        "{:?}",
        results.commands
    );
}

#[test]
fn a_candidate_without_any_of_the_figures_is_named_and_what_resumption_would_save_is_one() {
    let line = "run --rounds 1 --figures resumption,size --candidates plain,ringmail";
    let results = measured(line).unwrap();
    for exchange in ["x25519", "secp256r1", "x25519mlkem768"] {
        let of = |kind| sample(&results, &format!("handshake-{exchange}-{kind}"), Candidate::Ringmail);
        assert!(0.0 < of("resumed") && of("resumed") < of("full"), "{exchange}");
    }
    assert!(sample(&results, "binary-size", Candidate::Ringmail) > 1.0);
    assert_eq!(results.missing["plain"], "it has none of the figures that were asked for");
}

#[test]
fn requests_are_answered_and_the_time_that_a_relay_adds_is_a_figure() {
    let line = "run --rounds 1 --seconds 0.3 --warm-up 0.1 --figures rr --candidates plain,relay-splice";
    let results = measured(line).unwrap();
    for size in [128, 4096] {
        for connections in [1, 32, 256] {
            let id = |figure| format!("rr-{size}-{connections}-{figure}");
            for candidate in [Candidate::Plain, Candidate::RelaySplice] {
                let of = |figure| sample(&results, &id(figure), candidate);
                assert!(of("rate") > 1.0);
                assert!(of("p50") <= of("p99") && of("p99") <= of("p999"));
            }
            assert!(sample(&results, &id("cpu"), Candidate::RelaySplice) > 1.0);
            // Its sign is the machine's to say: of many connections a relay's time drowns in that of the others.
            let p50 = |candidate| sample(&results, &id("p50"), candidate);
            let more = p50(Candidate::RelaySplice) - p50(Candidate::Plain);
            let added = sample(&results, &id("added"), Candidate::RelaySplice);
            assert!((added - more).abs() < 1e-9, "{added} is not {more}");
        }
    }
    // On a machine that others use the generator of the open loop may be late: then it must be said.
    for candidate in [Candidate::Plain, Candidate::RelaySplice] {
        let measured = results
            .figures
            .iter()
            .any(|figure| figure.id == "open-128-p50" && figure.samples.contains_key(candidate.name()));
        let refused = results.missing.get(&format!("{}: open-128", candidate.name()));
        assert!(measured != refused.is_some(), "{refused:?}");
        assert!(refused.is_none_or(|reason| reason.contains("the generator was late")), "{refused:?}");
    }
}
