//! Finding the valid end of a topic after a crash, and making it safe to append there.

use std::io;
use std::sync::Arc;

use annals_core::{Result, Timestamp};

use super::frame::{ALIGN, FRAME_HEADER, FrameHeader, aligned, body_is_whole};
use super::segment::{
    Chain, SEGMENT_HEADER, Segment, View, path_of, read_full, read_header, write_full,
};
use super::tail::{End, Tail};
use super::topic::{Place, Topic};
use crate::disk::{DiskFile, OpenMode};
use crate::slot::Slot;

/// Where the frames of a segment stop being valid.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scanned {
    pub(super) end: u64,
    pub(super) chain: Chain,
    /// A later group was synced after the broken place had been: it was whole once.
    pub(super) later: bool,
}

/// Walks frames from `from`, which `chain` leads up to, to `limit` or the end of the file.
pub(super) fn scan(
    file: &dyn DiskFile,
    tag: u64,
    from: u64,
    mut chain: Chain,
    limit: Option<u64>,
) -> io::Result<Scanned> {
    let len = limit.unwrap_or(u64::MAX).min(file.len()?);
    let mut view = View::new(file, len);
    let mut at = from;
    while let Some(frame) = FrameHeader::decode(view.at(at, FRAME_HEADER)?, tag) {
        let body = view.at(at + FRAME_HEADER as u64, frame.body as usize)?;
        if !chain.is_continued_by(&frame) || !body_is_whole(&frame, body) {
            break;
        }
        chain.advance(&frame);
        at += FRAME_HEADER as u64 + aligned(frame.body as usize) as u64;
    }
    let end = at;
    let mut later = false;
    at += ALIGN as u64;
    while at + FRAME_HEADER as u64 <= len {
        if let Some(frame) = FrameHeader::decode(view.at(at, FRAME_HEADER)?, tag) {
            // Its group began behind the broken place, so the broken place had been synced.
            if frame.commit > chain.commit
                && frame.first >= chain.next
                && at
                    .checked_sub(u64::from(frame.group))
                    .is_some_and(|group| group > end)
            {
                later = true;
                break;
            }
        }
        at += ALIGN as u64;
    }
    Ok(Scanned { end, chain, later })
}

/// The end that a reader may go to where nobody has written since the page cache was lost. Broken
/// bytes below it are for the reader to meet.
pub(super) fn scan_end(topic: &Topic, tail: Option<&Tail>) -> Result<End> {
    let active = {
        let segments = topic.read_segments();
        segments.last_key_value().map(|(_, s)| Arc::clone(s))
    };
    let Some(active) = active else {
        return Err(topic.corrupt(topic.end().earliest, "the topic has no segment"));
    };
    let fail = |e| topic.io("reading a segment", e);
    let file = active.open(&*topic.disk).map_err(fail)?;
    let found = scan(
        &*file,
        topic.id.tag(),
        SEGMENT_HEADER,
        active.header.chain(),
        None,
    )
    .map_err(fail)?;
    let mut end = End {
        segment: active.header.first,
        bytes: found.end,
        next: found.chain.next,
        earliest: topic.end().earliest,
    };
    let promised = tail.filter(|t| (t.end.segment, t.end.bytes) > (end.segment, end.bytes));
    if let Some(tail) = promised {
        (end.segment, end.bytes, end.next) = (tail.end.segment, tail.end.bytes, tail.end.next);
    } else if found.later {
        (end.bytes, end.next) = (found.end + FRAME_HEADER as u64, found.chain.next + 1);
    }
    Ok(end)
}

/// A topic that is ready to be appended to.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) topic: Topic,
    pub(super) segment: Arc<Segment>,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) chain: Chain,
    pub(super) tail: Tail,
    pub(super) slot: Slot,
}

