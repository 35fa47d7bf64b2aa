//! The task that keeps a member's leases: renews, takes, and lets go.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::held::{Held, Turn};
use super::table::Seen;
use super::table::begun;
use crate::error::{Effect, Error, ErrorKind, Operation, Result, Retry};
use crate::position::PartitionId;
use crate::subscription::Trouble;

/// A look for new partitions every so many turns.
const LOOK: u32 = 6;

/// Keeps the leases until it is aborted, or the table says that there is nothing to keep.
pub(super) async fn keep(held: Arc<Held>, member: Arc<str>, lease: Duration, growing: bool) {
    let clock = held.topic.bus().clock().clone();
    let mut seen = Seen::default();
    let mut trouble = Trouble::new();
    let mut round = 0;
    loop {
        let look = growing && round % LOOK == LOOK - 1;
        round = (round + 1) % LOOK;
        // A table that does not answer must not keep a lease alive that has run out.
        held.run_out(lease);
        let turn = turn(&held, &mut seen, &member, lease, look);
        let result = clock.timeout(lease / 4, turn).await;
        held.run_out(lease);
        let wait = match result {
            Some(Ok(())) => {
                trouble.heals();
                lease / 3
            }
            Some(Err(error)) if !error.is_retryable() => {
                held.say(Turn::Failed(error));
                return;
            }
            failed => {
                let error = failed.and_then(Result::err).unwrap_or_else(unanswered);
                tracing::debug!(error = %error, "the table of leases is looked at again soon");
                if trouble.fails(&error, clock.elapsed()).1 {
                    held.news.tell(error, Operation::Subscribe);
                }
                lease / 12
            }
        };
        // What runs out is given up at once: others may have it from then on.
        let wait = held.holds_for(lease).map_or(wait, |left| left.min(wait));
        tokio::select! {
            biased;
            () = held.wake.notified() => {}
            () = clock.sleep(wait) => {}
        }
    }
}

fn unanswered() -> Error {
    Error::new(
        ErrorKind::Timeout,
        Effect::Unknown,
        Retry::Backoff,
        "the group's table of leases did not answer in time; leases run out unless it does",
    )
}

/// Renews what is held and takes what is this member's share.
async fn turn(
    held: &Held,
    seen: &mut Seen,
    member: &Arc<str>,
    lease: Duration,
    look: bool,
) -> Result<()> {
    let clock = held.topic.bus().clock();
    held.renew().await?;
    // Who leaves keeps what it has until it is settled, and takes nothing from those who stay.
    if held.news.is_leaving() {
        return Ok(());
    }
    let mut rows = held.load().await?;
    if look && held.grow(&rows, &[]).await? {
        rows = held.load().await?;
    }
    let now = clock.elapsed();
    seen.look(&rows, now);
    let mine: BTreeSet<PartitionId> = held.all().iter().map(|t| t.partition).collect();
    for row in seen.wanted(&rows, &mine, lease, now) {
        // It holds from when it was asked for.
        let asked = clock.elapsed();
        if let Some(tenancy) = held.leases.take(&held.group, row, member).await? {
            // Whoever was robbed hands out until it notices: at its next renewal, or when its
            // lease would have run out. What it settles from now on has no effect.
            let taken = clock.elapsed();
            let from = if seen.is_free(row, lease, now) {
                taken
            } else {
                taken.saturating_add(lease)
            };
            held.took(tenancy, asked, begun(row, &rows), from);
        }
    }
    Ok(())
}
