//! Where the records of a key lie.
//!
//! A sealed segment has an index beside it: a run of postings sorted by key hash, and a filter.
//! For the segment that grows there is a table in memory, from the first question on; each
//! question first takes in what became durable since the last one, so an append pays nothing, and
//! an answer is as new as the durable end that it was asked with. Both hold hashes only: whoever
//! asks compares the real key.
//!
//! Memory: the table of the segment that grows takes at most 53 bytes a record, of which
//! [`Sizes::records`](super::Sizes) bounds the number; all else is kept up to [`KEPT_BYTES`] a
//! topic and read again, or made again, when it is asked for.

mod ask;
mod build;
mod filter;
mod format;
mod hash;
mod run;
mod table;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use annals_core::Result;

pub(super) use self::build::too_large;
use self::format::Extent;
use self::hash::KeyHasher;
use self::run::Run;
pub(super) use self::run::State;
pub(super) use self::table::Table;
use super::frame::{FRAME_HEADER, FrameHeader};
use super::options::TopicId;
use super::segment::{SEGMENT_HEADER, Segment};
use super::tail::End;
use super::topic::{Topic, lock};

/// What a topic keeps in memory of the indexes of its sealed segments: the filters of some 8 GiB
/// of records of 256 bytes with a key each of its own, of much more where keys repeat.
const KEPT_BYTES: usize = 32 << 20;

/// Where a record lies that may have a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Posting {
    /// Its position, counted from the segment's first.
    pub(super) ordinal: u32,
    /// Its frame and itself, in bytes from the segment's start.
    pub(super) frame: u32,
    pub(super) entry: u32,
}

impl Posting {
    /// Whether it can be an entry of its frame, in a segment that begins with position `first`.
    pub(super) fn lies_in(&self, first: u64, frame: &FrameHeader) -> bool {
        let position = first + u64::from(self.ordinal);
        let body = u64::from(self.frame) + FRAME_HEADER as u64;
        let entry = u64::from(self.entry);
        (frame.first..frame.first + u64::from(frame.count)).contains(&position)
            && (body..body + u64::from(frame.body)).contains(&entry)
    }
}

/// The keys of a topic.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) hasher: KeyHasher,
    held: Mutex<Held>,
    /// Held while an index is made, and while a segment and its index are removed.
    pub(super) working: Mutex<Working>,
}

#[derive(Debug, Default)]
pub(super) struct Working {
    /// No file is to be written any more.
    stopped: bool,
}

/// What is in memory, by the segment's first position.
#[derive(Debug)]
struct Held {
    sources: BTreeMap<u64, Kept>,
    clock: u64,
    most: usize,
}

#[derive(Debug)]
struct Kept {
    source: Source,
    bytes: usize,
    used: u64,
}

/// What knows a segment's keys.
#[derive(Clone, Debug)]
enum Source {
    Growing(Arc<Mutex<Growing>>),
    Run(Arc<Run>),
}

/// The table of a segment and how far it goes.
#[derive(Debug)]
struct Growing {
    table: Table,
    bytes: u64,
    next: u64,
}

/// A segment that is asked for a key.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) segment: Arc<Segment>,
    /// Where its durable data ends, in bytes, and the position behind it.
    pub(super) limit: u64,
    pub(super) next: u64,
    /// `None`: it still grows.
    sealed: Option<Extent>,
}

impl Target {
    pub(super) fn first(&self) -> u64 {
        self.segment.header.first
    }

    fn ordinal(&self, position: u64) -> u32 {
        u32::try_from(position.saturating_sub(self.first())).unwrap_or(u32::MAX)
    }
}

impl Keys {
    pub(super) fn new(topic: TopicId) -> Self {
        Self {
            hasher: KeyHasher::new(topic),
            held: Mutex::new(Held {
                sources: BTreeMap::new(),
                clock: 0,
                most: KEPT_BYTES,
            }),
            working: Mutex::default(),
        }
    }

    /// Keeps less in memory; for tests.
    #[cfg(test)]
    pub(super) fn keep_at_most(&self, bytes: usize) {
        let mut held = lock(&self.held);
        held.most = bytes;
        held.evict();
    }

    /// The memory that it takes besides the newest segment's; for tests.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        lock(&self.held)
            .sources
            .values()
            .rev()
            .skip(1)
            .map(|kept| kept.bytes)
            .sum()
    }

    /// Forgets segments that are gone.
    pub(super) fn retain(&self, there: impl Fn(u64) -> bool) {
        lock(&self.held).sources.retain(|first, _| there(*first));
    }

    /// A sealed segment's index takes the place of its table.
    fn replace_table(&self, target: &Target, file: Vec<u8>) {
        let mut held = lock(&self.held);
        let first = target.first();
        let has_table = held
            .sources
            .get(&first)
            .is_some_and(|kept| matches!(kept.source, Source::Growing(_)));
        let path = target.segment.path.with_extension("idx");
        if has_table && let Ok(run) = Run::of(file, Some(path)) {
            held.put(first, Source::Run(Arc::new(run)));
        }
    }
}

impl Held {
    fn touch(&mut self, first: u64) -> Option<&Source> {
        self.clock += 1;
        let clock = self.clock;
        let kept = self.sources.get_mut(&first)?;
        kept.used = clock;
        Some(&kept.source)
    }

