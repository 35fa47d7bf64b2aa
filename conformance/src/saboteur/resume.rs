//! Saboteurs of *resume*.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use annals_core::driver::{
    Arrived, Backend, Delivered, Fetched, Holder, Inbound, Lease, Leases, Mark, Reader, Room,
    Settled, Settler, Settling, Source, SubscribeOptions, Tenancy, Token, Verdict,
};
use annals_core::{Frontier, Group, PartitionId, Position, Recorded, Result, TopicName};
use async_trait::async_trait;

use super::{Acted, Model, Sabotage, Saboteur};
use crate::harness::{Cannot, Disturb, Harness};
use crate::tap::{Hook, Passage};

pub(super) const ALL: &[Saboteur] = &[
    Saboteur {
        name: "settles_on_receipt",
        mirrors: "what is received is settled at once, whatever the handler says: AMQP's no_ack, RPOP",
        model: Model::Queue,
        law: "resume",
        make: |acted| Arc::new(OnReceipt::new(acted)),
    },
    Saboteur {
        name: "commits_what_was_polled",
        mirrors: "the renewal of a lease commits all that was read by then: Kafka's enable.auto.commit",
        model: Model::Sharded,
        law: "resume",
        make: |acted| Arc::new(AutoCommit::new(acted)),
    },
    Saboteur {
        name: "settles_all_before",
        mirrors: "settling one settles what was received before it too: AMQP's multiple, vector's watermark over a hole (#9587)",
        model: Model::Queue,
        law: "resume",
        make: |acted| Arc::new(Multiple(acted, Mutex::default())),
    },
    Saboteur {
        name: "a_restart_forgets_commits",
        mirrors: "the second restart reads the snapshot that the first one left, and nothing that was committed since",
        model: Model::Log,
        law: "resume",
        make: |acted| Arc::new(Restarts(acted, Mutex::default())),
    },
    Saboteur {
        name: "commits_one_too_far",
        mirrors: "takes the place of the last record handled for that of the next one to read, or the other way round: Kafka's offset + 1",
        model: Model::Log,
        law: "resume",
        make: |acted| Arc::new(OneTooFar(acted)),
    },
    Saboteur {
        name: "commits_at_the_close",
        mirrors: "says a commit is stored and stores it when the member leaves: who is killed begins again",
        model: Model::Sharded,
        law: "resume",
        make: |acted| Arc::new(AtTheClose(acted, Mutex::default())),
    },
    Saboteur {
        name: "a_lost_connection_settles",
        mirrors: "what a client held when it died is gone: a broker that took its messages off the queue when it sent them",
        model: Model::Queue,
        law: "resume",
        make: |acted| Arc::new(Gone::new(acted, Disturb::Kill)),
    },
    Saboteur {
        name: "commits_one_partition",
        mirrors: "of the marks of one commit only the first is stored, as where one failed partition ends the loop",
        model: Model::Sharded,
        law: "resume",
        make: |acted| Arc::new(FirstMark(acted)),
    },
    Saboteur {
        name: "loses_one_commit",
        mirrors: "the third commit of a client is told and not stored, and those behind it make it good: a write that was dropped with its connection",
        model: Model::Sharded,
        law: "resume",
        make: |acted| Arc::new(LosesOne(acted, AtomicUsize::new(0))),
    },
];

/// Settles what it lends, and then says yes to everything.
#[derive(Debug)]
struct OnReceipt {
    acted: Acted,
    settlers: Mutex<Vec<Arc<dyn Settler>>>,
}

impl OnReceipt {
    fn new(acted: Acted) -> Self {
        Self {
            acted,
            settlers: Mutex::default(),
        }
    }
}

#[async_trait]
impl Hook for OnReceipt {
    async fn subscribe(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        group: &Group,
        options: &SubscribeOptions,
    ) -> Result<Inbound> {
        let mut inbound = below.subscribe(topic, group, options).await?;
        if let Settling::Each(settler) = &inbound.settling {
            let mut settlers = self.settlers.lock().unwrap_or_else(PoisonError::into_inner);
            settlers.push(Arc::clone(settler));
            inbound.settling = Settling::Each(Arc::new(Agrees));
        }
        Ok(inbound)
    }

