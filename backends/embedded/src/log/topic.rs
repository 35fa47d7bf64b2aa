//! A topic's directory, opened: its segments and its durable end, shared by writer and readers.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use annals_core::{
    Effect, Error, ErrorKind, PartitionId, Position, Result, Retry, Timestamp, TopicName,
};
use tokio::sync::watch;

use super::keys::Keys;
use super::options::{Settings, Sizes, TopicId};
use super::segment::{
    SEGMENT_HEADER, Segment, SegmentHeader, Segments, file_name, first_in_name, path_of,
    read_header, write_full,
};
use super::stamps::Stamps;
use super::tail::{End, Tail};
use crate::disk::{DirEntry, Disk, OpenMode};
use crate::error::of_io;
use crate::slot::{Seen, Slot};

/// How long the end that a scan found is believed where `tail` is lost.
const RESCAN: Duration = Duration::from_secs(1);

/// How often, and how far apart, a reader of a broken `tail` looks whether a commit is over: each
/// mends the place or the one after it does.
const COMMIT_LOOKS: u32 = 1000;
const COMMIT_PAUSE: Duration = Duration::from_millis(1);

/// An open topic, for reading; [`TopicLog`](super::TopicLog) holds one and writes to it.
#[derive(Debug)]
pub struct Topic {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) name: TopicName,
    pub(super) id: TopicId,
    pub(super) settings: Settings,
    pub(super) sizes: Sizes,
    pub(super) segments: RwLock<Segments>,
    pub(super) end: watch::Sender<End>,
    pub(super) keys: Keys,
    /// Held while the low-water mark is moved: it never goes back.
    trimming: Mutex<()>,
    /// Where another process publishes; `None` when the writer is in this one.
    pub(super) foreign: Option<Mutex<Foreign>>,
    pub(super) stamps: Stamps,
}

#[derive(Debug)]
pub(super) struct Foreign {
    /// `None`: the file is lost, until somebody writes and makes it anew.
    slot: Option<Slot>,
    /// The end that a scan found, the tail value that it was made for, and when.
    scanned: Option<(Option<Tail>, End, Instant)>,
}

