//! From what arrives, cut anywhere, to plaintext in a slab.

use super::{
    content::RecordError,
    key::Key,
    open::{Opened, Opener},
    schedule::Schedule,
};
use crate::slab::{Size, Slab};

/// The receiving half without its socket.
#[derive(Debug)]
pub(super) struct Receiver {
    opener: Opener,
    /// The part of a record that has arrived, and, before the first read, all that came with the handshake.
    part: Vec<u8>,
    /// `part` may hold whole records.
    unopened: bool,
    key_update_wanted: bool,
    ended: bool,
    /// A failure that came together with bytes, which are read first.
    failed: Option<RecordError>,
}

impl Receiver {
    /// Opens with `key`; `rest` arrived before.
    pub(super) fn new(key: Key, rest: Vec<u8>) -> Self {
        Self {
            opener: Opener::new(key),
            unopened: !rest.is_empty(),
            part: rest,
            key_update_wanted: false,
            ended: false,
            failed: None,
        }
    }

    /// Gives back what can be made again.
    pub(super) fn rest(&mut self) {
        self.opener.rest();
    }

    /// A slab of this size, or one with room for what is there already.
    pub(super) fn slab(&self, size: Size) -> Slab {
        if self.unopened { Slab::with_room(self.part.len()) } else { Slab::lend(size) }
    }

    /// Where in the slab the next bytes belong; `None` while what is there is to be opened first.
    pub(super) fn room<'a>(&self, slab: &'a mut Slab) -> Option<&'a mut [u8]> {
        (!self.unopened).then(|| &mut slab.memory_mut()[self.part.len()..])
    }

    /// Opens every whole record, now that `read` bytes are in the slab's room. What is left of the last one is kept
    /// for the next read; what was wrong is told by [`Self::failed`], after the plaintext before it.
    pub(super) fn arrived(&mut self, slab: &mut Slab, read: usize, schedule: &mut Schedule) {
        let part = self.part.len();
        slab.memory_mut()[..part].copy_from_slice(&self.part);
        self.unopened = false;
        if let Err(error) = self.open_all(slab, part + read, schedule) {
            self.part = Vec::new();
            self.failed = Some(error);
        }
    }

    fn open_all(
        &mut self,
        slab: &mut Slab,
        filled: usize,
        schedule: &mut Schedule,
    ) -> Result<(), RecordError> {
        let mut from = 0;
        while !self.ended {
            let buffer = &mut slab.memory_mut()[..filled];
            let Some((opened, next)) = self.opener.open(buffer, from, schedule)? else { break };
            match opened {
                Opened::Data(plaintext) => slab.push_opened(plaintext),
                Opened::End => self.ended = true,
                Opened::KeyUpdateRequested => self.key_update_wanted = true,
                Opened::Nothing => {}
            }
            from = next;
        }
        if self.ended {
            // Whatever follows the end is nobody's.
            from = filled;
        }
        if from == filled {
            self.part = Vec::new();
        } else {
            self.part.clear();
            self.part.extend_from_slice(&slab.memory_mut()[from..filled]);
        }
        Ok(())
    }

    /// Whether the peer has asked for a new key since this was last called.
    pub(super) fn wants_key_update(&mut self) -> bool {
        std::mem::take(&mut self.key_update_wanted)
    }

    /// Whether the peer said that its application ended.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// Why nothing more can be opened, told once.
    pub(super) fn failed(&mut self) -> Option<RecordError> {
        self.failed.take()
    }
}
