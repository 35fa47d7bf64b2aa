//! What a reader is told besides records.

use std::fmt;

use crate::cursor::{Cursor, Frontier};
use crate::position::{PartitionId, Position};
use crate::recorded::Recorded;

/// Records that were promised at a cursor and are gone: retention passed the reader, or somebody
/// deleted them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gap {
    /// In which partition.
    pub partition: PartitionId,
    /// How far it had been read.
    pub from: Frontier,
    /// The first record that is still there, where the service says it.
    pub to: Option<Position>,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "records of partition {} ", self.partition)?;
        match &self.from {
            Frontier::Start { .. } => f.write_str("from its beginning")?,
            Frontier::Since(time) => write!(f, "since {time}")?,
            Frontier::After { position, .. } => write!(f, "after {position}")?,
            Frontier::Ended { .. } => f.write_str("after its end")?,
        }
        if let Some(to) = &self.to {
            write!(f, " and before {to}")?;
        }
        f.write_str(
            " are gone; read on to go on behind the gap, or start at Earliest to accept it beforehand",
        )
    }
}

/// One thing that a replay has to say.
#[derive(Clone, PartialEq, Debug)]
pub enum Signal {
    /// A record.
    Record(Recorded),
    /// Everything acknowledged before the open has been handed out; told once.
    CaughtUp(Cursor),
    /// No record, but the cursor moved: store it, so that an idle topic's cursor does not age out.
    Advanced(Cursor),
    /// Records are gone; reading goes on behind them.
    Gap(Gap),
}
