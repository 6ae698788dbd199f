//! Certificates are renewed in time, without a storm, whatever happens to the CA's replicas.

use ringmail_evidence::shown;
use ringmail_simulation::renewal::{Judged, judge, live};

const SEEDS: u64 = 150;
const NIGHTLY_SEEDS: u64 = 10_000;

/// Lives one of this number instead, to see it again.
const ONE: &str = "RINGMAIL_SEED";

#[test]
fn a_proxy_has_a_valid_certificate_whenever_the_ca_could_be_asked() {
    if let Ok(seed) = std::env::var(ONE) {
        let life = live(seed.parse().unwrap());
        println!("{life:#?}\n{:?}", judge(&life));
        return judge(&life).map(drop).unwrap();
    }
    let nightly = ringmail_evidence::nightly();
    let seeds = if nightly { NIGHTLY_SEEDS } else { SEEDS };
    let mut all = Judged::default();
    for seed in 0..seeds {
        match judge(&live(seed)) {
            Ok(judged) => all = all.and(judged),
            Err(what) => panic!("{ONE}={seed}: {what}"),
        }
    }
    // The seeds must have made up what they are to: outages that a certificate does not outlive, and their ends.
    assert!(all.lost as u64 > seeds / 2 && all.issued as u64 > seeds * 4, "{all:?}");
    shown!("M4", "lives of two proxies and two replicas of the CA", seeds, "each holds");
    let came = format!("{}, {}", all.issued, all.lost);
    shown!(
        "M4",
        "certificates issued, and ended before the next came",
        came,
        "more than 4 and 1/2 for each life"
    );
    shown!("M4", "attempts of a proxy in its worst minute", all.most_a_minute, "<= 60");
    let back = format!("{:.1} s", all.longest_back.as_secs_f64());
    shown!("M4", "longest way back to a certificate once the CA could be reached", back, "<= 21 s");
}
