//! Making a group: its start is resolved and stored before anything is delivered.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use crate::cursor::{Cursor, Frontier, Origin, Rest};
use crate::driver::{Budget, Lease, Leases, Partition, ReadRange, Stop, SubscribeOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::name::Group;
use crate::position::PartitionId;
use crate::start::Start;
use crate::topic::Topic;

/// Makes the group unless it is there. Says whether it was, and which topic its places belong to.
pub(super) async fn found(
    topic: &Topic,
    group: &Group,
    leases: &dyn Leases,
    options: &SubscribeOptions,
) -> Result<(bool, Arc<Origin>)> {
    let backend = &topic.bus().backend;
    if leases.load(group).await?.is_some() {
        let start = backend.locate(topic.name(), &Start::Beginning).await?;
        return Ok((true, Arc::clone(start.origin())));
    }
    let start = options.start.clone().unwrap_or(Start::Beginning);
    let start = backend.locate(topic.name(), &start).await?;
    let partitions = backend.partitions(topic.name()).await?;
    let mut rows = first_leases(&start, &partitions)?;
    for row in &mut rows {
        if let Frontier::Since(_) = row.at {
            row.at = pinned(topic, start.origin(), row).await?;
        }
    }
    let made = leases.found(group, &rows).await?;
    // Somebody who was faster has stored another start, and that one holds.
    Ok((!made, Arc::clone(start.origin())))
}

/// The place that a moment is now, as far as the backend can say: what retention removes after
/// the group was made is a gap, even if its first member dies before it has committed anything.
async fn pinned(topic: &Topic, origin: &Arc<Origin>, row: &Lease) -> Result<Frontier> {
    let range = ReadRange {
        from: Cursor::new(Arc::clone(origin), [(row.partition, row.at)], Rest::Outside),
        stop: Stop::Never,
        partitions: Some(vec![row.partition]),
        key: None,
        budget: Budget::new(1),
    };
    match topic.bus().backend.read(topic.name(), &range).await {
        Ok(opened) => {
            let at = opened.from.frontier(row.partition).copied();
            // Named by none, it is read from its start.
            Ok(at.unwrap_or(Frontier::START))
        }
        // It vanished after it was listed: told to the member that reads it.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(row.at),
        Err(error) => Err(error),
    }
}

/// The rows that a group founded at `start` has first, from the partitions that are listed: for a
/// backend that makes groups itself ([`Admin::create_group`](crate::driver::Admin::create_group),
/// [`TopicSpec::groups`](crate::driver::TopicSpec::groups)) in the table of its
/// [`Leases`](crate::driver::Leases), and for the tests of one. `start` is what
/// [`Backend::locate`](crate::driver::Backend::locate) answers.
///
/// One row for each listed partition that is still to be read, or that the cursor names, and for
/// each that is listed no more and not known to be finished, named or a parent of a listed one: a
/// member finds that gone, and tells.
///
/// A row at a [`Frontier::Since`], which [`Frontier::EARLIEST`] is too, is to be pinned before it is
/// stored, as far as the service lets: what goes after the group was made is a gap for it.
/// Subscribing does so by [`Opened::from`](crate::driver::Opened::from).
///
/// # Errors
/// `Config` when the cursor leaves partitions [outside](Rest::Outside) that a group has to read.
///
/// # Examples
/// ```
/// use annals_core::driver::{Partition, first_leases};
/// use annals_core::{Cursor, Frontier, Origin, PartitionId, Rest, TopicName};
/// # use std::sync::Arc;
/// # let topic = TopicName::new("t")?;
/// # let origin = Arc::new(Origin { scheme: "kinesis".into(), topic, incarnation: "1".into() });
/// let shard = |id, parents: &[u64]| Partition {
///     id: PartitionId::new(id),
///     name: format!("shard {id}").into(),
///     parents: parents.iter().copied().map(PartitionId::new).collect(),
///     open: true,
/// };
/// let listed = [shard(0, &[]), shard(1, &[0]), shard(2, &[0])];
/// // Named, shard 1 says that what it continues is finished; shard 2 is read from its start.
/// let start = Cursor::new(origin, [(PartitionId::new(1), Frontier::START)], Rest::FromStart);
/// let rows = first_leases(&start, &listed)?;
/// assert_eq!(rows.iter().map(|row| row.partition.get()).collect::<Vec<_>>(), [1, 2]);
/// # Ok::<(), annals_core::Error>(())
/// ```
pub fn first_leases(start: &Cursor, partitions: &[Partition]) -> Result<Vec<Lease>> {
    if let Some(left_out) = left_out(start, partitions) {
        return Err(Error::config(format!(
            "a group reads the whole topic, and the cursor it is to start at leaves partition {left_out} out; take one of a replay of all partitions"
        )));
    }
    Ok(rows(start, partitions))
}

/// A partition that `start` neither reads nor has read, nor will come to.
fn left_out(start: &Cursor, partitions: &[Partition]) -> Option<PartitionId> {
    if start.rest() == Rest::FromStart {
        return None;
    }
    let finished = ancestors(start.places().map(|(id, _)| id), partitions);
    let is_named = |id: &PartitionId| start.frontier(*id).is_some();
    let comes = |id: PartitionId| ancestors([id].into_iter(), partitions).iter().any(is_named);
    let ids = partitions.iter().map(|partition| partition.id);
    ids.filter(|id| !is_named(id) && !finished.contains(id))
        .find(|id| !comes(*id))
}

/// A row per partition that is still to be read from `start`.
fn rows(start: &Cursor, partitions: &[Partition]) -> Vec<Lease> {
    let finished = ancestors(start.places().map(|(id, _)| id), partitions);
    let unnamed = |partition: &&Partition| match start.frontier(partition.id) {
        Some(_) => true,
        None => start.rest() == Rest::FromStart && !finished.contains(&partition.id),
    };
    let listed = partitions.iter().filter(unnamed).map(|partition| {
        let at = start.frontier(partition.id).copied();
        row(partition, at.unwrap_or(Frontier::START))
    });
    // What is named and listed no more is for a member to find gone, and to tell.
    let is_listed = |id| partitions.iter().any(|partition| partition.id == id);
    let vanished = start.places().filter(|(id, at)| {
        let finished = at.is_ended() || finished.contains(id);
        !finished && !is_listed(*id)
    });
    let vanished = vanished.map(|(id, at)| gone(id, *at));
    let mut rows: Vec<Lease> = vanished.chain(listed).collect();
    add_vanished_parents(&mut rows, &HashSet::new(), &finished, partitions);
    rows
}

/// Puts in front the parents of `rows` that are listed no more, have no row and were not read: for
/// a member to find gone, and to tell, before it comes to what continues them.
pub(super) fn add_vanished_parents(
    rows: &mut Vec<Lease>,
    known: &HashSet<PartitionId>,
    finished: &HashSet<PartitionId>,
    partitions: &[Partition],
) {
    let mut settled: HashSet<PartitionId> = known.union(finished).copied().collect();
    settled.extend(partitions.iter().map(|partition| partition.id));
    settled.extend(rows.iter().map(|row| row.partition));
    let parents = rows.iter().flat_map(|row| &row.parents);
    let vanished: BTreeSet<PartitionId> = parents
        .filter(|id| !settled.contains(id))
        .copied()
        .collect();
    let vanished = vanished.into_iter().map(|id| gone(id, Frontier::START));
    *rows = vanished.chain(rows.drain(..)).collect();
}

/// A row of a partition that is listed no more.
const fn gone(partition: PartitionId, at: Frontier) -> Lease {
    Lease {
        partition,
        owner: None,
        counter: 0,
        at,
        parents: Vec::new(),
        attempts: 0,
    }
}

/// A new row.
pub(super) fn row(partition: &Partition, at: Frontier) -> Lease {
    Lease {
        partition: partition.id,
        owner: None,
        counter: 0,
        at,
        parents: partition.parents.clone(),
        attempts: 0,
    }
}

/// All that the named partitions continue, as far as they are listed.
pub(super) fn ancestors(
    named: impl Iterator<Item = PartitionId>,
    partitions: &[Partition],
) -> HashSet<PartitionId> {
    let mut found = HashSet::new();
    let mut open: Vec<PartitionId> = named.collect();
    while let Some(id) = open.pop() {
        let parents = partitions.iter().filter(|p| p.id == id);
        for parent in parents.flat_map(|p| &p.parents) {
            if found.insert(*parent) {
                open.push(*parent);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::TopicName;
    use crate::position::Position;

    fn partition(id: u64, parents: &[u64]) -> Partition {
        Partition {
            id: PartitionId::new(id),
            name: Arc::from(""),
            parents: parents.iter().copied().map(PartitionId::new).collect(),
            open: true,
        }
    }

    fn cursor(named: &[u64], rest: Rest) -> Cursor {
        let origin = Arc::new(Origin {
            scheme: "test".into(),
            topic: TopicName::new("orders").unwrap(),
            incarnation: "1".into(),
        });
        let place = |id: &u64| {
            let id = PartitionId::new(*id);
            (id, Frontier::after(Position::new(id, 7)))
        };
        Cursor::new(origin, named.iter().map(place), rest)
    }

    #[test]
    fn what_a_cursor_names_its_ancestors_have_been_read() {
        // 0 was split into 1 and 2; 2 and 3 were merged into 4.
        let all = [
            partition(0, &[]),
            partition(3, &[]),
            partition(1, &[0]),
            partition(2, &[0]),
            partition(4, &[2, 3]),
        ];
        let ids = |named: &[u64], rest| -> Vec<u64> {
            let rows = rows(&cursor(named, rest), &all);
            rows.iter().map(|row| row.partition.get()).collect()
        };
        assert_eq!(ids(&[], Rest::FromStart), [0, 3, 1, 2, 4]);
        assert_eq!(ids(&[1, 4], Rest::FromStart), [1, 4]);
        assert_eq!(
            ids(&[2, 3], Rest::FromStart),
            [3, 1, 2, 4],
            "its sibling too"
        );
        assert_eq!(ids(&[1, 2, 3], Rest::Outside), [3, 1, 2]);
        assert_eq!(ids(&[9, 4], Rest::Outside), [9, 4], "9 is listed no more");

        let out = |named: &[u64]| {
            let out = left_out(&cursor(named, Rest::Outside), &all);
            out.map(PartitionId::get)
        };
        assert_eq!(out(&[1, 2, 3]), None, "4 comes by itself");
        assert_eq!(out(&[1, 2]), Some(3));
        assert_eq!(out(&[4]), Some(1));
        assert_eq!(out(&[]), Some(0));
    }
}
