//! A log in memory whose clock and failures are in a test's hand.

mod faults;
mod flaky;

use std::sync::Arc;

use annals_core::{Bus, Clock, Result, Timestamp};

use crate::backend::Builder;
use crate::disk::FaultyDisk;
use crate::log::Sizes;

pub use faults::Faults;
use flaky::Flaky;

/// A log in memory for tests of code that uses annals: the bus to hand to it, the clock that moves
/// its time, and the failures that it meets.
///
/// It is the embedded log itself, over a disk in memory, and private to its value: nothing is
/// mocked, nothing is shared with another test. Clones are the same log.
///
/// **Time** stands still until the test [moves](Clock::advance) it: log time, the pauses between
/// attempts, leases, lingering, retention. So code that tries again waits for the test; with
/// [`Clock::asleep`] the test knows when it does.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use annals_embedded::Memory;
/// use annals_core::{Effect, ErrorKind, Record, Start, Until};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let memory = Memory::new()?;
/// // What the code under test would do with the bus of its own.
/// let orders = memory.bus.topic("orders").create_if_missing().await?;
/// orders.append(Record::new("placed")).await?;
///
/// // A lost reply: the record is stored, and who appended it cannot know.
/// memory.faults.lose_replies(1);
/// let error = orders.append(Record::new("paid")).await.unwrap_err();
/// assert_eq!(error.effect(), Effect::Unknown);
///
/// // A full disk. The append waits to try again, goes on when there is room, and loses nothing.
/// memory.faults.fill_disk();
/// let append = tokio::spawn(orders.append(Record::new("shipped")));
/// memory.clock.asleep().await;
/// memory.faults.clear();
/// memory.clock.advance(Duration::from_secs(3600));
/// append.await??;
///
/// // A failed sync: unknown, and the log refuses to pretend until it is opened again.
/// memory.faults.fail_sync();
/// let error = orders.append(Record::new("returned")).await.unwrap_err();
/// assert_eq!(error.effect(), Effect::Unknown);
/// assert_eq!(orders.append(Record::new("late")).await.unwrap_err().kind(), ErrorKind::Closed);
///
/// // The next process, after this one was killed: what was acknowledged is there.
/// let memory = memory.restart()?;
/// let orders = memory.bus.topic("orders").await?;
/// // The state as it was an hour ago.
/// let mut then = orders.replay(Start::Beginning).until(Until::Before(memory.clock.now())).await?;
/// let mut seen = Vec::new();
/// while let Some(record) = then.next().await? {
///     seen.push(record.value().to_vec());
/// }
/// assert_eq!(seen, [&b"placed"[..], b"paid"]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Memory {
    /// What the code under test uses.
    pub bus: Bus,
    /// Moves log time, retries and leases: it stands still until it is moved.
    pub clock: Clock,
    /// Makes calls fail.
    pub faults: Faults,
    disk: FaultyDisk,
}

impl Memory {
    /// An empty log at midnight of 1 January 2001, UTC.
    ///
    /// # Errors
    /// None that the defaults give.
    pub fn new() -> Result<Self> {
        let clock = Clock::moved(Timestamp::from_millis(978_307_200_000));
        Self::on(FaultyDisk::new(clock.clone()), clock)
    }

    /// The log as the next process finds it when this one is killed now: everything that was
    /// written, acknowledged or not. The clock is the same, no failure is planned. What is left
    /// of this value is cut off: its calls fail.
    ///
    /// # Errors
    /// None that the defaults give.
    pub fn restart(&self) -> Result<Self> {
        let disk = self.disk.after_kill();
        self.faults.disk().cut();
        Self::on(disk, self.clock.clone())
    }

    /// The log after a power loss now: everything that was acknowledged, and of the rest what
    /// `seed` chooses; the same state and seed give the same log. Else as
    /// [`restart`](Self::restart).
    ///
    /// # Errors
    /// None that the defaults give.
    pub fn power_loss(&self, seed: u64) -> Result<Self> {
        let disk = self.disk.after_power_loss(seed);
        self.faults.disk().cut();
        Self::on(disk, self.clock.clone())
    }

    fn on(disk: FaultyDisk, clock: Clock) -> Result<Self> {
        // Room is asked for as it is needed, so that a disk that is full is full at once.
        let sizes = Sizes {
            reserve_first: 1,
            reserve_most: 1,
            ..Sizes::default()
        };
        let backend = Builder::memory()
            .disk(Arc::new(disk.clone()), "")
            .sizes(sizes)
            .build()?;
        let faults = Faults::new(disk.faults());
        let backend = Flaky {
            inner: backend,
            faults: faults.clone(),
        };
        Ok(Self {
            bus: Bus::new(backend).with_clock(clock.clone()),
            clock,
            faults,
            disk,
        })
    }
}
