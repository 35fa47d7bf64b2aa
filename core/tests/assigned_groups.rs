//! What a membership promises where the service assigns the partitions.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests fail with the test"
)]

mod assigned;

use std::sync::Arc;
use std::time::Duration;

use annals_core::driver::{Arrived, Tenancy};
use annals_core::*;
use tokio::sync::Notify;
use tokio::time::timeout;

use assigned::*;

const S: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(600);

/// A member of partitions 0 and 1, each with one record in hand.
async fn member(service: &Assigned) -> (Subscription, Vec<Delivery>) {
    let subscription = service.topic().await.subscribe("g").await.unwrap();
    let mut had = Vec::new();
    for tenancy in [stay(0, 1), stay(1, 1)] {
        service.assign(tenancy);
        service.say(Say::Record(tenancy, 1));
        had.push(subscription.next().await.unwrap().unwrap());
    }
    (subscription, had)
}

async fn fails(subscription: &Subscription) -> Error {
    timeout(LONG, subscription.next())
        .await
        .expect("next waits for ever")
        .unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_is_put_off_does_not_put_off_a_revocation_past_its_grace() {
    let service = Assigned::new();
    let late = Answer::Fail(throttled(120 * S));
    service.shared.commits.lock().unwrap().push_back(late);
    let (subscription, had) = member(&service).await;
    had.into_iter().for_each(Delivery::done);
    tokio::time::sleep(2 * S).await;
    let told = service.revoke(stay(1, 1), 5 * S);
    let at = service.done(Did::Release(stay(1, 1))).await;
    assert!(at <= told + 5 * S, "told {told:?}, answered {at:?}");
    drop(subscription);
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_hangs_is_told_and_does_not_keep_a_revocation() {
    let service = Assigned::new();
    service
        .shared
        .commits
        .lock()
        .unwrap()
        .push_back(Answer::Hang);
    let (subscription, had) = member(&service).await;
    had.into_iter().for_each(Delivery::done);
    let error = fails(&subscription).await;
    assert_eq!(
        (error.kind(), error.effect()),
        (ErrorKind::Timeout, Effect::Unknown)
    );
    subscription.flush().await.unwrap();
    service
        .shared
        .commits
        .lock()
        .unwrap()
        .push_back(Answer::Hang);
    service.say(Say::Record(stay(0, 1), 2));
    subscription.next().await.unwrap().unwrap().done();
    tokio::time::sleep(2 * S).await;
    let told = service.revoke(stay(1, 1), 5 * S);
    let at = service.done(Did::Release(stay(1, 1))).await;
    assert!(at <= told + 5 * S, "told {told:?}, answered {at:?}");
}

#[tokio::test(start_paused = true)]
async fn a_release_that_fails_is_tried_again_and_one_that_hangs_is_told() {
    let service = Assigned::new();
    let answers = [Answer::Fail(lost_link())];
    service.shared.releases.lock().unwrap().extend(answers);
    let (subscription, had) = member(&service).await;
    had.into_iter().for_each(Delivery::done);
    service.revoke(stay(1, 1), 5 * S);
    timeout(5 * S, service.done(Did::Release(stay(1, 1))))
        .await
        .unwrap();
    service
        .shared
        .releases
        .lock()
        .unwrap()
        .push_back(Answer::Hang);
    service.revoke(stay(0, 1), 5 * S);
    let error = fails(&subscription).await;
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(error.partition(), Some(PartitionId::new(0)));
}

#[tokio::test(start_paused = true)]
async fn a_revocation_waits_no_longer_than_the_member_said() {
    let service = Assigned::new();
    let topic = service.topic().await;
    let subscription = topic.subscribe("g").grace(S).await.unwrap();
    service.assign(stay(0, 1));
    service.say(Say::Record(stay(0, 1), 1));
    let _held = subscription.next().await.unwrap().unwrap();
    let told = service.revoke(stay(0, 1), 60 * S);
    let at = service.done(Did::Release(stay(0, 1))).await;
    assert!(at <= told + S, "told {told:?}, answered {at:?}");
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_comes_back_is_not_held() {
    let service = Assigned::new();
    let (subscription, had) = member(&service).await;
    had.into_iter().for_each(Delivery::done);
    service.revoke(stay(1, 1), 5 * S);
    service.done(Did::Hold(1, true)).await;
    service.done(Did::Release(stay(1, 1))).await;
    service.assign(stay(1, 2));
    timeout(S, service.done(Did::Hold(1, false))).await.unwrap();
    drop(subscription);
}

#[tokio::test(start_paused = true)]
async fn a_revocation_is_answered_while_the_member_leaves() {
    let service = Assigned::new();
    let (subscription, mut had) = member(&service).await;
    had.pop().unwrap().done();
    let closing = tokio::spawn(subscription.close(60 * S));
    tokio::time::sleep(S).await;
    let told = service.revoke(stay(1, 1), 2 * S);
    let at = service.done(Did::Release(stay(1, 1))).await;
    assert!(at <= told + 2 * S, "told {told:?}, answered {at:?}");
    had.pop().unwrap().done();
    closing.await.unwrap().unwrap();
}

async fn lost_meanwhile(commit: Answer) -> Error {
    let service = Assigned::new();
    service.shared.commits.lock().unwrap().push_back(commit);
    let (_subscription, mut had) = member(&service).await;
    let waits = tokio::spawn(had.pop().unwrap().done_and_wait());
    service
        .done(Did::Commit(
            1,
            Frontier::after(Position::new(PartitionId::new(1), 1)),
        ))
        .await;
    let tenancy = stay(1, 1);
    service.say(Say::Arrived(Arrived::Lost { tenancy }));
    waits.await.unwrap().unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_is_lost_during_its_commit_leaves_it_unknown() {
    let never = Arc::new(Notify::new());
    let error = lost_meanwhile(Answer::HoldsLate(never)).await;
    assert_eq!(
        (error.kind(), error.effect()),
        (ErrorKind::Expired, Effect::Unknown)
    );
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_commit_that_fails_learns_that_it_is_still_tried() {
    let service = Assigned::new();
    let refused = (0..200).map(|_| Answer::Fail(lost_link()));
    service.shared.commits.lock().unwrap().extend(refused);
    let (_subscription, mut had) = member(&service).await;
    let error = had.pop().unwrap().done_and_wait().await.unwrap_err();
    assert_eq!(error.effect(), Effect::Unknown);
    assert!(error.message().contains("still being tried"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_backend_ends_the_membership_with_an_error() {
    let service = Assigned::new();
    let (subscription, _had) = member(&service).await;
    service.say(Say::Panic);
    assert_eq!(fails(&subscription).await.kind(), ErrorKind::Internal);

    let service = Assigned::new();
    service
        .shared
        .commits
        .lock()
        .unwrap()
        .push_back(Answer::Panic);
    let (subscription, had) = member(&service).await;
    had.into_iter().for_each(Delivery::done);
    let flushed = timeout(LONG, subscription.flush()).await;
    let error = flushed.expect("flush waits for ever").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
}

async fn misled(first: Tenancy, records: &[u64]) -> Error {
    let service = Assigned::new();
    let subscription = service.topic().await.subscribe("g").await.unwrap();
    service.assign(stay(0, 1));
    for number in records {
        service.say(Say::Record(first, *number));
    }
    for _ in 1..records.len() {
        let next = timeout(LONG, subscription.next()).await;
        if let Err(error) = next.expect("next waits for ever") {
            return error;
        }
    }
    fails(&subscription).await
}

#[tokio::test(start_paused = true)]
async fn records_that_cannot_be_settled_end_it_with_an_error() {
    for (tenancy, records) in [
        (stay(7, 1), &[1, 2][..]),
        (stay(0, 2), &[1, 2]),
        (stay(0, 1), &[5, 6, 2]),
        (stay(0, 1), &[5, 5]),
    ] {
        let error = misled(tenancy, records).await;
        assert_eq!(error.kind(), ErrorKind::Internal, "{tenancy:?} {records:?}");
        assert_eq!(error.partition(), Some(tenancy.partition));
    }
}

#[test]
fn a_source_that_is_always_ready_leaves_the_thread_to_others() {
    let (ran, others) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(async {
            let service = Assigned::new();
            let _subscription = service.topic().await.subscribe("g").await.unwrap();
            service.say(Say::Babble);
            for _ in 0..9 {
                tokio::task::yield_now().await;
            }
            ran.send(()).unwrap();
        });
    });
    others.recv_timeout(60 * S).expect("others never ran");
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_with_too_many_outcomes_may_be_stored() {
    let service = Assigned::new();
    let topic = service.topic().await;
    let subscription = topic.subscribe("g").dead_letters("dead").await.unwrap();
    *service.shared.outcomes.lock().unwrap() = Some(2);
    service.assign(stay(0, 1));
    service.say(Say::Record(stay(0, 1), 1));
    subscription.next().await.unwrap().unwrap().reject("odd");
    let error = fails(&subscription).await;
    assert_eq!(
        (error.kind(), error.effect()),
        (ErrorKind::Internal, Effect::Unknown)
    );
}

#[tokio::test(start_paused = true)]
async fn opening_is_tried_again() {
    let service = Assigned::new();
    *service.shared.refuses.lock().unwrap() = 1;
    let topic = service.topic().await;
    *service.shared.refuses.lock().unwrap() = 1;
    topic.subscribe("g").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_bus_whose_backend_does_not_close_keeps_to_its_grace() {
    let closed = timeout(LONG, Assigned::new().bus().close(S)).await;
    let error = closed.expect("close waits for ever").unwrap_err();
    assert_eq!(
        (error.kind(), error.operation()),
        (ErrorKind::Timeout, Some(Operation::Close))
    );
}

#[tokio::test(start_paused = true)]
async fn the_next_commit_of_a_stay_waits_for_the_one_before_it() {
    let service = Assigned::new();
    let late = Arc::new(Notify::new());
    let holds = Answer::HoldsLate(Arc::clone(&late));
    service.shared.commits.lock().unwrap().push_back(holds);
    let subscription = service.topic().await.subscribe("g").await.unwrap();
    let tenancy = stay(0, 1);
    service.assign(tenancy);
    for number in 1..=3 {
        service.say(Say::Record(tenancy, number));
        subscription.next().await.unwrap().unwrap().done();
        tokio::time::sleep(2 * S).await;
    }
    let commits = || {
        let did = service.did().into_iter();
        did.filter(|(_, did)| matches!(did, Did::Commit(..)))
            .count()
    };
    assert_eq!(commits(), 1, "two under way could change places");
    late.notify_one();
    let three = Frontier::after(Position::new(tenancy.partition, 3));
    service.done(Did::Commit(0, three)).await;
    drop(subscription);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_handed_out_once_the_bus_is_closed() {
    let service = Assigned::new();
    let (subscription, _had) = member(&service).await;
    for number in 2..5 {
        service.say(Say::Record(stay(0, 1), number));
    }
    let _second = subscription.next().await.unwrap().unwrap();
    tokio::time::sleep(S).await;
    let bus = subscription.topic().bus().clone();
    assert!(bus.close(S).await.is_err(), "its backend does not close");
    for _ in 0..2 {
        assert_eq!(fails(&subscription).await.kind(), ErrorKind::Closed);
    }
}
