//! The asynchronous door.

use std::task::Poll;

use annals_core::ErrorKind;

use super::*;
use crate::disk::MemoryDisk;

fn log() -> TopicLog {
    let here = place(MemoryDisk::new(clock()), Sizes::default());
    drop(made(&here, Dedupe::Off));
    TopicLog::open(&here).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_get_one_order() {
    let log = log();
    let mut tasks = Vec::new();
    for task in 0..16 {
        let log = log.clone();
        tasks.push(tokio::spawn(async move {
            let mut places = Vec::new();
            for n in 0..50 {
                let batch = Batch::from(Record::new(format!("{task} {n}")));
                let report = log.append(&batch, Condition::None, None).await.unwrap();
                places.push(at(&report.outcomes()[0]));
            }
            assert!(places.is_sorted());
            places
        }));
    }
    let mut read = std::collections::BTreeMap::new();
    for (task, handle) in tasks.into_iter().enumerate() {
        for (n, position) in handle.await.unwrap().into_iter().enumerate() {
            read.insert(position, format!("{task} {n}"));
        }
    }
    assert_eq!(
        values(&all(log.topic())),
        read.into_values().collect::<Vec<_>>()
    );
    log.close().unwrap();
    let batch = Batch::from(Record::new("v"));
    let late = log.append(&batch, Condition::None, None).await;
    assert_eq!(late.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn order_is_fixed_at_the_first_poll_even_when_the_queue_is_full() {
    let log = log();
    let large = Batch::from(Record::new("x".repeat(40 << 20)));
    let small: Vec<_> = (0..5)
        .map(|n| Batch::from(Record::new(n.to_string())))
        .collect();
    let first = log.append(&large, Condition::None, None);
    let second = log.append(&large, Condition::None, None);
    let rest = in_order(&log, &small);
    let (first, second, rest) = tokio::join!(biased; first, second, rest);
    assert_eq!(at(&first.unwrap().outcomes()[0]), 0);
    assert_eq!(at(&second.unwrap().outcomes()[0]), 1);
    assert_eq!(rest, [2, 3, 4, 5, 6]);
}

/// Polls the appends one after another, before any is answered.
async fn in_order(log: &TopicLog, batches: &[Batch]) -> Vec<u64> {
    let mut waiting: Vec<_> = batches
        .iter()
        .map(|batch| Box::pin(log.append(batch, Condition::None, None)))
        .collect();
    for append in &mut waiting {
        let once = std::future::poll_fn(|cx| Poll::Ready(append.as_mut().poll(cx)));
        assert!(once.await.is_pending());
    }
    // Awaited backwards: their order is fixed all the same.
    let mut places = Vec::new();
    while let Some(append) = waiting.pop() {
        places.insert(0, at(&append.await.unwrap().outcomes()[0]));
    }
    places
}

#[tokio::test]
async fn a_follower_is_woken_by_each_append() {
    let log = log();
    let mut end = log.topic().watch();
    end.mark_unchanged();
    let report = log
        .append(&Batch::from(Record::new("v")), Condition::None, None)
        .await
        .unwrap();
    end.changed().await.unwrap();
    assert_eq!(at(&report.outcomes()[0]), 0);
    assert_eq!(end.borrow().next, 1);
}

#[tokio::test]
async fn what_is_too_large_or_empty_is_refused_before_anything_is_stored() {
    let log = log();
    let none = Batch::new(Vec::new());
    let none = log.append(&none, Condition::None, None);
    assert_eq!(none.await.unwrap_err().kind(), ErrorKind::Config);
    let long = Batch::from(Record::new("v").id(vec![0; frame::MAX_ID + 1]));
    let long = log.append(&long, Condition::None, None);
    assert_eq!(long.await.unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(log.topic().end().next, 0);
}
