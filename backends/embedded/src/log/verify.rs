//! Checks every checksum of a topic, and that nothing is missing between them.

use annals_core::Result;

use super::keys::State;
use super::recover::scan;
use super::segment::SEGMENT_HEADER;
use super::topic::Topic;

/// What [`verify`] saw.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Verified {
    /// Segments.
    pub segments: u64,
    /// Records, those of a partly trimmed first segment included.
    pub records: u64,
    /// Bytes up to the durable end, segment headers included.
    pub bytes: u64,
    /// Indexes that are whole. One that is missing is made when it is needed.
    pub indexes: u64,
    /// Indexes that are not. They are derived: no record is lost with them, they are made anew
    /// when they are needed, and may be deleted.
    pub unfit: Vec<Unfit>,
    /// What else is broken, one line each, naming the file: a place of `tail` or `start`, a
    /// group's cursor. No record is lost with it.
    pub broken: Vec<String>,
}

/// An index that does not fit its segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unfit {
    /// The file in the topic's directory.
    pub file: String,
    /// Whether its checksums are right: then it is of something else, or of an earlier state.
    pub stale: bool,
}

/// Reads everything below the durable end. Blocks for as long as that takes; appends go on.
///
/// # Errors
/// `Corrupt`, naming the first position in doubt; the disk's.
pub fn verify(topic: &Topic) -> Result<Verified> {
    let end = topic.refresh()?;
    let segments: Vec<_> = topic.read_segments().values().cloned().collect();
    if segments
        .first()
        .is_some_and(|s| s.header.first > end.earliest)
        && segments
            .first()
            .is_some_and(|s| s.header.first > topic.reread_earliest().unwrap_or(0))
    {
        return Err(topic.hole(end.earliest));
    }
    let mut verified = Verified {
        broken: topic.broken_slots()?,
        ..Verified::default()
    };
    for segment in segments {
        if segment.header.first > end.next {
            break;
        }
        let fail = |e| topic.io("verifying a segment", e);
        let Some((_, limit)) = topic.segment_of(segment.header.first, &end) else {
            continue;
        };
        let file = match segment.open(&**topic.disk()) {
            Ok(file) => file,
            // Retention was faster.
            Err(_) if topic.reread_earliest()? > segment.header.first => continue,
            Err(e) => return Err(fail(e)),
        };
        let header = super::segment::read_header(&*file).map_err(fail)?;
        if header != Ok(Some(segment.header)) {
            return Err(topic.corrupt_in(&segment, segment.header.first, "the header is broken"));
        }
        let found = scan(
            &*file,
            topic.id().tag(),
            SEGMENT_HEADER,
            segment.header.chain(),
            Some(limit),
        )
        .map_err(fail)?;
        if found.end < limit {
            let next = found.chain.next;
            return Err(if limit == u64::MAX && !found.later {
                topic.hole(next)
            } else {
                topic.corrupt_in(&segment, next, "a stored record is broken")
            });
        }
        verified.segments += 1;
        verified.records += found.chain.next - segment.header.first;
        verified.bytes += found.end;
        match topic.check_index(segment.header.first)? {
            None => {}
            Some((_, State::Whole)) => verified.indexes += 1,
            Some((file, state)) => verified.unfit.push(Unfit {
                file,
                stale: state == State::Stale,
            }),
        }
    }
    Ok(verified)
}
