//! Segment files: their header, and reading and writing without short counts.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use annals_core::Timestamp;
use crc_fast::crc32_iscsi;

use super::frame::{FRAME_HEADER, FrameHeader, i64_at, put, u32_at, u64_at};
use super::options::{Dedupe, Keep, Settings, TopicId};
use crate::disk::{Disk, DiskFile, OpenMode};

/// The bytes of a segment's header, and the first frame's offset.
pub(crate) const SEGMENT_HEADER: u64 = 4096;
const MAGIC: [u8; 8] = *b"annalseg";
const VERSION: u32 = 1;
/// A segment remembers where about every so many bytes a frame starts.
const MARK_EVERY: u64 = 64 << 10;

/// What a segment's first bytes say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentHeader {
    pub(crate) topic: TopicId,
    pub(crate) first: u64,
    /// The fencing epoch in force when the segment was begun.
    pub(crate) epoch: u64,
    /// The last commit number, and the last append time, before it.
    pub(crate) commit: u64,
    pub(crate) time: Timestamp,
    /// The segment before it: its first position and where its data ends. Both zero in a topic's
    /// first segment.
    pub(crate) previous: u64,
    pub(crate) previous_end: u64,
    pub(crate) settings: Settings,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX - 1);
        let dedupe = match self.settings.dedupe {
            Dedupe::Off => 0,
            Dedupe::Window(window) => millis(window).clamp(1, u64::MAX - 1),
            Dedupe::Forever => u64::MAX,
        };
        let (kind, keep) = match self.settings.keep {
            Keep::Forever => (0_u64, 0),
            Keep::Age(age) => (1, millis(age)),
            Keep::Bytes(bytes) => (2, bytes),
        };
        let mut bytes = vec![0; 4096];
        put(&mut bytes, 0, &MAGIC);
        put(&mut bytes, 12, &VERSION.to_le_bytes());
        put(&mut bytes, 16, &self.topic.0);
        for (at, number) in [
            (32, self.first),
            (40, self.epoch),
            (48, self.commit),
            (56, self.time.as_millis().cast_unsigned()),
            (64, self.previous),
            (72, self.previous_end),
            (80, dedupe),
            (88, kind),
            (96, keep),
        ] {
            put(&mut bytes, at, &number.to_le_bytes());
        }
        let crc = crc32_iscsi(bytes.get(12..).unwrap_or_default());
        put(&mut bytes, 8, &crc.to_le_bytes());
        bytes
    }

    /// `None` when the bytes are no segment header; `Err` names a newer version.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Option<Self>, u32> {
        if bytes.len() < 4096
            || !bytes.starts_with(&MAGIC)
            || u32_at(bytes, 8) != crc32_iscsi(bytes.get(12..4096).unwrap_or_default())
        {
            return Ok(None);
        }
        let version = u32_at(bytes, 12);
        if version != VERSION {
            return Err(version);
        }
        let mut topic = [0; 16];
        topic.copy_from_slice(bytes.get(16..32).unwrap_or(&[0; 16]));
        Ok(Some(Self {
            topic: TopicId(topic),
            first: u64_at(bytes, 32),
            epoch: u64_at(bytes, 40),
            commit: u64_at(bytes, 48),
            time: Timestamp::from_millis(i64_at(bytes, 56)),
            previous: u64_at(bytes, 64),
            previous_end: u64_at(bytes, 72),
            settings: Settings {
                dedupe: match u64_at(bytes, 80) {
                    0 => Dedupe::Off,
                    u64::MAX => Dedupe::Forever,
                    millis => Dedupe::Window(Duration::from_millis(millis)),
                },
                keep: match u64_at(bytes, 88) {
                    1 => Keep::Age(Duration::from_millis(u64_at(bytes, 96))),
                    2 => Keep::Bytes(u64_at(bytes, 96)),
                    _ => Keep::Forever,
                },
            },
        }))
    }

    /// Whether `before` is the segment before this one.
    pub(crate) fn continues(&self, before: &Self) -> bool {
        self.previous == before.first && self.topic == before.topic
    }

    /// What the first frame of this segment must continue.
    pub(crate) const fn chain(&self) -> Chain {
        Chain {
            next: self.first,
            commit: self.commit,
            time: self.time,
            epoch: self.epoch,
        }
    }
}

/// What the next frame must continue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Chain {
    pub(crate) next: u64,
    pub(crate) commit: u64,
    pub(crate) time: Timestamp,
    pub(crate) epoch: u64,
}

impl Chain {
    /// Whether a frame continues it: no hole, no step back, group after group.
    pub(crate) const fn is_continued_by(&self, frame: &FrameHeader) -> bool {
        let commit = if frame.group == 0 {
            self.commit + 1
        } else {
            self.commit
        };
        frame.first == self.next
            && frame.commit == commit
            && frame.time.as_millis() >= self.time.as_millis()
            && frame.epoch >= self.epoch
    }

    pub(crate) const fn advance(&mut self, frame: &FrameHeader) {
        self.next = frame.first + frame.count as u64;
        self.commit = frame.commit;
        self.time = frame.time;
        self.epoch = frame.epoch;
    }
}

/// Where a frame starts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    pub(crate) position: u64,
    pub(crate) time: Timestamp,
    pub(crate) offset: u64,
}

/// One segment of an open topic. Its file is open only while somebody uses it.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) path: PathBuf,
    pub(crate) header: SegmentHeader,
    file: Mutex<Weak<dyn DiskFile>>,
    marks: Mutex<Vec<Mark>>,
}

