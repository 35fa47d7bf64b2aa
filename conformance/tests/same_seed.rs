//! The same seed gives the same trace: everything that crosses a driver, word for word.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests fail their test"
)]

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals_conformance::harness::{LogHarness, QueueHarness, ShardedHarness};
use annals_conformance::tap::{Hook, Passage, Tap};
use annals_conformance::{Cannot, Disturb, Harness, Meter, Settings, Time, Want, law, runner};
use annals_core::driver::{
    AppendOptions, Arrived, Backend, Commits, Delivered, Fetched, Inbound, Lease, Leases, Mark,
    Opened, ReadRange, Reader, Room, Settled, Settler, Source, SubscribeOptions, Tenancy, Token,
    Verdict,
};
use annals_core::{AppendReport, Batch, Clock, Cursor, Group, Recorded, Result, Start, TopicName};
use async_trait::async_trait;

/// What happened, a line a crossing, and when by the harness's clock.
#[derive(Clone, Default, Debug)]
struct Trace(Arc<Mutex<String>>);

impl Trace {
    fn say(&self, what: std::fmt::Arguments<'_>) {
        writeln!(self.0.lock().unwrap(), "{what}").unwrap();
    }
}

fn values(records: &[&Recorded]) -> String {
    let of = |r: &Recorded| {
        format!(
            "{:?}={:?}",
            r.position(),
            String::from_utf8_lossy(r.value())
        )
    };
    records
        .iter()
        .copied()
        .map(of)
        .collect::<Vec<_>>()
        .join(" ")
}

#[async_trait]
impl Hook for Trace {
    async fn append(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        batch: &Batch,
        options: &AppendOptions,
    ) -> Result<AppendReport> {
        let records = batch.records();
        self.say(format_args!("append {topic} {records:?} {options:?}"));
        let done = below.append(topic, batch, options).await;
        self.say(format_args!("appended {topic} {done:?}"));
        done
    }

    async fn locate(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        start: &Start,
    ) -> Result<Cursor> {
        let done = below.locate(topic, start).await;
        self.say(format_args!("locate {topic} {start:?}: {done:?}"));
        done
    }

    async fn read(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        range: &ReadRange,
    ) -> Result<Opened> {
        let done = below.read(topic, range).await;
        let opened = done.as_ref().map(|opened| (&opened.from, &opened.until));
        self.say(format_args!(
            "read {topic} {} to {:?} of {:?} {:?}: {opened:?}",
            range.from, range.stop, range.partitions, range.key
        ));
        done
    }

    async fn fetch(
        &self,
        passage: &mut Passage,
        below: &mut dyn Reader,
        room: Room,
        out: &mut Vec<Recorded>,
    ) -> Result<Fetched> {
        let before = out.len();
        let done = below.fetch(room, out).await;
        let new = values(&out[before..].iter().collect::<Vec<_>>());
        self.say(format_args!(
            "fetch {} {room:?}: {done:?} {new}",
            passage.topic
        ));
        done
    }

    async fn subscribe(
        &self,
        below: &dyn Backend,
        topic: &TopicName,
        group: &Group,
        options: &SubscribeOptions,
    ) -> Result<Inbound> {
        let done = below.subscribe(topic, group, options).await;
        let joined = done.as_ref().map(|inbound| inbound.existed);
        self.say(format_args!(
            "subscribe {topic} {group} {options:?}: {joined:?}"
        ));
        done
    }

    async fn receive(
        &self,
        passage: &mut Passage,
        below: &mut dyn Source,
        room: Room,
        out: &mut Vec<Delivered>,
    ) -> Result<Arrived> {
        let before = out.len();
        let done = below.fetch(room, out).await;
        let new: Vec<_> = out[before..]
            .iter()
            .map(|d| (d.holder, d.attempt))
            .collect();
        let records: Vec<_> = out[before..]
            .iter()
            .map(|delivered| &delivered.record)
            .collect();
        let records = values(&records);
        self.say(format_args!(
            "receive {} {room:?}: {done:?} {new:?} {records}",
            passage.topic
        ));
        done
    }

    async fn settle(
        &self,
        below: &dyn Settler,
        settlements: &[(Token, Verdict)],
    ) -> Result<Vec<Settled>> {
        let done = below.settle(settlements).await;
        self.say(format_args!("settle {settlements:?}: {done:?}"));
        done
    }

    async fn extend(
        &self,
        below: &dyn Settler,
        tokens: &[Token],
        by: Duration,
    ) -> Result<Vec<Settled>> {
        let done = below.extend(tokens, by).await;
        self.say(format_args!("extend {tokens:?} by {by:?}: {done:?}"));
        done
    }

    fn give_back(&self, below: &dyn Settler, tokens: &[Token]) {
        self.say(format_args!("give back {tokens:?}"));
        below.release(tokens);
    }

    async fn commit(&self, below: &dyn Commits, marks: &[Mark]) -> Result<Vec<Result<()>>> {
        let done = below.commit(marks).await;
        self.say(format_args!("commit {marks:?}: {done:?}"));
        done
    }

