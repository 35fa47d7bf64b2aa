//! A gap that nobody was told is never passed by a commit.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests fail with the test"
)]

mod assigned;

use std::time::Duration;

use annals_core::driver::{Arrived, Tenancy};
use annals_core::*;
use tokio::time::timeout;

use assigned::*;

const S: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(600);

fn at(partition: u64, number: u64) -> Position {
    Position::new(PartitionId::new(partition), number)
}

fn after(partition: u64, number: u64) -> Frontier {
    Frontier::after(at(partition, number))
}

fn gap(service: &Assigned, tenancy: Tenancy, from: Frontier, to: u64) {
    let to = Some(at(tenancy.partition.get(), to));
    service.say(Say::Arrived(Arrived::Gap { tenancy, from, to }));
}

fn advance(service: &Assigned, tenancy: Tenancy, number: u64) {
    let to = after(tenancy.partition.get(), number);
    service.say(Say::Arrived(Arrived::Advanced { tenancy, to }));
}

/// Until core has heard all that was said, and has nothing left to do by itself.
async fn heard() {
    tokio::time::sleep(30 * S).await;
}

/// What was committed of a partition, in order.
fn committed(service: &Assigned, partition: u64) -> Vec<Frontier> {
    let did = service.did().into_iter();
    did.filter_map(|(_, did)| match did {
        Did::Commit(of, to) if of == partition => Some(to),
        _ => None,
    })
    .collect()
}

async fn open(service: &Assigned) -> Subscription {
    service.topic().await.subscribe("g").await.unwrap()
}

async fn record(subscription: &Subscription) -> Delivery {
    let next = timeout(LONG, subscription.next()).await;
    next.expect("next waits for ever").unwrap().unwrap()
}

async fn told(subscription: &Subscription) -> Gap {
    let next = timeout(LONG, subscription.next()).await;
    let error = next.expect("next waits for ever").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Gap, "{error}");
    error.gap().unwrap().clone()
}

async fn flush(subscription: &Subscription) {
    let flushed = timeout(LONG, subscription.flush()).await;
    flushed.expect("flush waits for ever").unwrap();
}

/// A member that has record 1 of partition 0 in hand, behind which 2 to 8 are gone.
async fn behind_a_gap(service: &Assigned) -> (Subscription, Delivery) {
    let subscription = open(service).await;
    service.assign(stay(0, 1));
    service.say(Say::Record(stay(0, 1), 1));
    let first = record(&subscription).await;
    gap(service, stay(0, 1), after(0, 1), 9);
    advance(service, stay(0, 1), 8);
    heard().await;
    (subscription, first)
}

