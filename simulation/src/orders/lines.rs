//! The way of a line to whoever reads it: workers push, one asks that all be written, a thread writes.

use std::{
    io::{self, Write},
    sync::Arc,
    time::Duration,
};

use shuttle::{sync::Mutex, thread};

use crate::line_queue::{LineQueue, Room};

/// So little that some find it full.
const ROOM: Room = Room { lines: 2, batch: 8 };
const WRITERS: usize = 2;
const LINES_EACH: usize = 3;

#[derive(Clone, Default)]
struct Paper(Arc<Mutex<String>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().push_str(str::from_utf8(bytes).unwrap());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Paper {
    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().lines().map(str::to_owned).collect()
    }
}

/// Every line is written whole, in its thread's order, or counted; after a flush that held, what was pushed before is written.
pub fn every_line_is_written_or_counted() {
    let paper = Paper::default();
    let queue = LineQueue::start("lines", paper.clone(), ROOM, |_| {}).unwrap();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (queue, paper) = (queue.clone(), paper.clone());
            thread::spawn(move || {
                for line in 0..LINES_EACH {
                    queue.push(format!("{writer} {line}\n"));
                    thread::yield_now();
                }
                let dropped = queue.dropped();
                if queue.flush(Duration::MAX) && dropped == 0 && queue.dropped() == 0 {
                    let own =
                        paper.lines().iter().filter(|line| line.starts_with(&format!("{writer} "))).count();
                    assert_eq!(own, LINES_EACH, "a flush did not wait for what was pushed before it");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().unwrap();
    }
    // The last flush may have found the queue full.
    while !queue.flush(Duration::MAX) {
        thread::yield_now();
    }
    let (lines, dropped) = (paper.lines(), queue.dropped());
    assert_eq!(lines.len() as u64 + dropped, (WRITERS * LINES_EACH) as u64, "{lines:?}, {dropped} dropped");
    for writer in 0..WRITERS {
        let own: Vec<_> = lines.iter().filter(|line| line.starts_with(&format!("{writer} "))).collect();
        assert!(own.is_sorted(), "{own:?}");
    }
}
