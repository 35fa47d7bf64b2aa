//! The main job on real data: 20,000 flights are appended durably, replayed, rebuilt as of a
//! moment, and fanned out to two groups, one of which is killed half-way and goes on.
//!
//! `cargo run --release --example flights [-- --url URL]`
//!
//! Checks that the model rebuilt from the log equals the live one, now and as of the middle; that
//! neither group lost a flight; and that the killed one was handed again no more than what was in
//! flight and what was settled within its commit interval. Exits with 1 when one does not hold.

mod check;

use std::collections::{BTreeMap, HashSet};
use std::error::Error;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use annals::{Record, Recorded, Replay, Start, Subscription, Timestamp, Topic, TopicSpec, Until};
use check::{check, fresh, say};
use clap::Parser;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

const TOPIC: &str = "annals-example-flights";
const BATCH: usize = 500;
/// How often a group's progress is committed: what a crash repeats.
const COMMIT: Duration = Duration::from_millis(50);
/// How long a commit may take to reach a busy disk.
const SLOW: Duration = Duration::from_millis(250);
/// Nothing here takes as long, unless records are lost.
const PATIENCE: Duration = Duration::from_secs(60);

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

#[derive(Parser)]
struct Args {
    /// Where the log lives; the topic `annals-example-flights` there is deleted and made anew.
    #[arg(long, default_value = "file:./target/flights")]
    url: String,
    /// Be a member of this group, for a parent process: see `member`.
    #[arg(long, hide = true)]
    member_of: Option<String>,
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
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let bus = annals::connect(&args.url).await?;
    if let Some(group) = &args.member_of {
        return member(&bus.topic(TOPIC).await?, group).await;
    }
    let lines: Vec<&str> = include_str!("data/flights-20k.ndjson").lines().collect();
    let (morning, evening) = lines.split_at(lines.len() / 2);
    let topic = fresh(&bus, TOPIC, TopicSpec::default()).await?;

    // Append. `Ok` means that every record of the batch is durable.
    let mut live = Delays::default();
    let begun = Instant::now();
    append(&topic, 0, morning, &mut live).await?;
    let took = begun.elapsed();
    // A moment in log time between the halves: just after the last record of the first one.
    let half = live.clone();
    let noon = last_stored(&topic)
        .await?
        .saturating_add(Duration::from_millis(1));
    while Timestamp::now() < noon {
        tokio::task::yield_now().await;
    }
    let begun = Instant::now();
    append(&topic, morning.len(), evening, &mut live).await?;
    rate(
        "appended, in batches of 500",
        lines.len(),
        took + begun.elapsed(),
    );

    // Replay: the state now, from nothing but the log.
    let begun = Instant::now();
    let rebuilt = rebuild(topic.replay(Start::Beginning).await?).await?;
    rate(
        "replayed into delays by airport",
        lines.len(),
        begun.elapsed(),
    );
    check(rebuilt == live, "the rebuilt model equals the live one")?;

    // The state as it was at a moment.
    let then = topic
        .replay(Start::Beginning)
        .until(Until::Before(noon))
        .await?;
    check(
        rebuild(then).await? == half,
        "the model as of the middle is that of the first half",
    )?;

    // Two groups, each of which sees every flight. One is killed half-way.
    let mut boards = Seen::default();
    work(&topic, "boards", &mut boards, lines.len(), false).await?;
    let mut statistics = Seen::default();
    let middle = lines.len() / 2;
    let repeatable = if args.url.starts_with("memory:") {
        say("     memory: belongs to one process: the member is dropped instead of killed");
        work(&topic, "statistics", &mut statistics, middle, true).await?;
        1
    } else {
        killed(&args.url, "statistics", &mut statistics, middle).await?
    };
    work(&topic, "statistics", &mut statistics, lines.len(), false).await?;

    let groups = [
        ("boards", &boards, 0),
        ("statistics", &statistics, repeatable),
    ];
    say(format_args!(
        "\n{:<12} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "group", "handed", "distinct", "lost", "repeated", "at most"
    ));
    for (group, seen, most) in groups {
        let (distinct, repeated) = (seen.flights.len(), seen.repeated());
        let lost = lines.len() - distinct;
        say(format_args!(
            "{group:<12} {:>9} {distinct:>9} {lost:>9} {repeated:>9} {most:>9}",
            seen.handed
        ));
    }
    say("");
    for (group, seen, most) in groups {
        check(
            seen.flights.len() == lines.len(),
            &format!("{group} lost none"),
        )?;
        check(
            seen.repeated() <= most,
            &format!(
                "{group} was handed again at most what was in flight or settled within the commit interval"
            ),
        )?;
    }

    table(&rebuilt);
    bus.close(Duration::from_secs(5)).await?;
    Ok(())
}

