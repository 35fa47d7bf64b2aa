//! Making a group: its start is resolved and stored before anything is delivered.

use std::collections::HashSet;
use std::sync::Arc;

use crate::cursor::{Cursor, Frontier, Origin, Rest};
use crate::driver::{Lease, Leases, Partition, SubscribeOptions};
use crate::error::{Error, Result};
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
    if start.rest() == Rest::Outside && start.places().len() == 0 {
        return Err(Error::config(
            "a group reads the whole topic, and the cursor it is to start at leaves all partitions out",
        ));
    }
    let partitions = backend.partitions(topic.name()).await?;
    let rows = rows(&start, &partitions);
    let made = leases.found(group, &rows).await?;
    // Somebody who was faster has stored another start, and that one holds.
    Ok((!made, Arc::clone(start.origin())))
}

/// A row per partition that is still to be read from `start`.
fn rows(start: &Cursor, partitions: &[Partition]) -> Vec<Lease> {
    let finished = ancestors(start.places().map(|(id, _)| id), partitions);
    let unnamed = |partition: &&Partition| match start.frontier(partition.id) {
        Some(_) => true,
        None => start.rest() == Rest::FromStart && !finished.contains(&partition.id),
    };
    partitions
        .iter()
        .filter(unnamed)
        .map(|partition| {
            let at = start.frontier(partition.id).copied();
            row(partition, at.unwrap_or(Frontier::Start))
        })
        .collect()
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