impl Foreign {
    fn new(place: &Place) -> Result<Self> {
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
    pub(super) fn look(&self, topic: &Topic) -> Result<(bool, Option<Tail>)> {
        let (held, seen) = self.peek().map_err(|e| topic.io("reading tail", e))?;
        Ok((held, seen.value.as_deref().and_then(Tail::decode)))
    }
}

/// Whether `root` has a topic of this name: a directory with a topic's segments or slot files.
/// Others are not the log's.
///
/// # Errors
/// The disk's.
pub fn exists(disk: &dyn Disk, root: &Path, name: &TopicName) -> Result<bool> {
    let entries = disk
        .list(root)
        .map_err(|e| of_io("listing the log's directory", e))?;
    // A link to a directory is not one: what it leads to is not the log's to delete.
    let listed = entries.iter().any(|e| e.dir && e.name == name.as_str());
    Ok(listed && holds_topic(disk, &root.join(name.as_str())).map_err(|e| e.on_topic(name))?)
}

/// Whether this directory is a topic's.
pub(crate) fn holds_topic(disk: &dyn Disk, dir: &Path) -> Result<bool> {
    let found = look(disk, dir).map_err(|e| of_io("looking for the topic", e))?;
    Ok(found == Some(Found::Topic))
}

#[derive(PartialEq, Eq)]
enum Found {
    Topic,
    Empty,
    Foreign,
}

/// What a directory holds; `None`: there is no such directory.
fn look(disk: &dyn Disk, dir: &Path) -> io::Result<Option<Found>> {
    let entries = match disk.list(dir) {
        Ok(entries) => entries,
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        Err(e) => return Err(e),
    };
    let has = |name: &str| entries.iter().any(|e| !e.dir && e.name == name);
    let segment = |e: &DirEntry| !e.dir && first_in_name(&e.name).is_some();
    Ok(Some(if entries.is_empty() {
        Found::Empty
    } else if entries.iter().any(segment) || (has("tail") && has("start")) {
        Found::Topic
    } else {
        Found::Foreign
    }))
}

/// Creates a topic, durably: when this returns, the topic outlives a loss of power; before, it is
/// there whole or not at all.
///
/// # Errors
/// `AlreadyExists`; `Config` where a directory of that name holds something else; `Blocked` on a
/// full disk; the disk's.
pub fn create(
    disk: &dyn Disk,
    root: &Path,
    name: &TopicName,
    id: TopicId,
    settings: Settings,
) -> Result<()> {
    let fail = |e| of_io("creating the topic", e).on_topic(name);
    let dir = root.join(name.as_str());
    match look(disk, &dir).map_err(fail)? {
        None => {}
        Some(Found::Topic) => {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                Effect::None,
                Retry::Never,
                "the topic is there already; open it",
            )
            .on_topic(name));
        }
        Some(Found::Empty) => disk.remove(&dir).map_err(fail)?,
        Some(Found::Foreign) => {
            return Err(Error::config(
                "a directory of the topic's name holds something else than a topic; move it away, or choose another name",
            )
            .on_topic(name));
        }
    }
    // No topic's name starts with a dot.
    let making = root.join(format!(".new-{name}"));
    clear(disk, &making).map_err(fail)?;
    disk.create_dir(&making).map_err(fail)?;
    let header = SegmentHeader {
        topic: id,
        first: 0,
        epoch: 0,
        commit: 0,
        time: Timestamp::from_millis(i64::MIN),
        previous: 0,
        previous_end: 0,
        settings,
    };
    let fill = || -> io::Result<()> {
        let file = disk.open(&path_of(&making, 0), OpenMode::CreateNew)?;
        write_full(&*file, &header.encode(), 0)?;
        file.sync_data()?;
        let tail = Tail {
            boot: disk.boot(),
            writer: 0,
            end: End {
                segment: 0,
                bytes: SEGMENT_HEADER,
                next: 0,
                earliest: 0,
            },
            commit: 0,
            time: header.time,
            epoch: 0,
        };
        Slot::create(disk, &making.join("tail"))?.write(&tail.encode(), true)?;
        Slot::create(disk, &making.join("start"))?.write(&0_u64.to_le_bytes(), true)?;
        disk.sync_dir(&making)?;
        disk.rename(&making, &dir)
    };
    fill().map_err(fail)?;
    // From here on it is there; whether it outlives a loss of power is not known.
    disk.sync_dir(root)
        .map_err(|e| fail(e).with_effect(Effect::Unknown))
}

