//! Records that carry no data cost their receiver as much as those that do: few are taken in a row, of whatever kind.

use proptest::sample::Index;
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;

use super::{
    super::{
        content::{MAX_WITHOUT_DATA, RecordError},
        receive::Receiver,
        schedule::Side,
    },
    differential::{Peer, Step},
    session::session,
};
use crate::slab::Size;

const TAKEN: usize = MAX_WITHOUT_DATA as usize;

/// How a client takes what its server sends.
fn taken(steps: &[Step]) -> Result<(), RecordError> {
    let session = session(TLS13_AES_128_GCM_SHA256, Side::Client);
    let mut schedule = session.schedule(Side::Client);
    let mut peer = Peer::of(&session);
    steps.iter().for_each(|step| peer.step(step));
    let mut receiver = Receiver::new(session.peer_seals[0].key(), peer.wire);
    let mut slab = receiver.slab(Size::Small);
    receiver.arrived(&mut slab, 0, &mut schedule);
    receiver.failed().map_or(Ok(()), Err)
}

fn data() -> Step {
    Step::Data { len: 1, padding: 0 }
}

/// `times` records of these kinds in turns.
fn in_turns(kinds: &[Step], times: usize) -> Vec<Step> {
    kinds.iter().cycle().take(times).cloned().collect()
}

#[test]
fn what_carries_no_data_is_taken_32_times_in_a_row_of_one_kind_or_of_several_in_turns() {
    let empty = || Step::Empty(1);
    let update = || Step::KeyUpdates { said: 0, times: 1 };
    // In one record: nothing of it is ahead of the cut.
    let ticket = || Step::Message { bytes: [&[4, 0, 0, 9][..], &[0; 9]].concat(), cut: Index::from(0) };
    let kinds = [
        vec![empty()],
        vec![update()],
        vec![ticket()],
        vec![empty(), update()],
        vec![update(), ticket(), empty()],
    ];
    for kinds in &kinds {
        let most = in_turns(kinds, TAKEN);
        assert_eq!(taken(&most), Ok(()), "{kinds:?}");
        assert_eq!(taken(&in_turns(kinds, TAKEN + 1)), Err(RecordError::TooManyWithoutData), "{kinds:?}");
        let after_data: Vec<_> = [&most[..], &[data()], &in_turns(kinds, TAKEN / 8)].concat();
        assert_eq!(taken(&after_data), Ok(()), "{kinds:?}");
    }
}

#[test]
fn an_end_is_taken_after_as_many_as_are() {
    let goodbye = Step::Alert(vec![1, 0]);
    assert_eq!(taken(&[in_turns(&[Step::Empty(1)], TAKEN), vec![goodbye]].concat()), Ok(()));
}
