//! The memory that bytes pass through, lent to a connection for as long as it has bytes on their way.
//!
//! Every worker keeps a few slabs and lends them out: a connection takes one when its socket has something
//! to say and gives it back when all of it is written, so an idle connection holds none and nothing is
//! allocated per read. The memory stays hot in the cache, because the next connection gets the same.
//!
//! A slab is a row of slots. Each has room for the plaintext of one full TLS record, with a gap before it for
//! the record's header and one after it for the content type and the tag: what was read into slots can be
//! sealed where it lies, and the sealed records of full slots are one contiguous run.

use std::{cell::RefCell, io::IoSlice, mem, ops::Range};

/// Plaintext bytes of a full record (RFC 8446 section 5.1).
pub const SLOT_LEN: usize = 1 << 14;

/// Bytes of a record's header.
pub const GAP_BEFORE: usize = 5;

/// Bytes of the inner content type and the tag, the same for every suite of TLS 1.3.
pub const GAP_AFTER: usize = 1 + 16;

/// From the start of one slot's record to the start of the next.
const STRIDE: usize = GAP_BEFORE + SLOT_LEN + GAP_AFTER;

/// Bytes before the first slot's record: a `KeyUpdate` record (header, five bytes of message, content type, tag)
/// fits there, so that it leaves in the same write as what is sealed under the new key.
pub const HEADROOM: usize = GAP_BEFORE + 5 + GAP_AFTER;

/// Slots of a slab for bulk. Sixteen full records are what one read of a fast sender gives; more did not measure
/// better, and two of these fit into a core's cache.
pub const BULK_SLOTS: usize = 16;

/// A sealed record may be this long: header, 2^14 bytes and 256 of expansion (RFC 8446 section 5.2).
pub const MAX_RECORD_LEN: usize = GAP_BEFORE + SLOT_LEN + 256;

/// Pieces that one call hands to the kernel. A slab full of opened records of 4 KiB has as many.
const MAX_PIECES: usize = 64;

/// Idle slabs a worker keeps of each size. A worker fills one at a time; a second one is needed where the first
/// stays with a connection whose reader is slow.
const KEPT: usize = 2;

/// Slabs for bulk that a worker lends at once at most; [`lend_at_most`] may say fewer. Beyond it a connection gets a small
/// one: many slow readers slow each other down then, and do not take the container's memory.
pub(crate) const MAX_LENT_BULK: usize = 32;

/// How much a slab holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// One slot, or one sealed record of the largest size.
    Small,
    /// [`BULK_SLOTS`] slots.
    Bulk,
}

impl Size {
    /// Bytes of memory.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Small => HEADROOM + MAX_RECORD_LEN,
            Self::Bulk => HEADROOM + BULK_SLOTS * STRIDE,
        }
    }
}

/// A slab on loan, and which parts of it are to be written. The default is none at all.
#[derive(Debug, Default)]
pub struct Slab {
    memory: Box<[u8]>,
    /// What is to be written, in order; empty ones are not kept.
    pieces: Vec<Range<usize>>,
    /// Pieces that are written already.
    written: usize,
    full: bool,
    /// Its pieces lie in slots, and so have gaps around them.
    slotted: bool,
}

/// What is kept of a slab that nobody has.
struct Idle {
    memory: Box<[u8]>,
    pieces: Vec<Range<usize>>,
}

struct Pool {
    small: Vec<Idle>,
    bulk: Vec<Idle>,
    lent_bulk: usize,
    max_lent_bulk: usize,
}

thread_local! {
    static POOL: RefCell<Pool> = const {
        RefCell::new(Pool { small: Vec::new(), bulk: Vec::new(), lent_bulk: 0, max_lent_bulk: MAX_LENT_BULK })
    };
}

/// Says how many slabs for bulk this thread lends at once.
pub(crate) fn lend_at_most(bulk: usize) {
    POOL.with_borrow_mut(|pool| pool.max_lent_bulk = bulk);
}