/// Removes a flat directory that was left half made.
fn clear(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    let entries = match disk.list(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    for entry in entries {
        disk.remove(&dir.join(entry.name))?;
    }
    disk.remove(dir)
}

/// Where a topic lies and how it is opened.
#[derive(Clone, Debug)]
pub struct Place {
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// The directory of all topics.
    pub root: PathBuf,
    /// The topic.
    pub name: TopicName,
    /// Sizes of files and steps.
    pub sizes: Sizes,
}

impl Topic {
    /// Opens a topic for reading, whoever writes it. Creates and changes nothing.
    ///
    /// # Errors
    /// `NotFound`; `Corrupt` when there is no segment at all; the disk's. Broken frames and missing
    /// segments are the reader's to meet: the records before them stay readable.
    pub fn open(place: &Place) -> Result<Arc<Self>> {
        let foreign = Foreign::new(place)?;
        let topic = Self::assemble(place, Some(Mutex::new(foreign)))?;
        topic.refresh()?;
        Ok(Arc::new(topic))
    }

    /// What it means that a topic's file could not be opened.
    pub(super) fn absent(place: &Place, file: &str, error: io::Error) -> Error {
        let dir = place.root.join(place.name.as_str());
        let error = if error.kind() != io::ErrorKind::NotFound {
            of_io("opening the topic", error)
        } else if holds_topic(&*place.disk, &dir).unwrap_or(false) {
            Error::new(
                ErrorKind::Corrupt,
                Effect::None,
                Retry::Never,
                format!(
                    "the file \"{file}\" of the topic is lost, and cannot be made anew from what is left; restore it from a copy"
                ),
            )
            .with_source(error)
        } else {
            Error::not_found("there is no such topic; create it first").with_source(error)
        };
        error.on_topic(&place.name)
    }

    /// The parts without the durable end, which is still to be found.
    pub(super) fn assemble(place: &Place, foreign: Option<Mutex<Foreign>>) -> Result<Self> {
        let dir = place.root.join(place.name.as_str());
        let mode = if foreign.is_some() {
            OpenMode::Read
        } else {
            OpenMode::Write
        };
        let start =
            open_start(&*place.disk, &dir, mode).map_err(|e| Self::absent(place, "start", e))?;
        let known = Segments::new();
        let (segments, earliest) =
            load_kept(&*place.disk, &dir, &place.name, &known, start.as_ref())?;
        let Some((_, first)) = segments.first_key_value() else {
            return Err(corrupt(&place.name, earliest, "the topic has no segment"));
        };
        let header = first.header;
        Ok(Self {
            disk: Arc::clone(&place.disk),
            dir,
            name: place.name.clone(),
            id: header.topic,
            settings: header.settings,
            sizes: place.sizes,
            segments: RwLock::new(segments),
            end: watch::Sender::new(End {
                earliest,
                ..End::default()
            }),
            keys: Keys::new(header.topic),
            trimming: Mutex::default(),
            foreign,
            stamps: Stamps::new(),
        })
    }

    /// The topic's name.
    pub fn name(&self) -> &TopicName {
        &self.name
    }

    /// Which topic of that name this is.
    pub fn id(&self) -> TopicId {
        self.id
    }

    /// What it was created with.
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its disk.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Whether its writer is in this process, so that [`Topic::watch`] tells of each append.
    pub fn is_written_here(&self) -> bool {
        self.foreign.is_none()
    }

    /// The durable end as last seen; changes wake its receiver. Where the writer is another
    /// process it moves only with [`Topic::refresh`]: watch the `tail` file.
    pub fn watch(&self) -> watch::Receiver<End> {
        self.end.subscribe()
    }

    /// The durable end as last seen.
    pub fn end(&self) -> End {
        *self.end.borrow()
    }

    /// The durable end now. Blocks for a read of `tail` where the writer is another process.
    ///
    /// # Errors
    /// `Corrupt`; the disk's.
    pub fn refresh(&self) -> Result<End> {
        let Some(foreign) = &self.foreign else {
            return Ok(self.end());
        };
        let mut foreign = lock(foreign);
        let fail = |e| self.io("reading tail", e);
        let mut looks = 0;
        loop {
            // A broken place may have held a newer end: the other one's is no more than a lower
            // bound. Behind it lie what was acknowledged and, while a group is being committed,
            // what is not durable.
            foreign.open(&*self.disk, &self.dir).map_err(fail)?;
            let (held, seen) = foreign.peek().map_err(fail)?;
            let tail = seen.value.as_deref().and_then(Tail::decode);
            if let Some(tail) = tail.filter(|t| t.boot == self.disk.boot() && !seen.broken) {
                foreign.scanned = None;
                return self.see(tail.end);
            }
            if held && seen.broken {
                looks += 1;
                if looks > COMMIT_LOOKS {
                    return Err(fail(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "a place of tail is broken, and its writer is at work",
                    )));
                }
                std::thread::sleep(COMMIT_PAUSE);
                continue;
            }
            // Nobody has written since the page cache was lost, or nobody is writing: what the
            // disk holds, is.
            let scanned = foreign.scanned.as_ref();
            if let Some((_, end, _)) =
                scanned.filter(|(known, _, at)| *known == tail && foreign.is_recent(at))
            {
                return self.see(*end);
            }
            self.reload()?;
            let end = super::recover::scan_end(self, tail.as_ref())?;
            let (held, again) = foreign.peek().map_err(fail)?;
            if again == seen && !(held && seen.broken) {
                foreign.scanned = Some((tail, end, Instant::now()));
                return self.see(end);
            }
        }
    }

    /// What is broken in `tail` and `start`, a line each.
    pub(super) fn broken_slots(&self) -> Result<Vec<String>> {
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
        self.end.send_if_modified(|known| {
            let changed = *known != end;
            *known = end;
            changed
        });
        Ok(end)
    }

    /// The low-water mark's file: rarely needed, so it is not kept open.
    fn start(&self, mode: OpenMode) -> io::Result<Option<Slot>> {
        open_start(&*self.disk, &self.dir, mode)
    }

    /// The oldest position that is kept, read again from disk.
    ///
    /// # Errors
    /// The disk's.
    pub fn reread_earliest(&self) -> Result<u64> {
        let value = self
            .start(OpenMode::Read)
            .and_then(|start| start.as_ref().map_or(Ok(None), Slot::read))
            .map_err(|e| self.io("reading start", e))?;
        let earliest = low_water(value.as_deref());
        self.raise(earliest);
        Ok(self.end().earliest)
    }

    fn raise(&self, earliest: u64) {
        self.end.send_if_modified(|end| {
            let higher = earliest > end.earliest;
            end.earliest = end.earliest.max(earliest);
            higher
        });
    }

    /// Makes `earliest` the low-water mark, durably; then removes whole sealed segments below it.
    /// A crash in between leaves files that the next opening for writing removes. A mark past the
    /// active segment's start removes all but that one.
    ///
    /// # Errors
    /// `Unsupported` where the writer is another process; the disk's.
    pub fn trim(&self, earliest: u64) -> Result<()> {
        if !self.is_written_here() {
            return Err(Error::unsupported(
                "the topic is written by another process; trim it there",
            )
            .on_topic(&self.name));
        }
        let _trimming = lock(&self.trimming);
        let active = self.read_segments().last_key_value().map_or(0, |(k, _)| *k);
        let earliest = earliest.min(self.end().next);
        if earliest <= self.end().earliest {
            return Ok(());
        }
        self.start(OpenMode::Write)
            .and_then(|start| {
                let start = start.ok_or(io::ErrorKind::NotFound)?;
                start.write(&earliest.to_le_bytes(), true)
            })
            .map_err(|e| self.io("moving the low-water mark", e))?;
        self.raise(earliest);
        self.remove_below(earliest.min(active))
    }

    /// Removes sealed segments all of whose records lie below `earliest`, oldest first.
    pub(super) fn remove_below(&self, earliest: u64) -> Result<()> {
        let mut removed = false;
        loop {
            let oldest = {
                let segments = self.read_segments();
                let mut firsts = segments.iter();
                match (firsts.next(), firsts.next()) {
                    (Some((first, segment)), Some((next, _))) if *next <= earliest => {
                        Some((*first, segment.path.clone()))
                    }
                    _ => None,
                }
            };
            let Some((first, path)) = oldest else { break };
            // So that no index is left behind by whoever is making it.
            let _working = lock(&self.keys.working);
            for path in [path.with_extension("idx"), path] {
                match self.disk.remove(&path) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => {
                        return Err(self.io("removing a segment", e));
                    }
                    _ => {}
                }
            }
            self.segments
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&first);
            removed = true;
        }
        if removed {
            let segments = self.read_segments();
            self.keys.retain(|first| segments.contains_key(&first));
            drop(segments);
            self.disk
                .sync_dir(&self.dir)
                .map_err(|e| self.io("removing segments", e))?;
        }
        Ok(())
    }

    /// First position, bytes and last append time of each sealed segment, oldest first: what
    /// retention decides by. The position behind it is the next one's first.
    pub fn sealed(&self) -> Vec<(u64, u64, Timestamp)> {
        let segments = self.read_segments();
        segments
            .values()
            .zip(segments.values().skip(1))
            .filter(|(segment, next)| next.header.continues(&segment.header))
            .map(|(segment, next)| {
                (
                    segment.header.first,
                    next.header.previous_end,
                    next.header.time,
                )
            })
            .collect()
    }

    pub(super) fn read_segments(&self) -> std::sync::RwLockReadGuard<'_, Segments> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lists the directory again, for segments that another process made or removed.
    pub(super) fn reload(&self) -> Result<()> {
        let known = self.read_segments().clone();
        let start = self
            .start(OpenMode::Read)
            .map_err(|e| self.io("reading start", e))?;
        let (segments, earliest) =
            load_kept(&*self.disk, &self.dir, &self.name, &known, start.as_ref())?;
        self.raise(earliest);
        self.keys.retain(|first| segments.contains_key(&first));
        *self
            .segments
            .write()
            .unwrap_or_else(PoisonError::into_inner) = segments;
        Ok(())
    }

    /// The segment in which `position` lies or will lie, and where its data ends.
    pub(super) fn segment_of(&self, position: u64, end: &End) -> Option<(Arc<Segment>, u64)> {
        let segments = self.read_segments();
        let (first, segment) = segments.range(..=position).next_back()?;
        let limit = if *first == end.segment {
            end.bytes
        } else {
            // Without the segment behind it, although the log goes on, nobody says where its records
            // end: whoever reads on finds out where they stop being whole.
            segments
                .range(first + 1..)
                .next()
                .filter(|(_, next)| next.header.continues(&segment.header))
                .map_or(u64::MAX, |(_, next)| next.header.previous_end)
        };
        Some((Arc::clone(segment), limit))
    }

    pub(super) fn io(&self, what: &str, error: io::Error) -> Error {
        of_io(what, error).on_topic(&self.name)
    }

    pub(super) fn corrupt(&self, position: u64, what: &str) -> Error {
        corrupt(&self.name, position, what)
    }

    /// As [`Topic::corrupt`], in a segment's file.
    pub(super) fn corrupt_in(&self, segment: &Segment, position: u64, what: &str) -> Error {
        let file = file_name(segment.header.first);
        self.corrupt(position, &format!("{what} in {file}"))
    }

    /// The segment that should begin at `position` cannot be read.
    pub(super) fn hole(&self, position: u64) -> Error {
        let file = file_name(position);
        let there = self
            .disk
            .open(&path_of(&self.dir, position), OpenMode::Read);
        let what = match there {
            Err(e) if e.kind() == io::ErrorKind::NotFound => format!("segment {file} is missing"),
            _ => format!("the header of segment {file} is broken"),
        };
        self.corrupt(position, &what)
    }

    /// The first position that a missing segment leaves in doubt; `None`: none is missing.
    pub(super) fn first_hole(&self) -> Option<Error> {
        let segments = self.read_segments().clone();
        let earliest = self.end().earliest;
        if is_whole(&segments, earliest) {
            return None;
        }
        let mut expected = earliest;
        if segments
            .keys()
            .next()
            .is_some_and(|first| *first <= earliest)
        {
            let mut pairs = segments.values().zip(segments.values().skip(1));
            let (before, behind) = pairs.find(|(a, b)| !b.header.continues(&a.header))?;
            expected = behind.header.previous;
            if let Ok(file) = before.open(&*self.disk)
                && let Ok(found) = super::recover::scan(
                    &*file,
                    self.id.tag(),
                    SEGMENT_HEADER,
                    before.header.chain(),
                    None,
                )
            {
                expected = found.chain.next;
            }
        }
        Some(self.hole(expected))
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Stored bytes are not what was written: what is the first position that they leave in doubt.
pub(super) fn corrupt(name: &TopicName, position: u64, what: &str) -> Error {
    let place = Position::new(PartitionId::ONLY, position);
    Error::new(
        ErrorKind::Corrupt,
        Effect::None,
        Retry::Never,
        format!(
            "{what} at position {place}; records before it can be read, restore the rest from a copy"
        ),
    )
    .on_topic(name)
    .in_partition(PartitionId::ONLY)
}

/// The low-water mark's file. Where it is lost and nothing has been trimmed, the mark can only be
/// 0: that is `None`, and for writing the file is made anew.
fn open_start(disk: &dyn Disk, dir: &Path, mode: OpenMode) -> io::Result<Option<Slot>> {
    let path = dir.join("start");
    let error = match Slot::open(disk, &path, mode) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => e,
        other => return other.map(Some),
    };
    let first = disk.open(&path_of(dir, 0), OpenMode::Read);
    if first.is_err() {
        return Err(error);
    }
    if mode == OpenMode::Read {
        return Ok(None);
    }
    let start = Slot::create(disk, &path)?;
    start.write(&0_u64.to_le_bytes(), true)?;
    disk.sync_dir(dir)?;
    Ok(Some(start))
}