    async fn receive(
        &self,
        _: &mut Passage,
        below: &mut dyn Source,
        room: Room,
        out: &mut Vec<Delivered>,
    ) -> Result<Arrived> {
        let before = out.len();
        let told = below.fetch(room, out).await;
        let settlements: Vec<_> = out
            .iter()
            .skip(before)
            .filter_map(|delivered| match delivered.holder {
                Holder::Token(token) => Some((token, Verdict::Done)),
                Holder::Tenancy(_) => None,
            })
            .collect();
        let settlers = self
            .settlers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        // A token that is not of a settler's own is refused there.
        for settler in settlers {
            let settled = settler.settle(&settlements).await;
            if settled.is_ok_and(|settled| settled.iter().any(|s| matches!(s, Settled::Yes))) {
                self.acted.mark();
            }
        }
        told
    }
}

impl Sabotage for OnReceipt {}

/// Says yes and does nothing.
#[derive(Debug)]
struct Agrees;

#[async_trait]
impl Settler for Agrees {
    async fn settle(&self, settlements: &[(Token, Verdict)]) -> Result<Vec<Settled>> {
        Ok(vec![Settled::Yes; settlements.len()])
    }

    async fn extend(&self, tokens: &[Token], _: Duration) -> Result<Vec<Settled>> {
        Ok(vec![Settled::Yes; tokens.len()])
    }

    fn release(&self, _: &[Token]) {}

    fn held_for(&self, _: Token) -> Option<Duration> {
        None
    }
}

/// Commits how far each partition was read.
#[derive(Debug)]
struct AutoCommit {
    acted: Acted,
    read: Mutex<BTreeMap<PartitionId, Position>>,
}

impl AutoCommit {
    fn new(acted: Acted) -> Self {
        Self {
            acted,
            read: Mutex::default(),
        }
    }
}

#[async_trait]
impl Hook for AutoCommit {
    async fn fetch(
        &self,
        _: &mut Passage,
        below: &mut dyn Reader,
        room: Room,
        out: &mut Vec<Recorded>,
    ) -> Result<Fetched> {
        let told = below.fetch(room, out).await;
        if let Some(last) = out.last().and_then(Recorded::position) {
            let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
            read.insert(last.partition(), last);
        }
        told
    }

    async fn renew(
        &self,
        below: &dyn Leases,
        group: &Group,
        held: &[Tenancy],
    ) -> Result<Vec<Result<()>>> {
        let marks: Vec<Mark> = {
            let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
            let mark = |tenancy: &Tenancy| {
                let last = read.get(&tenancy.partition)?;
                Some(Mark {
                    tenancy: *tenancy,
                    to: Frontier::after(*last),
                    attempts: 0,
                })
            };
            held.iter().filter_map(mark).collect()
        };
        if !marks.is_empty() {
            self.acted.mark();
            below.commit(group, &marks).await?;
        }
        below.renew(group, held).await
    }
}

impl Sabotage for AutoCommit {}

/// Settles all that the member was lent before.
#[derive(Debug)]
struct Multiple(Acted, Mutex<Vec<Token>>);

#[async_trait]
impl Hook for Multiple {
    async fn receive(
        &self,
        _: &mut Passage,
        below: &mut dyn Source,
        room: Room,
        out: &mut Vec<Delivered>,
    ) -> Result<Arrived> {
        let before = out.len();
        let told = below.fetch(room, out).await;
        let mut lent = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        lent.extend(out.iter().skip(before).filter_map(|d| match d.holder {
            Holder::Token(token) => Some(token),
            Holder::Tenancy(_) => None,
        }));
        told
    }

