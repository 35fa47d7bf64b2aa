//! The ledger by itself: no tasks, no clock, moments as the test says.

use std::sync::Arc;
use std::time::Duration;

use super::{Handout, Ledger, Rules};
use crate::cursor::Frontier;
use crate::driver::{self, Delivered, Holder, Room, Tenancy, Token};
use crate::error::{Effect, Error, ErrorKind, Retry};
use crate::position::{PartitionId, Position};
use crate::record::Record;
use crate::recorded::Recorded;
use crate::subscription::news::News;
use crate::subscription::verdict::Verdict;

const NOW: Duration = Duration::from_secs(100);
const P: PartitionId = PartitionId::ONLY;

fn rules() -> Rules {
    Rules {
        ordered: true,
        in_flight: Room {
            records: 4,
            bytes: 1_000,
        },
        max_attempts: None,
        hold_most: None,
        at_most: false,
        counted: true,
        careful: false,
        commit_interval: Duration::from_secs(1),
        grace: Duration::from_secs(10),
    }
}

fn ledger(rules: Rules) -> Ledger {
    Ledger::new(rules, Arc::new(News::default()))
}

fn stay(epoch: u64) -> Tenancy {
    Tenancy {
        partition: P,
        epoch,
    }
}

fn after(number: u64) -> Frontier {
    Frontier::after(Position::new(P, number))
}

fn record(key: &str, number: Option<u64>) -> Recorded {
    let record = Record::new("value").key(key);
    Recorded::of(&record, number.map(|n| Position::new(P, n)), None).unwrap()
}

fn arrive(ledger: &mut Ledger, tenancy: Tenancy, number: u64, key: &str) {
    let delivered = Delivered {
        record: record(key, Some(number)),
        holder: Holder::Tenancy(tenancy),
        attempt: 1,
    };
    ledger.arrive(delivered, NOW);
}

fn lend(ledger: &mut Ledger, slot: u64, key: Option<&str>) {
    let mut record = Record::new("value");
    if let Some(key) = key {
        record = record.key(key);
    }
    let delivered = Delivered {
        record: Recorded::of(&record, None, None).unwrap(),
        holder: Holder::Token(Token { epoch: 1, slot }),
        attempt: 1,
    };
    ledger.arrive(delivered, NOW);
}

fn hand(ledger: &mut Ledger) -> Option<(u64, u32)> {
    ledger
        .hand(NOW)
        .map(|Handout { id, attempt, .. }| (id, attempt))
}

fn done(ledger: &mut Ledger, id: u64) {
    ledger.settle(id, Verdict::Done, None, NOW);
}

fn marks(ledger: &mut Ledger) -> Vec<(Frontier, u32)> {
    ledger.hurry();
    let due = ledger.marks(NOW);
    for due in &due {
        ledger.committed(due, Ok(()));
    }
    due.iter()
        .map(|due| (due.mark.to, due.mark.attempts))
        .collect()
}

fn told(ledger: &Ledger) -> Vec<ErrorKind> {
    let news = Arc::clone(&ledger.news);
    std::iter::from_fn(|| news.take().map(|(error, _)| error.kind())).collect()
}

fn failing(kind: ErrorKind) -> Error {
    Error::new(kind, Effect::None, Retry::Never, "it failed")
}

#[test]
fn a_delay_is_no_longer_than_a_delivery_can_be_held() {
    let minute = Duration::from_secs(60);
    let mut ledger = ledger(Rules {
        hold_most: Some(minute),
        ..rules()
    });
    lend(&mut ledger, 1, Some("a"));
    lend(&mut ledger, 2, None);
    for id in [1, 2] {
        hand(&mut ledger).unwrap();
        ledger.settle(id, Verdict::retry_after(2 * minute), None, NOW);
    }
    assert_eq!(ledger.retry_due(), Some(NOW + minute), "kept here");
    let told = ledger.outbox.take(9);
    let retry = driver::Verdict::Retry { after: minute };
    assert_eq!(told.first().map(|s| s.verdict), Some(retry));
}

