//! A worker: many handlers side by side, each account's payments in order, what cannot be handled
//! put aside with its reason, and a shutdown that leaves nothing half done.
//!
//! `cargo run --example worker [-- --url URL]`
//!
//! Checks that handlers ran side by side and every account's payments in order; that poison went
//! to the dead letters, once each, and held up only its own account; and that after a SIGTERM,
//! which the example sends itself with handlers at work, those ended, nothing was lost, and nothing
//! came again but what had been handled ahead of the committed place.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

mod check;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use annals::{Record, Recorded, Start, Topic, TopicSpec, Verdict, letters};
use check::{check, fresh};
use clap::Parser;
use rustix::process::{Signal, getpid, kill_process};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Barrier, Notify};
use tokio::time::timeout;

const TOPIC: &str = "annals-example-worker";
const DEAD: &str = "annals-example-worker-dead";
const GROUP: &str = "desk";
const ACCOUNTS: usize = 8;
const PAYMENTS: usize = 100;
const MAX_ATTEMPTS: u32 = 3;
/// Nothing here takes as long, unless something is stuck.
const PATIENCE: Duration = Duration::from_secs(60);

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

#[derive(Parser)]
struct Args {
    /// Where the log lives; the topics `annals-example-worker` and `annals-example-worker-dead`
    /// there are deleted and made anew.
    #[arg(long, default_value = "file:./target/worker")]
    url: String,
}

#[derive(Serialize, Deserialize)]
struct Payment {
    number: usize,
    cents: u64,
}

/// The worker, and all that there is to it.
async fn run<S>(topic: &Topic, desk: &Arc<Desk>, until: S) -> Result<()>
where
    S: Future<Output: Send> + Send + 'static,
{
    let group = topic
        .subscribe(GROUP)
        .in_flight(16, 1 << 20)
        .max_attempts(MAX_ATTEMPTS)
        .dead_letters(DEAD)
        .await?;
    let desk = Arc::clone(desk);
    let worker = group
        .run(move |record| {
            let desk = Arc::clone(&desk);
            async move { desk.handle(&record).await }
        })
        .concurrency(16)
        .until(until);
    timeout(PATIENCE, worker)
        .await
        .map_err(|_| "the worker is stuck")??;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let bus = annals::connect(&Args::parse().url).await?;
    let dead = fresh(&bus, DEAD, TopicSpec::default()).await?;
    let topic = fresh(&bus, TOPIC, TopicSpec::default()).await?;
    let payments = payments()?;
    let all = payments.len();
    topic.append(payments).await?;
    let desk = Arc::new(Desk::new());

    // The first life ends by SIGTERM, which a handler sends in the middle of its work.
    let mut sigterm = signal(SignalKind::terminate())?;
    run(&topic, &desk, async move { sigterm.recv().await }).await?;
    let (handled, at_work) = desk.books(|books| (books.handled(), books.at_work));
    let left = topic.group_lag(GROUP).await?.records;
    let committed = all - usize::try_from(left.ok_or("this log does not say how far a group is")?)?;
    println!("     {handled} of {all} records were handled when it ended, {committed} committed");
    check(
        handled < all && at_work == 0,
        "it ended in the middle, and no handler was left half-way",
    )?;

    // The second ends when every account is closed.
    let closing = Arc::clone(&desk);
    run(
        &topic,
        &desk,
        async move { closing.all_closed.notified().await },
    )
    .await?;
    let (in_order, total, repeated) = desk.books(|books| {
        let in_order = books.accounts.values().all(|numbers| numbers.is_sorted());
        (in_order, books.handled(), books.repeated)
    });
    println!("     {total} of {all} records were handled, {repeated} of them again");
    check(
        total == all && in_order,
        "every payment was handled, those of each account in order",
    )?;
    check(
        repeated <= handled - committed,
        "nothing came again but what was ahead of the commit",
    )?;

    let mut replay = dead.replay(Start::Beginning).await?;
    let mut aside = Vec::new();
    while let Some(letter) = replay.next().await? {
        let text = |header| Ok::<_, annals::Error>(letter.header_str(header)?.unwrap_or_default());
        let (reason, attempts) = (text(letters::REASON)?, text(letters::ATTEMPTS)?);
        aside.push(format!("{reason} after {attempts}"));
    }
    aside.sort();
    check(
        aside == ["no payment after 1", "over the limit after 3"],
        &format!(
            "poison is in the dead letters, once each: {}",
            aside.join(", ")
        ),
    )?;
    bus.close(Duration::from_secs(5)).await?;
    Ok(())
}

