//! Records that carry no data cost their receiver as much as those that do: few are taken in a row, of whatever kind.

use super::{
    super::{
        content::{ALERT, APPLICATION_DATA, HANDSHAKE, MAX_WITHOUT_DATA, RecordError},
        schedule::Side,
    },
    peer::{self, Peer},
};

const TAKEN: usize = MAX_WITHOUT_DATA as usize;

/// What a server sends next.
type Says = fn(&mut Peer<'_>);

fn data(peer: &mut Peer<'_>) {
    peer.send(APPLICATION_DATA, b"x", 0);
}

fn empty(peer: &mut Peer<'_>) {
    peer.send(APPLICATION_DATA, &[], 0);
}

fn key_update(peer: &mut Peer<'_>) {
    peer.send(HANDSHAKE, &[24, 0, 0, 1, 0], 0);
    peer.next_key();
}

fn ticket(peer: &mut Peer<'_>) {
    peer.send(HANDSHAKE, &[4, 0, 0, 3, 7, 7, 7], 0);
}

fn goodbye(peer: &mut Peer<'_>) {
    peer.send(ALERT, &[1, 0], 0);
}

/// How a client takes what its server says.
fn taken(says: &[Says]) -> Result<(), RecordError> {
    peer::taken(Side::Client, |peer| says.iter().for_each(|say| say(peer))).map(drop)
}

fn in_turns(kinds: &[Says], times: usize) -> Vec<Says> {
    kinds.iter().cycle().take(times).copied().collect()
}

#[test]
fn what_carries_no_data_is_taken_32_times_in_a_row_of_one_kind_or_of_several_in_turns() {
    let rows: [(&str, &[Says]); 5] = [
        ("empty records", &[empty]),
        ("key updates", &[key_update]),
        ("tickets", &[ticket]),
        ("empty records and key updates", &[empty, key_update]),
        ("all three", &[key_update, ticket, empty]),
    ];
    for (what, kinds) in rows {
        let most = in_turns(kinds, TAKEN);
        assert_eq!(taken(&most), Ok(()), "{what}");
        let one_more = in_turns(kinds, TAKEN + 1);
        assert_eq!(taken(&one_more), Err(RecordError::TooManyWithoutData), "{what}");
        let after_data = [most, vec![data as Says], in_turns(kinds, 4)].concat();
        assert_eq!(taken(&after_data), Ok(()), "{what}");
    }
}

#[test]
fn an_end_is_taken_after_as_many_as_are() {
    assert_eq!(taken(&[in_turns(&[empty], TAKEN), vec![goodbye as Says]].concat()), Ok(()));
}