    async fn load(&self, below: &dyn Leases, group: &Group) -> Result<Option<Vec<Lease>>> {
        let done = below.load(group).await;
        self.say(format_args!("load {group}: {done:?}"));
        done
    }

    async fn take(
        &self,
        below: &dyn Leases,
        group: &Group,
        seen: &Lease,
        by: &Arc<str>,
    ) -> Result<Option<Tenancy>> {
        let done = below.take(group, seen, by).await;
        self.say(format_args!("take {group} {seen:?} by {by}: {done:?}"));
        done
    }

    async fn renew(
        &self,
        below: &dyn Leases,
        group: &Group,
        held: &[Tenancy],
    ) -> Result<Vec<Result<()>>> {
        let done = below.renew(group, held).await;
        self.say(format_args!("renew {group} {held:?}: {done:?}"));
        done
    }

    async fn commit_lease(
        &self,
        below: &dyn Leases,
        group: &Group,
        marks: &[Mark],
    ) -> Result<Vec<Result<()>>> {
        let done = below.commit(group, marks).await;
        self.say(format_args!("commit {group} {marks:?}: {done:?}"));
        done
    }

    async fn release(&self, below: &dyn Leases, group: &Group, tenancy: Tenancy) -> Result<()> {
        let done = below.release(group, tenancy).await;
        self.say(format_args!("release {group} {tenancy:?}: {done:?}"));
        done
    }
}

/// A model whose every crossing is written down.
#[derive(Debug)]
struct Traced {
    below: Arc<dyn Harness>,
    trace: Trace,
}

#[async_trait]
impl Harness for Traced {
    fn name(&self) -> String {
        self.below.name()
    }

    fn service(&self) -> (String, String) {
        self.below.service()
    }

    fn time(&self) -> Time {
        self.below.time()
    }

    fn clock(&self) -> Clock {
        self.below.clock()
    }

    async fn topic(&self, want: &Want) -> std::result::Result<TopicName, Cannot> {
        let topic = self.below.topic(want).await;
        self.trace.say(format_args!("topic {want:?}: {topic:?}"));
        topic
    }

    async fn connect(&self) -> Result<Arc<dyn Backend>> {
        let now = self.clock().now();
        self.trace.say(format_args!("connect at {now:?}"));
        let hook = Arc::new(self.trace.clone());
        Ok(Arc::new(Tap::new(self.below.connect().await?, hook)))
    }

    async fn disturb(&self, topic: &TopicName, what: Disturb) -> std::result::Result<(), Cannot> {
        self.trace.say(format_args!("disturb {topic} {what:?}"));
        self.below.disturb(topic, what).await
    }

    fn fired(&self) -> usize {
        self.below.fired()
    }

    async fn meter(&self, what: Meter) -> std::result::Result<u64, Cannot> {
        self.below.meter(what).await
    }

    async fn clean(&self) {
        self.below.clean().await;
    }
}

fn trace(law: &str, below: Arc<dyn Harness>, seed: u64) -> String {
    let trace = Trace::default();
    let harness: Arc<dyn Harness> = Arc::new(Traced {
        below,
        trace: trace.clone(),
    });
    let settings = Settings {
        seed,
        ..Settings::default()
    };
    let mut verdict = runner::judge(&law::by_name(law).unwrap(), &harness, &settings);
    verdict.seconds = 0.0;
    let text = trace.0.lock().unwrap();
    members_by_number(&format!("{text}{verdict:?}\n"))
}

/// Members name themselves after their process and at random: here by the order in which they came.
fn members_by_number(text: &str) -> String {
    let is_name = |word: &&str| {
        let mut parts = word.split('-');
        let parts = [parts.next(), parts.next(), parts.next(), parts.next()];
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
        matches!(parts, [Some(pid), Some(random), Some(number), None]
            if random.len() == 16 && [pid, random, number].into_iter().all(digits))
    };
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '-');
    let mut names: Vec<&str> = Vec::new();
    for name in text.split(word).filter(is_name) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let mut text = text.to_owned();
    for (number, name) in names.iter().enumerate() {
        text = text.replace(name, &format!("member {number}"));
    }
    text
}

/// Laws whose cases append, read, share work, kill, cut and lose answers.
const LAWS: [&str; 6] = [
    "durable",
    "truthful",
    "located",
    "range",
    "redelivery",
    "resume",
];

fn twice(make: fn() -> Arc<dyn Harness>) {
    for law in LAWS {
        let (one, other) = (trace(law, make(), 7), trace(law, make(), 7));
        let mut lines = one.lines().zip(other.lines()).enumerate();
        if let Some((line, (one, other))) = lines.find(|(_, (one, other))| one != other) {
            panic!("{law}, line {line}:\n{one}\n{other}");
        }
        assert_eq!(one.len(), other.len(), "{law}: one goes on");
        if law == "resume" {
            assert_ne!(one, trace(law, make(), 8), "the seed decides nothing");
        }
    }
}

#[test]
fn of_the_log() {
    twice(|| Arc::new(LogHarness::new()));
}

#[test]
fn of_the_sharded_log() {
    twice(|| Arc::new(ShardedHarness::new()));
}

#[test]
fn of_the_queue() {
    twice(|| Arc::new(QueueHarness::new()));
}
