//! What the laws of groups share: who joins, what is waited for, what a backend says of groups.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use annals_core::capability::{GroupNames, Settle};
use annals_core::driver::{
    Holder, Room, Settled, Settler, Settling, Source, SubscribeOptions, Token, Verdict,
};
use annals_core::{
    Batch, Capabilities, Delivery, Error, ErrorKind, Group, OpenSubscription, Record, Recorded,
    Subscription,
};

use super::{text, value};
use crate::harness::{Time, Want};
use crate::trial::{During, Judged, Stage, Stop, Trial, ensure};
use crate::verdict::Counts;

/// Whether a topic has groups at all.
pub(crate) fn are_there(has: &Capabilities) -> bool {
    !matches!(has.groups.names.known(), Some(GroupNames::None))
}

/// Whether a topic can have this many groups.
pub(crate) fn can_be(has: &Capabilities, many: u32) -> bool {
    matches!(has.groups.names.known(), Some(GroupNames::Any(most)) if *most >= many)
}

/// Whether what is settled is told up to a record.
pub(crate) fn settle_up_to(has: &Capabilities) -> bool {
    !has.groups.settle.is(&Settle::Each)
}

/// A topic with the group `name`, or with the only one that it can have; the group's name.
pub(crate) async fn staged(trial: &Trial, name: &str) -> Judged<(Stage, String)> {
    match trial.stage(&Want::groups(&[name])?).await {
        Err(Stop::NotExercised(why)) => {
            let stage = trial.stage(&Want::default()).await?;
            match stage.capabilities().groups.names.known() {
                Some(GroupNames::Only(only)) => Ok((stage.clone(), only.as_str().to_owned())),
                _ => Err(Stop::NotExercised(why)),
            }
        }
        stage => Ok((stage?, name.to_owned())),
    }
}

/// Where a topic has no groups, a subscription is refused.
pub(crate) async fn refused(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::default()).await?;
    let told = stage.topic.subscribe("refused").await;
    let kind = told.err().map(|error| error.kind());
    ensure(kind == Some(ErrorKind::Unsupported), || {
        format!("a subscription is answered with {kind:?}, not refused")
    })?;
    Ok(Counts::new().of("refusals", 1, 1))
}

/// For how long a silent member keeps what it holds: as short as the clock allows where that is
/// waited for.
pub(crate) fn lease(trial: &Trial) -> Duration {
    match trial.harness().time() {
        Time::Virtual => Duration::from_secs(1),
        Time::Real => Duration::from_millis(600),
    }
}

/// A short while: what is not there by then may come later.
pub(crate) fn moment(trial: &Trial) -> Duration {
    lease(trial) / 40
}

/// Joins with a [`lease`].
pub(crate) fn join(trial: &Trial, stage: &Stage, group: &str) -> OpenSubscription {
    stage.topic.subscribe(group).lease(lease(trial))
}

/// Whether something was settled too late: it comes again, elsewhere.
pub(crate) fn is_over(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Expired | ErrorKind::Fenced)
}

/// The next delivery, which must come soon.
///
/// # Errors
/// [`Stop::Broken`] when none comes.
pub(crate) async fn next(trial: &Trial, subscription: &Subscription) -> Judged<Delivery> {
    trial
        .soon("the next delivery", async {
            loop {
                match subscription.next().await {
                    Ok(Some(delivery)) => return Ok(delivery),
                    Ok(None) => return Err(Stop::broken("the subscription ended by itself")),
                    Err(error) if is_over(&error) => {}
                    Err(error) => return Err(error).during("receiving"),
                }
            }
        })
        .await?
}

/// A delivery, if one comes within `wait`; `Err(true)` when none did, `Err(false)` when what was
/// held has ended.
///
/// # Errors
/// Whatever else the subscription says.
pub(crate) async fn perhaps(
    subscription: &Subscription,
    wait: Duration,
) -> Judged<Result<Delivery, bool>> {
    match tokio::time::timeout(wait, subscription.next()).await {
        Err(_) => Ok(Err(true)),
        Ok(Ok(Some(delivery))) => Ok(Ok(delivery)),
        Ok(Ok(None)) => Err(Stop::broken("the subscription ended by itself")),
        Ok(Err(error)) if is_over(&error) => Ok(Err(false)),
        Ok(Err(error)) => Err(error).during("receiving"),
    }
}

/// Takes and settles until every one of `awaited` has come; `look` sees each that comes.
///
/// # Errors
/// [`Stop::Broken`], naming what did not come; what `look` says.
pub(crate) async fn handle(
    trial: &Trial,
    subscription: &Subscription,
    awaited: impl IntoIterator<Item = String>,
    mut look: impl FnMut(&Recorded) -> Judged<()> + Send,
) -> Judged<usize> {
    let mut open: BTreeSet<String> = awaited.into_iter().collect();
    let all = open.len();
    let mut seen = 0;
    while !open.is_empty() {
        let delivery = match next(trial, subscription).await {
            Ok(delivery) => delivery,
            Err(stop) => {
                let first = open.first();
                return Err(Stop::Broken(format!(
                    "{} of {all} records were not delivered, the first is {first:?}: {stop}",
                    open.len(),
                )));
            }
        };
        look(&delivery)?;
        open.remove(&text(&delivery));
        seen += 1;
        ensure(seen <= 10 * all + 10_000, || {
            format!("deliveries do not end; still missing are {open:?}")
        })?;
        delivery.done();
    }
    Ok(seen)
}

