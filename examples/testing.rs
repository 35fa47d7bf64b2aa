//! How an application that uses annals is tested: with a log in memory, a clock that the test
//! moves, failures that it orders, and doubles that answer call by call.
//!
//! `cargo run --example testing --features mock [-- --url URL]`
//!
//! The shop below is the code under test. In a project each `async fn` that judges it would be a
//! `#[tokio::test]`; here they run one after the other, in far less time than passes on their
//! clocks.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

mod check;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use annals::capability::{Capabilities, Replay, Starts};
use annals::defaults::RETRY_FOR;
use annals::driver::{Fetched, Opened};
use annals::mock::{MockBackend, MockReader};
use annals::{
    AppendReport, Bus, Clock, Cursor, Effect, ErrorKind, Frontier, Memory, Origin, Outcome,
    PartitionId, Record, Retry, Start, Stored, Timestamp, Topic, TopicName, TopicSpec, Until,
};
use check::{check, fresh};
use clap::Parser;

const TOPIC: &str = "annals-example-testing";

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

#[derive(Parser)]
struct Args {
    /// Where the shop runs for once on a real log; the topic `annals-example-testing` there is
    /// deleted and made anew.
    #[arg(long, default_value = "memory:")]
    url: String,
}

/// The code under test: takes orders, and tells the customer no lies.
struct Shop {
    orders: Topic,
}

#[derive(PartialEq, Debug)]
enum Answer {
    Thanks,
    /// The order may have been stored.
    WeAreChecking,
    /// The order was not stored, and may be given again.
    ComeBackLater,
    Sorry,
}

impl Shop {
    async fn order(&self, order: &str) -> Answer {
        match self.orders.append(Record::new("placed").key(order)).await {
            Ok(_) => Answer::Thanks,
            Err(error) if error.effect() == Effect::Unknown => Answer::WeAreChecking,
            Err(error) if error.retry() != Retry::Never => Answer::ComeBackLater,
            Err(_) => Answer::Sorry,
        }
    }

