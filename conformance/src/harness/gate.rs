//! What stands between a backend in this process and its clients: cut connections, slow answers,
//! lost ones, a meter.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use annals_core::driver::{
    AppendOptions, Arrived, Backend, Commits, Delivered, Fetched, Inbound, Lease, Leases, Mark,
    Opened, Partition, ReadRange, Reader, Room, Settled, Settler, Source, SubscribeOptions,
    Tenancy, Token, Verdict,
};
use annals_core::{
    AppendReport, Batch, Clock, Cursor, Effect, Error, ErrorKind, Group, Outcome, Recorded, Result,
    Retry, Start, TopicName,
};
use async_trait::async_trait;
use std::sync::Arc;

use super::Meter;
use crate::models::{Call, Fault, Faults};
use crate::models::{disconnected, no_answer, refused, throttled};
use crate::tap::{Hook, Passage};

/// A gate that all clients of one backend go through: a [`Hook`] that is a harness's hand on them.
#[derive(Debug)]
pub struct Gate {
    clock: Clock,
    faults: Faults,
    cut: AtomicBool,
    delay: Mutex<Duration>,
    pulled: AtomicU64,
    calls: AtomicU64,
    fired: AtomicUsize,
}

impl Gate {
    /// An open gate; delays are by `clock`.
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            faults: Faults::default(),
            cut: AtomicBool::new(false),
            delay: Mutex::default(),
            pulled: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            fired: AtomicUsize::new(0),
        }
    }

    /// What shall go wrong with the next appends and fetches.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Whether connections are cut.
    pub fn cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::SeqCst);
    }

    /// How long every answer takes.
    pub fn delay(&self, by: Duration) {
        *self.delay.lock().unwrap_or_else(PoisonError::into_inner) = by;
    }

    /// How many calls were cut off, delayed, or fared as asked.
    pub fn fired(&self) -> usize {
        self.fired.load(Ordering::SeqCst) + self.faults.fired()
    }

    /// What was measured.
    pub fn read(&self, meter: Meter) -> u64 {
        match meter {
            Meter::BytesPulled => self.pulled.load(Ordering::SeqCst),
            Meter::Calls => self.calls.load(Ordering::SeqCst),
        }
    }

    /// Before the request leaves.
    async fn pass(&self) -> Result<()> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.cut.load(Ordering::SeqCst) {
            self.fired.fetch_add(1, Ordering::SeqCst);
            return Err(cut_off());
        }
        let delay = *self.delay.lock().unwrap_or_else(PoisonError::into_inner);
        if !delay.is_zero() {
            self.fired.fetch_add(1, Ordering::SeqCst);
            self.clock.sleep(delay).await;
        }
        Ok(())
    }

    /// What the script has for a call that fares as a whole: whether its answer gets lost.
    async fn whole(&self, call: Call) -> Result<Lost> {
        match self.faults.take(call) {
            None => Ok(Lost::No),
            Some(Fault::Delay(delay)) => {
                self.clock.sleep(delay).await;
                Ok(Lost::No)
            }
            Some(Fault::Lose { done: true }) => Ok(Lost::Reply),
            Some(Fault::Lose { done: false }) => Err(no_answer()),
            Some(Fault::Throttle(after)) => Err(throttled(after)),
            Some(Fault::Refuse(_) | Fault::Disconnect) => Err(disconnected()),
        }
    }

    async fn fetch_fault(&self) -> Result<()> {
        match self.faults.take(Call::Fetch) {
            None => Ok(()),
            Some(Fault::Delay(delay)) => {
                self.clock.sleep(delay).await;
                Ok(())
            }
            Some(Fault::Throttle(after)) => Err(throttled(after)),
            Some(_) => Err(disconnected()),
        }
    }

    fn pulled(&self, records: impl Iterator<Item = usize>) {
        let bytes: usize = records.sum();
        self.pulled.fetch_add(bytes as u64, Ordering::SeqCst);
    }
}

/// Whether the answer to a call that happened gets lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lost {
    No,
    Reply,
}

impl Lost {
    fn answer<R>(self, answer: Result<R>) -> Result<R> {
        match self {
            Self::No => answer,
            Self::Reply => Err(no_answer()),
        }
    }
}

fn cut_off() -> Error {
    Error::new(
        ErrorKind::Disconnected,
        Effect::None,
        Retry::Backoff,
        "the connection is cut; try again",
    )
}

