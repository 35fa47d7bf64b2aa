//! The doubles under core: boxed ones that are closed by value, and those that settle.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;
use std::time::Duration;

use annals_core::capability::{Members, Replay, Settle, Starts};
use annals_core::driver::{
    Arrived, Backend, Commits, Delivered, Fetched, Holder, Inbound, Opened, Reader, Settled,
    Settling, Source, Tenancy, Token, Verdict,
};
use annals_core::mock::{
    MockAdmin, MockBackend, MockCommits, MockLeases, MockReader, MockSettler, MockSource,
};
use annals_core::*;

fn backend(capabilities: Capabilities) -> MockBackend {
    let mut backend = MockBackend::new();
    backend.expect_scheme().return_const("mock");
    backend
        .expect_capabilities()
        .returning(move |_| Ok(capabilities.clone()));
    backend
}

async fn topic(backend: MockBackend) -> Topic {
    let bus = Bus::new(backend).with_clock(Clock::runtime(Timestamp::EPOCH));
    bus.topic("orders").await.unwrap()
}

fn stored(value: &str) -> Recorded {
    Recorded::of(&Record::new(value).key("k"), None, None).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_replay_reads_a_double() {
    let mut backend = backend(Capabilities {
        replay: Replay::Full.into(),
        starts: Starts::ALL.into(),
        ..Capabilities::none()
    });
    let origin = Arc::new(Origin {
        scheme: "mock".into(),
        topic: TopicName::new("orders").unwrap(),
        incarnation: "1".into(),
    });
    backend
        .expect_locate()
        .returning(move |_, _| Ok(Cursor::start(Arc::clone(&origin))));
    backend.expect_read().times(1).returning(|_, range| {
        let mut reader = MockReader::new();
        let mut says = [Fetched::Records, Fetched::End].into_iter();
        reader.expect_fetch().times(2).returning(move |_, out| {
            let said = says.next().unwrap();
            if said == Fetched::Records {
                out.push(stored("a"));
            }
            Ok(said)
        });
        Ok(Opened {
            reader: Box::new(reader),
            from: range.from.clone(),
            until: None,
        })
    });
    let mut replay = topic(backend).await.replay(Start::Beginning).await.unwrap();
    assert_eq!(replay.next().await.unwrap().unwrap().value(), b"a");
    assert!(replay.next().await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_subscription_settles_at_a_double() {
    let mut has = Capabilities::none();
    has.groups.names = capability::GroupNames::Any(1).into();
    has.groups.members = Members::Queue.into();
    has.groups.settle = Settle::Each.into();
    let mut backend = backend(has);
    backend.expect_leases().returning(|_| None);
    backend.expect_subscribe().times(1).returning(|_, _, _| {
        let token = Token { epoch: 1, slot: 7 };
        let mut source = MockSource::new();
        let mut first = true;
        source.expect_fetch().times(2).returning(move |_, out| {
            // A double cannot wait: what has no more to say fails.
            if !std::mem::take(&mut first) {
                return Err(Error::closed("the queue was deleted"));
            }
            out.push(Delivered {
                record: stored("a"),
                holder: Holder::Token(token),
                attempt: 1,
            });
            Ok(Arrived::Deliveries)
        });
        source.expect_close().returning(|_| Ok(Closed::default()));
        let mut settler = MockSettler::new();
        settler
            .expect_settle()
            .withf(move |settled| settled == [(token, Verdict::Done)])
            .times(1)
            .returning(|_| Ok(vec![Settled::Yes]));
        settler.expect_held_for().returning(|_| None);
        Ok(Inbound {
            source: Box::new(source),
            settling: Settling::Each(Arc::new(settler)),
            existed: true,
        })
    });
    let billing = topic(backend).await.subscribe("billing").await.unwrap();
    let delivery = billing.next().await.unwrap().unwrap();
    assert_eq!(delivery.value(), b"a");
    delivery.done_and_wait().await.unwrap();
    assert_eq!(billing.next().await.unwrap_err().kind(), ErrorKind::Closed);
    billing.close(Duration::from_secs(1)).await.unwrap();
}

#[tokio::test]
async fn attempts_that_the_service_would_cut_short_are_refused_before_anything_is_sent() {
    let mut has = Capabilities::none();
    has.groups.names = capability::GroupNames::Only(Group::new("billing").unwrap()).into();
    has.groups.attempts = capability::Attempts::Taken.into();
    has.groups.given_up_after = Some(5).into();
    let topic = topic(backend(has)).await;
    let join = topic.subscribe("billing").max_attempts(5);
    let refused = join.dead_letters("dead").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    assert!(
        refused.message().contains("after 5 deliveries"),
        "{refused}"
    );
    let other = topic.subscribe("audit").await.unwrap_err();
    assert!(
        other.message().contains("the one group \"billing\""),
        "{other}"
    );
}

#[tokio::test]
async fn every_driver_trait_has_a_double() {
    let (mut backend, mut admin) = (MockBackend::new(), MockAdmin::new());
    admin.expect_topics().times(1).returning(|| Ok(Vec::new()));
    let admin: Arc<dyn driver::Admin> = Arc::new(admin);
    backend
        .expect_admin()
        .returning(move || Some(Arc::clone(&admin)));
    let mut leases = MockLeases::new();
    leases.expect_load().times(1).returning(|_| Ok(None));
    let leases: Arc<dyn driver::Leases> = Arc::new(leases);
    backend
        .expect_leases()
        .returning(move |_| Some(Arc::clone(&leases)));
    let backend: Arc<dyn Backend> = Arc::new(backend);
    assert_eq!(backend.admin().unwrap().topics().await.unwrap(), []);
    let topic = TopicName::new("orders").unwrap();
    let group = Group::new("billing").unwrap();
    let leases = backend.leases(&topic).unwrap();
    assert_eq!(leases.load(&group).await.unwrap(), None);

    let mut commits = MockCommits::new();
    commits.expect_release().times(1).returning(|_| Ok(()));
    let commits: Arc<dyn Commits> = Arc::new(commits);
    let (partition, epoch) = (PartitionId::ONLY, 1);
    commits.release(Tenancy { partition, epoch }).await.unwrap();

    let mut reader = MockReader::new();
    reader.expect_close().times(1).returning(|_| Ok(()));
    let reader: Box<dyn Reader> = Box::new(reader);
    reader.close(Duration::ZERO).await.unwrap();

    let mut source = MockSource::new();
    source.expect_hold().times(1).return_const(());
    source
        .expect_close()
        .times(1)
        .returning(|_| Ok(Closed::default()));
    let mut source: Box<dyn Source> = Box::new(source);
    source.hold(partition, true);
    source.close(Duration::ZERO).await.unwrap();
    assert_eq!(format!("{:?}", MockBackend::new()), "MockBackend");
}
