//! Everything that one client can have open, and whether it still works.

use std::collections::BTreeSet;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use annals_core::driver::Stop as Bound;
use annals_core::{Appender, Delivery, Error, ErrorKind, Record, Replay, Signal, Subscription};

use super::readings::{self, Raw};
use crate::harness::{Disturb, Time};
use crate::law::Shape;
use crate::trial::{During, Judged, Stage, Stop, Trial};
use crate::workload;

/// Keys of a round's markers: with so many each of a few partitions gets some.
const KEYS: usize = 12;
/// Markers that go by the appender.
const BY_APPENDER: usize = 3;
/// Numbers of one round.
const ROUND: usize = 100;
/// The record that is in somebody's hands while things go wrong.
const HELD: u32 = 3;

/// The handles of one client.
#[derive(Debug)]
pub struct Handles {
    /// The client.
    pub stage: Stage,
    /// Its appender.
    pub appender: Appender,
    /// Its reading without an end, where there is replay.
    pub follow: Option<Replay>,
    /// Its readers below core.
    pub raw: Vec<Raw>,
    /// Its membership, where there are groups.
    pub subscription: Option<Subscription>,
    held: Option<Delivery>,
    writer: u32,
    rounds: usize,
}

impl Handles {
    /// Opens everything on `stage`. No two of a topic have the same `writer`, nor the same group.
    ///
    /// # Errors
    /// What the backend says.
    pub async fn open(trial: &Trial, stage: Stage, group: &str, writer: u32) -> Judged<Self> {
        let mut follow = None;
        let mut raw = Vec::new();
        if Shape::of(stage.capabilities()) != Shape::Queue {
            let start = readings::first(&stage);
            let opened = stage.topic.follow(start.clone());
            follow = Some(trial.soon("a follow", opened).await?.during("following")?);
            let at = stage.backend.locate(&stage.name, &start);
            let at = at.await.during("looking for the start")?;
            let rooms = readings::PAGES.first().copied().unwrap_or_default();
            raw = readings::raw_readers(&stage, &at, &Bound::Never, None, rooms).await?;
        }
        let mut subscription = None;
        if workload::has_groups(&stage) {
            let opened = stage.topic.subscribe(group).in_flight(100, 1 << 20);
            let opened = trial.soon("a subscription", opened).await?;
            subscription = Some(opened.during("subscribing")?);
        }
        let appender = stage.topic.appender().await.during("opening an appender")?;
        Ok(Self {
            stage,
            appender,
            follow,
            raw,
            subscription,
            held: None,
            writer,
            rounds: 0,
        })
    }

    /// How many things are open.
    pub fn len(&self) -> usize {
        2 + usize::from(self.follow.is_some())
            + self.raw.len()
            + usize::from(self.subscription.is_some())
    }

    /// Whether nothing is.
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// Appends markers by each way there is, and sees that each handle gets all of them in time.
    ///
    /// # Errors
    /// [`Stop::Broken`], naming the handle that does not.
    pub async fn pass(&mut self, trial: &Trial, when: &str) -> Judged<()> {
        self.rounds += 1;
        let from = self.rounds * ROUND;
        let batch = workload::batch(self.writer, from, KEYS, KEYS);
        let mut markers = workload::offered(&batch);
        let append = trial.soon("an append", self.stage.topic.append(batch));
        let appended = append
            .await
            .during(when)?
            .during(&format!("{when} an append"))?;
        let places: Vec<_> = appended.records().iter().map(|s| s.partition).collect();
        let raw: Vec<_> = markers.iter().cloned().zip(places).collect();
        // What it was given before may have failed, and says so here.
        let flush = trial.soon("a flush of the appender", self.appender.flush());
        drop(flush.await.during(when)?);
        for number in from..from + BY_APPENDER {
            let record = workload::record(self.writer + 1, number, KEYS);
            let append = trial.soon("an append by the appender", self.appender.append(record));
            append
                .await
                .during(when)?
                .during(&format!("{when} an append by the appender"))?;
            markers.push(workload::value(self.writer + 1, number));
        }
        self.follows(trial, &markers).await.during(when)?;
        self.reads(trial, &raw).await.during(when)?;
        self.receives(trial, &markers).await.during(when)?;
        self.asks(trial).await.during(when)
    }

