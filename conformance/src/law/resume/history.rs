//! What is known of all lives, and of each member in one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use annals_core::{Delivery, PartitionId, Recorded, Subscription};

use super::CLOSE;
use crate::law::Shape;
use crate::trial::{During, Judged, Stage, Trial, ensure};
use crate::workload::{self, groups};

/// All lives together.
#[derive(Default, Debug)]
pub(super) struct History {
    /// Where each record is: its partition, and the how-manieth it is there.
    pub(super) places: BTreeMap<String, (PartitionId, usize)>,
    pub(super) by_partition: BTreeMap<PartitionId, Vec<String>>,
    /// Settled by some handler.
    pub(super) done: BTreeSet<String>,
    /// Settled, and known to be stored so.
    pub(super) committed: BTreeSet<String>,
    pub(super) handed: usize,
    /// In a handler's hands, unsettled, when a life ended.
    pub(super) left: usize,
    /// How often a flush could say nothing of what is committed.
    pub(super) doubts: usize,
}

impl History {
    pub(super) fn handed(&mut self, record: &Recorded) -> Judged<()> {
        let value = workload::text(record);
        self.handed += 1;
        ensure(!self.committed.contains(&value), || {
            format!(
                "{value:?} was settled and committed, and comes again at {:?}",
                record.position()
            )
        })
    }

    /// Notes where the records are, where they can be read.
    pub(super) async fn look(&mut self, stage: &Stage) -> Judged<()> {
        if Shape::of(stage.capabilities()) == Shape::Queue {
            return Ok(());
        }
        self.by_partition.clear();
        for record in stage.read_all().await? {
            let Some(position) = record.position() else {
                continue;
            };
            let records = self.by_partition.entry(position.partition()).or_default();
            let value = workload::text(&record);
            self.places
                .insert(value.clone(), (position.partition(), records.len()));
            records.push(value);
        }
        Ok(())
    }
}

/// One member in one life.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) subscription: Subscription,
    pub(super) hand: Vec<Delivery>,
    pub(super) life: Life,
}

/// What is known of one member's life.
#[derive(Default, Debug)]
pub(super) struct Life {
    pub(super) done: BTreeSet<String>,
    /// The first record that it was handed of each partition.
    pub(super) first: BTreeMap<PartitionId, usize>,
    /// A partition went and perhaps came back: nothing is known to be committed any more.
    pub(super) doubted: bool,
}

impl Life {
    /// All that was settled has been told to the service: what is known to be committed by it. Up
    /// to a record, that is what has no hole before it since the first that this member was handed.
    pub(super) fn committed(&self, history: &mut History, up_to: bool) {
        if self.doubted {
            history.doubts += 1;
            return;
        }
        if !up_to {
            history.committed.extend(self.done.iter().cloned());
            return;
        }
        for (partition, first) in &self.first {
            let records = history.by_partition.get(partition);
            let behind = records.into_iter().flatten().skip(*first);
            let whole = behind.take_while(|value| self.done.contains(*value));
            history.committed.extend(whole.cloned());
        }
    }
}

impl Member {
    pub(super) async fn take(&mut self, history: &mut History, wait: Duration) -> Judged<()> {
        let delivery = match groups::perhaps(&self.subscription, wait).await? {
            Ok(delivery) => delivery,
            Err(silent) => {
                self.life.doubted |= !silent;
                return Ok(());
            }
        };
        history.handed(&delivery)?;
        if let Some((partition, place)) = history.places.get(&workload::text(&delivery)) {
            let first = self.life.first.entry(*partition).or_insert(*place);
            *first = (*first).min(*place);
        }
        self.hand.push(delivery);
        Ok(())
    }

    pub(super) fn settle(&mut self, history: &mut History, index: usize) -> Delivery {
        let delivery = self.hand.swap_remove(index);
        let value = workload::text(&delivery);
        history.done.insert(value.clone());
        self.life.done.insert(value);
        delivery
    }

    /// Settles, and waits a moment for it to be committed: an earlier one may be in the way.
    pub(super) async fn settle_and_wait(
        &mut self,
        history: &mut History,
        index: usize,
        wait: Duration,
    ) {
        let delivery = self.settle(history, index);
        let value = workload::text(&delivery);
        match tokio::time::timeout(wait, delivery.done_and_wait()).await {
            Ok(Ok(())) => {
                history.committed.insert(value);
            }
            // Told to who waits, and to nobody else.
            Ok(Err(_)) => self.life.doubted = true,
            Err(_) => {}
        }
    }

    /// Waits until all that was settled has been told.
    pub(super) async fn flush(
        &mut self,
        trial: &Trial,
        history: &mut History,
        up_to: bool,
    ) -> Judged<()> {
        let flushed = trial.soon("a flush", self.subscription.flush()).await?;
        told(flushed, &mut self.life)?;
        self.life.committed(history, up_to);
        Ok(())
    }

    /// Leaves in good order, with nothing in hand.
    pub(super) async fn close(
        self,
        trial: &Trial,
        history: &mut History,
        up_to: bool,
    ) -> Judged<()> {
        let Self {
            subscription,
            hand,
            mut life,
        } = self;
        drop(hand);
        let closed = trial.soon("a close", subscription.close(CLOSE)).await?;
        told(closed.map(drop), &mut life)?;
        life.committed(history, up_to);
        Ok(())
    }
}

/// What was settled too late is nothing that is committed, and no mistake.
fn told(result: Result<(), annals_core::Error>, life: &mut Life) -> Judged<()> {
    match result {
        Err(error) if groups::is_over(&error) => {
            life.doubted = true;
            Ok(())
        }
        other => other.during("committing"),
    }
}