    async fn settle(
        &self,
        below: &dyn Settler,
        settlements: &[(Token, Verdict)],
    ) -> Result<Vec<Settled>> {
        let told = below.settle(settlements).await?;
        let done = settlements
            .iter()
            .filter(|(_, verdict)| *verdict == Verdict::Done);
        let Some(last) = done.map(|(token, _)| *token).max_by_key(|t| t.slot) else {
            return Ok(told);
        };
        let before: Vec<(Token, Verdict)> = {
            let mut lent = self.1.lock().unwrap_or_else(PoisonError::into_inner);
            let is_before = |t: &Token| t.epoch == last.epoch && t.slot < last.slot;
            let before = lent.iter().copied().filter(is_before);
            let before = before.map(|token| (token, Verdict::Done)).collect();
            lent.retain(|token| !is_before(token));
            before
        };
        let more = below.settle(&before).await?;
        if more.iter().any(|settled| matches!(settled, Settled::Yes)) {
            self.0.mark();
        }
        Ok(told)
    }
}

impl Sabotage for Multiple {}

#[derive(Debug)]
struct OneTooFar(Acted);

#[async_trait]
impl Hook for OneTooFar {
    async fn commit_lease(
        &self,
        below: &dyn Leases,
        group: &Group,
        marks: &[Mark],
    ) -> Result<Vec<Result<()>>> {
        let mut marks = marks.to_vec();
        for mark in &mut marks {
            if let Some(at) = mark.to.position()
                && let Some(number) = at.number_u64()
            {
                self.0.mark();
                mark.to = Frontier::after(Position::new(at.partition(), number + 1));
            }
        }
        below.commit(group, &marks).await
    }
}

impl Sabotage for OneTooFar {}

/// Keeps commits to itself until the lease is given back.
#[derive(Debug)]
struct AtTheClose(Acted, Mutex<BTreeMap<Tenancy, Mark>>);

#[async_trait]
impl Hook for AtTheClose {
    async fn commit_lease(
        &self,
        below: &dyn Leases,
        group: &Group,
        marks: &[Mark],
    ) -> Result<Vec<Result<()>>> {
        // What ends a partition lets its children begin.
        let held: Vec<Tenancy> = marks.iter().map(|mark| mark.tenancy).collect();
        if marks.iter().any(|mark| mark.to.is_ended()) {
            return below.commit(group, marks).await;
        }
        let told = below.renew(group, &held).await?;
        let mut kept = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        for (mark, told) in marks.iter().zip(&told) {
            if told.is_ok() {
                self.0.mark();
                kept.insert(mark.tenancy, *mark);
            }
        }
        Ok(told)
    }

    async fn release(&self, below: &dyn Leases, group: &Group, tenancy: Tenancy) -> Result<()> {
        let mark = {
            let mut kept = self.1.lock().unwrap_or_else(PoisonError::into_inner);
            kept.remove(&tenancy)
        };
        if let Some(mark) = mark {
            below.commit(group, &[mark]).await?;
        }
        below.release(group, tenancy).await
    }
}

impl Sabotage for AtTheClose {}

#[derive(Debug)]
struct FirstMark(Acted);

#[async_trait]
impl Hook for FirstMark {
    async fn commit_lease(
        &self,
        below: &dyn Leases,
        group: &Group,
        marks: &[Mark],
    ) -> Result<Vec<Result<()>>> {
        let mut told = below
            .commit(group, marks.get(..1).unwrap_or_default())
            .await?;
        while told.len() < marks.len() {
            self.0.mark();
            told.push(Ok(()));
        }
        Ok(told)
    }
}

impl Sabotage for FirstMark {}

/// Settles all that is lent before the clients end like this.
#[derive(Debug)]
struct Gone {
    acted: Acted,
    when: Disturb,
    settlers: Mutex<Vec<Arc<dyn Settler>>>,
    lent: Mutex<Vec<Token>>,
}

impl Gone {
    fn new(acted: Acted, when: Disturb) -> Self {
        Self {
            acted,
            when,
            settlers: Mutex::default(),
            lent: Mutex::default(),
        }
    }
}

