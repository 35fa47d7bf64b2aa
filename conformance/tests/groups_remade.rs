//! A group that was deleted and made again is another one: what members of the first one still
//! send has no effect on it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says what went wrong by panicking"
)]

use std::time::Duration;

use annals_conformance::models::{log, queue, sharded};
use annals_core::capability::Settle;
use annals_core::driver::{
    AppendOptions, Backend, Holder, Lease, Leases, Mark, Room, Settled, Settler, Settling,
    SubscribeOptions, Tenancy, Token, TopicSpec, Verdict,
};
use annals_core::{
    Batch, Clock, Effect, ErrorKind, Frontier, Group, Outcome, Position, Record, Timestamp,
    TopicName,
};

fn names() -> (TopicName, Group) {
    (
        TopicName::new("orders").unwrap(),
        Group::new("billing").unwrap(),
    )
}

/// A topic with the group.
async fn world(backend: &dyn Backend) {
    let (topic, group) = names();
    let spec = TopicSpec {
        groups: vec![group],
        ..TopicSpec::default()
    };
    let admin = backend.admin().unwrap();
    admin.create(&topic, &spec).await.unwrap();
}

/// The group is deleted and made again.
async fn remake(backend: &dyn Backend) {
    let (topic, group) = names();
    let admin = backend.admin().unwrap();
    admin.delete_group(&topic, &group).await.unwrap();
    assert!(admin.create_group(&topic, &group, None).await.unwrap());
}

async fn row(leases: &dyn Leases) -> Lease {
    let (_, group) = names();
    leases.load(&group).await.unwrap().unwrap().remove(0)
}

async fn take(leases: &dyn Leases, by: &str) -> Tenancy {
    let (_, group) = names();
    let seen = row(leases).await;
    let taken = leases.take(&group, &seen, &by.into()).await.unwrap();
    taken.unwrap()
}

#[tokio::test]
async fn a_zombies_commit_is_fenced() {
    let log = log::State::new(Clock::system()).connect();
    let sharded = sharded::State::new(Clock::system()).connect();
    let all: [&dyn Backend; 2] = [&log, &sharded];
    for backend in all {
        world(backend).await;
        let (topic, group) = names();
        let leases = backend.leases(&topic).unwrap();
        let zombie = take(&*leases, "a").await;
        leases.release(&group, zombie).await.unwrap();
        remake(backend).await;
        let mine = take(&*leases, "b").await;
        let mark = |tenancy, number| Mark {
            tenancy,
            to: Frontier::after(Position::new(zombie.partition, number)),
            attempts: 0,
        };
        let late = leases.commit(&group, &[mark(zombie, 9)]).await.unwrap();
        let late = late[0].as_ref().unwrap_err();
        assert_eq!(
            (late.kind(), late.effect()),
            (ErrorKind::Fenced, Effect::None)
        );
        leases.release(&group, zombie).await.unwrap();
        let now = row(&*leases).await;
        assert_eq!((now.at, now.owner.as_deref()), (Frontier::START, Some("b")));
        let committed = leases.commit(&group, &[mark(mine, 1)]).await.unwrap();
        assert!(committed[0].is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn a_zombies_token_is_expired() {
    let queue = queue::State::new(Clock::runtime(Timestamp::EPOCH)).connect();
    world(&queue).await;
    let settle = queue.capabilities(&names().0).await.unwrap().groups.settle;
    assert!(settle.is(&Settle::Each));
    let (zombies, zombie) = lent(&queue).await;
    remake(&queue).await;
    let (members, mine) = lent(&queue).await;
    let late = zombies.settle(&[(zombie, Verdict::Done)]).await.unwrap();
    assert!(matches!(late[0], Settled::Expired), "{late:?}");
    let done = members.settle(&[(mine, Verdict::Done)]).await.unwrap();
    assert!(matches!(done[0], Settled::Yes), "{done:?}");
}

/// A member, and its handle of one delivery.
async fn lent(queue: &dyn Backend) -> (std::sync::Arc<dyn Settler>, Token) {
    let (topic, group) = names();
    let batch = Batch::new(vec![Record::new("one")]);
    let options = AppendOptions::default();
    let report = queue.append(&topic, &batch, &options).await.unwrap();
    assert!(matches!(report.outcomes(), [Outcome::Stored(_)]));
    let room = Room {
        records: 1,
        bytes: 1 << 10,
    };
    let options = SubscribeOptions {
        start: None,
        member: None,
        in_flight: room,
        lease: Duration::from_secs(30),
        grace: Duration::from_secs(1),
    };
    let mut inbound = queue.subscribe(&topic, &group, &options).await.unwrap();
    let mut out = Vec::new();
    inbound.source.fetch(room, &mut out).await.unwrap();
    match (inbound.settling, out[0].holder) {
        (Settling::Each(settler), Holder::Token(token)) => (settler, token),
        other => panic!("a queue settles each: {other:?}"),
    }
}