/// Opens a topic for writing: the caller holds the root's lock.
pub(super) fn recover(place: &Place) -> Result<Recovered> {
    let disk = &*place.disk;
    let dir = place.root.join(place.name.as_str());
    let topic = Topic::assemble(place, None)?;
    let path = dir.join("tail");
    let absent = |e| Topic::absent(place, "tail", e);
    let slot = match Slot::open(disk, &path, OpenMode::Write) {
        // Lost: what it said is found by a scan, as where it is empty.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Slot::create(disk, &path),
        other => other,
    }
    .map_err(absent)?;
    let value = slot.read().map_err(absent)?;
    let tail = value.as_deref().and_then(Tail::decode);
    let fail = |e| topic.io("opening the topic for appending", e);
    if let Some(hole) = topic.first_hole() {
        return Err(hole);
    }
    drop_unborn(&topic, tail.as_ref())?;
    drop_leftovers(&topic)?;

    let segment = {
        let segments = topic.read_segments();
        segments.last_key_value().map(|(_, s)| Arc::clone(s))
    }
    .ok_or_else(|| topic.corrupt(topic.end().earliest, "the topic has no segment"))?;
    let first = segment.header.first;
    if let Some(tail) = tail.filter(|t| t.end.segment > first) {
        return Err(topic.corrupt(tail.end.segment, "the last segment is missing"));
    }
    for (sealed, bytes, _) in topic.sealed() {
        let len = disk
            .open(&path_of(&dir, sealed), OpenMode::Read)
            .and_then(|file| file.len())
            .map_err(fail)?;
        if len < bytes {
            return Err(topic.corrupt(sealed, "a sealed segment is too short"));
        }
    }

    let file = disk.open(&segment.path, OpenMode::Write).map_err(fail)?;
    let here = tail.filter(|t| t.end.segment == first);
    let same_boot = tail.is_some_and(|t| t.boot == disk.boot());
    // In the same life of the page cache, what lies below the tail is what was acknowledged.
    let (from, chain) = match here {
        Some(tail) if same_boot => (tail.end.bytes, tail.chain()),
        _ => (SEGMENT_HEADER, segment.header.chain()),
    };
    // What no sync is known of: in a segment that was being begun, its header too.
    let unsure = here.map_or(0, |_| from);
    let found = scan(&*file, topic.id.tag(), from, chain, None).map_err(fail)?;
    if found.later || here.is_some_and(|t| found.end < t.end.bytes) {
        return Err(topic.corrupt(found.chain.next, "a record that had been stored is broken"));
    }
    let len = file.len().map_err(fail)?;
    if len < found.end {
        return Err(topic.corrupt(found.chain.next, "the last segment is too short"));
    }
    let survived = same_boot && found.end > unsure;
    if len > found.end || survived {
        file.set_len(found.end).map_err(fail)?;
        if survived {
            // A sync that failed may have marked them clean: written again, they reach the disk.
            rewrite(&*file, unsure, found.end).map_err(fail)?;
        }
    }
    // The writer may have been killed while it began this segment: neither its header nor its
    // entry need be durable, and what is appended to it now would not be either.
    file.sync_data().map_err(fail)?;
    disk.sync_dir(&dir).map_err(fail)?;
    segment.share(&file);
    let mut chain = found.chain;
    // A reader may have ended at a moment behind the last record.
    chain.time = tail.map_or(chain.time, |tail| tail.time.max(chain.time));

    let tail = Tail {
        boot: disk.boot(),
        writer: tail.map_or(0, |t| t.writer) + 1,
        end: End {
            segment: first,
            bytes: found.end,
            next: found.chain.next,
            earliest: topic.end().earliest,
        },
        commit: chain.commit,
        time: chain.time,
        epoch: chain.epoch,
    };
    slot.write(&tail.encode(), true).map_err(fail)?;
    topic.show(tail.end);
    topic.stamps.raise(chain.time);
    if tail.end.earliest > 0 {
        // The writer may have been killed between writing the mark and syncing it, or the sync have
        // failed: what it lets go of stays until it is durable.
        Slot::open(disk, &dir.join("start"), OpenMode::Write)
            .and_then(|start| start.write(&tail.end.earliest.to_le_bytes(), true))
            .map_err(fail)?;
    }
    topic.remove_below(tail.end.earliest.min(first))?;
    Ok(Recovered {
        topic,
        segment,
        file,
        chain,
        tail,
        slot,
    })
}

/// Removes a last segment that was being made when the writer died: it has neither a header nor
/// anything else.
fn drop_unborn(topic: &Topic, tail: Option<&Tail>) -> Result<()> {
    let fail = |e| topic.io("opening the topic for appending", e);
    let known = topic
        .read_segments()
        .last_key_value()
        .map(|(first, _)| *first);
    for entry in topic.disk.list(&topic.dir).map_err(fail)? {
        let Some(first) = super::segment::first_in_name(&entry.name) else {
            continue;
        };
        if known.is_some_and(|known| first <= known) {
            continue;
        }
        let path = path_of(&topic.dir, first);
        let file = topic.disk.open(&path, OpenMode::Read).map_err(fail)?;
        if matches!(read_header(&*file).map_err(fail)?, Ok(Some(_)) | Err(_)) {
            continue;
        }
        let nothing = Chain {
            next: 0,
            commit: 0,
            time: Timestamp::from_millis(i64::MIN),
            epoch: 0,
        };
        let found = scan(&*file, topic.id.tag(), 0, nothing, None).map_err(fail)?;
        if found.later || tail.is_some_and(|t| t.end.segment >= first) {
            return Err(topic.corrupt(first, "the last segment's header is broken"));
        }
        topic.disk.remove(&path).map_err(fail)?;
        topic.disk.sync_dir(&topic.dir).map_err(fail)?;
    }
    Ok(())
}

/// Removes what is left of segments that retention had removed, behind a hole that a crash made.
fn drop_leftovers(topic: &Topic) -> Result<()> {
    let fail = |e| topic.io("opening the topic for appending", e);
    let oldest = topic.read_segments().keys().next().copied();
    for entry in topic.disk.list(&topic.dir).map_err(fail)? {
        // The index of a segment may have come back alone.
        let name = entry.name.replace(".idx", ".seg");
        if super::segment::first_in_name(&name)
            .is_some_and(|first| oldest.is_some_and(|oldest| first < oldest))
        {
            topic
                .disk
                .remove(&topic.dir.join(&entry.name))
                .map_err(fail)?;
        }
    }
    Ok(())
}

fn rewrite(file: &dyn DiskFile, from: u64, to: u64) -> io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    let mut at = from;
    while at < to {
        let len = usize::try_from(to - at).map_or(buffer.len(), |len| len.min(buffer.len()));
        let Some(part) = buffer.get_mut(..len) else {
            break;
        };
        let got = read_full(file, part, at)?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        write_full(file, part.get(..got).unwrap_or_default(), at)?;
        at += got as u64;
    }
    Ok(())
}