#[async_trait]
impl Hook for Gone {
    async fn subscribe(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        group: &Group,
        options: &SubscribeOptions,
    ) -> Result<Inbound> {
        let inbound = below.subscribe(topic, group, options).await?;
        if let Settling::Each(settler) = &inbound.settling {
            let mut settlers = self.settlers.lock().unwrap_or_else(PoisonError::into_inner);
            settlers.push(Arc::clone(settler));
        }
        Ok(inbound)
    }

    async fn receive(
        &self,
        _: &mut Passage,
        below: &mut dyn Source,
        room: Room,
        out: &mut Vec<Delivered>,
    ) -> Result<Arrived> {
        let before = out.len();
        let told = below.fetch(room, out).await;
        let mut lent = self.lent.lock().unwrap_or_else(PoisonError::into_inner);
        lent.extend(out.iter().skip(before).filter_map(|d| match d.holder {
            Holder::Token(token) => Some(token),
            Holder::Tenancy(_) => None,
        }));
        told
    }
}

#[async_trait]
impl Sabotage for Gone {
    async fn disturb(
        &self,
        below: &dyn Harness,
        topic: &TopicName,
        what: Disturb,
    ) -> Result<(), Cannot> {
        if what == self.when {
            let take = |of: &Mutex<Vec<Token>>| {
                std::mem::take(&mut *of.lock().unwrap_or_else(PoisonError::into_inner))
            };
            let lent: Vec<_> = take(&self.lent)
                .into_iter()
                .map(|token| (token, Verdict::Done))
                .collect();
            let settlers = {
                let mut all = self.settlers.lock().unwrap_or_else(PoisonError::into_inner);
                std::mem::take(&mut *all)
            };
            for settler in settlers {
                let told = settler.settle(&lent).await;
                if told.is_ok_and(|told| told.iter().any(|s| matches!(s, Settled::Yes))) {
                    self.acted.mark();
                }
            }
        }
        below.disturb(topic, what).await
    }
}

/// From the second restart on, every group is where it was when it was first seen.
#[derive(Debug)]
struct Restarts(Acted, Mutex<Places>);

#[derive(Default, Debug)]
struct Places {
    /// Where each was first seen, and how many restarts there had been by then.
    first: BTreeMap<(Group, PartitionId), (Frontier, usize)>,
    restarts: usize,
}

#[async_trait]
impl Hook for Restarts {
    async fn load(&self, below: &dyn Leases, group: &Group) -> Result<Option<Vec<Lease>>> {
        let mut rows = below.load(group).await?;
        let mut places = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        let restarts = places.restarts;
        for row in rows.iter_mut().flatten() {
            let key = (group.clone(), row.partition);
            let (first, before) = *places.first.entry(key).or_insert((row.at, restarts));
            if restarts >= before + 2 && row.at != first {
                self.0.mark();
                row.at = first;
            }
        }
        Ok(rows)
    }
}

#[async_trait]
impl Sabotage for Restarts {
    async fn disturb(
        &self,
        below: &dyn Harness,
        topic: &TopicName,
        what: Disturb,
    ) -> Result<(), Cannot> {
        if what == Disturb::Restart {
            let mut places = self.1.lock().unwrap_or_else(PoisonError::into_inner);
            places.restarts += 1;
        }
        below.disturb(topic, what).await
    }
}

#[derive(Debug)]
struct LosesOne(Acted, AtomicUsize);

#[async_trait]
impl Hook for LosesOne {
    async fn commit_lease(
        &self,
        below: &dyn Leases,
        group: &Group,
        marks: &[Mark],
    ) -> Result<Vec<Result<()>>> {
        if self.1.fetch_add(1, Ordering::SeqCst) == 2 {
            self.0.mark();
            return Ok(marks.iter().map(|_| Ok(())).collect());
        }
        below.commit(group, marks).await
    }
}

#[async_trait]
impl Sabotage for LosesOne {
    async fn connect(&self, below: &dyn Harness) -> Result<Arc<dyn Backend>> {
        self.1.store(0, Ordering::SeqCst);
        below.connect().await
    }
}
