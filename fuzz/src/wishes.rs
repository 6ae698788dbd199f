//! Decisions taken from bytes: what a target that builds something asks for next.

/// Bytes that are used up one by one; without any left, everything is 0.
pub(crate) struct Wishes<'a>(pub(crate) &'a [u8]);

impl Wishes<'_> {
    /// The next byte.
    pub(crate) fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().map_or((0, self.0), |(first, rest)| (*first, rest));
        self.0 = rest;
        first
    }

    /// One of so many, the first where nothing is left.
    pub(crate) fn one_of(&mut self, many: u8) -> u8 {
        self.byte() % many
    }

    /// One of two; rarely true, so that most of what is built is good but for one thing.
    pub(crate) fn rarely(&mut self) -> bool {
        self.byte() > 0xe0
    }
}
