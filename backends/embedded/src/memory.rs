//! A log in memory whose clock and failures are in a test's hand.

use std::sync::Arc;

use annals_core::{Bus, Clock, Result, Timestamp};

use crate::backend::Builder;
use crate::disk::{Faults, FaultyDisk};

/// A log in memory for tests of code that uses annals: the bus to hand to it, the clock that moves
/// log time, and the failures of its disk.
///
/// ```
/// # #[tokio::main]
/// # async fn main() -> annals_core::Result<()> {
/// use annals_embedded::{Memory, disk::{Call, Fault}};
///
/// let memory = Memory::new()?;
/// memory.faults.inject(Fault::new(Call::Sync).on(".seg"));
/// // Hand `memory.bus` to the code under test; its next append is of unknown effect.
/// # let orders = annals_core::TopicName::new("orders")?;
/// # assert!(memory.bus.topics().await?.is_empty());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Memory {
    /// What the code under test uses.
    pub bus: Bus,
    /// Moves log time, retries and leases: it stands still until it is moved.
    pub clock: Clock,
    /// Makes the disk fail.
    pub faults: Faults,
}

impl Memory {
    /// An empty log at midnight of 1 January 2001, UTC.
    ///
    /// # Errors
    /// None that the defaults give.
    pub fn new() -> Result<Self> {
        let clock = Clock::moved(Timestamp::from_millis(978_307_200_000));
        let disk = FaultyDisk::new(clock.clone());
        let faults = disk.faults();
        let backend = Builder::memory().disk(Arc::new(disk), "").build()?;
        Ok(Self {
            bus: Bus::new(backend).with_clock(clock.clone()),
            clock,
            faults,
        })
    }
}