fn low_water(value: Option<&[u8]>) -> u64 {
    value.map_or(0, |bytes| super::frame::u64_at(bytes, 0))
}

/// [`load`] beside a writer whose retention goes on: what seems to be missing may have been
/// removed since the low-water mark was read, and then the mark has moved. Returns the mark too.
fn load_kept(
    disk: &dyn Disk,
    dir: &Path,
    name: &TopicName,
    known: &Segments,
    start: Option<&Slot>,
) -> Result<(Segments, u64)> {
    let mark = || match start.map_or(Ok(None), Slot::read) {
        Ok(value) => Ok(low_water(value.as_deref())),
        Err(e) => Err(of_io("reading start", e).on_topic(name)),
    };
    let mut earliest = mark()?;
    loop {
        let segments = load(disk, dir, name, known, earliest)?;
        let now = if is_whole(&segments, earliest) {
            earliest
        } else {
            mark()?
        };
        if now == earliest {
            return Ok((segments, earliest));
        }
        earliest = now;
    }
}

/// Whether nothing is missing above the low-water mark: each segment continues the one before it.
pub(super) fn is_whole(segments: &Segments, earliest: u64) -> bool {
    let mut pairs = segments.values().zip(segments.values().skip(1));
    let first = segments.keys().next();
    first.is_some_and(|first| *first <= earliest)
        && pairs.all(|(before, segment)| segment.header.continues(&before.header))
}

