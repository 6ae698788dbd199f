//! What threads share, in every order that there is time for.

use ringmail_evidence::shown;
use ringmail_simulation::orders::{
    a_chain_answers_for_itself, connections_are_handed_over_and_their_places_come_back,
    every_line_is_written_or_counted, totals_never_go_back, tried, whoever_is_no_longer_admitted_is_told,
    whoever_waits_gets_a_place_that_is_free,
};

/// Orders of each kind.
const ORDERS: usize = 5_000;
const NIGHTLY_ORDERS: usize = 200_000;

fn orders() -> usize {
    match ringmail_evidence::nightly() {
        true => NIGHTLY_ORDERS,
        false => ORDERS,
    }
}

#[test]
fn lines_of_the_log_are_written_whole_or_counted_in_any_order() {
    let tried = tried(every_line_is_written_or_counted, orders());
    shown!("M3", "orders of threads that log and flush", tried, "each line is written or counted");
}

#[test]
fn a_place_that_is_free_is_taken_in_any_order() {
    let waiting = tried(whoever_waits_gets_a_place_that_is_free, orders());
    let tried = waiting + tried(connections_are_handed_over_and_their_places_come_back, orders());
    shown!(
        "M3",
        "orders of accepting, handing over and ending",
        tried,
        "nobody waits beside a free place, no load is left"
    );
}

#[test]
fn a_verified_chain_answers_for_itself_in_any_order() {
    // Each has a full cache to fill.
    let tried = tried(a_chain_answers_for_itself, orders() / 10);
    shown!("M3", "orders of verifying chains", tried, "each chain known once, for its own peer");
}

#[test]
fn a_scrape_sees_totals_that_only_grow_in_any_order() {
    let tried = tried(totals_never_go_back, orders());
    shown!(
        "M3",
        "orders of connections and scrapes",
        tried,
        "totals never go back, and are exact in the end"
    );
}

#[test]
fn a_change_of_policy_reaches_whoever_is_being_admitted_in_any_order() {
    let tried = tried(whoever_is_no_longer_admitted_is_told, orders() / 2);
    shown!(
        "M3",
        "orders of an admission and a change of policy",
        tried,
        "nobody stays who is admitted no more"
    );
}