#[test]
fn a_key_has_one_record_out_also_while_it_waits_for_its_retry_or_its_letter() {
    let mut ledger = ledger(rules());
    ledger.assigned(stay(1), Frontier::START, 0);
    for (number, key) in [(1, "a"), (2, "a"), (3, "b"), (4, "a")] {
        arrive(&mut ledger, stay(1), number, key);
    }
    assert_eq!(hand(&mut ledger), Some((1, 1)));
    assert_eq!(hand(&mut ledger), Some((3, 1)));
    assert_eq!(hand(&mut ledger), None);
    let minute = Duration::from_secs(60);
    ledger.settle(1, Verdict::retry_after(minute), None, NOW);
    assert_eq!(hand(&mut ledger), None, "it waits, and its key with it");
    assert_eq!(ledger.retry_due(), Some(NOW + minute));
    assert_eq!(
        ledger.hand(NOW + minute).map(|h| (h.id, h.attempt)),
        Some((1, 2))
    );
    ledger.settle(1, Verdict::reject("never"), None, NOW);
    assert_eq!(hand(&mut ledger), None, "its letter is not stored");
    ledger.buried(1, NOW);
    assert_eq!(hand(&mut ledger), Some((2, 1)));
}

#[test]
fn no_more_than_in_flight_is_out_and_one_over_the_bytes_goes_alone() {
    let mut ledger = ledger(Rules {
        in_flight: Room {
            records: 2,
            bytes: 6,
        },
        ..rules()
    });
    ledger.assigned(stay(1), Frontier::START, 0);
    for number in 1..=3 {
        arrive(&mut ledger, stay(1), number, &number.to_string());
    }
    assert!(ledger.room().is_none());
    assert_eq!(hand(&mut ledger), Some((1, 1)), "six bytes fill it");
    assert_eq!(hand(&mut ledger), None);
    done(&mut ledger, 1);
    arrive(&mut ledger, stay(1), 4, "a key of more than six bytes");
    done(&mut ledger, 2);
    for id in 2..=4 {
        assert_eq!(hand(&mut ledger), Some((id, 1)));
        done(&mut ledger, id);
    }
    assert_eq!(
        ledger.room(),
        Room {
            records: 2,
            bytes: 6
        }
    );
}

#[test]
fn what_was_left_out_of_a_stay_that_is_to_end_is_not_passed() {
    let mut ledger = ledger(rules());
    ledger.assigned(stay(1), Frontier::START, 0);
    arrive(&mut ledger, stay(1), 1, "a");
    arrive(&mut ledger, stay(1), 2, "b");
    assert_eq!(hand(&mut ledger), Some((1, 1)));
    ledger.revoking(stay(1), Duration::from_secs(5), NOW);
    arrive(&mut ledger, stay(1), 3, "c");
    ledger.advanced(stay(1), after(9), NOW);
    assert_eq!(hand(&mut ledger), None, "nothing more is handed out");
    assert!(ledger.release(NOW).is_empty(), "a handler has one");
    done(&mut ledger, 1);
    assert!(ledger.release(NOW).is_empty(), "it is not committed");
    assert_eq!(marks(&mut ledger), [(after(1), 0)]);
    assert_eq!(
        ledger.release(NOW),
        [(stay(1), NOW + Duration::from_secs(5))]
    );
    assert!(ledger.release(NOW).is_empty(), "once");
}

#[test]
fn a_zombie_settles_nothing_is_told_once_and_keeps_its_key_back() {
    let mut ledger = ledger(rules());
    ledger.assigned(stay(1), Frontier::START, 0);
    arrive(&mut ledger, stay(1), 1, "a");
    arrive(&mut ledger, stay(1), 2, "b");
    hand(&mut ledger);
    hand(&mut ledger);
    ledger.lost(stay(1));
    ledger.assigned(stay(2), Frontier::START, 0);
    arrive(&mut ledger, stay(2), 1, "a");
    assert_eq!(hand(&mut ledger), None, "the earlier handler still runs");
    assert_eq!(told(&ledger), []);
    done(&mut ledger, 1);
    done(&mut ledger, 2);
    assert_eq!(told(&ledger), [ErrorKind::Expired], "once a stay");
    assert_eq!(marks(&mut ledger), [], "nothing is committed by it");
    assert_eq!(hand(&mut ledger), Some((3, 1)));
    arrive(&mut ledger, stay(1), 2, "b");
    assert_eq!(
        hand(&mut ledger),
        None,
        "what comes of an ended stay is left out"
    );
}

