//! A stay that has ended here: its revocation is answered once, and what its source still says of
//! it is nobody's.

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

const STAY: Tenancy = Tenancy {
    partition: PartitionId::ONLY,
    epoch: 1,
};

/// A member with record 1 of its one partition in hand.
async fn member(service: &Assigned) -> (Subscription, Delivery) {
    let subscription = service.topic().await.subscribe("g").await.unwrap();
    service.assign(STAY);
    service.say(Say::Record(STAY, 1));
    let first = record(&subscription).await;
    (subscription, first)
}

async fn record(subscription: &Subscription) -> Delivery {
    let next = timeout(LONG, subscription.next()).await;
    next.expect("next waits for ever").unwrap().unwrap()
}

fn fenced() -> Error {
    let text = "another member has it";
    Error::new(ErrorKind::Fenced, Effect::None, Retry::Never, text)
}

/// A member whose stay the service fences at its first commit.
async fn fenced_member(service: &Assigned) -> Subscription {
    let answer = Answer::Fail(fenced());
    service.shared.commits.lock().unwrap().push_back(answer);
    let (subscription, first) = member(service).await;
    first.done();
    let next = timeout(LONG, subscription.next()).await;
    let error = next.expect("next waits for ever").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    subscription
}

/// Until core has heard all that was said, and has nothing left to do by itself.
async fn heard() {
    tokio::time::sleep(30 * S).await;
}

/// How often core did this.
fn times(service: &Assigned, what: &Did) -> usize {
    let did = service.did();
    did.iter().filter(|(_, did)| did == what).count()
}

async fn released_once(service: &Assigned) {
    timeout(60 * S, service.done(Did::Release(STAY)))
        .await
        .expect("the revocation is never answered");
    service.revoke(STAY, 5 * S);
    heard().await;
    assert_eq!(times(service, &Did::Release(STAY)), 1);
}

#[tokio::test(start_paused = true)]
async fn a_revocation_after_the_stay_was_fenced_is_answered_once() {
    let service = Assigned::new();
    let _subscription = fenced_member(&service).await;
    service.revoke(STAY, 5 * S);
    released_once(&service).await;
}

#[tokio::test(start_paused = true)]
async fn a_revocation_whose_last_commit_is_fenced_is_answered_once() {
    let service = Assigned::new();
    let (_subscription, first) = member(&service).await;
    let answer = Answer::Fail(fenced());
    service.shared.commits.lock().unwrap().push_back(answer);
    service.revoke(STAY, 5 * S);
    service.done(Did::Hold(0, true)).await;
    first.done();
    released_once(&service).await;
}

#[tokio::test(start_paused = true)]
async fn a_revocation_of_a_partition_that_is_committed_as_ended_is_answered_once() {
    let service = Assigned::new();
    let (_subscription, first) = member(&service).await;
    first.done();
    service.say(Say::Arrived(Arrived::Ended {
        tenancy: STAY,
        clear: None,
    }));
    service.done(Did::Commit(0, Frontier::ENDED)).await;
    service.revoke(STAY, 5 * S);
    released_once(&service).await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_a_stay_that_has_ended_is_tried_again_within_its_grace() {
    let service = Assigned::new();
    let subscription = fenced_member(&service).await;
    let answers = [Answer::Fail(lost_link()), Answer::Fail(lost_link())];
    service.shared.releases.lock().unwrap().extend(answers);
    service.revoke(STAY, 30 * S);
    released_once(&service).await;
    let refused = Error::new(ErrorKind::Denied, Effect::None, Retry::Never, "no");
    service.assign(Tenancy { epoch: 2, ..STAY });
    let refused = Answer::Fail(refused);
    service.shared.releases.lock().unwrap().push_back(refused);
    service.revoke(Tenancy { epoch: 2, ..STAY }, 30 * S);
    let told = timeout(LONG, subscription.next()).await.unwrap();
    assert_eq!(told.unwrap_err().kind(), ErrorKind::Denied);
}

#[tokio::test(start_paused = true)]
async fn what_is_revoked_twice_is_answered_once_and_what_is_lost_not_at_all() {
    let service = Assigned::new();
    let (_subscription, first) = member(&service).await;
    service.revoke(STAY, 50 * S);
    service.revoke(STAY, 50 * S);
    heard().await;
    first.done();
    released_once(&service).await;

    let service = Assigned::new();
    let (_subscription, _first) = member(&service).await;
    service.say(Say::Arrived(Arrived::Lost { tenancy: STAY }));
    service.revoke(STAY, 5 * S);
    heard().await;
    assert_eq!(times(&service, &Did::Release(STAY)), 0);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_goes_on_with_a_fenced_stay_is_held_back_until_the_next_one() {
    let service = Assigned::new();
    let subscription = fenced_member(&service).await;
    assert_eq!(times(&service, &Did::Hold(0, true)), 0);
    for number in 2..9 {
        service.say(Say::Record(STAY, number));
    }
    timeout(S, service.done(Did::Hold(0, true)))
        .await
        .expect("it reads on for nobody");
    heard().await;
    assert_eq!(times(&service, &Did::Hold(0, true)), 1);
    assert_eq!(times(&service, &Did::Hold(0, false)), 0);
    let next = Tenancy { epoch: 2, ..STAY };
    service.assign(next);
    timeout(S, service.done(Did::Hold(0, false))).await.unwrap();
    service.say(Say::Record(next, 1));
    assert_eq!(record(&subscription).await.attempt(), 1);
}

#[tokio::test(start_paused = true)]
async fn attempts_that_the_service_does_not_keep_are_not_committed() {
    let service = Assigned::new();
    let (subscription, first) = member(&service).await;
    first.retry(S);
    let again = record(&subscription).await;
    assert_eq!(again.attempt(), 2);
    subscription.flush().await.unwrap();
    service.revoke(STAY, 50 * S);
    again.retry(S);
    service.done(Did::Release(STAY)).await;
    let commits = service.did();
    let commits = commits
        .iter()
        .filter(|(_, did)| matches!(did, Did::Commit(..)));
    assert_eq!(commits.count(), 0);
}