    fn put(&mut self, first: u64, source: Source) {
        self.clock += 1;
        let bytes = match &source {
            Source::Growing(growing) => lock(growing).table.bytes(),
            Source::Run(run) => run.bytes(),
        };
        let kept = Kept {
            source,
            bytes,
            used: self.clock,
        };
        self.sources.insert(first, kept);
        self.evict();
    }

    /// Lets go of what was not asked for longest; never of the newest segment, which may be the
    /// one that grows.
    fn evict(&mut self) {
        let Some(newest) = self.sources.last_key_value().map(|(first, _)| *first) else {
            return;
        };
        let old = |sources: &BTreeMap<u64, Kept>| -> Option<u64> {
            let old = sources.iter().filter(|(first, _)| **first != newest);
            old.min_by_key(|(_, kept)| kept.used)
                .map(|(first, _)| *first)
        };
        let mut bytes: usize = self
            .sources
            .iter()
            .filter(|(first, _)| **first != newest)
            .map(|(_, kept)| kept.bytes)
            .sum();
        while bytes > self.most {
            let Some(kept) = old(&self.sources).and_then(|first| self.sources.remove(&first))
            else {
                return;
            };
            bytes = bytes.saturating_sub(kept.bytes);
        }
    }
}

impl Topic {
    /// The segment in which `position` lies, as [`Topic::postings`] wants it; none where the log
    /// goes on behind it and what follows is not there, so that it must be read as a whole.
    pub(super) fn target(&self, position: u64, end: &End) -> Option<Target> {
        let segments = self.read_segments();
        let (first, segment) = segments.range(..=position).next_back()?;
        let behind = segments
            .range(first + 1..)
            .next()
            .map(|(_, next)| next)
            .filter(|next| next.header.continues(&segment.header));
        (behind.is_some() || *first == end.segment).then(|| target(segment, behind, end))
    }

    /// All sealed segments, the newest first.
    fn sealed_targets(&self) -> Vec<Target> {
        let end = self.end();
        let segments = self.read_segments();
        segments
            .values()
            .zip(segments.values().skip(1))
            .filter(|(segment, behind)| behind.header.continues(&segment.header))
            .map(|(segment, behind)| target(segment, Some(behind), &end))
            // One whose successor was begun just now, and is not yet the end, still grows.
            .filter(|target| target.sealed.is_some())
            .rev()
            .collect()
    }

    /// What knows the keys of a segment up to the target's limit; an index that is missing is made
    /// when `most` is not 0, and counted.
    fn source(&self, target: &Target, anew: bool, most: &mut usize) -> Result<Source> {
        let known = if anew {
            None
        } else {
            lock(&self.keys.held).touch(target.first()).cloned()
        };
        match known {
            Some(Source::Growing(growing)) => {
                self.catch_up(target, &growing)?;
                return Ok(Source::Growing(growing));
            }
            Some(run) if target.sealed.is_some() => return Ok(run),
            _ => {}
        }
        if target.sealed.is_none() {
            let growing = Arc::new(Mutex::new(Growing {
                table: Table::default(),
                bytes: SEGMENT_HEADER,
                next: target.first(),
            }));
            // Two that ask at once may make one each: the later stays, both are right.
            let source = Source::Growing(Arc::clone(&growing));
            lock(&self.keys.held).put(target.first(), source.clone());
            self.catch_up(target, &growing)?;
            return Ok(source);
        }
        let working = lock(&self.keys.working);
        if !anew && let Some(run @ Source::Run(_)) = lock(&self.keys.held).touch(target.first()) {
            // Somebody else made it in the meantime.
            return Ok(run.clone());
        }
        let run = self.index_of(target, anew, !working.stopped, most)?;
        lock(&self.keys.held).put(target.first(), run.clone());
        Ok(run)
    }

    /// Takes into a table what became durable since.
    fn catch_up(&self, target: &Target, growing: &Mutex<Growing>) -> Result<()> {
        let mut growing = lock(growing);
        if growing.bytes >= target.limit {
            return Ok(());
        }
        let Growing { table, bytes, next } = &mut *growing;
        let before = table.bytes();
        let mut fits = true;
        let walked = self.walk(
            &target.segment,
            *bytes,
            *next,
            target.limit,
            |header, body, at| {
                fits &= self.each_key(target.first(), header, body, at, |hash, posting| {
                    table.insert(hash, posting);
                });
                *bytes = at + header.whole();
                *next = header.first + u64::from(header.count);
            },
        );
        let after = table.bytes();
        drop(growing);
        if after != before {
            let mut held = lock(&self.keys.held);
            if let Some(kept) = held.sources.get_mut(&target.first()) {
                kept.bytes = after;
            }
            held.evict();
        }
        if !fits {
            return Err(too_large(self));
        }
        walked
    }
}

/// A segment and its successor, for those who ask with `end`.
fn target(segment: &Arc<Segment>, behind: Option<&Arc<Segment>>, end: &End) -> Target {
    let header = &segment.header;
    let behind = behind.filter(|_| header.first != end.segment);
    let sealed = behind.map(|behind| Extent {
        topic: header.topic,
        first: header.first,
        next: behind.header.first,
        end: behind.header.previous_end,
        commit: behind.header.commit,
        time: behind.header.time,
    });
    let (limit, next) = sealed.map_or((end.bytes, end.next), |sealed| (sealed.end, sealed.next));
    Target {
        segment: Arc::clone(segment),
        limit,
        next,
        sealed,
    }
}
