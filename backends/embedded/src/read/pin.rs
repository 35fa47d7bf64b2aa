//! Where a reading that begins at a moment stands.

use std::sync::Arc;

use annals_core::{Frontier, Result, Timestamp};

use super::before;
use crate::log::{Scan, StopAt, Topic};

/// Begins at a moment, and says at which place that is: where what was asked for is gone, or may
/// still come from before the moment, it stays one.
pub(super) fn pin(topic: &Arc<Topic>, time: Timestamp, stop: StopAt) -> Result<(Scan, Frontier)> {
    // Asked first: from here on nothing older is stored behind the end.
    let past = topic.is_past(time)?;
    let scan = Scan::since(Arc::clone(topic), time, stop)?;
    let (first, end) = (scan.next_position(), topic.end());
    let gone = first == 0 && end.earliest > 0;
    let placed = time == Timestamp::MIN || (!gone && (past || first < end.next));
    let pinned = if placed {
        before(first)
    } else {
        Frontier::Since(time)
    };
    Ok((scan, pinned))
}
