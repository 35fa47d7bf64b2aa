//! Records that are gone: told by `next`, and passed by no commit before that.

use std::time::Duration;

use super::Ledger;
use crate::cursor::Frontier;
use crate::driver::Tenancy;
use crate::position::Position;
use crate::signal::Gap;

/// A gap that nobody has been told of.
#[derive(Debug)]
pub(super) struct Untold {
    tenancy: Tenancy,
    gap: Gap,
}

impl Ledger {
    /// Records are gone: whoever asks next is told. In the stay it is a hole until then, so who
    /// takes the partition over before that comes to it too.
    pub(crate) fn skipped(&mut self, tenancy: Tenancy, from: Frontier, to: Option<Position>) {
        let id = self.id();
        let id = if let Some(stay) = self.live(tenancy) {
            stay.gap(id)
        } else if self.was_assigned(tenancy) {
            // Of a stay that has ended the next holder comes to it.
            return;
        } else {
            // Where each delivery is settled by itself there are no stays, and no marks.
            let mut untold = self.gaps.iter().rev();
            let same = untold.find(|(_, u)| u.tenancy.partition == tenancy.partition);
            same.map_or(id, |(same, _)| *same)
        };
        let partition = tenancy.partition;
        let untold = self.gaps.entry(id).or_insert_with(|| Untold {
            tenancy,
            gap: Gap {
                partition,
                from,
                to,
            },
        });
        // Two that nobody has heard of yet are one.
        untold.gap.to = to;
    }

    /// The oldest gap to tell, unless a record that came before it can be handed out first. It
    /// counts as told once [`told`](Self::told) says so.
    pub(crate) fn gap(&mut self) -> Option<(Told, Gap)> {
        if self.closing {
            return None;
        }
        let id = *self.gaps.first_key_value()?.0;
        if self.next_ready().is_some_and(|ready| ready < id) {
            return None;
        }
        let Untold { tenancy, gap } = self.gaps.remove(&id)?;
        Some((Told { tenancy, id }, gap))
    }

    /// The application has it: commits may pass it.
    pub(crate) fn told(&mut self, told: &Told, now: Duration) {
        // More may have gone meanwhile, which is told by the same id.
        if self.gaps.contains_key(&told.id) {
            return;
        }
        if let Some(stay) = self.stay(told.tenancy) {
            stay.told(told.id);
            self.touch(now);
        }
    }
}

/// A gap that was taken out to be told.
#[derive(Debug)]
pub(crate) struct Told {
    tenancy: Tenancy,
    id: u64,
}
