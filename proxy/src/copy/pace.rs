//! How much is read at once: little while messages are small, a lot while bytes flow.

use crate::slab::{SLOT_LEN, Size};

/// Short reads in a row after which a connection is no longer in bulk. One alone is what every burst ends with.
const SHORT_READS: u8 = 2;

/// What the last reads were like.
#[derive(Debug, Default)]
pub(super) struct Pace {
    bulk: bool,
    short: u8,
}

impl Pace {
    /// The size of the next read.
    pub(super) fn size(&self) -> Size {
        if self.bulk { Size::Bulk } else { Size::Small }
    }

    /// Learns from a read of `len` bytes; `full` if it took all that there was room for.
    pub(super) fn saw(&mut self, len: usize, full: bool) {
        if full {
            self.bulk = true;
            self.short = 0;
        } else if len >= SLOT_LEN {
            self.short = 0;
        } else if self.bulk {
            self.short += 1;
            if self.short == SHORT_READS {
                *self = Self::default();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(reads: &[(usize, bool)]) -> Size {
        let mut pace = Pace::default();
        for (read, full) in reads {
            pace.saw(*read, *full);
        }
        pace.size()
    }

    #[test]
    fn reads_grow_when_one_is_filled_and_shrink_after_two_short_ones() {
        let (full, short, middling) = ((SLOT_LEN, true), (100, false), (3 * SLOT_LEN, false));
        for (reads, size) in [
            (&[][..], Size::Small),
            (&[short, short, short], Size::Small),
            (&[full], Size::Bulk),
            (&[full, short], Size::Bulk),
            (&[full, short, short], Size::Small),
            (&[full, short, middling, short], Size::Bulk),
            (&[full, short, full, short], Size::Bulk),
            (&[full, short, short, short], Size::Small),
        ] {
            assert_eq!(after(reads), size, "{reads:?}");
        }
    }
}