    /// How many orders there were; an error when the log cannot know any more.
    async fn sold(&self, until: Until) -> annals::Result<usize> {
        let mut replay = self.orders.replay(Start::Beginning).until(until).await?;
        let mut sold = 0;
        while replay.next().await?.is_some() {
            sold += 1;
        }
        Ok(sold)
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    on_a_log(&Args::parse().url).await?;
    by_the_clock().await?;
    on_a_full_disk().await?;
    on_a_failing_disk().await?;
    on_a_busy_service().await?;
    on_a_trimmed_log().await
}

/// The log as it is: nothing is made up but the place.
async fn on_a_log(url: &str) -> Result<()> {
    let bus = annals::connect(url).await?;
    let shop = Shop {
        orders: fresh(&bus, TOPIC, TopicSpec::default()).await?,
    };
    check(
        shop.order("order-1").await == Answer::Thanks,
        "an order is taken",
    )?;
    check(shop.sold(Until::End).await? == 1, "and counted")
}

/// A log in memory whose time stands still until the test moves it.
async fn in_memory(memory: &Memory) -> Result<Shop> {
    Ok(Shop {
        orders: memory.bus.topic(TOPIC).create_if_missing().await?,
    })
}

async fn by_the_clock() -> Result<()> {
    let memory = Memory::new()?;
    let shop = in_memory(&memory).await?;
    shop.order("order-1").await;
    memory.clock.advance(Duration::from_secs(3_600));
    let an_hour_later = memory.clock.now();
    shop.order("order-2").await;
    check(
        shop.sold(Until::Before(an_hour_later)).await? == 1,
        "an hour passes at once, and orders have their time",
    )
}

async fn on_a_full_disk() -> Result<()> {
    let memory = Memory::new()?;
    let shop = in_memory(&memory).await?;
    memory.faults.fill_disk();
    let begun = memory.clock.now();
    let answer = moving(&memory.clock, shop.order("order-1")).await;
    let given_up = begun.saturating_add(RETRY_FOR / 2);
    check(
        answer == Answer::ComeBackLater && memory.clock.now() >= given_up,
        "a full disk is tried for up to half a minute of its clock, then the customer is told",
    )?;
    memory.faults.clear();
    check(
        shop.sold(Until::End).await? == 0 && shop.order("order-1").await == Answer::Thanks,
        "nothing was stored, and once there is room the shop goes on",
    )
}

/// Moves the clock on whenever a call waits for it.
async fn moving<T>(clock: &Clock, call: impl Future<Output = T>) -> T {
    let mut call = std::pin::pin!(call);
    loop {
        tokio::select! {
            biased;
            answer = &mut call => return answer,
            _ = clock.asleep() => { clock.advance(Duration::from_millis(100)); }
        }
    }
}

async fn on_a_failing_disk() -> Result<()> {
    let memory = Memory::new()?;
    let shop = in_memory(&memory).await?;
    memory.faults.fail_sync();
    let answer = shop.order("order-1").await;
    check(
        answer == Answer::WeAreChecking && memory.faults.fired() == 1,
        "a sync that failed may have stored the order",
    )?;
    check(
        shop.order("order-2").await == Answer::Sorry,
        "and the log takes no more until it is opened again",
    )?;
    let memory = memory.restart()?;
    let shop = in_memory(&memory).await?;
    memory.faults.lose_replies(1);
    check(
        shop.order("order-3").await == Answer::WeAreChecking,
        "as it is by the next process; a reply that was lost leaves it as open",
    )?;
    check(
        shop.sold(Until::End).await? >= 1,
        "though the order was stored",
    )
}

/// A double of a service: it says what the test wants it to, and panics at any other call.
fn service() -> MockBackend {
    let mut service = MockBackend::new();
    service.expect_scheme().return_const("mock");
    service.expect_capabilities().returning(|_| {
        Ok(Capabilities {
            replay: Replay::Full.into(),
            starts: Starts::ALL.into(),
            ..Capabilities::none()
        })
    });
    service
}

async fn on_a_busy_service() -> Result<()> {
    let mut service = service();
    let mut calls = 0;
    service
        .expect_append()
        .times(2)
        .returning(move |_, batch, _| {
            calls += 1;
            if calls == 1 {
                return Err(annals::Error::new(
                    ErrorKind::Throttled,
                    Effect::None,
                    Retry::After(Duration::from_secs(20)),
                    "slow down",
                ));
            }
            Ok(AppendReport::all(
                batch.len(),
                &Outcome::Stored(Stored::somewhere()),
            ))
        });
    let clock = Clock::moved(Timestamp::EPOCH);
    let bus = Bus::new(service).with_clock(clock.clone());
    let shop = Shop {
        orders: bus.topic(TOPIC).await?,
    };
    let answer = moving(&clock, shop.order("order-1")).await;
    check(
        answer == Answer::Thanks && clock.now() >= Timestamp::from_millis(20_000),
        "a service that asks to slow down is given its time, and the customer never knows",
    )
}

async fn on_a_trimmed_log() -> Result<()> {
    let mut service = service();
    let origin = Arc::new(Origin {
        scheme: "mock".into(),
        topic: TopicName::new(TOPIC)?,
        incarnation: "1".into(),
    });
    service
        .expect_locate()
        .returning(move |_, _| Ok(Cursor::start(Arc::clone(&origin))));
    service.expect_read().returning(|_, range| {
        let mut reader = MockReader::new();
        reader.expect_fetch().returning(|_, _| {
            Ok(Fetched::Gap {
                partition: PartitionId::ONLY,
                from: Frontier::START,
                to: None,
            })
        });
        Ok(Opened {
            reader: Box::new(reader),
            from: range.from.clone(),
            until: None,
        })
    });
    let shop = Shop {
        orders: Bus::new(service).topic(TOPIC).await?,
    };
    let sold = shop.sold(Until::End).await;
    check(
        sold.is_err_and(|e| e.kind() == ErrorKind::Gap),
        "where orders are gone there is no sum",
    )
}
