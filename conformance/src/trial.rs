//! One run of one case: its topics, its clients, its dice.

mod stage;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use annals_core::capability::GroupNames;
use annals_core::driver::Backend;
use annals_core::{AppendError, Clock, Error, Need, TopicName};

use crate::harness::{Cannot, Disturb, Harness, Meter, Want};
use crate::runner::Settings;
use crate::verdict::Counts;

pub use stage::{Reading, Stage, read_out};

/// Why a case ended before it was shown to hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Stop {
    /// It does not hold: the evidence.
    Broken(String),
    /// It could not be exercised: the reason.
    NotExercised(String),
}

impl Stop {
    /// It does not hold: the evidence.
    pub fn broken(why: impl Into<String>) -> Self {
        Self::Broken(why.into())
    }
}

/// An error that nothing explains breaks the case: what cannot be kept is to be refused beforehand.
impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Broken(format!("unexpected error: {error:?}"))
    }
}

impl From<AppendError> for Stop {
    fn from(error: AppendError) -> Self {
        Error::from(error).into()
    }
}

impl From<Cannot> for Stop {
    fn from(cannot: Cannot) -> Self {
        Self::NotExercised(cannot.0)
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(why) => f.write_str(why),
            Self::NotExercised(why) => write!(f, "not exercised: {why}"),
        }
    }
}

/// What a case comes to: the evidence that it held, or why it stopped.
pub type Judged<T = Counts> = Result<T, Stop>;

/// Says where an unexpected error came from.
pub trait During<T> {
    /// Breaks the case with `what` before the error.
    fn during(self, what: &str) -> Judged<T>;
}

impl<T, E: Into<Stop>> During<T> for Result<T, E> {
    fn during(self, what: &str) -> Judged<T> {
        self.map_err(|error| match error.into() {
            Stop::Broken(why) => Stop::Broken(format!("{what}: {why}")),
            other @ Stop::NotExercised(_) => other,
        })
    }
}

/// Breaks a case unless this is so.
///
/// # Errors
/// [`Stop::Broken`] with `why`.
pub fn ensure(so: bool, why: impl FnOnce() -> String) -> Judged<()> {
    if so { Ok(()) } else { Err(Stop::Broken(why())) }
}

/// One run of one case.
#[derive(Debug)]
pub struct Trial {
    harness: Arc<dyn Harness>,
    settings: Settings,
    /// The dice of this case; the same seed throws the same.
    pub rng: fastrand::Rng,
}

impl Trial {
    pub(crate) fn new(harness: Arc<dyn Harness>, settings: Settings, seed: u64) -> Self {
        Self {
            harness,
            settings,
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    /// The harness itself.
    pub fn harness(&self) -> &Arc<dyn Harness> {
        &self.harness
    }

    /// How deep and how large.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The clock that the backend goes by.
    pub fn clock(&self) -> Clock {
        self.harness.clock()
    }

    /// A new topic like this, with a first client. Where a topic can have no groups at all, it is
    /// one without those that are wanted: what a case has to say of records is tried all the same.
    ///
    /// # Errors
    /// [`Stop::NotExercised`] where there is no such topic to be had.
    pub async fn stage(&self, want: &Want) -> Judged<Stage> {
        let cannot = match self.harness.topic(want).await {
            Ok(name) => return self.on(&name).await,
            Err(cannot) => cannot,
        };
        if !want.groups.is_empty() {
            let without = Want {
                groups: Vec::new(),
                ..want.clone()
            };
            if let Ok(name) = self.harness.topic(&without).await {
                let stage = self.on(&name).await?;
                if stage.capabilities().groups.names.is(&GroupNames::None) {
                    return Ok(stage);
                }
            }
        }
        Err(cannot.into())
    }

    /// A new topic that promises this.
    ///
    /// # Errors
    /// As for [`stage`](Self::stage).
    pub async fn stage_with(&self, needs: &[Need]) -> Judged<Stage> {
        let want = Want {
            needs: needs.to_vec(),
            ..Want::default()
        };
        self.stage(&want).await
    }

    /// A new client of a topic that is there: what another process would be.
    ///
    /// # Errors
    /// What the backend says.
    pub async fn on(&self, topic: &TopicName) -> Judged<Stage> {
        Stage::open(&self.harness, topic).await
    }

    /// A new client.
    ///
    /// # Errors
    /// What the backend says.
    pub async fn connect(&self) -> Judged<Arc<dyn Backend>> {
        self.harness.connect().await.during("connecting")
    }

    /// Disturbs the service or its clients.
    ///
    /// # Errors
    /// [`Stop::NotExercised`] where the harness cannot.
    pub async fn disturb(&self, topic: &TopicName, what: Disturb) -> Judged<()> {
        Ok(self.harness.disturb(topic, what).await?)
    }

    /// How many faults were seen to happen.
    pub fn fired(&self) -> usize {
        self.harness.fired()
    }

    /// What was measured so far.
    ///
    /// # Errors
    /// [`Stop::NotExercised`] where nobody counts it.
    pub async fn meter(&self, what: Meter) -> Judged<u64> {
        Ok(self.harness.meter(what).await?)
    }

    /// The longest that a thing may take which needs no waiting: long enough for a slow service,
    /// short enough for a person who waits.
    pub fn patience(&self) -> Duration {
        self.settings.patience
    }

    /// Waits for `future` as long as [`patience`](Self::patience) allows, by the runtime's clock.
    ///
    /// # Errors
    /// [`Stop::Broken`], naming `what`, when it takes longer.
    pub async fn soon<F: Future + Send>(&self, what: &str, future: F) -> Judged<F::Output> {
        tokio::time::timeout(self.patience(), future)
            .await
            .map_err(|_| Stop::Broken(format!("{what} took longer than {:?}", self.patience())))
    }

    /// How many records a workload has: what the settings say, and never fewer than `least`.
    pub fn size(&self, least: usize) -> usize {
        self.settings.size.max(least)
    }
}
