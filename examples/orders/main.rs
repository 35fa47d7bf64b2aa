//! Event sourcing: the log has what happened, and everything else is made from it.
//!
//! Orders are placed, credit inquiries made, orders processed, orders shipped. Commands are decided
//! on the history of one order and stored on the condition that nobody else has moved it since.
//! Two read models of different shape follow the log; the one in SQLite keeps its cursor in the
//! transaction that keeps its rows, so each event counts once, whenever its process dies.
//!
//! `cargo run --example orders [-- --url URL]`
//!
//! Checks that a rival makes a command `Conflict` and that it is decided anew; that of eight rivals
//! one wins; that a projection which is aborted before and after its commit counts nothing twice
//! and loses nothing; and that each read model is what the log says.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

#[path = "../check.rs"]
mod check;
mod order;
mod projection;

use std::collections::BTreeMap;
use std::error::Error;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command as Process;
use std::time::Duration;

use annals::{Effect, ErrorKind, Record, Start, Topic, TopicSpec, Until};
use check::{check, fresh};
use clap::{Parser, ValueEnum};
use order::{Command, Event, Order, Stage, handle, id};
use projection::{Moment, Totals, project, read, remove};
use tokio::task::{JoinSet, spawn_blocking};

const TOPIC: &str = "annals-example-orders";

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

#[derive(Parser)]
struct Args {
    /// Where the log lives; the topic `annals-example-orders` there is deleted and made anew.
    #[arg(long, default_value = "file:./target/orders")]
    url: String,
    /// The file of the read model, which is deleted and made anew.
    #[arg(long, default_value = "./target/orders.sqlite")]
    sqlite: PathBuf,
    /// Be the projection, and die at this moment of the second transaction.
    #[arg(long, hide = true)]
    die: Option<Moment>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let bus = annals::connect(&args.url).await?;
    if let Some(moment) = args.die {
        let orders = bus.topic(TOPIC).await?;
        let abort = move |transaction, now| {
            if transaction == 2 && now == moment {
                std::process::abort();
            }
            false
        };
        return spawn_blocking(move || project(&orders, &args.sqlite, abort)).await?;
    }
    let orders = fresh(&bus, TOPIC, TopicSpec::default()).await?;
    rivals(&orders).await?;

    // A day's work: some orders are refused for their size, some still wait to be shipped.
    let mut shipped = 1;
    for number in 0..60 {
        let id = format!("order-{number}");
        let customer = format!("customer-{}", number % 7);
        let cents = number * 17_333 % 70_000;
        handle(&orders, &id, &Command::Place { customer, cents }).await?;
        handle(&orders, &id, &Command::AskForCredit).await?;
        handle(&orders, &id, &Command::Process).await?;
        if number % 3 > 0 && handle(&orders, &id, &Command::Ship).await?.is_some() {
            shipped += 1;
        }
    }
    let stages = stages(&orders).await?;
    let count = |stage| stages.values().filter(|s| **s == stage).count();
    println!(
        "     {} orders: {} declined, {} processed, {} shipped",
        stages.len(),
        count(Stage::Declined),
        count(Stage::Processed),
        count(Stage::Shipped)
    );
    check(
        count(Stage::Shipped) == shipped,
        "the model in memory has every order that was shipped",
    )?;

    remove(&args.sqlite)?;
    for moment in [Moment::BeforeCommit, Moment::AfterCommit] {
        die(&args, &orders, moment).await?;
    }
    let sqlite = args.sqlite.clone();
    let feed = orders.clone();
    spawn_blocking(move || project(&feed, &sqlite, |_, _| false)).await??;
    let (customers, place) = read(&args.sqlite)?;
    check(
        customers == totals(&orders, Until::End).await?,
        "the model in SQLite counts every event once",
    )?;
    let place = place.ok_or("the projection stored no cursor")?;
    check(
        orders.lag(&place).await?.records == Some(0),
        "its cursor is at the end of the log",
    )?;
    bus.close(Duration::from_secs(5)).await?;
    Ok(())
}