impl Slab {
    /// Lends a slab of this size, or a small one where too many large ones are lent.
    pub fn lend(size: Size) -> Self {
        POOL.with_borrow_mut(|pool| {
            let size = if pool.lent_bulk >= pool.max_lent_bulk { Size::Small } else { size };
            let kept = match size {
                Size::Small => pool.small.pop(),
                Size::Bulk => {
                    pool.lent_bulk += 1;
                    pool.bulk.pop()
                }
            };
            let Idle { memory, pieces } = kept.unwrap_or_else(|| Idle {
                memory: vec![0; size.bytes()].into_boxed_slice(),
                pieces: Vec::with_capacity(MAX_PIECES),
            });
            Self { memory, pieces, ..Self::default() }
        })
    }

    /// A slab with room for so many bytes. Where none of the two sizes has it, the memory is its own and is not kept.
    pub fn with_room(bytes: usize) -> Self {
        for size in [Size::Small, Size::Bulk] {
            let slab = Self::lend(size);
            if bytes <= slab.memory.len() {
                return slab;
            }
        }
        Self { memory: vec![0; bytes].into_boxed_slice(), pieces: Vec::new(), ..Self::default() }
    }

    /// A slab with these bytes in its slots.
    pub fn holding(bytes: &[u8]) -> Self {
        let mut slab = Self::with_room(HEADROOM + bytes.len().div_ceil(SLOT_LEN) * STRIDE);
        for (index, part) in bytes.chunks(SLOT_LEN).enumerate() {
            let start = slot_start(index);
            slab.memory[start..start + part.len()].copy_from_slice(part);
        }
        slab.filled(bytes.len(), false);
        slab
    }

    /// Whether nothing is left to be written.
    pub fn is_empty(&self) -> bool {
        self.written == self.pieces.len()
    }

    /// Bytes that are left to be written.
    pub fn len(&self) -> usize {
        self.pieces[self.written..].iter().map(Range::len).sum()
    }

    /// Whether the read that filled it took all there was room for: there is likely more.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// All of its memory.
    pub fn memory_mut(&mut self) -> &mut [u8] {
        &mut self.memory
    }

    /// The first slot.
    pub fn first_slot_mut(&mut self) -> &mut [u8] {
        &mut self.memory[HEADROOM + GAP_BEFORE..][..SLOT_LEN]
    }

    /// Every slot, where there are as many as in a slab for bulk.
    pub fn slots_mut(&mut self) -> Option<[&mut [u8]; BULK_SLOTS]> {
        let mut rest =
            self.memory.get_mut(HEADROOM..HEADROOM + BULK_SLOTS * STRIDE)?.chunks_exact_mut(STRIDE);
        let mut slots: [&mut [u8]; BULK_SLOTS] = Default::default();
        for slot in &mut slots {
            *slot = &mut rest.next()?[GAP_BEFORE..GAP_BEFORE + SLOT_LEN];
        }
        Some(slots)
    }

    /// Says that the slots hold `read` bytes from the first on; `full` as [`Self::is_full`] tells it.
    pub fn filled(&mut self, read: usize, full: bool) {
        self.clear();
        self.full = full;
        self.slotted = true;
        for index in 0..read.div_ceil(SLOT_LEN) {
            let start = slot_start(index);
            self.pieces.push(start..start + (read - index * SLOT_LEN).min(SLOT_LEN));
        }
    }

    /// Forgets every piece.
    pub fn clear(&mut self) {
        self.pieces.clear();
        self.written = 0;
        self.full = false;
        self.slotted = false;
    }

    /// Says whether there is likely more where its bytes came from.
    pub fn set_full(&mut self, full: bool) {
        self.full = full;
    }

    /// Adds `piece` of the memory to what is to be written. What follows the last piece directly becomes part of it.
    pub fn push(&mut self, piece: Range<usize>) {
        if piece.is_empty() {
            return;
        }
        match self.pieces.last_mut() {
            Some(last) if last.end == piece.start => last.end = piece.end,
            Some(_) | None => self.pieces.push(piece),
        }
    }