    async fn follows(&mut self, trial: &Trial, markers: &[String]) -> Judged<()> {
        let Some(follow) = &mut self.follow else {
            return Ok(());
        };
        let mut open: BTreeSet<String> = markers.iter().cloned().collect();
        let all = async {
            while !open.is_empty() {
                match follow.next().await.during("a follow died")? {
                    Some(record) => open.remove(&workload::text(&record)),
                    None => return Err(Stop::broken("a follow ended by itself")),
                };
            }
            Ok(())
        };
        match tokio::time::timeout(trial.patience(), all).await {
            Ok(told) => told,
            Err(_) => Err(missing("a follow", &open, trial)),
        }
    }

    async fn reads(
        &mut self,
        trial: &Trial,
        markers: &[(String, Option<annals_core::PartitionId>)],
    ) -> Judged<()> {
        for raw in &mut self.raw {
            let of = markers
                .iter()
                .filter(|(_, at)| raw.partition.is_none() || *at == raw.partition);
            let mut open: BTreeSet<String> = of.map(|(value, _)| value.clone()).collect();
            let mut seen = 0;
            while !open.is_empty() {
                if raw.over {
                    return Err(Stop::broken("a reader without an end ended"));
                }
                if let Err(stop) = raw.turn(trial).await {
                    let why = missing("a reader", &open, trial);
                    return Err(Stop::broken(format!("{why}: {stop}")));
                }
                for record in raw.records.iter().skip(seen) {
                    open.remove(&workload::text(record));
                }
                seen = raw.records.len();
            }
            raw.records.clear();
        }
        Ok(())
    }

    async fn receives(&mut self, trial: &Trial, markers: &[String]) -> Judged<()> {
        // It lies before the markers, and others of its key may wait for it.
        self.let_go();
        let Some(subscription) = &self.subscription else {
            return Ok(());
        };
        let mut open: BTreeSet<String> = markers.iter().cloned().collect();
        let all = async {
            while !open.is_empty() {
                match subscription.next().await {
                    Ok(Some(delivery)) => {
                        open.remove(&workload::text(&delivery));
                        Delivery::done(delivery);
                    }
                    Ok(None) => return Err(Stop::broken("a subscription ended by itself")),
                    Err(error) if passes(&error) => {}
                    Err(error) => return Err(error).during("a subscription died"),
                }
            }
            // Told once each: what failed before, and then no more.
            for _ in 0..20 {
                match subscription.flush().await {
                    Ok(()) => return Ok(()),
                    Err(error) if passes(&error) => {}
                    Err(error) => return Err(error).during("a flush"),
                }
            }
            Err(Stop::broken("what is settled is never committed"))
        };
        match tokio::time::timeout(trial.patience(), all).await {
            Ok(told) => told,
            Err(_) if open.is_empty() => Err(Stop::broken(format!(
                "what a subscription settled was not committed within {:?}",
                trial.patience()
            ))),
            Err(_) => Err(missing("a subscription", &open, trial)),
        }
    }

    async fn asks(&self, trial: &Trial) -> Judged<()> {
        let (backend, name) = (&self.stage.backend, &self.stage.name);
        let told = trial.soon("asking what is promised", backend.capabilities(name));
        told.await?.during("asking what is promised")?;
        let told = trial.soon("a listing", backend.partitions(name));
        told.await?.during("a listing")?;
        if self.follow.is_some() {
            let reading = self.stage.topic.replay(readings::first(&self.stage));
            trial
                .soon("a new replay", reading)
                .await?
                .during("a new replay")?;
        }
        Ok(())
    }

    /// Appends one more record and keeps it in hand once it is delivered.
    ///
    /// # Errors
    /// What the backend says.
    pub async fn hold(&mut self, trial: &Trial) -> Judged<()> {
        let Some(subscription) = &self.subscription else {
            return Ok(());
        };
        let value = workload::value(self.writer + HELD, self.rounds);
        let record = Record::new(value.clone()).key("held");
        let batch: annals_core::Batch = [record].into_iter().collect();
        let append = trial.soon("an append", self.stage.topic.append(batch));
        append.await?.during("appending what is held")?;
        let found = async {
            loop {
                match subscription.next().await {
                    Ok(Some(delivery)) if workload::text(&delivery) == value => {
                        return Ok(delivery);
                    }
                    Ok(Some(delivery)) => Delivery::done(delivery),
                    Ok(None) => return Err(Stop::broken("a subscription ended by itself")),
                    Err(error) if passes(&error) => {}
                    Err(error) => return Err(error).during("receiving"),
                }
            }
        };
        self.held = Some(trial.soon("a delivery", found).await??);
        Ok(())
    }

    /// Settles what is in hand: its commit meets whatever goes on now.
    pub fn let_go(&mut self) {
        if let Some(held) = self.held.take() {
            Delivery::done(held);
        }
    }

