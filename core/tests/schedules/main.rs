//! The appender under many schedules: its permits, its room and its order, whoever runs next and
//! whoever gives up while it waits.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail their test"
)]

mod executor;
#[path = "../scripted/mod.rs"]
mod scripted;

use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use annals_core::capability::Batching;
use annals_core::{Appender, Record};
use executor::{Actor, Seed, pause, run};
use scripted::{Scripted, capabilities, record};

const SCHEDULES: u64 = 10_000;

/// What was accepted, in order; each submitter's is a key of its own.
type Accepted = Arc<Mutex<Vec<String>>>;

/// Submits in every way, and gives up now and then.
async fn submit(appender: Appender, accepted: Accepted, key: char, mut seed: Seed) {
    for n in 0..4 {
        let name = format!("{key}{n}");
        let ticket = match seed.below(6) {
            0 => appender.try_submit(record(&name)).ok(),
            1 => {
                let permit = appender.reserve(record(&name).len_bytes()).await.unwrap();
                pause(&mut seed).await;
                if seed.below(3) == 0 {
                    drop(permit);
                    None
                } else {
                    Some(permit.submit(record(&name)).unwrap())
                }
            }
            // Dropped while it waits: not accepted.
            2 => {
                let mut waiting = Box::pin(appender.submit(record(&name)));
                let polls = seed.below(3);
                let mut got = None;
                for _ in 0..=polls {
                    let polled = poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx))).await;
                    if let Poll::Ready(ticket) = polled {
                        got = Some(ticket.unwrap());
                        break;
                    }
                    pause(&mut seed).await;
                }
                got
            }
            _ => Some(appender.submit(record(&name)).await.unwrap()),
        };
        let Some(ticket) = ticket else { continue };
        accepted.lock().unwrap().push(name);
        pause(&mut seed).await;
        if seed.below(2) == 0 {
            ticket.await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn permits_room_and_order_hold_under_any_schedule() {
    let one = size_of::<Record>() + record("a0").len_bytes();
    for number in 0..SCHEDULES {
        let mut seed = Seed(number);
        let mut has = capabilities(Batching::Prefix);
        has.append.in_flight = 1 + u32::try_from(seed.below(2)).unwrap();
        let backend = Scripted::new(has, []);
        let room = one * (1 + seed.below(3));
        let topic = backend.topic().await;
        let open = topic.appender().bytes_in_flight(room).batch(2, 1_000);
        let appender = open.linger(Duration::ZERO).await.unwrap();
        let accepted = Accepted::default();
        let keys = ['a', 'b', 'c'].into_iter().take(2 + seed.below(2));
        let mut actors: Vec<Actor> = Vec::new();
        for key in keys {
            let theirs = Seed(seed.next());
            let submits = submit(appender.clone(), Arc::clone(&accepted), key, theirs);
            actors.push(Box::pin(submits));
        }
        let flusher = appender.clone();
        actors.push(Box::pin(async move { flusher.flush().await.unwrap() }));
        run(&mut seed, actors).await;
        let all = appender.clone();
        let last: Vec<Actor> = vec![Box::pin(async move {
            all.flush().await.unwrap();
            // Nothing of the room is lost, whoever gave up.
            let permit = all.reserve(room - size_of::<Record>()).await.unwrap();
            assert_eq!(permit.bytes(), room - size_of::<Record>());
            drop(permit);
            all.close(Duration::from_secs(1)).await.unwrap();
        })];
        run(&mut seed, last).await;
        let (mut stored, mut accepted) = (backend.stored(), accepted.lock().unwrap().clone());
        stored.sort_by_key(|name| name.as_bytes()[0]);
        accepted.sort_by_key(|name| name.as_bytes()[0]);
        assert_eq!(stored, accepted, "schedule {number}");
    }
}
