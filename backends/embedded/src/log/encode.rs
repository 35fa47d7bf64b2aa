//! The caller's side of an append: records become the body of a frame before the committer sees
//! them, so that it only stamps headers.

use std::fmt;

use annals_core::{Batch, Effect, Error, ErrorKind, Record, Retry};
use bytes::Bytes;
use crc_fast::crc32_iscsi;

use super::frame::{
    Entry, EntryParts, FRAME_HEADER, MAX_BODY, MAX_ID, aligned, entries, fold_check, put, put_entry,
};

/// A batch as the bytes of one frame, its header still empty.
pub struct Encoded {
    /// Room for the header, entries, zeros up to the next frame's start.
    pub(super) frame: Vec<u8>,
    pub(super) body: u32,
    pub(super) count: u32,
    pub(super) check: u32,
    /// Whether any record carries an id.
    pub(super) ids: bool,
}

fn parts(record: &Record) -> EntryParts<'_> {
    EntryParts {
        key: record.key_bytes().map(Bytes::as_ref),
        value: record.value_bytes().map(Bytes::as_ref),
        id: record.id_bytes().map(Bytes::as_ref),
        headers: record.header_list().as_encoded(),
        timestamp: record.written_at(),
    }
}

fn too_large(message: String) -> Error {
    Error::new(ErrorKind::TooLarge, Effect::None, Retry::Never, message)
}

/// The bytes that a record takes in the log.
pub fn record_len(record: &Record) -> usize {
    parts(record).size()
}

/// The bytes that a batch takes in the log, its frame's header included.
///
/// # Errors
/// `TooLarge` when the frame would be over [`MAX_BODY`] or an id over [`MAX_ID`]; `Config` for a
/// batch of no records.
pub fn measure(batch: &Batch) -> Result<usize, Error> {
    if batch.is_empty() {
        return Err(Error::config(
            "a batch of no records has no place in the log",
        ));
    }
    let mut body = 0;
    for record in batch.records() {
        let parts = parts(record);
        if !parts.fits() {
            return Err(too_large(format!(
                "a record is too large for the log; the limits are {MAX_BODY} bytes a record and {MAX_ID} bytes an id"
            )));
        }
        body += parts.size();
    }
    if body > MAX_BODY {
        return Err(too_large(format!(
            "a batch of {body} bytes is too large for one frame; the limit is {MAX_BODY} bytes"
        )));
    }
    Ok(FRAME_HEADER + aligned(body))
}

impl Encoded {
    /// Encodes a batch into `buffer` (emptied first; give the one of an earlier append to spare
    /// an allocation).
    ///
    /// # Errors
    /// As [`measure`].
    pub fn new(batch: &Batch, mut buffer: Vec<u8>) -> Result<Self, Error> {
        let len = measure(batch)?;
        buffer.clear();
        buffer.reserve(len);
        buffer.resize(FRAME_HEADER, 0);
        let mut ids = false;
        for record in batch.records() {
            ids |= record.id_bytes().is_some();
            put_entry(&mut buffer, &parts(record));
        }
        let count = u32::try_from(batch.len())
            .map_err(|_| too_large("a batch has more than 4294967295 records".to_owned()))?;
        Ok(Self::seal(buffer, count, ids))
    }

    /// The second pass: checksums over entries that stand encoded behind the header's room.
    fn seal(mut frame: Vec<u8>, count: u32, ids: bool) -> Self {
        let mut check = 0;
        let mut rest = frame.get_mut(FRAME_HEADER..).unwrap_or_default();
        let body = rest.len();
        while let Some(entry) = Entry::decode(rest) {
            let Some((bytes, behind)) = rest.split_at_mut_checked(entry.len as usize) else {
                break;
            };
            let crc = crc32_iscsi(bytes.get(4..).unwrap_or_default());
            put(bytes, 0, &crc.to_le_bytes());
            check = fold_check(check, crc);
            rest = behind;
        }
        frame.resize(FRAME_HEADER + aligned(body), 0);
        Self {
            frame,
            body: u32::try_from(body).unwrap_or(u32::MAX),
            count,
            check,
            ids,
        }
    }

    /// The same without the entries of which `drop` says so; `None` when none is left.
    pub(super) fn without(&self, mut drop: impl FnMut(usize) -> bool) -> Option<Self> {
        let mut frame = vec![0; FRAME_HEADER];
        let (mut count, mut ids) = (0, false);
        for (index, (at, entry)) in entries(self.body()).enumerate() {
            if !drop(index) {
                count += 1;
                ids |= entry.id().is_some();
                frame.extend_from_slice(
                    self.body()
                        .get(at..at + entry.len as usize)
                        .unwrap_or_default(),
                );
            }
        }
        (count > 0).then(|| Self::seal(frame, count, ids))
    }

    /// The entries.
    pub(super) fn body(&self) -> &[u8] {
        self.frame
            .get(FRAME_HEADER..FRAME_HEADER + self.body as usize)
            .unwrap_or_default()
    }

    /// The bytes that it takes in the log.
    pub fn len_bytes(&self) -> usize {
        self.frame.len()
    }

    /// How many records.
    pub fn records(&self) -> usize {
        self.count as usize
    }

    /// The buffer, for the next [`Encoded::new`].
    pub fn into_buffer(self) -> Vec<u8> {
        self.frame
    }
}

impl fmt::Debug for Encoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoded")
            .field("records", &self.count)
            .field("bytes", &self.frame.len())
            .finish_non_exhaustive()
    }
}