/// Appends flights in batches, the number of each as its id, and keeps the live model.
async fn append(topic: &Topic, first: usize, lines: &[&str], live: &mut Delays) -> Result<()> {
    let numbered: Vec<_> = (first..).zip(lines).collect();
    for chunk in numbered.chunks(BATCH) {
        let mut batch = Vec::with_capacity(BATCH);
        for (number, line) in chunk {
            let flight: Flight = serde_json::from_str(line)?;
            let record = Record::new(**line).key(&flight.origin);
            batch.push(record.id(number.to_string()));
            live.apply(flight);
        }
        topic.append(batch).await?;
    }
    Ok(())
}

async fn rebuild(mut replay: Replay) -> Result<Delays> {
    let mut model = Delays::default();
    while let Some(batch) = replay.next_batch().await? {
        for record in &*batch {
            model.apply(record.json()?);
        }
    }
    Ok(model)
}

/// The log time of the newest record.
async fn last_stored(topic: &Topic) -> Result<Timestamp> {
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
    fn hand(&mut self, flight: String) {
        self.handed += 1;
        self.flights.insert(flight);
    }

    fn repeated(&self) -> usize {
        self.handed - self.flights.len()
    }
}

async fn join(topic: &Topic, group: &str) -> Result<Subscription> {
    Ok(topic.subscribe(group).commit_interval(COMMIT).await?)
}

/// The number that it was appended with.
fn number(flight: &Recorded) -> Result<&str> {
    Ok(flight.id_str()?.ok_or("a flight without its number")?)
}

/// A member that handles flights until its group has seen `until` different ones. One that dies
/// does so with the last of them in its hands.
async fn work(topic: &Topic, group: &str, seen: &mut Seen, until: usize, dies: bool) -> Result<()> {
    let subscription = join(topic, group).await?;
    loop {
        let next = timeout(PATIENCE, subscription.next()).await;
        let delivery = next.map_err(|_| format!("{group} waits in vain: records are lost"))??;
        let delivery = delivery.ok_or("the subscription ended by itself")?;
        seen.hand(number(&delivery)?.to_owned());
        let last = seen.flights.len() == until;
        if last && dies {
            return Ok(());
        }
        delivery.done();
        if last {
            break;
        }
    }
    subscription.close(Duration::from_secs(5)).await?;
    Ok(())
}

/// A member in a process of its own: shows each flight to the parent process, and settles it when
/// the parent nods.
async fn member(topic: &Topic, group: &str) -> Result<()> {
    let subscription = join(topic, group).await?;
    let mut nods = BufReader::new(tokio::io::stdin()).lines();
    while let Some(delivery) = subscription.next().await? {
        say(number(&delivery)?);
        if nods.next_line().await?.is_none() {
            break;
        }
        delivery.done();
    }
    Ok(())
}

/// Lets a child process be a member, and kills it with the flight in its hands that makes `until`
/// different ones. Answers how many its successor may be handed again.
async fn killed(url: &str, group: &str, seen: &mut Seen, until: usize) -> Result<usize> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--url", url, "--member-of", group])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let mut nods = stdin.ok_or("the child has no input")?;
    let mut shown = BufReader::new(stdout.ok_or("the child has no output")?).lines();
    let mut settled = Vec::new();
    loop {
        let flight = timeout(PATIENCE, shown.next_line()).await??;
        seen.hand(flight.ok_or("the child ended by itself")?);
        if seen.flights.len() == until {
            break;
        }
        nods.write_all(b"\n").await?;
        settled.push(Instant::now());
    }
    let died = Instant::now();
    child.start_kill()?;
    let ended = child.wait().await?;
    check(
        ended.signal() == Some(9),
        &format!("a member of {group} was killed with a flight in its hands"),
    )?;
    let recent = settled.iter().filter(|at| died - **at <= COMMIT + SLOW);
    Ok(1 + recent.count())
}

fn rate(what: &str, records: usize, took: Duration) {
    say(format_args!(
        "     {records} records {what}, {} ms",
        took.as_millis().max(1)
    ));
}

fn table(delays: &Delays) {
    let mut airports: Vec<_> = delays.0.iter().collect();
    airports.sort_by_key(|(_, airport)| std::cmp::Reverse(airport.flights));
    say(format_args!(
        "\n{:<8} {:>8} {:>12}",
        "airport", "flights", "mean delay"
    ));
    for (name, airport) in airports.iter().take(10) {
        #[expect(clippy::cast_precision_loss, reason = "minutes and flights are small")]
        let mean = airport.minutes as f64 / airport.flights as f64;
        say(format_args!(
            "{name:<8} {:>8} {mean:>8.1} min",
            airport.flights
        ));
    }
    let flights: u64 = delays.0.values().map(|airport| airport.flights).sum();
    say(format_args!(
        "({} airports, {flights} flights)",
        delays.0.len()
    ));
}