/// Reads the headers of all segments; those of `known` are not read again. What has no valid
/// header is left out: the last one is the recovery's to judge, and one before it is a hole where
/// the chain of headers asks for it, a stray file where it does not. A hole leaves what is on both
/// sides of it to be read.
fn load(
    disk: &dyn Disk,
    dir: &Path,
    name: &TopicName,
    known: &Segments,
    earliest: u64,
) -> Result<Segments> {
    let fail = |e| of_io("opening the topic's segments", e).on_topic(name);
    let mut firsts: Vec<u64> = disk
        .list(dir)
        .map_err(fail)?
        .iter()
        .filter_map(|entry| first_in_name(&entry.name))
        .collect();
    firsts.sort_unstable();
    let mut segments = Segments::new();
    for first in firsts {
        if let Some(segment) = known.get(&first) {
            segments.insert(first, Arc::clone(segment));
            continue;
        }
        let path = path_of(dir, first);
        let file = match disk.open(&path, OpenMode::Read) {
            Ok(file) => file,
            // Retention in another process was faster.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(fail(e)),
        };
        match read_header(&*file).map_err(fail)? {
            Ok(Some(header)) if header.first == first => {
                segments.insert(first, Arc::new(Segment::new(path, header)));
            }
            Err(version) => {
                return Err(Error::unsupported(format!(
                    "a segment has format version {version}, this build knows version 1; use a newer build"
                ))
                .on_topic(name));
            }
            _ => {}
        }
    }
    let mut chain = Segments::new();
    let mut behind: Option<SegmentHeader> = None;
    for (first, segment) in segments.into_iter().rev() {
        match &behind {
            // A stray file: the segment behind it knows another one before it.
            Some(behind) if first > behind.previous => continue,
            // A crash brought some of the segments back that retention had removed: none of what
            // they hold is kept. The next opening for writing removes them.
            Some(behind) if !behind.continues(&segment.header) && behind.first <= earliest => break,
            _ => {}
        }
        behind = Some(segment.header);
        chain.insert(first, segment);
    }
    Ok(chain)
}