/// Open segments by first position.
pub(crate) type Segments = BTreeMap<u64, Arc<Segment>>;

pub(crate) fn file_name(first: u64) -> String {
    format!("{first:020}.seg")
}

/// The first position in a segment file's name.
pub(crate) fn first_in_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    (digits.len() == 20).then(|| digits.parse().ok())?
}

/// Never upgraded: stands for a file that nobody has opened yet.
#[derive(Debug)]
struct NoFile;

impl DiskFile for NoFile {
    fn len(&self) -> io::Result<u64> {
        Ok(0)
    }
    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
        Ok(0)
    }
    fn read_now_at(&self, _: &mut [u8], _: u64) -> io::Result<Option<usize>> {
        Ok(None)
    }
    fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
        Ok(0)
    }
    fn reserve(&self, _: u64, _: u64) -> io::Result<crate::disk::Reserved> {
        Ok(crate::disk::Reserved::Unsupported)
    }
    fn set_len(&self, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
    fn hold(&self) -> io::Result<()> {
        Ok(())
    }
    fn free(&self) -> io::Result<()> {
        Ok(())
    }
    fn is_held(&self) -> io::Result<bool> {
        Ok(false)
    }
}

impl Segment {
    pub(crate) fn new(path: PathBuf, header: SegmentHeader) -> Self {
        Self {
            path,
            header,
            file: Mutex::new(Weak::<NoFile>::new()),
            marks: Mutex::default(),
        }
    }

    /// Its file, for reading.
    pub(crate) fn open(&self, disk: &dyn Disk) -> io::Result<Arc<dyn DiskFile>> {
        let mut known = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = known.upgrade() {
            return Ok(file);
        }
        let file = disk.open(&self.path, OpenMode::Read)?;
        *known = Arc::downgrade(&file);
        Ok(file)
    }

    /// Lets readers share a file that is open for writing.
    pub(crate) fn share(&self, file: &Arc<dyn DiskFile>) {
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(file);
    }

    /// The last frame below `limit` of which `before` says that what is looked for does not lie
    /// before it; the first frame when it says so of none. `None` when there is no frame at all,
    /// or a broken one stands in the way: then the caller goes on from the last good one.
    pub(crate) fn seek(
        &self,
        file: &dyn DiskFile,
        limit: u64,
        before: impl Fn(&Mark) -> bool,
    ) -> io::Result<Option<Mark>> {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let known = marks.partition_point(&before);
        let mut found = known.checked_sub(1).and_then(|i| marks.get(i)).copied();
        let mut at = found.map_or(SEGMENT_HEADER, |mark| mark.offset);
        let mut view = View::new(file, limit);
        while let Some(frame) =
            FrameHeader::decode(view.at(at, FRAME_HEADER)?, self.header.topic.tag())
        {
            let mark = Mark {
                position: frame.first,
                time: frame.time,
                offset: at,
            };
            if marks
                .last()
                .is_none_or(|last| at >= last.offset + MARK_EVERY)
            {
                marks.push(mark);
            }
            if found.is_some() && !before(&mark) {
                break;
            }
            found = Some(mark);
            at += frame.whole();
        }
        Ok(found)
    }
}

/// A buffered look at a file, up to a limit.
pub(crate) struct View<'a> {
    file: &'a dyn DiskFile,
    limit: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a> View<'a> {
    const STEP: usize = 128 << 10;

    pub(crate) const fn new(file: &'a dyn DiskFile, limit: u64) -> Self {
        Self {
            file,
            limit,
            start: 0,
            bytes: Vec::new(),
        }
    }

    /// `len` bytes at `at`; fewer at the limit or the end of the file.
    pub(crate) fn at(&mut self, at: u64, len: usize) -> io::Result<&[u8]> {
        let here = |start: u64| usize::try_from(at.checked_sub(start)?).ok();
        let within = here(self.start).is_some_and(|from| from + len <= self.bytes.len());
        if !within {
            let most = usize::try_from(self.limit.saturating_sub(at)).unwrap_or(usize::MAX);
            self.bytes.resize(len.max(Self::STEP).min(most), 0);
            let got = read_full(self.file, &mut self.bytes, at)?;
            self.bytes.truncate(got);
            self.start = at;
        }
        let from = here(self.start).unwrap_or(0);
        let to = (from + len).min(self.bytes.len());
        Ok(self.bytes.get(from..to).unwrap_or_default())
    }
}

/// Reads until the buffer is full or the file ends.
pub(crate) fn read_full(file: &dyn DiskFile, buf: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// Writes everything, however short the single writes are.
pub(crate) fn write_full(file: &dyn DiskFile, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(bytes, at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = bytes.get(written..).unwrap_or_default();
                at += written as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Whether the disk has no room: the one failure of a write that says nothing worse.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// Reads a segment's header; `None` when it has no valid one.
pub(crate) fn read_header(file: &dyn DiskFile) -> io::Result<Result<Option<SegmentHeader>, u32>> {
    let mut bytes = vec![0; 4096];
    let got = read_full(file, &mut bytes, 0)?;
    bytes.truncate(got);
    Ok(SegmentHeader::decode(&bytes))
}

/// The path of a segment in its topic's directory.
pub(crate) fn path_of(dir: &Path, first: u64) -> PathBuf {
    dir.join(file_name(first))
}
