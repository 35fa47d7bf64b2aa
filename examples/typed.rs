//! Events as types of the application, and a service of last year beside one of this year on the
//! same topic.
//!
//! `cargo run --example typed [-- --url URL]`
//!
//! Checks that events come back as they were written; that the old reader passes over what only
//! the new one knows, counts it, and moves its cursor; that the new reader reads old events; that
//! a reader may deny what it does not know; and that an event which cannot be read is an error
//! that names its place, told once, and never left out in silence.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

mod check;

use std::error::Error;
use std::time::Duration;

use annals::{EVENT_TYPE, ErrorKind, Record, Start, TopicSpec};
use check::{check, fresh};
use clap::Parser;

const TOPIC: &str = "annals-example-typed";

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

#[derive(Parser)]
struct Args {
    /// Where the log lives; the topic `annals-example-typed` there is deleted and made anew.
    #[arg(long, default_value = "memory:")]
    url: String,
}

/// The events as they were last year.
mod old {
    use annals::{Event, Key};
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    pub(crate) enum Order {
        Placed { order: u32, cents: u64 },
        Shipped { order: u32 },
    }

    impl Event for Order {
        fn event_type(&self) -> &str {
            match self {
                Self::Placed { .. } => "order-placed",
                Self::Shipped { .. } => "order-shipped",
            }
        }

        fn key(&self) -> Option<Key> {
            let (Self::Placed { order, .. } | Self::Shipped { order }) = self;
            Some(format!("order-{order}").into())
        }

        fn knows(event_type: &str) -> bool {
            matches!(event_type, "order-placed" | "order-shipped")
        }
    }
}

/// The events as they are now: one has got a field, and there is one more.
mod new {
    use annals::{Event, Key};
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    pub(crate) enum Order {
        Placed {
            order: u32,
            cents: u64,
            /// What older events do not say.
            #[serde(default)]
            gift: bool,
        },
        Shipped {
            order: u32,
        },
        Returned {
            order: u32,
        },
    }

    impl Event for Order {
        fn event_type(&self) -> &str {
            match self {
                Self::Placed { .. } => "order-placed",
                Self::Shipped { .. } => "order-shipped",
                Self::Returned { .. } => "order-returned",
            }
        }

        fn key(&self) -> Option<Key> {
            let (Self::Placed { order, .. } | Self::Shipped { order } | Self::Returned { order }) =
                self;
            Some(format!("order-{order}").into())
        }

        fn knows(event_type: &str) -> bool {
            matches!(
                event_type,
                "order-placed" | "order-shipped" | "order-returned"
            )
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let bus = annals::connect(&Args::parse().url).await?;
    let topic = fresh(&bus, TOPIC, TopicSpec::default()).await?;
    let (last_year, this_year) = (topic.typed::<old::Order>(), topic.typed::<new::Order>());

    // Each writes its own events; conditions and all other options of an append hold here too.
    last_year
        .append([old::Order::Placed {
            order: 1,
            cents: 250,
        }])
        .if_key_at("order-1", None)
        .await?;
    this_year
        .append([
            new::Order::Placed {
                order: 2,
                cents: 990,
                gift: true,
            },
            new::Order::Returned { order: 1 },
        ])
        .await?;
    last_year.append([old::Order::Shipped { order: 2 }]).await?;

    let mut replay = this_year.replay(Start::Beginning).await?;
    let mut events = Vec::new();
    while let Some(event) = replay.next().await? {
        events.push(event.into_event());
    }
    check(
        events
            == [
                new::Order::Placed {
                    order: 1,
                    cents: 250,
                    gift: false,
                },
                new::Order::Placed {
                    order: 2,
                    cents: 990,
                    gift: true,
                },
                new::Order::Returned { order: 1 },
                new::Order::Shipped { order: 2 },
            ],
        "this year's reader reads what both wrote",
    )?;

    let mut replay = last_year.replay(Start::Beginning).await?;
    let mut events = Vec::new();
    while let Some(event) = replay.next().await? {
        events.push(event.into_event());
    }
    check(
        events
            == [
                old::Order::Placed {
                    order: 1,
                    cents: 250,
                },
                old::Order::Placed {
                    order: 2,
                    cents: 990,
                },
                old::Order::Shipped { order: 2 },
            ],
        "last year's reader reads what it knows",
    )?;
    check(replay.skipped() == 1, "and counts what it passed over")?;

    let mut strict = last_year.replay(Start::Beginning).deny_unknown().await?;
    strict.next().await?;
    strict.next().await?;
    let denied = strict.next().await;
    check(
        denied.is_err_and(|e| e.kind() == ErrorKind::Decode),
        "a reader that must account for every record is told",
    )?;

    // Somebody writes what is called an event and is none.
    topic
        .append(
            Record::new("{}")
                .key("order-3")
                .header(EVENT_TYPE, "order-placed"),
        )
        .await?;
    this_year.append([new::Order::Shipped { order: 3 }]).await?;
    let mut rest = this_year.replay(replay.cursor()).await?;
    let broken = rest
        .next()
        .await
        .err()
        .ok_or("what is no event was read as one")?;
    println!("     {broken}");
    check(
        broken.kind() == ErrorKind::Decode,
        "what cannot be read is an error, told once",
    )?;
    let after = rest.next().await?;
    check(
        after.is_some_and(|event| *event == new::Order::Shipped { order: 3 }),
        "and the next call goes on behind it",
    )?;

    // A group's deliveries are records, read as events one by one.
    let group = topic.subscribe("returns").await?;
    let returned = loop {
        let delivery = group
            .next()
            .await?
            .ok_or("the subscription ended by itself")?;
        match delivery.event::<new::Order>() {
            Ok(Some(new::Order::Returned { order })) => break order,
            Ok(_) => delivery.done(),
            Err(error) => return Err(error.into()),
        }
    };
    check(returned == 1, "a group reads events, too")?;
    group.close(Duration::from_secs(5)).await?;
    bus.close(Duration::from_secs(5)).await?;
    Ok(())
}
