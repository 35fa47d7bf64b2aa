//! Groups over leases under many schedules: the watermark never passes what has no verdict, no key
//! is in two hands, and everything is settled in the end, whoever runs next.
//!
//! `ANNALS_DEPTH=full` tries 10,000 of them.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail their test"
)]

#[path = "../../../core/tests/schedules/executor.rs"]
mod executor;
#[path = "../groups/mod.rs"]
mod groups;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals_conformance::models::log::State;
use annals_core::driver::Backend;
use annals_core::{Delivery, Frontier, Group, PartitionId, Topic, TopicName};
use executor::{Actor, Seed, pause, run};
use groups::{LEASE, append, bus, clock};

const RECORDS: usize = 6;

#[derive(Default)]
struct Seen {
    /// Positions that some member has settled, from before it said so.
    settled: BTreeSet<u64>,
    /// Keys that are in somebody's hand.
    held: BTreeSet<String>,
    /// Everything is committed, or something is wrong.
    over: bool,
    fault: Option<String>,
}

impl Seen {
    /// The table says that the group stands at `at`; whether that was the last look.
    fn looks(&mut self, before: u64, at: u64) -> bool {
        if let Some(hole) = (0..at).find(|n| !self.settled.contains(n)) {
            self.fault = Some(format!("the watermark {at} passed {hole}"));
        }
        if at < before {
            self.fault = Some(format!("the watermark went from {before} to {at}"));
        }
        self.over = self.fault.is_some() || at == RECORDS as u64;
        self.over
    }
}

type Shared = Arc<Mutex<Seen>>;

fn key(delivery: &Delivery) -> String {
    String::from_utf8_lossy(delivery.key().unwrap()).into_owned()
}

/// A member that settles, gives back and leaves by chance; the first one may leave for good.
async fn member(topic: Topic, seen: Shared, mut seed: Seed, leaves: bool) {
    let is_over = || seen.lock().unwrap().over;
    while !is_over() {
        let member = topic.subscribe("g").lease(LEASE).await.unwrap();
        let stays = if leaves { seed.below(6) } else { usize::MAX };
        let mut held: Vec<Delivery> = Vec::new();
        for _ in 0..stays {
            if is_over() {
                break;
            }
            let soon = Duration::from_millis(1 + seed.next() % 400);
            if held.len() < 3
                && let Ok(next) = tokio::time::timeout(soon, member.next()).await
            {
                let delivery = next.unwrap().unwrap();
                let mut seen = seen.lock().unwrap();
                if !seen.held.insert(key(&delivery)) {
                    seen.fault = Some(format!("{} is in two hands", key(&delivery)));
                }
                held.push(delivery);
            }
            pause(&mut seed).await;
            while !held.is_empty() && seed.below(2) == 0 {
                let delivery = held.swap_remove(seed.below(held.len()));
                let mut seen = seen.lock().unwrap();
                seen.held.remove(&key(&delivery));
                if seed.below(4) > 0 {
                    seen.settled
                        .insert(delivery.position().unwrap().number_u64().unwrap());
                    delivery.done();
                }
            }
            if seed.below(5) == 0 {
                member.flush().await.unwrap();
            }
        }
        for delivery in held {
            seen.lock().unwrap().held.remove(&key(&delivery));
            drop(delivery);
        }
        pause(&mut seed).await;
        member.close(Duration::from_secs(5)).await.unwrap();
        if leaves && seed.below(2) == 0 {
            return;
        }
    }
}

/// Where the group stands, as its table says.
async fn committed(client: &impl Backend) -> u64 {
    let topic = TopicName::new("orders").unwrap();
    let leases = client.leases(&topic).unwrap();
    let rows = leases.load(&Group::new("g").unwrap()).await.unwrap();
    let row = rows.and_then(|rows| rows.into_iter().find(|r| r.partition == PartitionId::ONLY));
    match row.map(|row| row.at) {
        Some(Frontier::After { position, .. }) => position.number_u64().unwrap() + 1,
        _ => 0,
    }
}

#[tokio::test(start_paused = true)]
async fn the_watermark_passes_no_hole_under_any_schedule() {
    let full = std::env::var("ANNALS_DEPTH").is_ok_and(|depth| depth == "full");
    for number in 0..if full { 10_000 } else { 1_000 } {
        let mut seed = Seed(number);
        let clock = clock();
        let state = State::new(clock.clone());
        let table = state.connect();
        let mut topics = Vec::new();
        for _ in 0..2 {
            let bus = bus(state.connect(), &clock);
            topics.push(bus.topic("orders").create_if_missing().await.unwrap());
        }
        let values: Vec<String> = (0..RECORDS)
            .map(|n| format!("{}-{n}", ["a", "b", "c"][seed.below(3)]))
            .collect();
        append(&topics[0], values).await;
        let seen = Shared::default();
        let mut actors: Vec<Actor> = Vec::new();
        for (n, topic) in topics.iter().enumerate() {
            let theirs = Seed(seed.next());
            let works = member(topic.clone(), Arc::clone(&seen), theirs, n == 0);
            actors.push(Box::pin(works));
        }
        let (watched, mut theirs) = (Arc::clone(&seen), Seed(seed.next()));
        actors.push(Box::pin(async move {
            let mut before = 0;
            loop {
                let at = committed(&table).await;
                if watched.lock().unwrap().looks(before, at) {
                    return;
                }
                before = at;
                let soon = Duration::from_millis(1 + theirs.next() % 300);
                tokio::time::sleep(soon).await;
            }
        }));
        run(&mut seed, actors).await;
        let fault = seen.lock().unwrap().fault.take();
        assert_eq!(fault, None, "schedule {number}");
    }
}
