//! Asking for a key: its newest record, or all of them in a segment.

use annals_core::Result;

use super::run::Unusable;
use super::{Posting, Source, Target, target};
use crate::disk::DiskFile;
use crate::log::frame::{FRAME_HEADER, FrameHeader};
use crate::log::segment::read_full;
use crate::log::tail::End;
use crate::log::topic::{Topic, lock};

impl Topic {
    /// The position of the newest durable record of a key; `None`: none is kept. Blocks; of the
    /// indexes that are missing it makes `most` at most, and counts them down.
    ///
    /// # Errors
    /// `Blocked`, when more are missing; `Corrupt`, when a record that has to be looked at is
    /// broken; the disk's.
    pub(in crate::log) fn newest_of(&self, key: &[u8], most: &mut usize) -> Result<Option<u64>> {
        let end = self.end();
        let hash = self.keys.hasher.hash(key);
        let mut below = end.next;
        while let Some(target) = self.candidate(below, &end, hash) {
            let found = match self.newest_in(&target, false, &end, (hash, key), most)? {
                Ok(found) => found,
                // The index does not fit the segment: the segment is right.
                Err(Unusable) => self
                    .newest_in(&target, true, &end, (hash, key), most)?
                    .map_err(|_| self.corrupt(target.first(), "a record is broken"))?,
            };
            if found.is_some() {
                return Ok(found);
            }
            below = target.first();
        }
        Ok(None)
    }

    /// The newest kept record of a key in one segment.
    fn newest_in(
        &self,
        target: &Target,
        anew: bool,
        end: &End,
        (hash, key): (u32, &[u8]),
        most: &mut usize,
    ) -> Result<Result<Option<u64>, Unusable>> {
        let source = self.source(target, anew, most)?;
        let mut file = None;
        // An index is asked without a bound: what it has too many would show here.
        let mut under = match source {
            Source::Growing(_) => target.ordinal(target.next),
            Source::Run(_) => u32::MAX,
        };
        loop {
            let found = match &source {
                Source::Growing(growing) => Ok(lock(growing).table.newest(hash, under)),
                Source::Run(run) => run.newest(&*self.disk, hash, under),
            };
            let posting = match found {
                Ok(Some(posting)) => posting,
                Ok(None) => return Ok(Ok(None)),
                Err(Unusable) => return Ok(Err(Unusable)),
            };
            let position = target.first() + u64::from(posting.ordinal);
            if position < end.earliest {
                return Ok(Ok(None));
            }
            let file = match &mut file {
                Some(file) => file,
                none => {
                    let opened = target.segment.open(&*self.disk);
                    none.insert(opened.map_err(|e| self.io("reading a segment", e))?)
                }
            };
            if self.frame_of(target, &posting, &**file)?.is_none() {
                return Ok(Err(Unusable));
            }
            let is_it = self.with_entry(
                &target.segment,
                position,
                u64::from(posting.entry),
                target.limit,
                |entry, bytes| entry.key_of(bytes) == Some(key),
            );
            match is_it {
                Ok(true) => return Ok(Ok(Some(position))),
                Ok(false) => under = posting.ordinal,
                Err(_) if !anew => return Ok(Err(Unusable)),
                Err(e) => return Err(e),
            }
        }
    }

    /// The first `most` records of a segment from position `from` on whose keys have this hash, in
    /// order, and whether there are more. `anew`: what it answered last does not fit the segment.
    ///
    /// # Errors
    /// `Corrupt`, when the segment has no index and a record in it is broken; `NotFound` when it
    /// is gone; the disk's.
    pub(in crate::log) fn postings(
        &self,
        target: &Target,
        anew: bool,
        hash: u32,
        from: u64,
        most: usize,
    ) -> Result<(Vec<Posting>, bool)> {
        let from = target.ordinal(from);
        let mut any = usize::MAX;
        match self.source(target, anew, &mut any)? {
            Source::Growing(growing) => {
                let below = target.ordinal(target.next);
                Ok(lock(&growing).table.from(hash, from, below, most))
            }
            Source::Run(run) => match run.from(&*self.disk, hash, from, most) {
                Ok(found) => Ok(found),
                Err(Unusable) => match self.source(target, true, &mut any)? {
                    Source::Run(run) => run
                        .from(&*self.disk, hash, from, most)
                        .map_err(|_| self.corrupt(target.first(), "an index just made is broken")),
                    Source::Growing(_) => {
                        Err(self.corrupt(target.first(), "a sealed segment still grows"))
                    }
                },
            },
        }
    }

    /// The header of a posting's frame; `None`: the posting does not fit the segment.
    pub(in crate::log) fn frame_of(
        &self,
        target: &Target,
        posting: &Posting,
        file: &dyn DiskFile,
    ) -> Result<Option<FrameHeader>> {
        let mut bytes = [0; FRAME_HEADER];
        read_full(file, &mut bytes, u64::from(posting.frame))
            .map_err(|e| self.io("reading a segment", e))?;
        Ok(FrameHeader::decode(&bytes, self.id.tag())
            .filter(|header| posting.lies_in(target.first(), header)))
    }

    /// The newest segment that begins before `below` and may hold a key of this hash; those that
    /// do not are passed over in memory.
    fn candidate(&self, below: u64, end: &End, hash: u32) -> Option<Target> {
        if below <= end.earliest {
            return None;
        }
        let segments = self.read_segments();
        let mut held = lock(&self.keys.held);
        let mut behind = segments.range(below..).next().map(|(_, segment)| segment);
        for (first, segment) in segments.range(..below).rev() {
            let known = held.touch(*first);
            let passes = match known {
                Some(Source::Run(run)) => run.may_hold(hash),
                _ => true,
            };
            if passes {
                return Some(target(segment, behind, end));
            }
            if *first <= end.earliest {
                return None;
            }
            behind = Some(segment);
        }
        None
    }
}
