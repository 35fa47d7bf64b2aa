//! A read model in `SQLite`: what each customer ordered, and has got. Its rows and the cursor that
//! they stand for are stored in one transaction.

use std::collections::BTreeMap;
use std::path::Path;

use annals::{Cursor, Recorded, Topic};
use clap::ValueEnum;
use rusqlite::{Connection, OptionalExtension, Transaction};
use tokio::runtime::Handle;

use crate::Result;
use crate::order::{Event, id};

/// What each customer ordered and got, in cents.
pub(crate) type Totals = BTreeMap<String, (u32, u32)>;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, customer TEXT, cents INTEGER);
    CREATE TABLE IF NOT EXISTS customers (name TEXT PRIMARY KEY, ordered INTEGER, shipped INTEGER);
    CREATE TABLE IF NOT EXISTS place (only_one INTEGER PRIMARY KEY, cursor TEXT);";

/// Nothing here would bear an event twice: a second insert fails, a second addition is wrong.
fn save(model: &Transaction<'_>, record: &Recorded) -> Result<()> {
    let id = id(record)?;
    match record.json()? {
        Event::OrderPlaced { customer, cents } => {
            model.execute(
                "INSERT INTO orders VALUES (?1, ?2, ?3)",
                (&id, &customer, cents),
            )?;
            model.execute(
                "INSERT INTO customers VALUES (?1, ?2, 0)
                 ON CONFLICT (name) DO UPDATE SET ordered = ordered + ?2",
                (&customer, cents),
            )?;
        }
        Event::OrderShipped => {
            model.execute(
                "UPDATE customers SET shipped = shipped + o.cents
                 FROM orders o WHERE o.id = ?1 AND o.customer = name",
                [&id],
            )?;
        }
        Event::CreditInquiryMade { .. } | Event::OrderProcessed => {}
    }
    Ok(())
}

/// When a projection dies.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Moment {
    BeforeCommit,
    AfterCommit,
}

/// Brings the model up to the end of the log, from where it stands. Blocks, as SQLite does.
/// `dies` is asked at each moment that matters.
pub(crate) fn project(
    orders: &Topic,
    sqlite: &Path,
    dies: impl Fn(u32, Moment) -> bool,
) -> Result<()> {
    let runtime = Handle::current();
    let mut model = Connection::open(sqlite)?;
    model.execute_batch(SCHEMA)?;
    let place = cursor(&model)?;
    let mut feed = runtime.block_on(orders.follow(place).buffer(4 << 10))?;
    let mut transactions = 0;
    while let Some(batch) = runtime.block_on(feed.next_batch())? {
        transactions += 1;
        let transaction = model.transaction()?;
        for record in &*batch {
            save(&transaction, record)?;
        }
        let place = batch.cursor().to_string();
        transaction.execute("REPLACE INTO place VALUES (0, ?1)", [place])?;
        if dies(transactions, Moment::BeforeCommit) {
            return Ok(());
        }
        transaction.commit()?;
        if dies(transactions, Moment::AfterCommit) || batch.caught_up() {
            return Ok(());
        }
    }
    Ok(())
}

/// Where the model stands; `None`: at the beginning.
fn cursor(model: &Connection) -> Result<Option<Cursor>> {
    let text: Option<String> = model
        .query_row("SELECT cursor FROM place", (), |row| row.get(0))
        .optional()?;
    Ok(text.map(|text| text.parse()).transpose()?)
}

/// The model in SQLite and where it stands.
pub(crate) fn read(sqlite: &Path) -> Result<(Totals, Option<Cursor>)> {
    let model = Connection::open(sqlite)?;
    let mut rows = model.prepare("SELECT name, ordered, shipped FROM customers")?;
    let totals = rows.query_map((), |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?;
    Ok((totals.collect::<rusqlite::Result<_>>()?, cursor(&model)?))
}

/// Removes the model of an earlier run, with the journal that a crash left.
pub(crate) fn remove(sqlite: &Path) -> Result<()> {
    for suffix in ["", "-journal"] {
        let mut path = sqlite.as_os_str().to_owned();
        path.push(suffix);
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}
