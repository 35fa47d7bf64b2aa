//! The queue by itself, without core's groups.

use std::time::Duration;

use annals_core::driver::{
    Backend, Holder, Room, Settled, Settling, Source, SubscribeOptions, Token, TopicSpec, Verdict,
};
use annals_core::{Clock, ErrorKind, Group, Start};

use super::{Queue, State};
use crate::models::testing::{ROOM, append, clock, create, letters, name, text};
use crate::models::{Call, Fault};

const LEASE: Duration = Duration::from_secs(5);

async fn made(groups: &[&str]) -> (State, Queue, Clock) {
    let clock = clock();
    let state = State::new(clock.clone());
    let queue = state.connect();
    let spec = TopicSpec {
        groups: groups
            .iter()
            .map(|name| Group::new(name).unwrap())
            .collect(),
        ..TopicSpec::default()
    };
    create(&queue, &spec).await;
    (state, queue, clock)
}

fn options(start: Option<Start>) -> SubscribeOptions {
    SubscribeOptions {
        start,
        member: None,
        in_flight: ROOM,
        lease: LEASE,
        grace: LEASE,
    }
}

async fn join(queue: &Queue) -> (Box<dyn Source>, Settling) {
    let group = Group::new("billing").unwrap();
    let inbound = queue.subscribe(&name(), &group, &options(None)).await;
    let inbound = inbound.unwrap();
    (inbound.source, inbound.settling)
}

async fn fetch(source: &mut dyn Source, room: Room) -> Vec<(String, Token, u32)> {
    let mut out = Vec::new();
    source.fetch(room, &mut out).await.unwrap();
    out.into_iter()
        .map(|delivered| {
            let Holder::Token(token) = delivered.holder else {
                panic!("not lent by a token")
            };
            (text(&delivered.record), token, delivered.attempt)
        })
        .collect()
}

async fn settle(settling: &Settling, token: Token, verdict: Verdict) -> Settled {
    let Settling::Each(settler) = settling else {
        panic!("not settled each")
    };
    settler.settle(&[(token, verdict)]).await.unwrap().remove(0)
}

fn values(lent: &[(String, Token, u32)]) -> Vec<&str> {
    lent.iter().map(|(value, ..)| value.as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn what_no_group_would_see_is_refused_and_a_late_group_asks_for_latest() {
    let (_, queue, _) = made(&[]).await;
    assert_eq!(letters(&append(&queue, &["a-1", "b-1"]).await), "RR");
    join(&queue).await;
    assert_eq!(letters(&append(&queue, &["a-1", "a-2"]).await), "SN");
    let late = Group::new("late").unwrap();
    let refused = queue.subscribe(&name(), &late, &options(None)).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::NotFound);
    let latest = options(Some(Start::Latest));
    let inbound = queue.subscribe(&name(), &late, &latest).await.unwrap();
    assert!(!inbound.existed);
    let admin = queue.admin().unwrap();
    let lag = admin.group_lag(&name(), &late).await.unwrap();
    assert_eq!(lag[0].records, Some(0));
}

#[tokio::test(start_paused = true)]
async fn a_key_is_locked_while_a_message_of_it_is_lent_or_delayed() {
    let (_, queue, clock) = made(&["billing"]).await;
    for value in ["a-1", "a-2", "b-1", "a-3"] {
        append(&queue, &[value]).await;
    }
    let (mut one, settling) = join(&queue).await;
    let two_records = Room { records: 2, ..ROOM };
    let first = fetch(one.as_mut(), two_records).await;
    assert_eq!(
        values(&first),
        ["a-1", "a-2"],
        "one answer may bring several"
    );
    let (mut two, _) = join(&queue).await;
    assert_eq!(values(&fetch(two.as_mut(), ROOM).await), ["b-1"]);

    let done = settle(&settling, first[1].1, Verdict::Done).await;
    assert!(matches!(done, Settled::Yes));
    let after = Duration::from_secs(60);
    settle(&settling, first[0].1, Verdict::Retry { after }).await;
    let start = clock.elapsed();
    let again = fetch(two.as_mut(), Room { records: 1, ..ROOM }).await;
    // b-1 was not settled, and its time is over before the delay is.
    assert_eq!(values(&again), ["b-1"]);
    let again = fetch(two.as_mut(), ROOM).await;
    assert_eq!(values(&again), ["b-1"], "a-1 is still delayed");
    assert!(clock.elapsed() < start + after);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_settled_comes_again_and_the_old_token_has_no_effect() {
    let (state, queue, clock) = made(&["billing"]).await;
    append(&queue, &["a-1"]).await;
    let (mut source, settling) = join(&queue).await;
    let first = fetch(source.as_mut(), ROOM).await;
    let start = clock.elapsed();
    let second = fetch(source.as_mut(), ROOM).await;
    assert_eq!(clock.elapsed(), start + LEASE);
    assert_eq!((second[0].2, values(&second)), (2, vec!["a-1"]));
    let late = settle(&settling, first[0].1, Verdict::Done).await;
    assert!(matches!(late, Settled::Expired));
    state.faults().inject(Call::Settle, Fault::Refuse(vec![0]));
    let refused = settle(&settling, second[0].1, Verdict::Done).await;
    assert!(matches!(refused, Settled::Failed(_)));
    let done = settle(&settling, second[0].1, Verdict::Done).await;
    assert!(matches!(done, Settled::Yes));
    queue.connection().kill();
    let closed = source.fetch(ROOM, &mut Vec::new()).await.unwrap_err();
    assert_eq!(closed.kind(), ErrorKind::Closed);
}