    /// Adds bytes that were opened to what is to be written. Short ones are moved up to those before them: one
    /// write of many pieces costs the kernel more than the move.
    pub fn push_opened(&mut self, piece: Range<usize>) {
        let short = piece.len() < SLOT_LEN / 4;
        let last = self.pieces.last().map(|last| last.end).filter(|end| short && *end <= piece.start);
        let Some(end) = last else { return self.push(piece) };
        let moved = end..end + piece.len();
        self.memory.copy_within(piece, end);
        self.push(moved);
    }

    /// Makes records of what was read into the slots: `seal` is called with each record's memory, its plaintext
    /// between the two gaps, and what is to be written is the records then.
    ///
    /// # Errors
    /// Those of `seal`.
    pub fn seal_slots<E>(&mut self, mut seal: impl FnMut(&mut [u8]) -> Result<(), E>) -> Result<(), E> {
        debug_assert!(self.slotted, "only slots have gaps");
        let mut runs = 0;
        for index in 0..self.pieces.len() {
            let record = self.pieces[index].start - GAP_BEFORE..self.pieces[index].end + GAP_AFTER;
            seal(&mut self.memory[record.clone()])?;
            match self.pieces[..runs].last_mut() {
                Some(last) if last.end == record.start => last.end = record.end,
                Some(_) | None => {
                    self.pieces[runs] = record;
                    runs += 1;
                }
            }
        }
        self.pieces.truncate(runs);
        Ok(())
    }

    /// The memory before the first record.
    pub fn headroom_mut(&mut self) -> &mut [u8] {
        &mut self.memory[..HEADROOM]
    }

    /// Says that the headroom holds a record too, which is written first.
    pub fn prepend_headroom(&mut self) {
        if let Some(first) = self.pieces.first_mut() {
            first.start -= HEADROOM;
        }
    }

    /// What is left to be written, as the kernel takes it: the number of slices that are set.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; MAX_PIECES]) -> usize {
        let left = &self.pieces[self.written..];
        for (slice, piece) in slices.iter_mut().zip(left) {
            *slice = IoSlice::new(&self.memory[piece.clone()]);
        }
        left.len().min(MAX_PIECES)
    }

    /// The first piece that is left to be written.
    pub fn first_piece(&self) -> &[u8] {
        self.pieces.get(self.written).map_or(&[], |piece| &self.memory[piece.clone()])
    }

    /// Whether more than one piece is left to be written.
    pub fn is_scattered(&self) -> bool {
        self.pieces.len() - self.written > 1
    }

    /// Says that `written` more bytes are.
    pub fn advance(&mut self, mut written: usize) {
        while let Some(piece) = self.pieces.get_mut(self.written) {
            if written < piece.len() {
                piece.start += written;
                return;
            }
            written -= piece.len();
            self.written += 1;
        }
    }
}

/// Room for every slice that [`Slab::slices`] sets.
pub fn no_slices<'a>() -> [IoSlice<'a>; MAX_PIECES] {
    [IoSlice::new(&[]); MAX_PIECES]
}

impl Drop for Slab {
    fn drop(&mut self) {
        if self.memory.is_empty() {
            return;
        }
        let idle = Idle { memory: mem::take(&mut self.memory), pieces: mem::take(&mut self.pieces) };
        // While the thread ends there may be no pool any more.
        let _ = POOL.try_with(|pool| pool.borrow_mut().take_back(idle));
    }
}

impl Pool {
    fn take_back(&mut self, mut idle: Idle) {
        let kept = if idle.memory.len() == Size::Small.bytes() {
            &mut self.small
        } else if idle.memory.len() == Size::Bulk.bytes() {
            self.lent_bulk = self.lent_bulk.saturating_sub(1);
            &mut self.bulk
        } else {
            return;
        };
        if kept.len() < KEPT {
            idle.pieces.clear();
            kept.push(idle);
        }
    }
}

const fn slot_start(index: usize) -> usize {
    HEADROOM + index * STRIDE + GAP_BEFORE
}

#[cfg(test)]
mod tests;
