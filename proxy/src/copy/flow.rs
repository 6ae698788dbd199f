//! One direction of a copy: read, write, pass the end on.
//!
//! The buffer exists only while bytes are on their way, so an idle connection holds none. Nothing is
//! read while something is unwritten: that is the whole of back-pressure.

use std::{
    io,
    task::{Context, Poll, ready},
};

use tokio::io::ReadBuf;

use super::end::{End, Fault};

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
    buffer: Vec<u8>,
    /// The unwritten part of `buffer`.
    start: usize,
    end: usize,
    size: usize,
    unflushed: bool,
    has_read: bool,
    /// The other direction could no longer write to this one's reader.
    reader_lost: bool,
    reader_end: Option<Result<(), Fault>>,
    finished: Option<FlowEnd>,
}

impl Flow {
    /// `first` was already read.
    pub(super) fn new(size: usize, first: Vec<u8>) -> Self {
        Self {
            start: 0,
            end: first.len(),
            has_read: !first.is_empty(),
            buffer: first,
            size,
            unflushed: false,
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
        self.buffer = Vec::new();
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
        loop {
            if self.start < self.end {
                match ready!(writer.poll_write(cx, &self.buffer[self.start..self.end])) {
                    Ok(0) => return Poll::Ready(FlowEnd::WriterFailed(writer.gone())),
                    Err(error) => return Poll::Ready(FlowEnd::WriterFailed(writer.fault_of(&error))),
                    Ok(written) => {
                        self.start += written;
                        self.unflushed = true;
                        count(written as u64);
                    }
                }
                continue;
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
            match self.poll_fill(cx, reader) {
                Poll::Ready(Ok(0)) if self.reader_lost => self.reader_end = Some(reader.end_once_lost()),
                Poll::Ready(Ok(0)) => self.reader_end = Some(Ok(())),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => self.reader_end = Some(Err(reader.fault_of(&error))),
                Poll::Pending => {
                    self.buffer = Vec::new();
                    if self.unflushed {
                        if let Err(error) = ready!(writer.poll_flush(cx)) {
                            return Poll::Ready(FlowEnd::WriterFailed(writer.fault_of(&error)));
                        }
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>, reader: &mut End) -> Poll<io::Result<usize>> {
        if self.buffer.len() < self.size {
            self.buffer.resize(self.size, 0);
        }
        let mut buf = ReadBuf::new(&mut self.buffer);
        ready!(reader.poll_read(cx, &mut buf))?;
        self.start = 0;
        self.end = buf.filled().len();
        self.has_read |= self.end > 0;
        Poll::Ready(Ok(self.end))
    }
}
