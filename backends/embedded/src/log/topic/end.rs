//! The durable end, where another process publishes it.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use annals_core::Result;

use super::{Place, Topic, lock};
use crate::disk::{Disk, OpenMode};
use crate::error::of_io;
use crate::log::recover::scan_end;
use crate::log::tail::{End, Tail};
use crate::slot::{Seen, Slot};

/// How long the end that a scan found is believed where `tail` is lost.
const RESCAN: Duration = Duration::from_secs(1);

/// How often, and how far apart, a reader of a broken `tail` looks whether a commit is over: that
/// one mends the place, or the one after it does.
const COMMIT_LOOKS: u32 = 1000;
const COMMIT_PAUSE: Duration = Duration::from_millis(1);

#[derive(Debug)]
pub(in crate::log) struct Foreign {
    /// `None`: the file is lost, until somebody writes and makes it anew.
    slot: Option<Slot>,
    /// The end that a scan found, the tail value that it was made for, and when.
    scanned: Option<(Option<Tail>, End, Instant)>,
}

impl Foreign {
    pub(super) fn new(place: &Place) -> Result<Self> {
        let mut new = Self {
            slot: None,
            scanned: None,
        };
        let dir = place.root.join(place.name.as_str());
        new.open(&*place.disk, &dir)
            .map_err(|e| of_io("opening the topic", e).on_topic(&place.name))?;
        Ok(new)
    }

    /// Opens the file if it is there.
    fn open(&mut self, disk: &dyn Disk, dir: &Path) -> io::Result<()> {
        if self.slot.is_none() {
            match Slot::open(disk, &dir.join("tail"), OpenMode::Read) {
                Ok(slot) => self.slot = Some(slot),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Whether a group is being committed, and what `tail` holds then; nothing where it is lost.
    fn peek(&self) -> io::Result<(bool, Seen)> {
        match &self.slot {
            Some(slot) => Ok((slot.is_held()?, slot.look()?)),
            None => Ok((
                false,
                Seen {
                    value: None,
                    broken: false,
                },
            )),
        }
    }

    /// Whether a scan is still good: without the file nobody says when to scan again.
    fn is_recent(&self, at: &Instant) -> bool {
        self.slot.is_some() || at.elapsed() < RESCAN
    }

    /// Whether a group is being committed, and what `tail` says then.
    pub(in crate::log) fn look(&self, topic: &Topic) -> Result<(bool, Option<Tail>)> {
        let (held, seen) = self.peek().map_err(|e| topic.io("reading tail", e))?;
        Ok((held, seen.value.as_deref().and_then(Tail::decode)))
    }
}

impl Topic {
    /// The durable end now. Blocks for a read of `tail` where the writer is another process; where
    /// a place of it is broken, for a scan, and for the end of a commit that is under way.
    ///
    /// # Errors
    /// `Corrupt`; `Blocked` when a commit takes longer than a second while `tail` is broken; the
    /// disk's.
    pub fn refresh(&self) -> Result<End> {
        let Some(foreign) = &self.foreign else {
            return Ok(self.end());
        };
        for look in 0..=COMMIT_LOOKS {
            if look > 0 {
                // With nothing locked: others look for themselves.
                std::thread::sleep(COMMIT_PAUSE);
            }
            if let Some(end) = self.find_end(&mut lock(foreign))? {
                return Ok(end);
            }
        }
        let late = io::Error::new(
            io::ErrorKind::TimedOut,
            "a place of tail is broken, and its writer is at work",
        );
        Err(self.io("reading tail", late))
    }

    /// `None`: nobody can say while a commit is under way.
    fn find_end(&self, foreign: &mut Foreign) -> Result<Option<End>> {
        let fail = |e| self.io("reading tail", e);
        // A broken place may have held a newer end: the other one's is no more than a lower bound.
        // Behind it lie what was acknowledged and, while a group is being committed, what is not
        // durable.
        foreign.open(&*self.disk, &self.dir).map_err(fail)?;
        let (held, seen) = foreign.peek().map_err(fail)?;
        let tail = seen.value.as_deref().and_then(Tail::decode);
        let boot = self.disk.boot();
        if let Some(tail) = tail.filter(|t| t.boot == boot && !seen.broken) {
            foreign.scanned = None;
            return self.see(tail.end).map(Some);
        }
        if held && seen.broken {
            return Ok(None);
        }
        let scanned = foreign.scanned.as_ref();
        if let Some((_, end, _)) =
            scanned.filter(|(known, _, at)| *known == tail && foreign.is_recent(at))
        {
            return self.see(*end).map(Some);
        }
        self.reload()?;
        let end = scan_end(self, tail.as_ref())?;
        // A whole `tail` of another boot: nobody has written since the page cache was lost, and
        // what the disk holds, is. Else a writer that was killed may have left what the cache alone
        // holds: it is made durable before it is shown.
        if seen.broken || tail.is_none_or(|tail| tail.boot == boot) {
            self.sync_active(&end)?;
        }
        let (held, again) = foreign.peek().map_err(fail)?;
        if again != seen || (held && seen.broken) {
            return Ok(None);
        }
        foreign.scanned = Some((tail, end, Instant::now()));
        self.see(end).map(Some)
    }

    /// Makes durable what a segment holds, whoever wrote it.
    fn sync_active(&self, end: &End) -> Result<()> {
        let Some(segment) = self.read_segments().get(&end.segment).cloned() else {
            return Ok(());
        };
        segment
            .open(&*self.disk)
            .and_then(|file| file.sync_data())
            .map_err(|e| self.io("syncing a segment whose tail is broken", e))
    }

    /// What is broken in `tail` and `start`, a line each.
    pub(in crate::log) fn broken_slots(&self) -> Result<Vec<String>> {
        let mut broken = Vec::new();
        for (file, what) in [
            (
                "tail",
                "readers find the end by the records instead, and the next appends mend it",
            ),
            (
                "start",
                "the oldest position kept may be taken for an earlier one, until retention next moves it",
            ),
        ] {
            let seen = Slot::open(&*self.disk, &self.dir.join(file), OpenMode::Read)
                .and_then(|slot| slot.look());
            let seen = match seen {
                Ok(seen) => seen,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    broken.push(format!("the file {file} is missing"));
                    continue;
                }
                Err(e) => return Err(self.io(&format!("reading {file}"), e)),
            };
            if seen.broken {
                broken.push(format!("a place of the file {file} is broken; {what}"));
            }
        }
        Ok(broken)
    }

    /// Takes over an end that another process published.
    fn see(&self, mut end: End) -> Result<End> {
        if !self.read_segments().contains_key(&end.segment) {
            self.reload()?;
        }
        end.earliest = end.earliest.max(self.end().earliest);
        self.show(end);
        Ok(end)
    }
}
