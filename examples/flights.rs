//! The main job on real data: 20,000 flights are appended durably, replayed, rebuilt as of a
//! moment, and fanned out to two groups, one of which dies half-way and goes on.
//!
//! `cargo run --release --example flights [-- --url URL]`
//!
//! Exits with 1 when one of its own checks fails.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::{BTreeMap, HashSet};
use std::error::Error;
use std::time::{Duration, Instant};

use annals::{Bus, ErrorKind, Record, Replay, Start, Timestamp, Topic, Until};
use clap::Parser;
use serde::Deserialize;

const TOPIC: &str = "annals-example-flights";
const BATCH: usize = 500;

#[derive(Parser)]
struct Args {
    /// Where the log lives; the topic `annals-example-flights` there is deleted and made anew.
    #[arg(long, default_value = "file:./target/flights")]
    url: String,
}

/// One line of the data: what the read model needs of it.
#[derive(Deserialize)]
struct Flight {
    delay: i64,
    origin: String,
}

/// The read model: how late flights leave, by airport.
#[derive(Default, PartialEq, Clone)]
struct Delays(BTreeMap<String, Airport>);

#[derive(Default, PartialEq, Clone, Copy)]
struct Airport {
    flights: u64,
    minutes: i64,
}

impl Delays {
    fn apply(&mut self, flight: Flight) {
        let airport = self.0.entry(flight.origin).or_default();
        airport.flights += 1;
        airport.minutes += flight.delay;
    }