/// Two clerks have the same order before them, then eight.
async fn rivals(orders: &Topic) -> Result<()> {
    let id = "order-wanted";
    let place = Command::Place {
        customer: "customer-0".to_owned(),
        cents: 4_200,
    };
    handle(orders, id, &place).await?;
    handle(orders, id, &Command::AskForCredit).await?;

    let (fast, slow) = (
        Order::load(orders, id).await?,
        Order::load(orders, id).await?,
    );
    let event = slow
        .decide(&Command::Process)
        .ok_or("the order cannot be processed")?;
    let record = Record::json(&event)?.key(id);
    orders
        .append(record.clone())
        .if_key_at(id, fast.last.as_ref())
        .await?;
    let late = orders
        .append(record)
        .if_key_at(id, slow.last.as_ref())
        .await;
    check(
        late.is_err_and(|e| e.kind() == ErrorKind::Conflict && e.effect() == Effect::None),
        "who decides on an old history is refused, and nothing is stored",
    )?;
    check(
        handle(orders, id, &Command::Process).await?.is_none(),
        "who reads again sees that the order is processed",
    )?;

    let mut clerks = JoinSet::new();
    for _ in 0..8 {
        let orders = orders.clone();
        clerks.spawn(async move { handle(&orders, id, &Command::Ship).await });
    }
    let mut shipped = 0;
    while let Some(clerk) = clerks.join_next().await {
        shipped += usize::from(clerk??.is_some());
    }
    check(shipped == 1, "of eight who would ship an order one does")
}

/// Lets a projection die, and looks at what it left.
async fn die(args: &Args, orders: &Topic, moment: Moment) -> Result<()> {
    let named = moment
        .to_possible_value()
        .ok_or("a moment without a name")?;
    let named = named.get_name();
    if args.url.starts_with("memory:") {
        println!(
            "     memory: belongs to one process: the projection stops {named} instead of being aborted"
        );
        let (orders, sqlite) = (orders.clone(), args.sqlite.clone());
        let dies = move |transaction, now| transaction == 2 && now == moment;
        spawn_blocking(move || project(&orders, &sqlite, dies)).await??;
    } else {
        let mut child = Process::new(std::env::current_exe()?);
        child
            .args(["--url", &args.url, "--die", named, "--sqlite"])
            .arg(&args.sqlite);
        let ended = spawn_blocking(move || child.status()).await??;
        check(
            ended.signal() == Some(6),
            &format!("a projection was aborted {named}"),
        )?;
    }
    let (customers, place) = read(&args.sqlite)?;
    let place = place.ok_or("the projection stored no cursor")?;
    check(
        orders.lag(&place).await?.records > Some(0)
            && customers == totals(orders, Until::Through(place)).await?,
        "what it left is the model as of its cursor, in the middle of the log",
    )
}

/// The same model as SQLite's, from the log alone.
async fn totals(orders: &Topic, until: Until) -> Result<Totals> {
    let mut totals = Totals::new();
    let mut placed = BTreeMap::new();
    let mut replay = orders.replay(Start::Beginning).until(until).await?;
    while let Some(record) = replay.next().await? {
        match record.json()? {
            Event::OrderPlaced { customer, cents } => {
                totals.entry(customer.clone()).or_default().0 += cents;
                placed.insert(id(&record)?, (customer, cents));
            }
            Event::OrderShipped => {
                let (customer, cents) = placed
                    .remove(&id(&record)?)
                    .ok_or("shipped, but never placed")?;
                totals.entry(customer).or_default().1 += cents;
            }
            Event::CreditInquiryMade { .. } | Event::OrderProcessed => {}
        }
    }
    Ok(totals)
}

/// A read model in memory: the stage of each order.
async fn stages(orders: &Topic) -> annals::Result<BTreeMap<String, Stage>> {
    let mut stages = BTreeMap::new();
    let mut replay = orders.replay(Start::Beginning).await?;
    while let Some(record) = replay.next().await? {
        stages.insert(id(&record)?, Stage::after(&record.json()?));
    }
    Ok(stages)
}
