//! Where a record's fields lie in its buffer.

use std::ops::Range;

use super::Parts;

/// A stretch of the shared buffer; `start == ABSENT` is none.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) end: u32,
}

pub(super) const ABSENT: Span = Span {
    start: u32::MAX,
    end: u32::MAX,
};

/// Where the parts of one record lie.
#[derive(Clone, Copy)]
pub(super) struct Spans {
    pub(super) key: Span,
    pub(super) value: Span,
    pub(super) id: Span,
    pub(super) headers: Span,
}

impl Spans {
    pub(super) const NONE: Self = Self {
        key: ABSENT,
        value: ABSENT,
        id: ABSENT,
        headers: ABSENT,
    };

    /// `None` when any lies outside of a buffer of this length, or that is 4 GiB or more.
    #[inline]
    pub(super) fn of(parts: &Parts, len: usize) -> Option<Self> {
        let lies = |range: &Option<Range<usize>>| match range {
            Some(range) => range.start <= range.end && range.end <= len,
            None => true,
        };
        if !(lies(&parts.key) && lies(&parts.value) && lies(&parts.id) && lies(&parts.headers))
            || len >= u32::MAX as usize
        {
            return None;
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "both are at most len < u32::MAX"
        )]
        let span = |range: &Option<Range<usize>>| match range {
            Some(range) => Span {
                start: range.start as u32,
                end: range.end as u32,
            },
            None => ABSENT,
        };
        Some(Self {
            key: span(&parts.key),
            value: span(&parts.value),
            id: span(&parts.id),
            headers: span(&parts.headers),
        })
    }
}

impl Span {
    #[inline]
    pub(super) fn range(self) -> Option<Range<usize>> {
        (self != ABSENT).then_some(self.start as usize..self.end as usize)
    }
}
