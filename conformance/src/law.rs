//! The laws.
//!
//! Each is a file of its own with its sentence, its workload, its faults and its checker; none
//! looks at what another one judges, so that what a backend is caught at is what it does wrong.

mod alive;
mod atomic_batch;
mod bounded;
mod bytes;
mod cancelled;
mod closed;
mod competing;
mod condition;
mod cursor_round_trip;
mod declared;
mod dedupe;
mod durable;
mod end;
mod fan_out;
mod fenced;
mod gap_told;
mod group_start;
mod isolated;
mod key_order;
mod lineage;
mod located;
mod no_skip;
mod outcome_per_record;
mod poison;
mod range;
mod rebuilt;
mod redelivery;
mod repeatable;
mod resume;
mod seam;
mod sliced;
mod timed;
mod truthful;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use annals_core::Capabilities;
use annals_core::capability::{Partitions, Replay};

use crate::harness::Want;
use crate::trial::{Judged, Trial};

/// What a backend is like, as far as laws differ.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Shape {
    /// One partition that can be replayed.
    Log,
    /// Several partitions that can be replayed.
    Sharded,
    /// What cannot be replayed.
    Queue,
}

impl Shape {
    /// The shape of a topic that promises this.
    pub fn of(has: &Capabilities) -> Self {
        match (has.replay.known(), has.partitions.known()) {
            (Some(Replay::Retained(_) | Replay::Full), Some(Partitions::One)) => Self::Log,
            (Some(Replay::Retained(_) | Replay::Full), _) => Self::Sharded,
            _ => Self::Queue,
        }
    }
}

/// All shapes.
pub(crate) const ANY: &[Shape] = &[Shape::Log, Shape::Sharded, Shape::Queue];
/// Those that can be replayed.
pub(crate) const REPLAYED: &[Shape] = &[Shape::Log, Shape::Sharded];

/// When a case is run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// Always; without faults, so that every backend gets a state.
    Plain,
    /// Always; with a fault.
    Faulty,
    /// At full depth only.
    Deep,
    /// Only where the law is not claimed: shows that it is refused.
    Refusal,
}

type Play = Arc<dyn Fn(Trial) -> Pin<Box<dyn Future<Output = Judged> + Send>> + Send + Sync>;

/// One way in which a law is tried.
#[derive(Clone)]
pub(crate) struct Scene {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) play: Play,
}

/// One law.
#[derive(Clone)]
pub struct Law {
    pub(crate) name: &'static str,
    pub(crate) sentence: &'static str,
    pub(crate) shapes: &'static [Shape],
    pub(crate) claimed: fn(&Capabilities) -> bool,
    pub(crate) want: Option<fn() -> Want>,
    pub(crate) scenes: Vec<Scene>,
}

impl Law {
    /// A law that every backend of these shapes must keep, unless [`claimed_by`](Self::claimed_by) says
    /// otherwise.
    pub(crate) fn new(name: &'static str, sentence: &'static str, on: &'static [Shape]) -> Self {
        Self {
            name,
            sentence,
            shapes: on,
            claimed: |_| true,
            want: None,
            scenes: Vec::new(),
        }
    }

    /// Only where the topic promises this; elsewhere its refusals are tried.
    pub(crate) fn claimed_by(mut self, claimed: fn(&Capabilities) -> bool) -> Self {
        self.claimed = claimed;
        self
    }

    /// Whether the law is claimed is asked of a topic like this, where there is one to be had.
    pub(crate) fn wanting(mut self, want: fn() -> Want) -> Self {
        self.want = Some(want);
        self
    }

    /// A case without faults.
    pub(crate) fn case<F>(
        self,
        name: &'static str,
        play: impl Fn(Trial) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Judged> + Send + 'static,
    {
        self.scene(name, Kind::Plain, play)
    }

    /// A case with faults.
    pub(crate) fn fault<F>(
        self,
        name: &'static str,
        play: impl Fn(Trial) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Judged> + Send + 'static,
    {
        self.scene(name, Kind::Faulty, play)
    }

    /// A case for full depth.
    pub(crate) fn deep<F>(
        self,
        name: &'static str,
        play: impl Fn(Trial) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Judged> + Send + 'static,
    {
        self.scene(name, Kind::Deep, play)
    }

    /// What must be seen where the law is not claimed.
    pub(crate) fn refusal<F>(
        self,
        name: &'static str,
        play: impl Fn(Trial) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Judged> + Send + 'static,
    {
        self.scene(name, Kind::Refusal, play)
    }

    fn scene<F>(
        mut self,
        name: &'static str,
        kind: Kind,
        play: impl Fn(Trial) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Judged> + Send + 'static,
    {
        self.scenes.push(Scene {
            name,
            kind,
            play: Arc::new(move |trial| Box::pin(play(trial))),
        });
        self
    }

    /// Its name, in snake case.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// What it says.
    pub const fn sentence(&self) -> &'static str {
        self.sentence
    }

    /// Which shapes it is for; on others it is refused.
    pub const fn shapes(&self) -> &'static [Shape] {
        self.shapes
    }
}

impl fmt::Debug for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Law")
            .field("name", &self.name)
            .field("scenes", &self.scenes.len())
            .finish_non_exhaustive()
    }
}

/// Calls a macro with the names of all laws: the one list of them.
#[macro_export]
macro_rules! for_each_law {
    ($call:ident ! { $($head:tt)* }) => {
        $crate::$call! { $($head)* [
            durable,
            truthful,
            outcome_per_record,
            located,
            repeatable,
            range,
            timed,
            sliced,
            key_order,
            lineage,
            no_skip,
            seam,
            end,
            gap_told,
            cursor_round_trip,
            condition,
            atomic_batch,
            dedupe,
            fenced,
            fan_out,
            group_start,
            competing,
            redelivery,
            resume,
            poison,
            rebuilt,
            bytes,
            alive,
            cancelled,
            bounded,
            closed,
            isolated,
            declared,
        ] }
    };
}

/// One function from names to laws, and one with all of them.
#[doc(hidden)]
#[macro_export]
macro_rules! __laws_by_name {
    ([ $($law:ident,)* ]) => {
        /// All laws, in the order in which they are shown.
        pub fn all() -> Vec<Law> {
            vec![$($law::law(),)*]
        }
    };
}

for_each_law! { __laws_by_name! { } }

/// The law of this name.
pub fn by_name(name: &str) -> Option<Law> {
    all().into_iter().find(|law| law.name == name)
}
