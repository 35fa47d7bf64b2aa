//! A backend of few lines, and what a user does with it. The guide in the crate's README walks
//! through it; its laws are in `tests/small_backend.rs`.
#![expect(clippy::print_stdout, reason = "an example talks on standard output")]

mod backend;

use annals_core::{Bus, Record, Result, Start};
use backend::Small;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let small = Small::default();
    let orders = Bus::new(small.another()).topic("orders").await?;
    orders
        .append([Record::new("placed"), Record::new("paid")])
        .await?;

    // Another client sees the same.
    let orders = Bus::new(small).topic("orders").await?;
    let mut replay = orders.replay(Start::Beginning).await?;
    while let Some(record) = replay.next().await? {
        println!("{:?}: {:?}", record.position(), record.value_str()?);
    }
    Ok(())
}