#[test]
fn a_fenced_commit_ends_the_stay_and_a_failed_one_is_tried_again() {
    let mut ledger = ledger(rules());
    ledger.assigned(stay(1), Frontier::START, 0);
    arrive(&mut ledger, stay(1), 1, "a");
    hand(&mut ledger);
    done(&mut ledger, 1);
    assert_eq!(ledger.work_due(), Some(NOW + rules().commit_interval));
    assert!(ledger.marks(NOW).is_empty(), "not before the interval");
    ledger.hurry();
    let due = ledger.marks(NOW);
    ledger.committed(&due[0], Err(failing(ErrorKind::Denied)));
    assert_eq!(ledger.work_due(), Some(Duration::ZERO));
    let due = ledger.marks(NOW);
    ledger.committed(&due[0], Err(failing(ErrorKind::Fenced)));
    assert_eq!(told(&ledger), [ErrorKind::Fenced]);
    assert_eq!(ledger.work_due(), None);
    ledger.lost(stay(1));
    assert_eq!(told(&ledger), [], "told already");
}

#[test]
fn at_the_limit_a_record_becomes_a_letter_and_is_settled_once_that_is_stored() {
    let mut ledger = ledger(Rules {
        max_attempts: Some(2),
        ..rules()
    });
    ledger.assigned(stay(1), Frontier::START, 0);
    arrive(&mut ledger, stay(1), 1, "a");
    arrive(&mut ledger, stay(1), 2, "a");
    for attempt in 1..=2 {
        assert_eq!(hand(&mut ledger), Some((1, attempt)));
        let verdict = Verdict::from(Err::<(), _>("broken"));
        ledger.settle(1, verdict, None, NOW);
        ledger.wake(NOW + Duration::from_secs(60));
    }
    let letter = ledger.letter(NOW).unwrap();
    assert_eq!(
        (letter.id, letter.attempts, &*letter.reason),
        (1, 2, "broken")
    );
    let later = NOW + Duration::from_secs(1);
    ledger.unburied(1, later);
    assert!(ledger.letter(NOW).is_none(), "it could not be stored");
    assert_eq!(ledger.letter_due(), Some(later));
    assert_eq!(
        marks(&mut ledger),
        [(Frontier::START, 2)],
        "and is not settled"
    );
    assert_eq!(hand(&mut ledger), None);
    ledger.buried(1, later);
    assert_eq!(hand(&mut ledger), Some((2, 1)));
    assert_eq!(marks(&mut ledger), [(after(1), 1)]);
}

#[test]
fn attempts_of_an_earlier_life_count() {
    let mut ledger = ledger(Rules {
        max_attempts: Some(3),
        careful: true,
        ..rules()
    });
    ledger.assigned(stay(1), Frontier::START, 3);
    arrive(&mut ledger, stay(1), 1, "a");
    arrive(&mut ledger, stay(1), 2, "b");
    assert_eq!(ledger.letter(NOW).map(|letter| letter.id), Some(1));
    assert_eq!(hand(&mut ledger), Some((2, 1)), "an innocent one goes on");
}

