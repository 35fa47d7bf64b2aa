//! One stay by itself.

use super::*;
use crate::position::PartitionId;

const TENANCY: Tenancy = Tenancy {
    partition: PartitionId::ONLY,
    epoch: 1,
};

fn after(number: u64) -> Frontier {
    Frontier::after(Position::new(PartitionId::ONLY, number))
}

fn stay(attempts: u32, trial: usize, records: u64) -> Stay {
    let mut stay = Stay::new(TENANCY, Frontier::START, attempts, Some(trial));
    for id in 1..=records {
        stay.arrive(id, after(id));
    }
    stay
}

fn commit(stay: &mut Stay) -> (Frontier, u32) {
    let due = stay.due().expect("something to commit");
    stay.committed(&due);
    (due.mark.to, due.mark.attempts)
}

fn handle(stay: &mut Stay, id: u64, attempt: u32) {
    stay.hand(id, attempt);
    stay.handed -= 1;
    stay.settle(id);
}

#[test]
fn a_trial_commits_the_attempt_before_it_is_made() {
    let mut stay = stay(0, 2, 3);
    assert!(!stay.allows(2), "not before the first");
    assert!(!stay.allows(1), "not before its attempt is committed");
    assert!(stay.is_urgent());
    assert_eq!(commit(&mut stay), (Frontier::START, 1));
    assert!(stay.allows(1));
    stay.hand(1, 1);
    assert!(!stay.allows(2), "one at a time");
    stay.handed = 0;
    stay.settle(1);
    assert!(!stay.allows(2));
    assert_eq!(commit(&mut stay), (after(1), 1), "the first is committed");
    handle(&mut stay, 2, 1);
    assert!(stay.allows(3), "the trial is over");
}

#[test]
fn a_record_on_trial_that_asks_for_a_retry_lets_others_go_on() {
    let mut stay = stay(3, 100, 2);
    assert!(!stay.allows(1));
    assert_eq!(commit(&mut stay), (Frontier::START, 4));
    stay.hand(1, 4);
    assert!(!stay.allows(2));
    stay.handed = 0;
    stay.tried(1);
    assert!(stay.allows(2));
}

#[test]
fn attempts_of_a_record_that_is_gone_are_not_those_of_the_next() {
    let mut stay = Stay::new(TENANCY, Frontier::START, 7, Some(0));
    stay.gap(1);
    assert_eq!(stay.arrive(2, after(9)), 0);
}

#[test]
fn attempts_that_do_not_outlive_the_stay_are_not_committed() {
    let mut stay = Stay::new(TENANCY, Frontier::START, 0, None);
    stay.arrive(1, after(1));
    stay.hand(1, 1);
    assert!(stay.due().is_none(), "nothing is settled");
    stay.settle(1);
    assert_eq!(commit(&mut stay), (after(1), 0));
}

#[test]
fn a_step_to_where_the_frontier_was_is_committed_already() {
    let mut stay = stay(0, 0, 1);
    stay.settle(1);
    commit(&mut stay);
    stay.advance(2, after(1));
    assert!(stay.due().is_none());
    assert_eq!(stay.progress(), (2, 2), "whoever flushes waits for nothing");
}

#[test]
fn waiters_are_told_of_their_own_commit() {
    let mut stay = stay(0, 0, 3);
    let (sender, mut second) = oneshot::channel();
    stay.settle(2);
    stay.wait_for(2, sender);
    assert!(stay.due().is_none(), "the first is a hole");
    stay.settle(1);
    let due = stay.due().unwrap();
    assert!(second.try_recv().is_err());
    stay.settle(3);
    stay.committed(&due);
    assert_eq!(second.try_recv().unwrap().map_err(|e| e.kind()), Ok(()));
    assert_eq!(
        stay.progress(),
        (3, 2),
        "the third is still to be committed"
    );
    assert!(stay.is_ahead());
    stay.committed(&stay.due().unwrap());
    stay.advance(4, after(9));
    assert!(
        !stay.is_ahead(),
        "a step without a record was not settled by anybody"
    );
}