    /// Lets `span` pass, with the handles at rest or, if `awaited`, with somebody waiting at each.
    ///
    /// # Errors
    /// [`Stop::NotExercised`] where time cannot pass; a handle that dies of it.
    pub async fn idle(&mut self, trial: &Trial, span: Duration, awaited: bool) -> Judged<()> {
        let name = self.stage.name.clone();
        let pass = async {
            match trial.disturb(&name, Disturb::Pass(span)).await {
                Err(Stop::NotExercised(_)) => {
                    let little = Duration::from_secs(1);
                    trial.disturb(&name, Disturb::Pass(little)).await
                }
                told => told,
            }
        };
        if !awaited {
            return pass.await;
        }
        let follow = &mut self.follow;
        let follows = async {
            if let Some(follow) = follow {
                loop {
                    match follow.next_signal().await.during("a follow that waits")? {
                        Some(Signal::Record(_) | Signal::Gap(_) | _) => {}
                        None => return Err(Stop::broken("a follow ended by itself")),
                    }
                }
            }
            std::future::pending().await
        };
        let subscription = &self.subscription;
        let receives = async {
            if let Some(subscription) = subscription {
                loop {
                    match subscription.next().await {
                        Ok(Some(delivery)) => Delivery::done(delivery),
                        Ok(None) => return Err(Stop::broken("a subscription ended by itself")),
                        Err(error) if passes(&error) => {}
                        Err(error) => return Err(error).during("a subscription that waits"),
                    }
                }
            }
            std::future::pending().await
        };
        let (mut pass, mut follows, mut receives) = (pin!(pass), pin!(follows), pin!(receives));
        std::future::poll_fn(|cx| {
            let told: [Poll<Judged<()>>; 3] = [
                pass.as_mut().poll(cx),
                follows.as_mut().poll(cx),
                receives.as_mut().poll(cx),
            ];
            let done = told.into_iter().find(Poll::is_ready);
            done.unwrap_or(Poll::Pending)
        })
        .await
    }

    /// After the client may be of no use any more: each handle goes on, or says why not; none is
    /// silent. `marker` was appended by somebody else.
    ///
    /// # Errors
    /// [`Stop::Broken`], naming the handle that is silent.
    pub async fn pass_or_told(&mut self, trial: &Trial, marker: &str) -> Judged<()> {
        let batch = workload::batch(self.writer + 4, 0, 1, 1);
        let append = self.stage.topic.append(batch);
        let append = append.deadline(Duration::from_secs(5));
        drop(trial.soon("an append of an old client", append).await?);
        let record = workload::record(self.writer + 5, 0, 1);
        let append = async { drop(self.appender.append(record).await) };
        // It may try for as long as an append is tried.
        let long = trial.patience() * 2;
        let told = tokio::time::timeout(long, append).await;
        told.map_err(|_| Stop::broken("an append by an old client's appender has no outcome"))?;
        if let Some(follow) = &mut self.follow {
            let told = async {
                while let Ok(Some(record)) = follow.next().await {
                    if workload::text(&record) == marker {
                        return;
                    }
                }
            };
            trial
                .soon("an old client's follow says nothing: it", told)
                .await?;
        }
        self.let_go();
        if let Some(subscription) = &self.subscription {
            let told = async {
                loop {
                    match subscription.next().await {
                        Ok(Some(delivery)) if workload::text(&delivery) == marker => {
                            return;
                        }
                        Ok(Some(delivery)) => Delivery::done(delivery),
                        Err(error) if passes(&error) => {}
                        Ok(None) | Err(_) => return,
                    }
                }
            };
            trial
                .soon("an old client's subscription says nothing: it", told)
                .await?;
        }
        Ok(())
    }
}

/// How many seconds clients are idle, and whether somebody waits meanwhile: as long as costs little.
pub fn spans(trial: &Trial) -> &'static [(u64, bool)] {
    match trial.harness().time() {
        Time::Virtual => &[
            (11, false),
            (11, true),
            (61, false),
            (61, true),
            (16 * 60, false),
            (16 * 60, true),
        ],
        Time::Real => &[(11, false), (1, true)],
    }
}

/// Whether a subscription goes on after this one.
fn passes(error: &Error) -> bool {
    let passing = [ErrorKind::Expired, ErrorKind::Fenced, ErrorKind::Gap];
    error.is_retryable() || passing.contains(&error.kind())
}

fn missing(who: &str, open: &BTreeSet<String>, trial: &Trial) -> Stop {
    Stop::broken(format!(
        "{who} did not get {} markers within {:?}, the first is {:?}",
        open.len(),
        trial.patience(),
        open.first()
    ))
}
