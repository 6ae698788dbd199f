//! A storm of refusals is a few lines and a count of the others; the record of what was issued is whole.

use std::time::{Duration, Instant};

use rcgen::KeyPair;
use ringmail_evidence::shown;
use tokio::task::JoinSet;

use crate::support::{Ca, TOKEN, ask, csr, request};

const REFUSALS: u64 = 1_000;
const ISSUED: u64 = 100;
/// A connection whose requests are refused before all of them has come ends after 32: the floods' test is about that.
const OF_ONE_CONNECTION: u64 = 20;
/// Written as they come: the lines of a start.
const START: u64 = 64;
/// The sum is told a second after the first line that it stands for.
const TOLD_WITHIN: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_storm_of_refusals_is_a_few_lines_and_a_count_and_no_issuance_is_left_out() {
    let ca = Ca::start(&[]);
    let key = csr(&KeyPair::generate().unwrap());
    let start = Instant::now();
    let (mut asked, mut channel) = (JoinSet::new(), None);
    for index in 0..REFUSALS + ISSUED {
        if index % OF_ONE_CONNECTION == 0 {
            while asked.join_next().await.is_some() {}
            channel = Some(ca.connect().await);
        }
        // Issuances lie between refusals.
        let token = if index % (REFUSALS / ISSUED + 1) == 0 { TOKEN } else { "forged" };
        let (Some(channel), message) = (channel.clone(), request(&key)) else { continue };
        asked.spawn(async move { ask(channel, Some(token), message).await.is_ok() });
        if asked.len() >= 32 {
            asked.join_next().await;
        }
    }
    asked.join_all().await;
    let seconds = start.elapsed().as_secs() + 1;

    let (mut issued, mut refused, mut summed, mut sums) = (0, 0, 0, 0);
    let deadline = Instant::now() + TOLD_WITHIN;
    while (issued, refused + summed) != (ISSUED, REFUSALS) {
        assert!(Instant::now() < deadline, "{issued} issued, {refused} refused, {summed} summed up");
        for line in ca.lines_so_far() {
            match (line["target"].as_str(), line["outcome"].as_str()) {
                (Some("audit"), Some("issued")) => issued += 1,
                (Some("audit"), Some("refused")) => {
                    assert_eq!(line["reason"], "unknown_token", "{line}");
                    assert!(!line["advice"].as_str().unwrap().is_empty(), "{line}");
                    refused += 1;
                }
                (Some("left_out"), _) => {
                    let lines = line["lines"].as_u64().unwrap();
                    assert_eq!(line["kinds"], format!("unknown_token={lines}"), "{line}");
                    summed += lines;
                    sums += 1;
                }
                _ => {}
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let bound = START + 10 * (seconds + 2);
    assert!(refused + sums <= bound, "{refused} lines and {sums} sums in {seconds} s");
    assert!((ca.metric("ringmail_ca_refused_total{reason=\"unknown_token\"}") - REFUSALS as f64).abs() < 0.5);
    assert!((ca.metric("ringmail_ca_log_left_out_total") - summed as f64).abs() < 0.5);
    shown!(
        "O1",
        format!("lines of the CA about {REFUSALS} refusals at once"),
        format!("{} in {seconds} s", refused + sums),
        format!("<= {bound}, {START} of them once")
    );
    shown!("O1", format!("audit lines of {ISSUED} certificates issued in the same storm"), issued, "all");
}
