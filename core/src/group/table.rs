//! Who should have which lease: decisions over one look at the table.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::cursor::Frontier;
use crate::driver::Lease;
use crate::position::PartitionId;

/// When this member last saw a lease's counter change, by its own clock.
#[derive(Debug, Default)]
pub(super) struct Seen(HashMap<PartitionId, (u64, Duration)>);

impl Seen {
    /// Notes what the table looks like at `now`.
    pub(super) fn look(&mut self, rows: &[Lease], now: Duration) {
        for row in rows {
            let seen = self.0.entry(row.partition).or_insert((row.counter, now));
            if seen.0 != row.counter {
                *seen = (row.counter, now);
            }
        }
    }

    /// Whether nobody has this lease, or who has it has said nothing for `lease`.
    pub(super) fn is_free(&self, row: &Lease, lease: Duration, now: Duration) -> bool {
        row.owner.is_none()
            || self
                .0
                .get(&row.partition)
                .is_some_and(|(_, since)| now.saturating_sub(*since) >= lease)
    }

    /// The leases that a member which holds `held` should try to take now.
    ///
    /// Free ones up to its fair share; without any, one of somebody who has at least two more.
    pub(super) fn wanted<'a>(
        &self,
        rows: &'a [Lease],
        held: &BTreeSet<PartitionId>,
        lease: Duration,
        now: Duration,
    ) -> Vec<&'a Lease> {
        let live: Vec<&Lease> = rows.iter().filter(|row| is_due(row, rows)).collect();
        let mine = live.iter().filter(|r| held.contains(&r.partition)).count();
        let mut others: BTreeMap<&Arc<str>, Vec<&Lease>> = BTreeMap::new();
        let mut free = Vec::new();
        for row in live.iter().filter(|row| !held.contains(&row.partition)) {
            match &row.owner {
                Some(owner) if !self.is_free(row, lease, now) => {
                    others.entry(owner).or_default().push(*row);
                }
                _ => free.push(*row),
            }
        }
        let share = live.len().div_ceil(others.len() + 1);
        let room = share.saturating_sub(mine);
        if !free.is_empty() {
            free.truncate(room);
            return free;
        }
        // One at a time, and only what makes the two more equal: nothing is passed to and fro.
        let richest = others.into_values().max_by_key(Vec::len);
        match richest {
            Some(theirs) if room > 0 && theirs.len() >= mine + 2 => {
                theirs.last().copied().into_iter().collect()
            }
            _ => Vec::new(),
        }
    }
}

/// Whether a partition may be read now: it is not done with, and all its parents are.
fn is_due(row: &Lease, rows: &[Lease]) -> bool {
    let ended = |parent: &PartitionId| {
        // A parent without a row was finished before the group was made.
        let parent = rows.iter().find(|row| row.partition == *parent);
        parent.is_none_or(|parent| parent.at.is_ended())
    };
    !row.at.is_ended() && row.parents.iter().all(ended)
}

/// A row with the evidence of what it continues, as far as that has rows: nothing in it was stored
/// before one of them had ended.
pub(super) fn begun(row: &Lease, rows: &[Lease]) -> Lease {
    let parents = rows.iter().filter(|r| row.parents.contains(&r.partition));
    let clear = parents.filter_map(|parent| match parent.at {
        Frontier::Ended { clear } => clear,
        _ => None,
    });
    Lease {
        at: row.at.begun(clear.max()),
        ..row.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(10);

    fn row(id: u64, owner: Option<&str>, parents: &[u64]) -> Lease {
        Lease {
            partition: PartitionId::new(id),
            owner: owner.map(Arc::from),
            counter: 1,
            at: Frontier::START,
            parents: parents.iter().copied().map(PartitionId::new).collect(),
            attempts: 0,
        }
    }

    fn wanted(seen: &Seen, rows: &[Lease], held: &[u64], now: Duration) -> Vec<u64> {
        let held = held.iter().copied().map(PartitionId::new).collect();
        let wanted = seen.wanted(rows, &held, LEASE, now);
        wanted.iter().map(|row| row.partition.get()).collect()
    }

    #[test]
    fn shares_are_fair_and_settle_down() {
        let mut seen = Seen::default();
        let rows: Vec<Lease> = (0..4).map(|id| row(id, Some("a"), &[])).collect();
        seen.look(&rows, Duration::ZERO);
        assert_eq!(
            wanted(&seen, &rows, &[], Duration::ZERO),
            [3],
            "one is stolen"
        );
        let mut rows = rows;
        rows[2].owner = Some(Arc::from("b"));
        rows[3].owner = Some(Arc::from("b"));
        let none: [u64; 0] = [];
        assert_eq!(wanted(&seen, &rows, &[2, 3], Duration::ZERO), none);
        assert_eq!(wanted(&seen, &rows, &[0, 1], Duration::ZERO), none);
        // A third one gets one although nobody has more than a fair share.
        assert_eq!(wanted(&seen, &rows, &[], Duration::ZERO).len(), 1);
        let free: Vec<Lease> = (0..4).map(|id| row(id, None, &[])).collect();
        assert_eq!(wanted(&seen, &free, &[], Duration::ZERO), [0, 1, 2, 3]);
    }

    #[test]
    fn a_lease_runs_out_only_when_its_counter_stood_still_for_all_of_it() {
        let mut seen = Seen::default();
        let mut rows = vec![row(0, Some("a"), &[])];
        seen.look(&rows, Duration::ZERO);
        let none: [u64; 0] = [];
        assert_eq!(wanted(&seen, &rows, &[], LEASE / 2), none);
        rows[0].counter = 2;
        seen.look(&rows, LEASE / 2);
        assert_eq!(wanted(&seen, &rows, &[], LEASE), none);
        seen.look(&rows, LEASE);
        assert_eq!(wanted(&seen, &rows, &[], LEASE / 2 + LEASE), [0]);
    }

    #[test]
    fn a_child_waits_for_all_its_parents() {
        let seen = Seen::default();
        let mut rows = vec![
            row(0, None, &[]),
            row(1, None, &[]),
            row(2, None, &[0, 1, 9]),
        ];
        assert_eq!(wanted(&seen, &rows, &[], Duration::ZERO), [0, 1]);
        rows[0].at = Frontier::ENDED;
        assert_eq!(wanted(&seen, &rows, &[], Duration::ZERO), [1]);
        rows[1].at = Frontier::ENDED;
        assert_eq!(wanted(&seen, &rows, &[], Duration::ZERO), [2]);
    }
}