    fn flights(&self) -> u64 {
        self.0.values().map(|airport| airport.flights).sum()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let lines = include_str!("data/flights-20k.ndjson")
        .lines()
        .collect::<Vec<_>>();
    let (morning, evening) = lines.split_at(lines.len() / 2);

    let bus = annals::connect(&args.url).await?;
    let topic = fresh_topic(&bus).await?;

    // Append. `Ok` means that every record of the batch is durable.
    let mut live = Delays::default();
    let begun = Instant::now();
    append(&topic, 0, morning, &mut live).await?;
    // A moment in log time between the halves: just after the last record of the first one.
    let half = live.clone();
    let noon = last_stored(&topic)
        .await?
        .saturating_add(Duration::from_millis(1));
    tokio::time::sleep(Duration::from_millis(25)).await;
    append(&topic, morning.len(), evening, &mut live).await?;
    rate("appended, in batches of 500", lines.len(), begun);

    // Replay: the state now, from nothing but the log.
    let begun = Instant::now();
    let rebuilt = rebuild(topic.replay(Start::Beginning).await?).await?;
    rate("replayed into delays by airport", lines.len(), begun);
    check(rebuilt == live, "the rebuilt model equals the live one")?;

    // The state as it was at a moment.
    let then = topic
        .replay(Start::Beginning)
        .until(Until::Before(noon))
        .await?;
    let then = rebuild(then).await?;
    check(
        then == half,
        "the model as of the middle is that of the first half",
    )?;

    // Two groups, each of which sees every flight. One dies half-way, with deliveries in flight.
    let mut boards = Seen::default();
    work(&topic, "boards", &mut boards, lines.len(), false).await?;
    let mut statistics = Seen::default();
    let repeatable = work(&topic, "statistics", &mut statistics, lines.len() / 2, true).await?;
    work(&topic, "statistics", &mut statistics, lines.len(), false).await?;

    println!(
        "\n{:<12} {:>9} {:>9} {:>9} {:>9}",
        "group", "handed", "distinct", "lost", "repeated"
    );
    for (group, seen) in [("boards", &boards), ("statistics", &statistics)] {
        let (lost, repeated) = (lines.len() - seen.flights.len(), seen.repeated());
        println!(
            "{group:<12} {:>9} {:>9} {lost:>9} {repeated:>9}",
            seen.handed,
            seen.flights.len()
        );
    }
    check(boards.flights.len() == lines.len(), "boards lost none")?;
    check(
        statistics.flights.len() == lines.len(),
        "statistics lost none, although it died",
    )?;
    check(
        statistics.repeated() <= repeatable,
        &format!(
            "it was handed again at most what was in flight plus what was settled within the \
             commit interval ({repeatable})"
        ),
    )?;

    table(&rebuilt);
    bus.close(Duration::from_secs(5)).await?;
    Ok(())
}

/// An empty topic, also when an earlier run left one.
async fn fresh_topic(bus: &Bus) -> annals::Result<Topic> {
    match bus.admin()?.delete(&annals::TopicName::new(TOPIC)?).await {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    bus.topic(TOPIC)
        .create_if_missing()
        .groups(["boards", "statistics"])
        .await
}

/// Appends flights in batches, the number of each as its id, and keeps the live model.
async fn append(
    topic: &Topic,
    first: usize,
    lines: &[&str],
    live: &mut Delays,
) -> Result<(), Box<dyn Error>> {
    let numbered: Vec<_> = (first..).zip(lines).collect();
    for chunk in numbered.chunks(BATCH) {
        let mut batch = Vec::with_capacity(BATCH);
        for (number, line) in chunk {
            let flight: Flight = serde_json::from_str(line)?;
            batch.push(
                Record::new(**line)
                    .key(&flight.origin)
                    .id(number.to_string()),
            );
            live.apply(flight);
        }
        topic.append(batch).await?;
    }
    Ok(())
}

async fn rebuild(mut replay: Replay) -> annals::Result<Delays> {
    let mut model = Delays::default();
    while let Some(batch) = replay.next_batch().await? {
        for record in &*batch {
            model.apply(record.json()?);
        }
    }
    Ok(model)
}

/// The log time of the newest record.
async fn last_stored(topic: &Topic) -> annals::Result<Timestamp> {
    let mut replay = topic.replay(Start::Beginning).await?;
    let mut last = Timestamp::EPOCH;
    while let Some(record) = replay.next().await? {
        last = last.max(record.stored_at().unwrap_or(Timestamp::EPOCH));
    }
    Ok(last)
}

/// What a group's members have been handed, in all their lives.
#[derive(Default)]
struct Seen {
    handed: usize,
    flights: HashSet<String>,
}

impl Seen {
    fn repeated(&self) -> usize {
        self.handed - self.flights.len()
    }
}

/// A member that handles flights until its group has seen `until` different ones. One that dies
/// is dropped without being closed, so that what is in flight stays unsettled; it answers how much
/// its successor may be handed again.
async fn work(
    topic: &Topic,
    group: &str,
    seen: &mut Seen,
    until: usize,
    dies: bool,
) -> Result<usize, Box<dyn Error>> {
    const IN_FLIGHT: usize = 100;
    let subscription = topic.subscribe(group).in_flight(IN_FLIGHT, 1 << 20).await?;
    let mut settled: Vec<Instant> = Vec::new();
    while seen.flights.len() < until {
        let next = tokio::time::timeout(Duration::from_secs(60), subscription.next()).await;
        let delivery = next.map_err(|_| format!("{group} waits in vain: records are lost"))??;
        let delivery = delivery.ok_or("the subscription ended by itself")?;
        seen.handed += 1;
        seen.flights
            .insert(String::from_utf8_lossy(delivery.id().unwrap_or_default()).into());
        delivery.done();
        settled.push(Instant::now());
    }
    if dies {
        let recent = annals::defaults::COMMIT_INTERVAL + Duration::from_millis(500);
        return Ok(IN_FLIGHT + settled.iter().filter(|at| at.elapsed() <= recent).count());
    }
    subscription.close(Duration::from_secs(5)).await?;
    Ok(0)
}

fn check(holds: bool, what: &str) -> Result<(), String> {
    println!("{} {what}", if holds { "ok  " } else { "FAIL" });
    if holds {
        Ok(())
    } else {
        Err(format!("check failed: {what}"))
    }
}

fn rate(what: &str, records: usize, since: Instant) {
    let millis = since.elapsed().as_millis().max(1);
    println!("     {records} records {what}, {millis} ms");
}

fn table(delays: &Delays) {
    let mut airports: Vec<_> = delays.0.iter().collect();
    airports.sort_by_key(|(_, airport)| std::cmp::Reverse(airport.flights));
    println!("\n{:<8} {:>8} {:>12}", "airport", "flights", "mean delay");
    for (name, airport) in airports.iter().take(10) {
        #[expect(clippy::cast_precision_loss, reason = "minutes and flights are small")]
        let mean = airport.minutes as f64 / airport.flights as f64;
        println!("{name:<8} {:>8} {mean:>8.1} min", airport.flights);
    }
    println!(
        "({} airports, {} flights)",
        delays.0.len(),
        delays.flights()
    );
}
