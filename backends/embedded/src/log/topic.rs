//! A topic's directory, opened: its segments and its durable end, shared by writer and readers.

mod create;
mod end;
mod retention;
mod segments;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use annals_core::{Effect, Error, ErrorKind, PartitionId, Position, Result, Retry, TopicName};
use tokio::sync::watch;

use super::keys::Keys;
use super::options::{Settings, Sizes, TopicId};
use super::segment::{Segment, Segments, file_name};
use super::stamps::Stamps;
use super::tail::End;
use crate::disk::{Disk, OpenMode};
use crate::error::of_io;
use end::Foreign;
use retention::open_start;
use segments::load_kept;

pub(crate) use create::holds_topic;
pub use create::{create, exists};

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
    /// Changed by [`Topic::show`], and where the low-water mark moves.
    end: watch::Sender<End>,
    /// The last segment's first position, apart from `end`: who waits for a seal would be woken by
    /// each commit, and with it a thread that the commit's answer then waits for.
    active: watch::Sender<u64>,
    pub(super) keys: Keys,
    /// Held while the low-water mark is moved: it never goes back.
    trimming: Mutex<()>,
    /// Where another process publishes; `None` when the writer is in this one.
    pub(super) foreign: Option<Mutex<Foreign>>,
    pub(super) stamps: Stamps,
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
            active: watch::Sender::default(),
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

    /// The first position of the segment that is appended to, as last seen; it changes, and wakes
    /// its receiver, with each seal and not with each append.
    pub fn watch_seals(&self) -> watch::Receiver<u64> {
        self.active.subscribe()
    }

    /// Takes in a durable end and wakes those who wait for it. What is known to be gone stays gone.
    pub(super) fn show(&self, end: End) {
        self.end.send_if_modified(|known| {
            let earliest = known.earliest.max(end.earliest);
            let new = End { earliest, ..end };
            std::mem::replace(known, new) != new
        });
        self.active
            .send_if_modified(|known| std::mem::replace(known, end.segment) != end.segment);
    }

    /// The durable end as last seen.
    pub fn end(&self) -> End {
        *self.end.borrow()
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
