//! Both layers round the model log: nothing is lost through them, and what they add is seen.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod spans;

use std::sync::Arc;
use std::time::Duration;

use annals_conformance::models::log::State;
use annals_conformance::models::{Call, Fault};
use annals_core::driver::{
    AppendOptions, Arrived, Backend, Budget, Delivered, Fetched, Inbound, Lease, ReadRange, Room,
    Settled, Settler, Settling, Source, Stop, SubscribeOptions, Token, Verdict,
};
use annals_core::layer::{Timeout, Trace};
use annals_core::mock::MockBackend;
use annals_core::*;
use async_trait::async_trait;

use spans::Spans;

const LIMIT: Duration = Duration::from_secs(5);
const LATE: Duration = Duration::from_secs(60);
const ROOM: Room = Room {
    records: 100,
    bytes: 1 << 20,
};

fn name() -> TopicName {
    TopicName::new("orders").unwrap()
}

fn group() -> Group {
    Group::new("billing").unwrap()
}

fn layered(backend: impl Backend, clock: &Clock) -> Arc<dyn Backend> {
    let timed = Timeout::new(LIMIT).wrap(Arc::new(backend), clock);
    Trace::new().wrap(timed, clock)
}

/// A log with one topic, and the same log through both layers.
async fn log() -> (State, Arc<dyn Backend>, Clock) {
    let clock = Clock::runtime(Timestamp::EPOCH);
    let state = State::new(clock.clone());
    let backend = layered(state.connect(), &clock);
    let admin = backend.admin().unwrap();
    assert!(admin.create(&name(), &TopicSpec::default()).await.unwrap());
    (state, backend, clock)
}

fn records(values: std::ops::Range<u32>) -> Batch {
    let record = |n: u32| Record::new(format!("hush-{n}")).key(format!("person-{}", n % 3));
    values.map(record).collect()
}

