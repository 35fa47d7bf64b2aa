//! One member of a group: what it is lent, and what it says of it.

use std::sync::Arc;
use std::time::Duration;

use annals_core::driver::{
    Arrived, Closed, Delivered, Holder, Room, Settled, Settler, Source, Token, Verdict,
};
use annals_core::{Group, PartitionId, Result, TopicName};
use async_trait::async_trait;

use super::Queue;
use crate::models::faults::{Call, Fault, no_answer, refused};
use crate::models::service::{self, Lost};

/// A member.
#[derive(Debug)]
pub(super) struct Member {
    queue: Queue,
    topic: TopicName,
    group: Group,
    /// The epoch of its tokens.
    number: u64,
    lease: Duration,
}

pub(super) fn join(
    queue: &Queue,
    topic: &TopicName,
    group: &Group,
    lease: Duration,
) -> Result<Arc<Member>> {
    queue.on_group(topic, group, |_| ())?;
    Ok(Arc::new(Member {
        queue: queue.clone(),
        topic: topic.clone(),
        group: group.clone(),
        number: queue.service.epoch(),
        lease,
    }))
}

impl Member {
    fn now(&self) -> Duration {
        self.queue.service.clock.elapsed()
    }

    /// Tells the service something of each token.
    async fn each(
        &self,
        tokens: &[Token],
        mut act: impl FnMut(&mut super::Backlog, usize, Token) -> bool + Send,
    ) -> Result<Vec<Settled>> {
        let service = &self.queue.service;
        let fault = service.fault(Call::Settle)?;
        if let Some(Fault::Delay(delay)) = &fault {
            service.clock.sleep(*delay).await;
        }
        let settled = self.queue.on_group(&self.topic, &self.group, |backlog| {
            let each = tokens
                .iter()
                .enumerate()
                .map(|(index, token)| match &fault {
                    Some(Fault::Refuse(at)) if at.contains(&index) => Settled::Failed(refused()),
                    Some(Fault::Lose { done: false }) => Settled::Unknown(no_answer()),
                    // A handle of another connection never reaches the service.
                    _ if token.epoch != self.number => Settled::Expired,
                    _ if !act(backlog, index, *token) => Settled::Expired,
                    Some(Fault::Lose { .. }) => Settled::Unknown(no_answer()),
                    _ => Settled::Yes,
                });
            each.collect()
        })?;
        service.changed();
        Ok(settled)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Settler for Member {
    async fn settle(&self, settlements: &[(Token, Verdict)]) -> Result<Vec<Settled>> {
        let now = self.now();
        let tokens: Vec<Token> = settlements.iter().map(|(token, _)| *token).collect();
        let verdicts: Vec<Verdict> = settlements.iter().map(|(_, verdict)| *verdict).collect();
        self.each(&tokens, |backlog, index, token| {
            let verdict = verdicts.get(index).copied().unwrap_or(Verdict::Return);
            backlog.settle(token, verdict, now)
        })
        .await
    }

    async fn extend(&self, tokens: &[Token], by: Duration) -> Result<Vec<Settled>> {
        let now = self.now();
        self.each(tokens, |backlog, _, token| {
            backlog.extend(token, now.saturating_add(by), now)
        })
        .await
    }

    fn release(&self, tokens: &[Token]) {
        let now = self.now();
        // Whoever cannot give back leaves it to the time-out.
        let _ = self.queue.on_group(&self.topic, &self.group, |backlog| {
            for token in tokens {
                backlog.settle(*token, Verdict::Return, now);
            }
        });
        self.queue.service.changed();
    }

    fn held_for(&self, token: Token) -> Option<Duration> {
        let until = self
            .queue
            .on_group(&self.topic, &self.group, |b| b.held_until(token));
        let until = until.ok().flatten().unwrap_or_default();
        Some(until.saturating_sub(self.now()))
    }
}

/// Where its deliveries come from.
#[derive(Debug)]
pub(super) struct QueueSource(pub(super) Arc<Member>);

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Source for QueueSource {
    async fn fetch(&mut self, room: Room, out: &mut Vec<Delivered>) -> Result<Arrived> {
        let member = &self.0;
        let service = &member.queue.service;
        // Before anything is lent: a caller that goes away has taken nothing.
        if service.fault_whole(Call::Fetch).await? == Lost::Reply {
            return Err(no_answer());
        }
        loop {
            let bell = service.bell();
            let now = member.now();
            let until = now.saturating_add(member.lease);
            let (lent, change) =
                member
                    .queue
                    .on_group(&member.topic, &member.group, |backlog| {
                        let lent = backlog.lend(member.number, now, until, room);
                        (lent, backlog.next_change())
                    })?;
            if !lent.is_empty() {
                out.extend(lent.into_iter().map(|(record, token, attempt)| Delivered {
                    record,
                    holder: Holder::Token(token),
                    attempt,
                }));
                return Ok(Arrived::Deliveries);
            }
            let wait = change.map(|at| at.saturating_sub(now));
            service::changed(bell, &service.clock, wait).await;
        }
    }

    fn hold(&mut self, _: PartitionId, _: bool) {}

    async fn close(self: Box<Self>, _: Duration) -> Result<Closed> {
        Ok(Closed::default())
    }
}
