//! Making a topic, and telling a topic's directory from others.

use std::io;
use std::path::Path;

use annals_core::{Effect, Error, ErrorKind, Result, Retry, Timestamp, TopicName};

use crate::disk::{DirEntry, Disk, OpenMode};
use crate::error::of_io;
use crate::log::options::{Settings, TopicId};
use crate::log::segment::{SEGMENT_HEADER, SegmentHeader, first_in_name, path_of, write_full};
use crate::log::tail::{End, Tail};
use crate::slot::Slot;

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
