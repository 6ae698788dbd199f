use std::thread;

use super::*;

fn written(slab: &mut Slab, step: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while !slab.is_empty() {
        let mut slices = no_slices();
        let count = slab.slices(&mut slices);
        let bytes: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect();
        let taken = bytes.len().min(step);
        all.extend_from_slice(&bytes[..taken]);
        slab.advance(taken);
    }
    all
}

/// Every test has a pool of its own: those of a thread.
fn alone(test: impl FnOnce() + Send + 'static) {
    thread::spawn(test).join().unwrap();
}

#[test]
fn what_a_slab_holds_is_written_once_and_in_order_however_little_is_taken_at_a_time() {
    for len in [0, 1, SLOT_LEN, SLOT_LEN + 1, 5 * SLOT_LEN + 7, BULK_SLOTS * SLOT_LEN, 20 * SLOT_LEN + 3] {
        let bytes: Vec<u8> = (0..len).map(|index| (index % 253) as u8).collect();
        for step in [7_919, SLOT_LEN, usize::MAX] {
            let mut slab = Slab::holding(&bytes);
            assert_eq!(slab.len(), len);
            assert!(written(&mut slab, step) == bytes, "{len} bytes, {step} at a time");
        }
    }
}

#[test]
fn opened_pieces_that_are_short_join_those_before_them_and_long_ones_stay() {
    let mut slab = Slab::lend(Size::Bulk);
    let memory = slab.memory_mut();
    memory.iter_mut().enumerate().for_each(|(index, byte)| *byte = (index % 241) as u8);
    let pieces = [5..105, 127..130, 200..200 + SLOT_LEN, 20_000..20_100];
    let expected: Vec<u8> = pieces.iter().flat_map(|piece| memory[piece.clone()].to_vec()).collect();
    pieces.into_iter().for_each(|piece| slab.push_opened(piece));
    assert_eq!(slab.pieces, [5..108, 200..200 + SLOT_LEN + 100]);
    assert!(written(&mut slab, usize::MAX) == expected);
}

#[test]
fn the_records_of_full_slots_are_one_run_with_a_key_update_before_them() {
    let mut slab = Slab::holding(&vec![1; 3 * SLOT_LEN + 10]);
    slab.seal_slots(|record| {
        record[..GAP_BEFORE].fill(2);
        let tag = record.len() - GAP_AFTER;
        record[tag..].fill(3);
        Ok::<_, ()>(())
    })
    .unwrap();
    slab.prepend_headroom();
    assert_eq!(slab.pieces.first(), Some(&(0..HEADROOM + 3 * STRIDE + GAP_BEFORE + 10 + GAP_AFTER)));
    assert!(!slab.is_scattered());
}

#[test]
fn a_worker_keeps_two_idle_slabs_of_each_size() {
    alone(|| {
        drop((0..5).map(|_| (Slab::lend(Size::Small), Slab::lend(Size::Bulk))).collect::<Vec<_>>());
        let kept = POOL.with_borrow(|pool| (pool.small.len(), pool.bulk.len(), pool.lent_bulk));
        assert_eq!(kept, (KEPT, KEPT, 0));
    });
}

#[test]
fn beyond_the_bound_a_large_slab_is_a_small_one_until_one_comes_back() {
    alone(|| {
        for bound in [MAX_LENT_BULK, 3] {
            lend_at_most(bound);
            let mut lent: Vec<Slab> = (0..bound).map(|_| Slab::lend(Size::Bulk)).collect();
            assert!(lent.iter().all(|slab| slab.memory.len() == Size::Bulk.bytes()));
            assert_eq!(Slab::lend(Size::Bulk).memory.len(), Size::Small.bytes());
            lent.pop();
            assert_eq!(Slab::lend(Size::Bulk).memory.len(), Size::Bulk.bytes());
        }
    });
}

#[test]
fn memory_of_another_size_is_never_lent_again() {
    alone(|| {
        let large = Slab::with_room(Size::Bulk.bytes() + 1);
        assert_eq!(large.memory.len(), Size::Bulk.bytes() + 1);
        drop(large);
        assert!(
            POOL.with_borrow(|pool| pool.bulk.iter().all(|idle| idle.memory.len() == Size::Bulk.bytes()))
        );
    });
}