#[async_trait]
impl Hook for Gate {
    async fn append(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        self.pass().await?;
        let unknown = || AppendReport::all(batch.len(), &Outcome::Unknown(no_answer()));
        match self.faults.take(Call::Append) {
            None => below.append(topic, batch, options).await,
            Some(Fault::Lose { done: false }) => Ok(unknown()),
            Some(Fault::Lose { done: true }) => {
                // What was refused as a whole had no effect, and its answer is lost all the same.
                let _ = below.append(topic, batch, options).await;
                Ok(unknown())
            }
            Some(Fault::Refuse(_)) => Ok(AppendReport::all(
                batch.len(),
                &Outcome::Rejected(refused()),
            )),
            Some(Fault::Disconnect) => Err(disconnected()),
            Some(Fault::Throttle(after)) => Err(throttled(after)),
            Some(Fault::Delay(delay)) => {
                let limit = options.deadline.unwrap_or(delay);
                let report = below.append(topic, batch, options).await;
                self.clock.sleep(limit.min(delay)).await;
                if limit < delay { Ok(unknown()) } else { report }
            }
        }
    }

    async fn locate(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        start: &Start,
    ) -> Result<Cursor> {
        self.pass().await?;
        below.locate(topic, start).await
    }

    async fn partitions(&self, below: &dyn Backend, topic: &TopicName) -> Result<Vec<Partition>> {
        self.pass().await?;
        below.partitions(topic).await
    }

    async fn read(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        range: &ReadRange,
    ) -> Result<Opened> {
        self.pass().await?;
        below.read(topic, range).await
    }

    async fn fetch(
        &self,
        _: &mut Passage,
        below: &mut dyn Reader,
        room: Room,
        out: &mut Vec<Recorded>,
    ) -> Result<Fetched> {
        self.pass().await?;
        self.fetch_fault().await?;
        let before = out.len();
        let told = below.fetch(room, out).await;
        self.pulled(out.iter().skip(before).map(Recorded::len_bytes));
        told
    }

    async fn subscribe(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        group: &Group,
        options: &SubscribeOptions,
    ) -> Result<Inbound> {
        self.pass().await?;
        below.subscribe(topic, group, options).await
    }

    async fn receive(
        &self,
        _: &mut Passage,
        below: &mut dyn Source,
        room: Room,
        out: &mut Vec<Delivered>,
    ) -> Result<Arrived> {
        self.pass().await?;
        self.fetch_fault().await?;
        let before = out.len();
        let told = below.fetch(room, out).await;
        self.pulled(out.iter().skip(before).map(|d| d.record.len_bytes()));
        told
    }

    async fn settle(
        &self,
        below: &dyn Settler,
        settlements: &[(Token, Verdict)],
    ) -> Result<Vec<Settled>> {
        self.pass().await?;
        let lost = self.whole(Call::Settle).await?;
        lost.answer(below.settle(settlements).await)
    }

    async fn extend(
        &self,
        below: &dyn Settler,
        tokens: &[Token],
        by: Duration,
    ) -> Result<Vec<Settled>> {
        self.pass().await?;
        let lost = self.whole(Call::Settle).await?;
        lost.answer(below.extend(tokens, by).await)
    }

    async fn commit(&self, below: &dyn Commits, marks: &[Mark]) -> Result<Vec<Result<()>>> {
        self.pass().await?;
        let lost = self.whole(Call::Lease).await?;
        lost.answer(below.commit(marks).await)
    }

    async fn load(&self, below: &dyn Leases, group: &Group) -> Result<Option<Vec<Lease>>> {
        self.pass().await?;
        below.load(group).await
    }

    async fn found(&self, below: &dyn Leases, group: &Group, first: &[Lease]) -> Result<bool> {
        self.pass().await?;
        below.found(group, first).await
    }

    async fn add(&self, below: &dyn Leases, group: &Group, children: &[Lease]) -> Result<()> {
        self.pass().await?;
        below.add(group, children).await
    }

    async fn take(
        &self,
        below: &dyn Leases,
        group: &Group,
        seen: &Lease,
        by: &Arc<str>,
    ) -> Result<Option<Tenancy>> {
        self.pass().await?;
        let lost = self.whole(Call::Lease).await?;
        lost.answer(below.take(group, seen, by).await)
    }

    async fn renew(
        &self,
        below: &dyn Leases,
        group: &Group,
        held: &[Tenancy],
    ) -> Result<Vec<Result<()>>> {
        self.pass().await?;
        let lost = self.whole(Call::Lease).await?;
        lost.answer(below.renew(group, held).await)
    }

    async fn commit_lease(
        &self,
        below: &dyn Leases,
        group: &Group,
        marks: &[Mark],
    ) -> Result<Vec<Result<()>>> {
        self.pass().await?;
        let lost = self.whole(Call::Lease).await?;
        lost.answer(below.commit(group, marks).await)
    }

    async fn release(&self, below: &dyn Leases, group: &Group, tenancy: Tenancy) -> Result<()> {
        self.pass().await?;
        let lost = self.whole(Call::Lease).await?;
        lost.answer(below.release(group, tenancy).await)
    }
}
