//! Saboteurs of *redelivery*.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use annals_core::Group;
use annals_core::Result;
use annals_core::driver::{
    Arrived, Delivered, Leases, Mark, Room, Settled, Settler, Source, Token, Verdict,
};
use async_trait::async_trait;

use super::{Acted, Model, Sabotage, Saboteur};
use crate::tap::{Hook, Passage};

pub(super) const ALL: &[Saboteur] = &[
    Saboteur {
        name: "nack_is_a_noop",
        mirrors: "says yes to what gives a delivery back and leaves it to the time-out: omniqueue's nack",
        model: Model::Queue,
        law: "redelivery",
        make: |acted| {
            Arc::new(Told::new(acted, |_, verdict| match verdict {
                Verdict::Done => Some(verdict),
                _ => None,
            }))
        },
    },
    Saboteur {
        name: "retry_settles",
        mirrors: "drops what is to be retried, as a reject without requeue does where no dead-letter exchange is set",
        model: Model::Queue,
        law: "redelivery",
        make: |acted| {
            Arc::new(Told::new(acted, |_, verdict| match verdict {
                Verdict::Retry { after } if !after.is_zero() => Some(Verdict::Done),
                _ => Some(verdict),
            }))
        },
    },
    Saboteur {
        name: "delay_is_ignored",
        mirrors: "gives back at once what is to come later, as a requeue in RabbitMQ does, which knows no delay",
        model: Model::Queue,
        law: "redelivery",
        make: |acted| {
            Arc::new(Told::new(acted, |_, verdict| match verdict {
                Verdict::Retry { .. } => Some(Verdict::Return),
                verdict => Some(verdict),
            }))
        },
    },
    Saboteur {
        name: "long_delays_are_cut",
        mirrors: "a delay over the service's most is cut to it in silence: SQS' fifteen minutes, here a second",
        model: Model::Queue,
        law: "redelivery",
        make: |acted| {
            Arc::new(Told::new(acted, |_, verdict| match verdict {
                Verdict::Retry { after } => Some(Verdict::Retry {
                    after: after.min(Duration::from_secs(1)),
                }),
                verdict => Some(verdict),
            }))
        },
    },
    Saboteur {
        name: "settled_comes_again",
        mirrors: "every seventh settlement is told and not stored: a delete that is eventually consistent",
        model: Model::Queue,
        law: "redelivery",
        make: |acted| {
            Arc::new(Told::new(acted, |number, verdict| match verdict {
                Verdict::Done if number % 7 == 6 => None,
                verdict => Some(verdict),
            }))
        },
    },
    Saboteur {
        name: "attempt_is_always_one",
        mirrors: "does not pass the service's receive count on: every delivery looks like the first",
        model: Model::Queue,
        law: "redelivery",
        make: |acted| Arc::new(FirstAttempt(acted)),
    },
    Saboteur {
        name: "attempts_are_not_kept",
        mirrors: "stores a commit's place without its attempts: what ends its process each time is never found",
        model: Model::Sharded,
        law: "redelivery",
        make: |acted| Arc::new(WithoutAttempts(acted)),
    },
    Saboteur {
        name: "hold_is_not_extended",
        mirrors: "says yes to an extension and does not ask for it: a ChangeMessageVisibility that was forgotten",
        model: Model::Queue,
        law: "redelivery",
        make: |acted| Arc::new(NotExtended(acted)),
    },
    Saboteur {
        name: "a_long_delay_is_cut_short",
        mirrors: "delays for ten seconds at most, as where each delay is a queue of its own and the last of them stands for all longer ones",
        model: Model::Queue,
        law: "redelivery",
        make: |acted| {
            Arc::new(Told::new(acted, |_, verdict| match verdict {
                Verdict::Retry { after } => Some(Verdict::Retry {
                    after: after.min(Duration::from_secs(10)),
                }),
                verdict => Some(verdict),
            }))
        },
    },
    Saboteur {
        name: "settles_ten_at_once",
        mirrors: "of many settlements sends the first request, of ten, and says yes to all: a DeleteMessageBatch that is not split",
        model: Model::Queue,
        law: "redelivery",
        make: |acted| Arc::new(FirstTen(acted)),
    },
    Saboteur {
        name: "attempts_end_at_four",
        mirrors: "counts attempts by the retry queue that a record came by, of which there are three",
        model: Model::Queue,
        law: "redelivery",
        make: |acted| Arc::new(UpToFour(acted)),
    },
];