#[test]
fn a_retry_stays_here_where_order_is_to_be_kept_and_with_the_service_elsewhere() {
    let mut ledger = ledger(rules());
    lend(&mut ledger, 1, Some("a"));
    lend(&mut ledger, 2, None);
    hand(&mut ledger);
    hand(&mut ledger);
    ledger.settle(1, Verdict::retry(), None, NOW);
    ledger.settle(2, Verdict::retry_after(NOW), None, NOW);
    let told = ledger.outbox.take(9);
    let told: Vec<_> = told.iter().map(|s| (s.token.slot, s.verdict)).collect();
    assert_eq!(told, [(2, driver::Verdict::Retry { after: NOW })]);
    assert_eq!(
        ledger.tokens().len(),
        2,
        "both are held until they are answered"
    );
    ledger.outbox.answered(Vec::new());
    assert_eq!(ledger.tokens().len(), 1);
    assert_eq!(ledger.work_due(), None, "nothing is due by a retry");
}

#[test]
fn followers_of_a_delivery_that_ran_out_go_back_with_it() {
    let mut ledger = ledger(rules());
    for (slot, key) in [(1, "a"), (2, "a"), (3, "b"), (4, "a")] {
        lend(&mut ledger, slot, Some(key));
    }
    assert_eq!(hand(&mut ledger), Some((1, 1)));
    ledger.expire(1, NOW);
    let told: Vec<_> = ledger.outbox.take(9);
    let told: Vec<_> = told.iter().map(|s| (s.token.slot, s.verdict)).collect();
    let returned = driver::Verdict::Return;
    assert_eq!(told, [(2, returned), (4, returned)]);
    ledger.outbox.answered(Vec::new());
    done(&mut ledger, 1);
    assert!(!ledger.outbox.is_due(), "it settles nothing");
    assert_eq!(self::told(&ledger), [ErrorKind::Expired]);
    assert_eq!(hand(&mut ledger), Some((3, 1)));
}

#[test]
fn a_close_gives_back_what_no_handler_has() {
    let mut ledger = ledger(rules());
    ledger.assigned(stay(1), Frontier::START, 0);
    for number in 1..=3 {
        arrive(&mut ledger, stay(1), number, &number.to_string());
    }
    hand(&mut ledger);
    hand(&mut ledger);
    ledger.settle(2, Verdict::reject("never"), None, NOW);
    ledger.closing = true;
    ledger.give_all_back(false, NOW);
    assert_eq!(ledger.returned, 1);
    assert!(ledger.letter(NOW).is_some(), "its letter is being written");
    ledger.give_all_back(true, NOW);
    assert_eq!((ledger.returned, ledger.leftover().0), (2, 1));
    ledger.settle(1, Verdict::retry(), None, NOW);
    assert_eq!((ledger.returned, ledger.leftover().0), (3, 0));
    assert_eq!(
        marks(&mut ledger),
        [(Frontier::START, 1)],
        "nothing was passed"
    );
}

#[test]
fn a_partition_is_held_back_once_too_much_is_settled_behind_a_hole() {
    let mut ledger = ledger(rules());
    ledger.assigned(stay(1), Frontier::START, 0);
    arrive(&mut ledger, stay(1), 1, "hole");
    hand(&mut ledger);
    for number in 2..=65 {
        assert!(!ledger.has_holds(), "at {number}");
        arrive(&mut ledger, stay(1), number, "a");
        let (id, _) = hand(&mut ledger).unwrap();
        done(&mut ledger, id);
    }
    assert_eq!(ledger.holds(), [(P, true)]);
    assert_eq!(ledger.holds(), []);
    done(&mut ledger, 1);
    assert!(ledger.has_holds(), "whoever reads is to be woken");
    assert_eq!(ledger.holds(), [(P, false)]);
    assert_eq!(marks(&mut ledger), [(after(65), 0)]);
}

#[test]
fn a_record_without_a_place_is_the_end_and_is_not_passed() {
    let mut ledger = ledger(rules());
    ledger.assigned(stay(1), Frontier::START, 0);
    let holder = Holder::Tenancy(stay(1));
    let delivered = Delivered {
        record: record("a", None),
        holder,
        attempt: 1,
    };
    ledger.arrive(delivered, NOW);
    arrive(&mut ledger, stay(1), 2, "b");
    assert_eq!(hand(&mut ledger), None);
    let kind = ledger.failed.as_ref().map(Error::kind);
    assert_eq!(kind, Some(ErrorKind::Internal));
}