#[tokio::test(start_paused = true)]
async fn a_close_leaves_a_gap_that_nobody_was_told_to_the_next_member() {
    let service = Assigned::new();
    let (subscription, first) = behind_a_gap(&service).await;
    first.done();
    let closed = timeout(LONG, subscription.close(9 * S)).await;
    closed.expect("close waits for ever").unwrap();
    assert_eq!(committed(&service, 0), [after(0, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_drop_leaves_it_too() {
    let service = Assigned::new();
    let (subscription, first) = behind_a_gap(&service).await;
    first.done();
    drop(subscription);
    heard().await;
    assert_eq!(committed(&service, 0), [after(0, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_flush_commits_up_to_it_and_does_not_wait_for_it() {
    let service = Assigned::new();
    let (subscription, first) = behind_a_gap(&service).await;
    first.done();
    flush(&subscription).await;
    assert_eq!(committed(&service, 0), [after(0, 1)]);
    let gap = told(&subscription).await;
    assert_eq!((gap.from, gap.to), (after(0, 1), Some(at(0, 9))));
    flush(&subscription).await;
    assert_eq!(committed(&service, 0), [after(0, 1), after(0, 8)]);
}

#[tokio::test(start_paused = true)]
async fn once_told_it_is_committed_by_itself_and_told_no_more() {
    let service = Assigned::new();
    let (subscription, first) = behind_a_gap(&service).await;
    first.done();
    told(&subscription).await;
    service.done(Did::Commit(0, after(0, 8))).await;
    service.say(Say::Record(stay(0, 1), 9));
    assert_eq!(record(&subscription).await.position(), Some(at(0, 9)));
}

#[tokio::test(start_paused = true)]
async fn at_the_first_record_of_a_group_nothing_is_committed_before_it_is_told() {
    let service = Assigned::new();
    let subscription = open(&service).await;
    service.assign(stay(0, 1));
    gap(&service, stay(0, 1), Frontier::START, 9);
    advance(&service, stay(0, 1), 8);
    service.say(Say::Record(stay(0, 1), 9));
    heard().await;
    flush(&subscription).await;
    assert_eq!(committed(&service, 0), []);
    assert_eq!(told(&subscription).await.from, Frontier::START);
    record(&subscription).await.done();
    flush(&subscription).await;
    assert_eq!(committed(&service, 0).last(), Some(&after(0, 9)));
}

#[tokio::test(start_paused = true)]
async fn several_are_told_as_one_until_a_record_lies_between_them() {
    let service = Assigned::new();
    let (subscription, first) = behind_a_gap(&service).await;
    gap(&service, stay(0, 1), after(0, 8), 12);
    service.say(Say::Record(stay(0, 1), 12));
    gap(&service, stay(0, 1), after(0, 12), 20);
    gap(&service, stay(0, 1), after(0, 12), 30);
    advance(&service, stay(0, 1), 29);
    heard().await;
    first.done();
    let one = told(&subscription).await;
    assert_eq!((one.from, one.to), (after(0, 1), Some(at(0, 12))));
    flush(&subscription).await;
    assert_eq!(committed(&service, 0).last(), Some(&after(0, 8)));
    record(&subscription).await.done();
    flush(&subscription).await;
    assert_eq!(committed(&service, 0).last(), Some(&after(0, 12)));
    let two = told(&subscription).await;
    assert_eq!((two.from, two.to), (after(0, 12), Some(at(0, 30))));
    flush(&subscription).await;
    assert_eq!(committed(&service, 0).last(), Some(&after(0, 29)));
}

#[tokio::test(start_paused = true)]
async fn it_is_told_between_the_records_that_it_lies_between() {
    let service = Assigned::new();
    let subscription = open(&service).await;
    service.assign(stay(0, 1));
    for number in [1, 2] {
        service.say(Say::Record(stay(0, 1), number));
    }
    gap(&service, stay(0, 1), after(0, 2), 9);
    service.say(Say::Record(stay(0, 1), 9));
    heard().await;
    let mut had = Vec::new();
    for _ in 0..2 {
        had.push(record(&subscription).await);
    }
    told(&subscription).await;
    assert_eq!(record(&subscription).await.position(), Some(at(0, 9)));
}

#[tokio::test(start_paused = true)]
async fn one_partition_s_gap_keeps_no_other_from_being_committed() {
    let service = Assigned::new();
    let (subscription, first) = behind_a_gap(&service).await;
    told(&subscription).await;
    service.assign(stay(1, 1));
    service.say(Say::Record(stay(1, 1), 1));
    let other = record(&subscription).await;
    gap(&service, stay(0, 1), after(0, 8), 12);
    advance(&service, stay(0, 1), 11);
    heard().await;
    first.done();
    other.done();
    flush(&subscription).await;
    assert_eq!(committed(&service, 1), [after(1, 1)]);
    assert_eq!(committed(&service, 0).last(), Some(&after(0, 8)));
}

#[tokio::test(start_paused = true)]
async fn a_revocation_does_not_wait_for_it() {
    let service = Assigned::new();
    let (subscription, first) = behind_a_gap(&service).await;
    first.done();
    let said = service.revoke(stay(0, 1), 60 * S);
    let at = service.done(Did::Release(stay(0, 1))).await;
    assert!(at <= said + S, "said {said:?}, answered {at:?}");
    assert_eq!(committed(&service, 0), [after(0, 1)]);
    // It is the next holder's to tell.
    let next = timeout(LONG, subscription.next()).await;
    assert!(next.is_err(), "{next:?}");
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_vanished_has_ended_only_once_that_is_told() {
    let service = Assigned::new();
    let (subscription, first) = behind_a_gap(&service).await;
    let tenancy = stay(0, 1);
    service.say(Say::Arrived(Arrived::Ended {
        tenancy,
        clear: None,
    }));
    heard().await;
    first.done();
    flush(&subscription).await;
    assert_eq!(committed(&service, 0), [after(0, 1)]);
    told(&subscription).await;
    service.done(Did::Commit(0, Frontier::ENDED)).await;
}

/// A run over record 1, a gap, and record 9.
async fn runs(service: &Assigned, skips: bool) -> Result<Closed> {
    let subscription = open(service).await;
    service.assign(stay(0, 1));
    service.say(Say::Record(stay(0, 1), 1));
    gap(service, stay(0, 1), after(0, 1), 9);
    advance(service, stay(0, 1), 8);
    service.say(Say::Record(stay(0, 1), 9));
    let run = subscription
        .run(async |_| {})
        .until(tokio::time::sleep(LONG));
    if skips {
        run.skip_gaps().await
    } else {
        run.await
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_ends_at_a_gap_and_leaves_it_to_the_next_one() {
    let service = Assigned::new();
    let error = runs(&service, false).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Gap);
    assert_eq!(committed(&service, 0).last(), Some(&after(0, 1)));

    let service = Assigned::new();
    runs(&service, true).await.unwrap();
    assert_eq!(committed(&service, 0).last(), Some(&after(0, 9)));
}
