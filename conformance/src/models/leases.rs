//! A group's table of leases: one row per partition, every change conditional on what was seen.
//!
//! It stands for the table in DynamoDB that Kinesis' clients keep beside a stream. As there, the
//! table knows no time: whether a holder is dead its rivals conclude from a counter that stands
//! still.

use std::collections::BTreeMap;
use std::sync::Arc;

use annals_core::driver::{Lease, Mark, Tenancy};
use annals_core::{Effect, Error, ErrorKind, Frontier, PartitionId, Result, Retry};

/// The rows of one group.
#[derive(Clone, Debug)]
pub(super) struct Table {
    rows: BTreeMap<PartitionId, Row>,
    /// Where the epochs of this group begin: behind those of any before it that had its name.
    epoch: u64,
}

#[derive(Clone, Debug)]
struct Row {
    lease: Lease,
    /// Which stay the row is in; grows with every take.
    epoch: u64,
}

impl Table {
    pub(super) fn new(first: &[Lease], epoch: u64) -> Self {
        let mut table = Self {
            rows: BTreeMap::new(),
            epoch,
        };
        table.add(first);
        table
    }

    pub(super) fn rows(&self) -> Vec<Lease> {
        self.rows.values().map(|row| row.lease.clone()).collect()
    }

    /// Rows that are there stay as they are.
    pub(super) fn add(&mut self, leases: &[Lease]) {
        for lease in leases {
            self.rows.entry(lease.partition).or_insert_with(|| Row {
                lease: lease.clone(),
                epoch: self.epoch,
            });
        }
    }

    /// Gives the lease to `by` if its row is still as `seen`.
    pub(super) fn take(&mut self, seen: &Lease, by: &Arc<str>) -> Option<Tenancy> {
        let row = self.rows.get_mut(&seen.partition)?;
        if row.lease.counter != seen.counter || row.lease.owner != seen.owner {
            return None;
        }
        row.lease.owner = Some(Arc::clone(by));
        row.lease.counter += 1;
        row.epoch += 1;
        Some(Tenancy {
            partition: seen.partition,
            epoch: row.epoch,
        })
    }

    pub(super) fn renew(&mut self, tenancy: Tenancy) -> Result<()> {
        self.held(tenancy)?.lease.counter += 1;
        Ok(())
    }

    /// A mark that goes back has no effect.
    pub(super) fn commit(&mut self, mark: &Mark) -> Result<()> {
        let row = self.held(mark.tenancy)?;
        row.lease.counter += 1;
        if !goes_back(&row.lease.at, &mark.to) {
            row.lease.at = mark.to;
            row.lease.attempts = mark.attempts;
        }
        Ok(())
    }

    /// Ending a stay that has ended already is no mistake.
    pub(super) fn release(&mut self, tenancy: Tenancy) {
        if let Ok(row) = self.held(tenancy) {
            row.lease.owner = None;
            row.lease.counter += 1;
        }
    }

    fn held(&mut self, tenancy: Tenancy) -> Result<&mut Row> {
        self.rows
            .get_mut(&tenancy.partition)
            .filter(|row| row.epoch == tenancy.epoch && row.lease.owner.is_some())
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::Fenced,
                    Effect::None,
                    Retry::Never,
                    "this stay has ended: another member took the partition, or it was given up",
                )
                .in_partition(tenancy.partition)
            })
    }
}

/// Whether `to` lies before `at`.
fn goes_back(at: &Frontier, to: &Frontier) -> bool {
    match (at, to) {
        (
            Frontier::After { position, clear },
            Frontier::After {
                position: next,
                clear: then,
            },
        ) => next < position || (next == position && then < clear),
        (Frontier::Since(at), Frontier::Since(to)) => to < at,
        (Frontier::Start { clear }, Frontier::Start { clear: then })
        | (Frontier::Ended { clear }, Frontier::Ended { clear: then }) => then < clear,
        (at, to) => rank(to) < rank(at),
    }
}

fn rank(frontier: &Frontier) -> u8 {
    match frontier {
        Frontier::Start { .. } => 0,
        Frontier::Since(_) => 1,
        Frontier::After { .. } => 2,
        Frontier::Ended { .. } => 3,
    }
}

#[cfg(test)]
mod tests {
    use annals_core::Position;

    use super::*;

    const P: PartitionId = PartitionId::ONLY;

    fn after(number: u64) -> Frontier {
        Frontier::after(Position::new(P, number))
    }

    fn row() -> Lease {
        Lease {
            partition: P,
            owner: None,
            counter: 0,
            at: Frontier::START,
            parents: Vec::new(),
            attempts: 0,
        }
    }

    #[test]
    fn one_rival_takes_and_the_old_stay_is_fenced() {
        let mut table = Table::new(&[row()], 7);
        let seen = table.rows()[0].clone();
        let first = table.take(&seen, &"a".into()).unwrap();
        assert_eq!(
            table.take(&seen, &"b".into()),
            None,
            "the row is no longer so"
        );
        let mark = |tenancy, number| Mark {
            tenancy,
            to: after(number),
            attempts: 0,
        };
        table.commit(&mark(first, 5)).unwrap();

        let seen = table.rows()[0].clone();
        let second = table.take(&seen, &"b".into()).unwrap();
        let fenced = table.commit(&mark(first, 9)).unwrap_err();
        assert_eq!(fenced.kind(), ErrorKind::Fenced);
        assert_eq!(table.renew(first).unwrap_err().kind(), ErrorKind::Fenced);
        table.release(first);
        assert_eq!(table.rows()[0].at, after(5));
        table.commit(&mark(second, 3)).unwrap();
        assert_eq!(table.rows()[0].at, after(5), "a mark does not go back");

        table.release(second);
        assert_eq!(table.rows()[0].owner, None);
        assert_eq!(
            table.commit(&mark(second, 9)).unwrap_err().kind(),
            ErrorKind::Fenced
        );
    }

    #[test]
    fn frontiers_only_go_forward() {
        let order = [
            Frontier::START,
            Frontier::Start {
                clear: Some(annals_core::Timestamp::EPOCH),
            },
            Frontier::Since(annals_core::Timestamp::EPOCH),
            after(1),
            Frontier::After {
                position: Position::new(P, 1),
                clear: Some(annals_core::Timestamp::EPOCH),
            },
            after(2),
            Frontier::ENDED,
        ];
        for (i, at) in order.iter().enumerate() {
            for (j, to) in order.iter().enumerate() {
                assert_eq!(goes_back(at, to), j < i, "{at:?} to {to:?}");
            }
        }
    }
}
