//! The asynchronous door.

use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use annals_core::{AppendReport, ErrorKind};

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

const STUCK: Duration = Duration::from_secs(20);

/// A log in whose queue hardly anything fits.
fn narrow() -> TopicLog {
    let here = place(MemoryDisk::new(clock()), Sizes::default());
    drop(made(&here, Dedupe::Off));
    TopicLog::with_room(&here, 300).unwrap()
}

type Appending<'a> = Pin<Box<dyn Future<Output = Result<AppendReport>> + Send + 'a>>;

async fn once(append: &mut Appending<'_>) -> Poll<Result<AppendReport>> {
    std::future::poll_fn(|cx| Poll::Ready(append.as_mut().poll(cx))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parked_appends_hold_nobody_up_when_the_queue_is_full() {
    let log = narrow();
    let batches: Vec<_> = (0..20)
        .map(|n| Batch::from(Record::new(format!("{n:0>200}"))))
        .collect();
    let mut parked: Vec<Appending<'_>> = Vec::new();
    {
        // Held by another thread: no future of a test may hold it while it waits.
        let (full, go_on) = std::sync::mpsc::channel::<()>();
        let (held, holds) = oneshot::channel();
        let theirs = log.clone();
        let holder = std::thread::spawn(move || {
            let _guard = theirs.stand_still();
            held.send(()).unwrap();
            go_on.recv().unwrap();
        });
        holds.await.unwrap();
        for batch in &batches[..19] {
            let mut append: Appending<'_> = Box::pin(log.append(batch, Condition::None, None));
            assert!(once(&mut append).await.is_pending());
            parked.push(append);
        }
        assert!(log.waiting().1 > 10, "{:?}", log.waiting());
        full.send(()).unwrap();
        holder.join().unwrap();
    }
    let last = log.append(&batches[19], Condition::None, None);
    let last = tokio::time::timeout(STUCK, last).await.unwrap().unwrap();
    assert_eq!(at(&last.outcomes()[0]), 19);
    for (n, append) in parked.into_iter().enumerate() {
        assert_eq!(at(&append.await.unwrap().outcomes()[0]), n as u64);
    }
    drop(log.stand_still());
    assert_eq!(log.waiting(), (0, 0));
}

/// Appends are polled, parked, dropped and awaited in every order while the queue is full or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_polled_parked_or_dropped_the_rest_goes_on_in_order() {
    for run in 0..25 {
        let mut seed = Seed(run);
        let log = narrow();
        let batches: Vec<_> = (0..40)
            .map(|n| {
                let len = 1 + seed.below(250);
                let pair = [0, 1].map(|half| Record::new(format!("{n} {half} {:0>len$}", "")));
                Batch::from(pair)
            })
            .collect();
        let mut open: Vec<(usize, Appending<'_>)> = Vec::new();
        let mut known = std::collections::BTreeMap::new();
        for (n, batch) in batches.iter().enumerate() {
            let mut append: Appending<'_> = Box::pin(log.append(batch, Condition::None, None));
            match once(&mut append).await {
                Poll::Ready(report) => {
                    known.insert(n, report.unwrap());
                }
                Poll::Pending => open.push((n, append)),
            }
            while !open.is_empty() && seed.below(3) == 0 {
                let (n, mut append) = open.swap_remove(seed.below(open.len()));
                match seed.below(3) {
                    0 => drop(append),
                    1 => match once(&mut append).await {
                        Poll::Ready(report) => {
                            known.insert(n, report.unwrap());
                        }
                        Poll::Pending => open.push((n, append)),
                    },
                    _ => {
                        let report = tokio::time::timeout(STUCK, append).await;
                        known.insert(n, report.unwrap().unwrap());
                    }
                }
            }
        }
        while !open.is_empty() {
            let (n, append) = open.swap_remove(seed.below(open.len()));
            let report = tokio::time::timeout(STUCK, append).await;
            known.insert(n, report.unwrap().unwrap());
        }
        // All that nobody waits for is decided too: this one comes behind it.
        let last = Batch::from(Record::new("last"));
        let last = log.append(&last, Condition::None, None).await.unwrap();
        let read = values(&all(log.topic()));
        assert_eq!(at(&last.outcomes()[0]), read.len() as u64 - 1);
        drop(log.stand_still());
        assert_eq!(log.waiting(), (0, 0), "run {run}");
        let numbers: Vec<usize> = read[..read.len() - 1]
            .iter()
            .map(|value| value.split(' ').next().unwrap().parse().unwrap())
            .collect();
        assert!(
            numbers.is_sorted(),
            "run {run}: the order of the first polls"
        );
        assert_eq!(numbers.len() % 2, 0, "run {run}: whole");
        for pair in numbers.chunks(2) {
            assert_eq!(pair[0], pair[1]);
        }
        for (n, report) in &known {
            let first = at(&report.outcomes()[0]);
            assert_eq!(numbers[usize::try_from(first).unwrap()], *n, "run {run}");
        }
        assert!(known.len() <= numbers.len() / 2);
    }
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

#[test]
fn who_waits_for_a_seal_is_woken_by_no_append() {
    let place = place(MemoryDisk::new(clock()), TINY);
    let mut writer = made(&place, Dedupe::Off);
    let mut seals = writer.topic().watch_seals();
    while !seals.has_changed().unwrap() {
        let before = *seals.borrow();
        put(&mut writer, &"v".repeat(500));
        let sealed = writer.topic().end().segment != before;
        assert_eq!(seals.has_changed().unwrap(), sealed);
    }
    let segment = *seals.borrow_and_update();
    assert!(segment > 0);
    assert_eq!(segment, writer.topic().end().segment);
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
