//! Saboteurs of *seam*.

use std::sync::Arc;

use annals_core::Recorded;
use annals_core::Result;
use annals_core::driver::{Fetched, Reader, Room, Stop};
use async_trait::async_trait;

use super::{Acted, Model, Sabotage, Saboteur};
use crate::tap::{Hook, Passage};

pub(super) const ALL: &[Saboteur] = &[
    Saboteur {
        name: "repeats_the_last_before_the_seam",
        mirrors: "hands out the last stored record again as the first live one, as a subscription does that was opened before the replay had ended",
        model: Model::Log,
        law: "seam",
        make: |acted| Arc::new(Repeats(acted)),
    },
    Saboteur {
        name: "caught_up_at_the_first_empty_fetch",
        mirrors: "takes an answer without records for the end of what was there, though Kinesis gives such in between",
        model: Model::Sharded,
        law: "seam",
        make: |acted| Arc::new(TooEarly(acted)),
    },
    Saboteur {
        name: "catches_up_again_and_again",
        mirrors: "says that it has caught up whenever it has nothing, as clients do that tell each end of a partition",
        model: Model::Log,
        law: "seam",
        make: |acted| Arc::new(Again(acted)),
    },
];

fn follows(passage: &Passage) -> bool {
    let range = passage.range.as_ref();
    range.is_some_and(|range| range.stop == Stop::Never)
}

#[derive(Debug)]
struct Repeats(Acted);

#[async_trait]
impl Hook for Repeats {
    async fn fetch(
        &self,
        passage: &mut Passage,
        below: &mut dyn Reader,
        room: Room,
        out: &mut Vec<Recorded>,
    ) -> Result<Fetched> {
        let before = out.len();
        let told = below.fetch(room, out).await?;
        if !follows(passage) {
            return Ok(told);
        }
        if told == Fetched::CaughtUp {
            passage.mark = 1;
        } else if passage.mark == 1
            && out.len() > before
            && let Some(last) = passage.kept.pop()
        {
            passage.mark = 2;
            self.0.mark();
            out.insert(before, last);
        }
        if passage.mark == 0
            && let Some(last) = out.last()
        {
            passage.kept = vec![last.clone()];
        }
        Ok(told)
    }
}

impl Sabotage for Repeats {}

#[derive(Debug)]
struct TooEarly(Acted);

#[async_trait]
impl Hook for TooEarly {
    async fn fetch(
        &self,
        passage: &mut Passage,
        below: &mut dyn Reader,
        room: Room,
        out: &mut Vec<Recorded>,
    ) -> Result<Fetched> {
        loop {
            let told = below.fetch(room, out).await?;
            if !follows(passage) {
                return Ok(told);
            }
            match (&told, passage.mark) {
                (Fetched::Advanced { .. }, 0) => {
                    passage.mark = 1;
                    self.0.mark();
                    return Ok(Fetched::CaughtUp);
                }
                // It has said so.
                (Fetched::CaughtUp, 1) => {}
                _ => return Ok(told),
            }
        }
    }
}

impl Sabotage for TooEarly {}

#[derive(Debug)]
struct Again(Acted);

#[async_trait]
impl Hook for Again {
    async fn fetch(
        &self,
        passage: &mut Passage,
        below: &mut dyn Reader,
        room: Room,
        out: &mut Vec<Recorded>,
    ) -> Result<Fetched> {
        if passage.mark == 2 {
            passage.mark = 1;
            self.0.mark();
            return Ok(Fetched::CaughtUp);
        }
        let before = out.len();
        let told = below.fetch(room, out).await?;
        if told == Fetched::CaughtUp {
            passage.mark = 1;
        } else if passage.mark == 1 && out.len() > before {
            passage.mark = 2;
        }
        Ok(told)
    }
}

impl Sabotage for Again {}