/// Tells something else than it was told; where that is nothing it says yes.
#[derive(Debug)]
struct Told(Acted, AtomicUsize, fn(usize, Verdict) -> Option<Verdict>);

impl Told {
    fn new(acted: Acted, told: fn(usize, Verdict) -> Option<Verdict>) -> Self {
        Self(acted, AtomicUsize::new(0), told)
    }
}

#[async_trait]
impl Hook for Told {
    async fn settle(
        &self,
        below: &dyn Settler,
        settlements: &[(Token, Verdict)],
    ) -> Result<Vec<Settled>> {
        let mut told = Vec::new();
        for (token, verdict) in settlements {
            let other = (self.2)(self.1.fetch_add(1, Ordering::SeqCst), *verdict);
            if other != Some(*verdict) {
                self.0.mark();
            }
            let answer = match other {
                Some(verdict) => below.settle(&[(*token, verdict)]).await?,
                None => vec![Settled::Yes],
            };
            told.extend(answer);
        }
        Ok(told)
    }

    fn give_back(&self, below: &dyn Settler, tokens: &[Token]) {
        // What is left alone is left alone here too.
        if (self.2)(0, Verdict::Return).is_some() {
            below.release(tokens);
        }
    }
}

impl Sabotage for Told {}

#[derive(Debug)]
struct FirstAttempt(Acted);

#[async_trait]
impl Hook for FirstAttempt {
    async fn receive(
        &self,
        _: &mut Passage,
        below: &mut dyn Source,
        room: Room,
        out: &mut Vec<Delivered>,
    ) -> Result<Arrived> {
        let told = below.fetch(room, out).await;
        for delivered in out.iter_mut().filter(|delivered| delivered.attempt > 1) {
            self.0.mark();
            delivered.attempt = 1;
        }
        told
    }
}

impl Sabotage for FirstAttempt {}

#[derive(Debug)]
struct WithoutAttempts(Acted);

#[async_trait]
impl Hook for WithoutAttempts {
    async fn commit_lease(
        &self,
        below: &dyn Leases,
        group: &Group,
        marks: &[Mark],
    ) -> Result<Vec<Result<()>>> {
        let mut marks = marks.to_vec();
        for mark in marks.iter_mut().filter(|mark| mark.attempts > 0) {
            self.0.mark();
            mark.attempts = 0;
        }
        below.commit(group, &marks).await
    }
}

impl Sabotage for WithoutAttempts {}

#[derive(Debug)]
struct NotExtended(Acted);

#[async_trait]
impl Hook for NotExtended {
    async fn extend(&self, _: &dyn Settler, tokens: &[Token], _: Duration) -> Result<Vec<Settled>> {
        self.0.mark();
        Ok(vec![Settled::Yes; tokens.len()])
    }
}

impl Sabotage for NotExtended {}

#[derive(Debug)]
struct FirstTen(Acted);

#[async_trait]
impl Hook for FirstTen {
    async fn settle(
        &self,
        below: &dyn Settler,
        settlements: &[(Token, Verdict)],
    ) -> Result<Vec<Settled>> {
        let (sent, left) = settlements.split_at(settlements.len().min(10));
        let mut told = below.settle(sent).await?;
        for _ in left {
            self.0.mark();
            told.push(Settled::Yes);
        }
        Ok(told)
    }
}

impl Sabotage for FirstTen {}

#[derive(Debug)]
struct UpToFour(Acted);

#[async_trait]
impl Hook for UpToFour {
    async fn receive(
        &self,
        _: &mut Passage,
        below: &mut dyn Source,
        room: Room,
        out: &mut Vec<Delivered>,
    ) -> Result<Arrived> {
        let told = below.fetch(room, out).await;
        for delivered in out.iter_mut().filter(|delivered| delivered.attempt > 4) {
            self.0.mark();
            delivered.attempt = 4;
        }
        told
    }
}

impl Sabotage for UpToFour {}
