//! A replay as a stream.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::{FusedStream, Stream};

use crate::error::Result;
use crate::recorded::Recorded;

use super::Replay;

/// A [`Replay`] as a [`Stream`] of records.
///
/// A gap is one `Err` item, and the stream goes on behind it; any other `Err` is its last item.
#[derive(Debug)]
#[must_use = "a stream does nothing unless it is polled"]
pub struct RecordStream {
    replay: Replay,
    over: bool,
}

impl RecordStream {
    pub(super) const fn new(replay: Replay) -> Self {
        Self {
            replay,
            over: false,
        }
    }

    /// The replay below it, with its cursor where the stream stands.
    pub const fn replay(&self) -> &Replay {
        &self.replay
    }

    /// The replay again, to go on otherwise.
    pub fn into_inner(self) -> Replay {
        self.replay
    }
}

impl Stream for RecordStream {
    type Item = Result<Recorded>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over {
            return Poll::Ready(None);
        }
        let item = std::task::ready!(self.replay.poll_record(cx)).transpose();
        self.over = match &item {
            None => true,
            Some(Err(error)) => error.gap().is_none(),
            Some(Ok(_)) => false,
        };
        Poll::Ready(item)
    }
}

impl FusedStream for RecordStream {
    fn is_terminated(&self) -> bool {
        self.over
    }
}