/// Records of all kinds of keys: a few texts, bytes that are none, an empty one, none at all.
pub(crate) fn record(writer: u32, number: usize) -> Record {
    let record = Record::new(value(writer, number));
    match number % 8 {
        0 => record,
        1 => record.key(vec![0xff, 0x00, u8::try_from(number % 3).unwrap_or(0)]),
        rest => record.key(format!("k{}", rest % 5)),
    }
}

/// So many of these, numbered from `from`.
pub(crate) fn batch(writer: u32, from: usize, records: usize) -> Batch {
    (from..from + records)
        .map(|number| record(writer, number))
        .collect()
}

/// How a raw member joins: nothing of core's is between it and the backend.
pub(crate) fn options(lease: Duration) -> SubscribeOptions {
    SubscribeOptions {
        start: None,
        member: None,
        in_flight: Room {
            records: 1_000,
            bytes: 1 << 20,
        },
        lease,
        grace: Duration::from_secs(5),
    }
}

/// A raw member of a group of a service that lends each record.
#[derive(Debug)]
pub(crate) struct Lent {
    source: Box<dyn Source>,
    /// What its deliveries are settled with.
    pub(crate) settler: Arc<dyn Settler>,
}

impl Lent {
    /// Joins. [`Stop::NotExercised`] where groups are not of that kind.
    pub(crate) async fn join(stage: &Stage, group: &str, lease: Duration) -> Judged<Self> {
        if !are_there(stage.capabilities()) {
            return Err(Stop::NotExercised("it has no groups".into()));
        }
        if stage.backend.leases(&stage.name).is_some() {
            return Err(Stop::NotExercised("its groups are leases".into()));
        }
        let group = Group::new(group)?;
        let options = options(lease);
        let joined = stage.backend.subscribe(&stage.name, &group, &options);
        let inbound = joined.await.during("joining without core")?;
        match inbound.settling {
            Settling::Each(settler) => Ok(Self {
                source: inbound.source,
                settler,
            }),
            Settling::UpTo(_) => Err(Stop::NotExercised(
                "its groups settle up to a record".into(),
            )),
        }
    }

    /// What one answer brings, within `wait`; nothing when that is over.
    pub(crate) async fn fetch(&mut self, room: Room, wait: Duration) -> Judged<Vec<Loan>> {
        let mut out = Vec::new();
        let told = tokio::time::timeout(wait, async {
            loop {
                match self.source.fetch(room, &mut out).await {
                    Ok(_) if out.is_empty() => {}
                    Ok(_) => return Ok(()),
                    Err(error) if error.is_retryable() => {}
                    Err(error) => return Err(error),
                }
            }
        })
        .await;
        if let Ok(told) = told {
            told.during("receiving without core")?;
        }
        out.into_iter()
            .map(|delivered| match delivered.holder {
                Holder::Token(token) => Ok(Loan {
                    value: text(&delivered.record),
                    token,
                    attempt: delivered.attempt,
                }),
                Holder::Tenancy(_) => Err(Stop::broken(
                    "a record that is settled by itself came with a stay",
                )),
            })
            .collect()
    }

    /// One record, which must come soon.
    pub(crate) async fn one(&mut self, trial: &Trial) -> Judged<Loan> {
        let lent = self.fetch(ONE, trial.patience()).await?;
        let count = lent.len();
        let mut lent = lent.into_iter();
        match (lent.next(), count) {
            (Some(loan), 1) => Ok(loan),
            _ => Err(Stop::broken(format!(
                "room for one record brought {count} within {:?}",
                trial.patience()
            ))),
        }
    }

    /// What became of one settlement.
    pub(crate) async fn settle(&self, token: Token, verdict: Verdict) -> Judged<Settled> {
        let settled = self.settler.settle(&[(token, verdict)]).await;
        one_answer(settled.during("settling without core")?)
    }

    /// What became of one extension.
    pub(crate) async fn extend(&self, token: Token, by: Duration) -> Judged<Settled> {
        let settled = self.settler.extend(&[token], by).await;
        one_answer(settled.during("extending without core")?)
    }
}

fn one_answer(settled: Vec<Settled>) -> Judged<Settled> {
    let count = settled.len();
    match (settled.into_iter().next(), count) {
        (Some(settled), 1) => Ok(settled),
        _ => Err(Stop::broken(format!("one settlement had {count} answers"))),
    }
}

/// Room for one record.
pub(crate) const ONE: Room = Room {
    records: 1,
    bytes: 1,
};

/// A record that was lent to a raw member.
#[derive(Debug)]
pub(crate) struct Loan {
    pub(crate) value: String,
    pub(crate) token: Token,
    pub(crate) attempt: u32,
}
