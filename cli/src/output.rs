//! Standard output, record by record: what was written is known exactly, however it ends.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FileType;
use rustix::io::Errno;

use crate::exit::Failure;
use crate::stop::Stop;

/// A pipe that is ready takes this much without blocking (`PIPE_BUF`).
const PIPE_STEP: usize = 4096;
/// What a file is given at once.
const FILE_STEP: usize = 1 << 20;
/// How long it waits at most for a reader before it looks whether it shall stop.
const LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};

/// Text to be written, with the ends of its records.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    pub(crate) bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// How much of a chunk was written.
#[derive(Debug)]
pub(crate) struct Written {
    /// Whole records; a part of the next one may have been written too.
    pub(crate) records: usize,
    pub(crate) ending: Ending,
}

/// Why no more was written.
#[derive(Debug)]
pub(crate) enum Ending {
    /// There is no more.
    All,
    /// Nobody reads any more.
    Closed,
    /// The user wants it to end.
    Asked,
    /// The system says no.
    Failed(io::Error),
}

impl Chunk {
    /// One record of text.
    pub(crate) fn of(text: String) -> Self {
        let bytes = text.into_bytes();
        Self {
            ends: vec![bytes.len()],
            bytes,
        }
    }

    /// Ends a record: what was pushed since the last end is one.
    pub(crate) fn end_record(&mut self) {
        self.ends.push(self.bytes.len());
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn records(&self) -> usize {
        self.ends.len()
    }

    /// Writes it to standard output, off the async workers, and gives it back.
    ///
    /// Asked to stop it goes on to the end of the record it is in; asked twice it stops there.
    pub(crate) async fn write(self, stop: &Stop) -> Result<(Self, Written), Failure> {
        let stop = stop.clone();
        let writing = move || {
            let written = self.write_to(rustix::stdio::stdout(), || stop.times());
            (self, written)
        };
        tokio::task::spawn_blocking(writing)
            .await
            .map_err(|e| Failure::failed(format!("writing to standard output failed: {e}")))
    }

    fn write_to(&self, out: BorrowedFd<'_>, asked: impl Fn() -> u32) -> Written {
        let step = if is(out, FileType::RegularFile) {
            FILE_STEP
        } else {
            PIPE_STEP
        };
        let mut at = 0;
        let mut records = 0;
        let ending = loop {
            while self.ends.get(records).is_some_and(|end| *end <= at) {
                records += 1;
            }
            if at >= self.bytes.len() {
                break Ending::All;
            }
            let begins = at == records.checked_sub(1).map_or(0, |last| self.end(last));
            let mut limit = self.bytes.len();
            match asked() {
                0 => {}
                1 if !begins => limit = self.end(records),
                _ => break Ending::Asked,
            }
            let mut ready = [PollFd::from_borrowed_fd(out, PollFlags::OUT)];
            match poll(&mut ready, Some(&LOOK)) {
                Ok(0) | Err(Errno::INTR) => continue,
                Ok(_) => {}
                Err(e) => break Ending::Failed(e.into()),
            }
            let next = self.bytes.get(at..limit.min(at + step)).unwrap_or_default();
            match rustix::io::write(out, next) {
                Ok(n) => at += n,
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(Errno::PIPE) => break Ending::Closed,
                Err(e) => break Ending::Failed(e.into()),
            }
        };
        Written { records, ending }
    }

    fn end(&self, record: usize) -> usize {
        self.ends.get(record).copied().unwrap_or(self.bytes.len())
    }
}

fn is(out: BorrowedFd<'_>, kind: FileType) -> bool {
    rustix::fs::fstat(out).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == kind)
}

/// Waits until nobody reads standard output any more, where that can be noticed without writing.
///
/// # Cancel safety
/// Dropping it stops waiting; the thread that watches ends with the process.
pub(crate) async fn closed() {
    let out = rustix::stdio::stdout();
    if is(out, FileType::Fifo) || is(out, FileType::Socket) {
        let (tell, told) = tokio::sync::oneshot::channel();
        let watching = std::thread::Builder::new().spawn(move || {
            // Asked for nothing, a pipe still says that its other end is gone.
            let mut watched = [PollFd::from_borrowed_fd(out, PollFlags::empty())];
            while matches!(poll(&mut watched, None), Ok(0) | Err(Errno::INTR)) {}
            let _ = tell.send(());
        });
        if watching.is_ok() && told.await.is_ok() {
            return;
        }
    }
    std::future::pending::<()>().await;
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::os::fd::AsFd as _;

    use super::*;

    /// Three records, each over what a pipe takes in one step.
    fn chunk() -> Chunk {
        let mut chunk = Chunk::default();
        for byte in *b"abc" {
            chunk.bytes.resize(chunk.bytes.len() + 10_000, byte);
            chunk.end_record();
        }
        chunk
    }

    #[test]
    fn asked_once_it_ends_behind_a_record_and_asked_twice_at_once() {
        for (times, written) in [(1, 20_000), (2, 4 * PIPE_STEP)] {
            let (read, write) = io::pipe().unwrap();
            let steps = Cell::new(0);
            let asked = || {
                steps.set(steps.get() + 1);
                // After four steps it is in the second record.
                if steps.get() > 4 { times } else { 0 }
            };
            let done = chunk().write_to(write.as_fd(), asked);
            assert!(matches!(done.ending, Ending::Asked), "{done:?}");
            drop(write);
            let mut text = Vec::new();
            io::Read::read_to_end(&mut { read }, &mut text).unwrap();
            assert_eq!(done.records, text.len() / 10_000);
            assert_eq!(text.len(), written);
        }
    }

    #[test]
    fn a_reader_who_goes_is_noticed_with_the_count_of_what_was_taken() {
        let (read, write) = io::pipe().unwrap();
        let before = chunk().write_to(write.as_fd(), || 0);
        assert!(matches!(before.ending, Ending::All));
        assert_eq!(before.records, 3);
        drop(read);
        let after = chunk().write_to(write.as_fd(), || 0);
        assert!(matches!(after.ending, Ending::Closed));
        assert_eq!(after.records, 0);
    }
}
