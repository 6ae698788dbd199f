//! One direction of a copy: read, write, pass the end on.
//!
//! Memory is held only while bytes are on their way, so an idle connection holds none. Nothing is read
//! while something is unsent: that is the whole of back-pressure.

use std::{
    io, mem,
    task::{Context, Poll, ready},
};

use super::{
    end::{End, Fault},
    pace::Pace,
    splice::Pipe,
};
use crate::slab::{Size, Slab};

/// Bytes that one turn of a direction moves at most, so that one busy connection does not keep a worker from its
/// others: two reads of the largest size, a tenth of a millisecond.
const TURN: usize = 512 * 1024;

/// What became of a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlowEnd {
    /// The reader ended and the writer was told.
    Passed,
    /// The reader failed; all it had given before was written.
    ReaderFailed(Fault),
    /// The writer failed, as the attempt to write says.
    WriterFailed(Fault),
}

#[derive(Debug)]
pub(super) struct Flow {
    /// What was read and is not written.
    held: Slab,
    /// What was spliced and is not written. Never while a slab holds something.
    piped: Pipe,
    /// The last splice left open whether the reader's socket is empty.
    unsure: bool,
    pace: Pace,
    has_read: bool,
    /// The other direction could no longer write to this one's reader.
    reader_lost: bool,
    reader_end: Option<Result<(), Fault>>,
    finished: Option<FlowEnd>,
}

impl Flow {
    /// `first` was already read.
    pub(super) fn new(first: &[u8]) -> Self {
        Self {
            held: if first.is_empty() { Slab::default() } else { Slab::holding(first) },
            piped: Pipe::default(),
            unsure: false,
            pace: Pace::default(),
            has_read: !first.is_empty(),
            reader_lost: false,
            reader_end: None,
            finished: None,
        }
    }

    /// Whether the reader gave a byte, written or not.
    pub(super) fn has_read(&self) -> bool {
        self.has_read
    }

    /// The other direction could no longer write to this one's reader: its end, too, is a failure then.
    pub(super) fn reader_is_lost(&mut self) {
        self.reader_lost = true;
    }

    #[cfg(test)]
    pub(super) fn piped(&self) -> &Pipe {
        &self.piped
    }

    pub(super) fn finished(&self) -> Option<FlowEnd> {
        self.finished
    }

    /// The reader's failure while what it gave before is still unwritten.
    pub(super) fn undelivered_fault(&self) -> Option<Fault> {
        match (self.finished, self.reader_end) {
            (None, Some(Err(fault))) => Some(fault),
            (_, _) => None,
        }
    }

    /// Moves bytes until nothing more can be done now. `count` is told of every byte that was written.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut End,
        writer: &mut End,
        count: impl Fn(u64),
    ) -> Poll<FlowEnd> {
        if let Some(end) = self.finished {
            return Poll::Ready(end);
        }
        let end = ready!(self.poll_to_end(cx, reader, writer, count));
        self.held = Slab::default();
        self.piped = Pipe::default();
        self.finished = Some(end);
        Poll::Ready(end)
    }

    fn poll_to_end(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut End,
        writer: &mut End,
        count: impl Fn(u64),
    ) -> Poll<FlowEnd> {
        let mut turn = TURN;
        loop {
            if let Err(fault) = ready!(self.poll_deliver(cx, writer, &count)) {
                return Poll::Ready(FlowEnd::WriterFailed(fault));
            }
            match self.reader_end {
                Some(Ok(())) => {
                    return Poll::Ready(match ready!(writer.poll_end(cx)) {
                        Ok(()) => FlowEnd::Passed,
                        Err(error) => FlowEnd::WriterFailed(writer.fault_of(&error)),
                    });
                }
                Some(Err(fault)) => {
                    // Whether this last flush succeeds no longer matters: the fault is told either way.
                    let _ = ready!(writer.poll_flush(cx));
                    return Poll::Ready(FlowEnd::ReaderFailed(fault));
                }
                None => {}
            }
            if let Err(error) = ready!(writer.poll_flush(cx)) {
                return Poll::Ready(FlowEnd::WriterFailed(writer.fault_of(&error)));
            }
            if turn == 0 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match ready!(self.poll_take(cx, reader, writer)) {
                Ok(0) if self.reader_lost => self.reader_end = Some(reader.end_once_lost()),
                Ok(0) => self.reader_end = Some(Ok(())),
                Ok(taken) => {
                    self.has_read = true;
                    turn = turn.saturating_sub(taken);
                }
                Err(error) => self.reader_end = Some(Err(reader.fault_of(&error))),
            }
        }
    }

    /// Writes all that is held, and holds neither slab nor pipe then.
    fn poll_deliver(
        &mut self,
        cx: &mut Context<'_>,
        writer: &mut End,
        count: impl Fn(u64),
    ) -> Poll<Result<(), Fault>> {
        while !self.held.is_empty() || !self.piped.is_empty() {
            let written = match writer {
                End::Plain(to) if !self.piped.is_empty() => self.piped.poll_drain(to, cx),
                End::Mesh(_) | End::Plain(_) => writer.poll_write(cx, &mut self.held),
            };
            match ready!(written) {
                Ok(0) => return Poll::Ready(Err(writer.gone())),
                Err(error) => return Poll::Ready(Err(writer.fault_of(&error))),
                Ok(written) => count(written as u64),
            }
        }
        self.held = Slab::default();
        self.piped = Pipe::default();
        Poll::Ready(Ok(()))
    }

    /// Takes what the reader has. 0 means that it has ended.
    fn poll_take(&mut self, cx: &mut Context<'_>, reader: &mut End, writer: &End) -> Poll<io::Result<usize>> {
        let mut size = self.pace.size();
        if size == Size::Bulk
            && let (End::Plain(from), End::Plain(_)) = (&*reader, writer)
        {
            ready!(from.poll_read_ready(cx))?;
            if mem::take(&mut self.unsure) {
                size = Size::Small;
            } else if let Some(mut pipe) = Pipe::lend() {
                let moved = pipe.fill(from)?;
                if moved > 0 {
                    self.unsure = !pipe.is_full();
                    self.pace.saw(moved, pipe.is_full());
                    self.piped = pipe;
                    return Poll::Ready(Ok(moved));
                }
                size = Size::Small;
            }
        }
        let slab = ready!(reader.poll_fill(cx, size))?;
        let read = slab.len();
        if read > 0 {
            self.pace.saw(read, slab.is_full());
            self.held = slab;
        }
        Poll::Ready(Ok(read))
    }
}