async fn open(backend: &Arc<dyn Backend>, stop: Stop) -> Box<dyn driver::Reader> {
    let range = ReadRange {
        from: backend.locate(&name(), &Start::Beginning).await.unwrap(),
        stop,
        partitions: None,
        key: None,
        budget: Budget::new(1 << 20),
    };
    backend.read(&name(), &range).await.unwrap().reader
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_must_have_an_answer_is_timed_out_and_loses_nothing() {
    let (state, backend, clock) = log().await;
    let (batch, options) = (records(0..3), AppendOptions::default());
    let report = backend.append(&name(), &batch, &options).await.unwrap();
    assert_eq!(report.outcomes().len(), 3);
    let mut reader = open(&backend, Stop::End).await;
    state.faults().inject(Call::Fetch, Fault::Delay(LATE));
    let (started, mut out) = (clock.elapsed(), Vec::new());
    let error = reader.fetch(ROOM, &mut out).await.unwrap_err();
    assert_eq!(clock.elapsed().checked_sub(started), Some(LIMIT));
    assert_eq!(
        (error.kind(), error.effect()),
        (ErrorKind::Timeout, Effect::None)
    );
    assert!(error.is_retryable() && out.is_empty());
    assert_eq!(
        reader.fetch(ROOM, &mut out).await.unwrap(),
        Fetched::Records
    );
    assert_eq!(out.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_follower_may_wait_for_as_long_as_nothing_happens() {
    let (_, backend, clock) = log().await;
    let mut reader = open(&backend, Stop::Never).await;
    let mut out = Vec::new();
    assert_eq!(
        reader.fetch(ROOM, &mut out).await.unwrap(),
        Fetched::CaughtUp
    );
    let (fetched, appended) = tokio::join!(reader.fetch(ROOM, &mut out), async {
        clock.sleep(10 * LATE).await;
        backend
            .append(&name(), &records(0..1), &AppendOptions::default())
            .await
    });
    assert_eq!(fetched.unwrap(), Fetched::Records);
    assert_eq!(appended.unwrap().outcomes().len(), out.len());
}

#[tokio::test(start_paused = true)]
async fn a_lease_call_past_the_limit_may_have_had_its_effect() {
    let (state, backend, _) = log().await;
    let leases = backend.leases(&name()).unwrap();
    let first = Lease {
        partition: PartitionId::ONLY,
        owner: None,
        counter: 0,
        at: Frontier::START,
        parents: Vec::new(),
        attempts: 0,
    };
    assert!(leases.found(&group(), &[first]).await.unwrap());
    let row = leases.load(&group()).await.unwrap().unwrap().remove(0);
    state.faults().inject(Call::Lease, Fault::Delay(LATE));
    let error = leases.take(&group(), &row, &"me".into()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.effect()),
        (ErrorKind::Timeout, Effect::Unknown)
    );
    assert!(
        leases
            .take(&group(), &row, &"me".into())
            .await
            .unwrap()
            .is_some()
    );
}

/// A queue that hands out one delivery, then nothing, and never answers a settlement.
#[derive(Debug)]
struct Deaf(Option<Delivered>);

#[async_trait]
impl Source for Deaf {
    async fn fetch(&mut self, _: Room, out: &mut Vec<Delivered>) -> Result<Arrived> {
        match self.0.take() {
            Some(delivered) => out.push(delivered),
            None => std::future::pending().await,
        }
        Ok(Arrived::Deliveries)
    }
    fn hold(&mut self, _: PartitionId, _: bool) {}
    async fn close(self: Box<Self>, _: Duration) -> Result<Closed> {
        Ok(Closed {
            returned: 3,
            ..Closed::default()
        })
    }
}

#[async_trait]
impl Settler for Deaf {
    async fn settle(&self, _: &[(Token, Verdict)]) -> Result<Vec<Settled>> {
        std::future::pending().await
    }
    async fn extend(&self, _: &[Token], _: Duration) -> Result<Vec<Settled>> {
        std::future::pending().await
    }
    fn release(&self, _: &[Token]) {}
    fn held_for(&self, _: Token) -> Option<Duration> {
        Some(LATE)
    }
}

#[tokio::test(start_paused = true)]
async fn a_settlement_past_the_limit_is_unknown_and_its_span_says_of_which_group() {
    let (spans, _guard) = Spans::listen();
    let token = Token { epoch: 1, slot: 1 };
    let mut mock = MockBackend::new();
    mock.expect_scheme().return_const("sqs");
    mock.expect_subscribe().returning(move |_, _, _| {
        let delivered = Delivered {
            record: Recorded::of(&Record::new("hush"), None, None)?,
            holder: driver::Holder::Token(token),
            attempt: 1,
        };
        Ok(Inbound {
            source: Box::new(Deaf(Some(delivered))),
            settling: Settling::Each(Arc::new(Deaf(None))),
            existed: true,
        })
    });
    let clock = Clock::runtime(Timestamp::EPOCH);
    let backend = layered(mock, &clock);
    let options = SubscribeOptions {
        start: None,
        member: None,
        in_flight: ROOM,
        lease: LATE,
        grace: LATE,
    };
    let mut inbound = backend
        .subscribe(&name(), &group(), &options)
        .await
        .unwrap();
    let mut out = Vec::new();
    assert_eq!(
        inbound.source.fetch(ROOM, &mut out).await.unwrap(),
        Arrived::Deliveries
    );
    // Waiting for deliveries is no failure.
    let idle = clock.timeout(LATE, inbound.source.fetch(ROOM, &mut out));
    assert!(idle.await.is_none());
    let Settling::Each(settler) = &inbound.settling else {
        unreachable!("the double settles each")
    };
    for settled in [
        settler.settle(&[(token, Verdict::Done)]).await.unwrap(),
        settler.extend(&[token], LATE).await.unwrap(),
    ] {
        assert!(
            matches!(settled.as_slice(), [Settled::Unknown(error)] if error.kind() == ErrorKind::Timeout)
        );
    }
    assert_eq!(settler.held_for(token), Some(LATE));
    assert_eq!(inbound.source.close(LATE).await.unwrap().returned, 3);

    let received = spans.of("receive");
    assert_eq!(received[0]["messaging.batch.message_count"], "1");
    assert_eq!(received[0]["messaging.operation.type"], "receive");
    assert_eq!((received.len(), received[1].get("error.type")), (2, None));
    let settled = &spans.of("settle")[0];
    assert_eq!(settled["otel.name"], "settle orders");
    assert_eq!(settled["messaging.operation.type"], "settle");
    assert_eq!(settled["messaging.consumer.group.name"], "billing");
    assert_eq!(settled["messaging.system"], "aws_sqs");
    assert_eq!(settled["error.type"], "Timeout");
    assert_eq!(settled["otel.status_code"], "ERROR");
}

#[tokio::test(start_paused = true)]
async fn a_replay_and_a_group_go_through_both_layers_whole() {
    let (spans, _guard) = Spans::listen();
    let (state, backend, clock) = log().await;
    let bus = Bus::new(backend).with_clock(clock);
    let topic = bus.topic("orders").await.unwrap();
    topic.append(records(0..20)).await.unwrap();
    state
        .faults()
        .inject(Call::Append, Fault::Lose { done: false });
    topic.append(records(20..21)).await.unwrap();
    assert_eq!(state.faults().fired(), 1);

    let mut replay = topic.replay(Start::Beginning).await.unwrap();
    // The reader hangs once; the replay heals.
    state.faults().inject(Call::Fetch, Fault::Delay(LATE));
    let mut values = Vec::new();
    while let Some(record) = replay.next().await.unwrap() {
        values.push(String::from_utf8(record.value().to_vec()).unwrap());
    }
    let expected: Vec<String> = (0..21).map(|n| format!("hush-{n}")).collect();
    assert_eq!(values, expected);
    assert_eq!(replay.cursor(), &topic.end().await.unwrap());

    let billing = topic.subscribe("billing").await.unwrap();
    for expected in &values {
        let delivery = billing.next().await.unwrap().unwrap();
        assert_eq!(delivery.value(), expected.as_bytes());
        delivery.done();
    }
    billing.flush().await.unwrap();
    billing.close(LATE).await.unwrap();
    let admin = bus.admin().unwrap();
    let status = admin.groups(&name()).await.unwrap();
    assert_eq!(status[0].committed, Some(topic.end().await.unwrap()));

    let append = &spans.of("append")[0];
    assert_eq!(append["otel.name"], "append orders");
    assert_eq!(append["otel.kind"], "client");
    assert_eq!(append["messaging.system"], bus.scheme());
    assert_eq!(append["messaging.operation.type"], "send");
    assert_eq!(append["messaging.destination.name"], "orders");
    assert_eq!(append["messaging.batch.message_count"], "20");
    assert_eq!(append.get("error.type"), None);
    assert_eq!(spans.of("append")[1]["error.type"], "Timeout");
    let fetches = spans.of("fetch");
    assert!(
        fetches
            .iter()
            .any(|span| span.get("error.type").is_some_and(|e| e == "Timeout"))
    );
    let brought = |span: &spans::Span| {
        span.get("messaging.batch.message_count")
            .and_then(|n| n.parse::<usize>().ok())
    };
    assert_eq!(
        fetches.iter().filter_map(brought).sum::<usize>(),
        2 * values.len()
    );
    let commit = &spans.of("commit")[0];
    assert_eq!(commit["messaging.consumer.group.name"], "billing");
    assert_eq!(commit["messaging.destination.partition.id"], "0");
    for span in spans.all() {
        let told = format!("{span:?}");
        assert!(!told.contains("hush") && !told.contains("person"), "{told}");
    }
}