/// Payments of all accounts in turn, two of them poison, and a record that closes each account.
fn payments() -> annals::Result<Vec<Record>> {
    let mut records = Vec::new();
    for number in 0..=PAYMENTS {
        for account in 0..ACCOUNTS {
            let record = match (account, number) {
                (_, PAYMENTS) => Record::new("closed"),
                (1, 10) => Record::new("poison"),
                (2, 10) => Record::json(&Payment {
                    number,
                    cents: 1_000_000,
                })?,
                _ => Record::json(&Payment { number, cents: 999 })?,
            };
            records.push(record.key(format!("account-{account}")));
        }
    }
    Ok(records)
}

/// Where payments are handled, and what is remembered of it for the checks.
struct Desk {
    books: Mutex<Books>,
    firsts: Barrier,
    went_on: Notify,
    all_closed: Notify,
}

#[derive(Default)]
struct Books {
    at_work: usize,
    repeated: usize,
    accounts: BTreeMap<String, Vec<usize>>,
    poison: BTreeSet<String>,
    closed: BTreeSet<String>,
}

impl Books {
    /// The records that were handled at least once, poison too.
    fn handled(&self) -> usize {
        let payments: usize = self.accounts.values().map(Vec::len).sum();
        payments + self.poison.len() + self.closed.len()
    }

    fn knows(&mut self, account: &str, number: usize) -> bool {
        let numbers = self.accounts.get(account);
        let again = numbers.is_some_and(|numbers| numbers.contains(&number));
        self.repeated += usize::from(again);
        again
    }
}

impl Desk {
    fn new() -> Self {
        Self {
            books: Mutex::default(),
            firsts: Barrier::new(ACCOUNTS),
            went_on: Notify::new(),
            all_closed: Notify::new(),
        }
    }

    fn books<T>(&self, look: impl FnOnce(&mut Books) -> T) -> T {
        look(&mut self.books.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn handle(&self, record: &Recorded) -> Result<Verdict> {
        self.books(|books| books.at_work += 1);
        let verdict = self.pay(record).await;
        self.books(|books| books.at_work -= 1);
        verdict
    }

    async fn pay(&self, record: &Recorded) -> Result<Verdict> {
        let account = record.key_str()?.ok_or("a payment without its account")?;
        let account = account.to_owned();
        if record.value() == b"closed" {
            let closed = self.books(|books| {
                books.repeated += usize::from(!books.closed.insert(account));
                books.closed.len()
            });
            if closed == ACCOUNTS {
                self.all_closed.notify_one();
            }
            return Ok(Verdict::Done);
        }
        // What can never be handled is rejected: it is put aside at once.
        let Ok(payment) = record.json::<Payment>() else {
            self.books(|books| books.poison.insert(account));
            return Ok(Verdict::reject("no payment"));
        };
        // What fails is tried again, and put aside at the limit of attempts. An `Err` would do the
        // same with the default delay.
        if payment.cents > 100_000 {
            self.books(|books| books.poison.insert(account));
            return Ok(Verdict::retry_after(Duration::from_millis(20)).because("over the limit"));
        }
        // A record may come again: a handler has to bear that.
        if self.books(|books| books.knows(&account, payment.number)) {
            return Ok(Verdict::Done);
        }
        match (account.as_str(), payment.number) {
            // Nobody passes before the second payments of all accounts are being handled. (The very
            // first records are handed out one at a time, so that one which ends the process is
            // found.)
            (_, 1) => {
                self.firsts.wait().await;
            }
            // The account that had poison goes on behind it.
            ("account-2", 40) => self.went_on.notify_one(),
            ("account-0", 50) => {
                self.went_on.notified().await;
                terminate().await?;
            }
            _ => {}
        }
        self.books(|books| {
            let numbers = books.accounts.entry(account).or_default();
            numbers.push(payment.number);
        });
        Ok(Verdict::Done)
    }
}

/// Sends this process a SIGTERM, and waits until it has come.
async fn terminate() -> Result<()> {
    let mut arrived = signal(SignalKind::terminate())?;
    kill_process(getpid(), Signal::TERM)?;
    arrived.recv().await;
    Ok(())
}
