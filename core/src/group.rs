//! Groups where the service has none: core runs them over readers and a table of leases.
//!
//! Every member looks at the table, takes what is free or has run out, steals from who has more
//! than its share, and renews what it has. No clocks are compared: each member notes by its own
//! when it last saw a lease's counter change; unchanged for `lease` means that its holder is gone.
//! A partition is taken only when all its parents are committed as ended.

mod feed;
mod found;
mod held;
mod keeper;
mod source;
mod table;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::capability::Partitions;
use crate::defaults;
use crate::driver::{Inbound, Leases, Settling, SubscribeOptions};
use crate::error::Result;
use crate::name::Group;
use crate::subscription::News;
use crate::topic::Topic;

pub use found::first_leases;
use held::Held;

/// Joins a group. Returns once its start is stored.
pub(crate) async fn join(
    topic: &Topic,
    group: &Group,
    leases: Arc<dyn Leases>,
    options: &SubscribeOptions,
    news: Arc<News>,
) -> Result<Inbound> {
    let (existed, origin) = found::found(topic, group, leases.as_ref(), options).await?;
    let member = options.member.clone().unwrap_or_else(unique);
    let growing = !matches!(
        topic.capabilities().partitions.known(),
        Some(Partitions::One | Partitions::Fixed(_))
    );
    let (held, turns) = Held::new(topic.clone(), group.clone(), leases, news);
    let held = Arc::new(held);
    let keep = keeper::keep(Arc::clone(&held), member, options.lease, growing);
    let keeper = tokio::spawn(keep).abort_handle();
    // What readers fetch ahead comes on top of what is in flight.
    let bytes = options.in_flight.bytes.min(defaults::READ_BUFFER);
    let source = source::Readers::new(Arc::clone(&held), origin, bytes, turns, keeper);
    Ok(Inbound {
        source: Box::new(source),
        settling: Settling::UpTo(held),
        existed,
    })
}

/// A member's name that no other has: two members of one name would think each other's leases
/// their own.
fn unique() -> Arc<str> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut seed = [0; 8];
    if getrandom::fill(&mut seed).is_err() {
        seed = crate::time::Timestamp::now().as_millis().to_le_bytes();
    }
    let count = NEXT.fetch_add(1, Ordering::Relaxed);
    let process = std::process::id();
    Arc::from(format!(
        "{process}-{:016x}-{count}",
        u64::from_le_bytes(seed)
    ))
}
