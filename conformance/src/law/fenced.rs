//! *Fenced*: who has been replaced changes nothing any more.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use annals_core::driver::{AppendOptions, Lease, Leases, Mark, Settled, Tenancy, Verdict};
use annals_core::{Error, ErrorKind, Frontier, Group, Outcome, PartitionId, Record, Start, Until};

use super::{ANY, Law, Shape};
use crate::harness::{Disturb, Want};
use crate::trial::{During, Judged, Stage, Stop, Trial, ensure};
use crate::verdict::Counts;
use crate::workload::{self, groups};

const GROUP: &str = "fenced";
const CLOSE: Duration = Duration::from_secs(5);

pub(crate) fn law() -> Law {
    Law::new(
        "fenced",
        "once a newer epoch or holder has acted, the old one's append, commit or settlement has no effect",
        ANY,
    )
    .claimed_by(|has| has.append.fenced.is(&true) || has.groups.fenced.is(&true))
    .case("appends of an old epoch", |trial| appends(trial, None))
    .case("commits and settlements of an old holder", |trial| settles(trial, None))
    .case("a member that is robbed", robbed)
    .fault("appends of an old epoch after a restart", |trial| {
        appends(trial, Some(Disturb::Restart))
    })
    .fault("appends of an old epoch after a kill", |trial| {
        appends(trial, Some(Disturb::Kill))
    })
    .fault("commits and settlements of an old holder after a kill", |trial| {
        settles(trial, Some(Disturb::Kill))
    })
    .refusal("an epoch is refused", |trial| async move {
        let stage = trial.stage(&Want::default()).await?;
        no_epochs(&trial, &stage).await
    })
}

fn of_epoch(epoch: u64) -> AppendOptions {
    AppendOptions {
        epoch: Some(epoch),
        ..AppendOptions::default()
    }
}

/// A refusal by the fence, in whole: as an error, or of every record.
fn refused(told: Result<Vec<Outcome>, Error>) -> Result<(), String> {
    let is_fence = |error: &Error| error.kind() == ErrorKind::Fenced;
    match told {
        Err(error) if is_fence(&error) => Ok(()),
        Ok(outcomes)
            if outcomes
                .iter()
                .all(|outcome| matches!(outcome, Outcome::Rejected(e) if is_fence(e))) =>
        {
            Ok(())
        }
        told => Err(format!("is answered with {told:?}, not refused as fenced")),
    }
}

async fn attempt(stage: &Stage, records: Vec<Record>, epoch: u64) -> Result<Vec<Outcome>, Error> {
    let report = stage
        .backend
        .append(&stage.name, &records.into(), &of_epoch(epoch))
        .await?;
    Ok(report.into_outcomes())
}

/// A writer with a newer epoch has appended: the one with the old epoch stores nothing, by core and
/// beside it, from its own client and from new ones; the new one goes on.
async fn appends(trial: Trial, what: Option<Disturb>) -> Judged {
    let mut old = trial.stage(&Want::default()).await?;
    if !old.capabilities().append.fenced.is(&true) {
        return no_epochs(&trial, &old).await;
    }
    let free = trial.stage(&Want::default()).await?;
    let mut new = trial.on(&old.name).await?;
    let mut stored = Vec::new();
    let mut append = async |stage: &Stage, value: &str, epoch: u64| {
        let record = Record::new(value).key("k");
        stage
            .topic
            .append(record)
            .epoch(epoch)
            .await
            .during("an append of the newest epoch")?;
        stored.push(value.to_owned());
        Ok::<_, Stop>(())
    };
    append(&old, "old-1", 7).await?;
    append(&old, "old-2", 7).await?;
    // The same epoch is no newer one: two writers that agree do not fence each other.
    append(&new, "same", 7).await?;
    append(&new, "new-1", 9).await?;
    let name = old.name.clone();
    if let Some(what) = what {
        trial.disturb(&name, what).await?;
        old = trial.on(&name).await?;
        new = trial.on(&name).await?;
    }
    let mut fenced = 0;
    for round in 0..3 {
        for (stage, epoch) in [(&old, 7), (&new, 8), (&old, 0)] {
            let value = format!("zombie-{round}-{epoch}");
            let one = Record::new(format!("{value}-raw")).key("z");
            let records = vec![one, Record::new(format!("{value}-raw-2"))];
            let told = attempt(stage, records, epoch).await;
            refused(told).map_err(|said| {
                Stop::Broken(format!(
                    "an append of epoch {epoch} after one of epoch 9 {said}"
                ))
            })?;
            let told = stage.topic.append(Record::new(value)).epoch(epoch).await;
            let kind = told.err().map(|error| error.kind());
            ensure(kind == Some(ErrorKind::Fenced), || {
                format!(
                    "an append of epoch {epoch} after one of epoch 9 is answered with {kind:?}, not refused as fenced"
                )
            })?;
            fenced += 2;
        }
        append(&new, &format!("new-2-{round}"), 9).await?;
    }
    append(&old, "newest", 12).await?;
    let told = attempt(&new, vec![Record::new("zombie-new")], 9).await;
    refused(told).map_err(|said| {
        Stop::Broken(format!("an append of epoch 9 after one of epoch 12 {said}"))
    })?;
    // A fence is its topic's own.
    let free = trial.on(&free.name).await?;
    free.topic
        .append(Record::new("free"))
        .epoch(1)
        .await
        .during("an append to another topic")?;
    let read = old.read(Start::Beginning, Until::End).await?;
    let read = workload::texts(&read.records);
    let read: BTreeSet<String> = read.into_iter().collect();
    let stored: BTreeSet<String> = stored.into_iter().collect();
    let (zombie, lost) = (
        read.difference(&stored).next(),
        stored.difference(&read).next(),
    );
    ensure(zombie.is_none(), || {
        format!("{zombie:?} was refused by the fence, and is read")
    })?;
    ensure(lost.is_none(), || {
        format!("{lost:?} was stored with the newest epoch, and is not read")
    })?;
    Ok(Counts::new()
        .of("appends", stored.len(), 8)
        .of("fenced appends", fenced, 18))
}

/// Where epochs are not claimed, an append that carries one is refused and stores nothing.
async fn no_epochs(trial: &Trial, stage: &Stage) -> Judged {
    let told = attempt(stage, vec![Record::new("epoch-raw")], 1).await;
    let raw = told.as_ref().err().map(Error::kind);
    let told = stage.topic.append(Record::new("epoch")).epoch(1).await;
    let kind = told.err().map(|error| error.kind());
    for kind in [raw, kind] {
        ensure(kind == Some(ErrorKind::Unsupported), || {
            format!("an epoch is answered with {kind:?}, not refused")
        })?;
    }
    if Shape::of(stage.capabilities()) == Shape::Queue {
        let (stage, group) = groups::staged(trial, "no-epochs").await?;
        let told = attempt(&stage, vec![Record::new("epoch-raw")], 1).await;
        ensure(told.is_err(), || {
            format!("an epoch is answered with {told:?}, not refused")
        })?;
        stage
            .topic
            .append(Record::new("marker"))
            .await
            .during("appending")?;
        let seen = workload::delivered(trial, &stage, &group, &["marker".to_owned()]).await?;
        ensure(seen.len() == 1, || {
            format!("{:?} came, which was refused", workload::texts(&seen))
        })?;
    } else {
        let seen = stage.read_all().await?;
        ensure(seen.is_empty(), || {
            format!("{:?} is read, which was refused", workload::texts(&seen))
        })?;
    }
    Ok(Counts::new().of("refusals", 2, 2))
}

async fn settles(trial: Trial, what: Option<Disturb>) -> Judged {
    let (stage, group) = groups::staged(&trial, GROUP).await?;
    if !stage.capabilities().groups.fenced.is(&true) {
        // That it says so is all that can be seen.
        return Ok(Counts::new().of("declarations", 1, 1));
    }
    match stage.backend.leases(&stage.name) {
        Some(_) => commits(&trial, stage, &group, what).await,
        None => settlements(&trial, stage, &group, what).await,
    }
}

async fn rows(leases: &dyn Leases, group: &Group) -> Judged<Vec<Lease>> {
    let rows = leases.load(group).await.during("loading a group's table")?;
    rows.ok_or_else(|| Stop::broken("a group that was made is not there"))
}

async fn row(leases: &dyn Leases, group: &Group, of: PartitionId) -> Judged<Lease> {
    let rows = rows(leases, group).await?;
    let row = rows.into_iter().find(|row| row.partition == of);
    row.ok_or_else(|| Stop::Broken(format!("the row of partition {of} is gone")))
}

async fn take(leases: &dyn Leases, group: &Group, of: PartitionId, by: &str) -> Judged<Tenancy> {
    let seen = row(leases, group, of).await?;
    let taken = leases
        .take(group, &seen, &by.into())
        .await
        .during("taking a lease")?;
    taken.ok_or_else(|| {
        Stop::Broken(format!(
            "{by} cannot take the lease of partition {of}, which was {seen:?}"
        ))
    })
}

async fn commit(
    leases: &dyn Leases,
    group: &Group,
    marks: &[Mark],
) -> Judged<Vec<Option<ErrorKind>>> {
    let told = leases.commit(group, marks).await.during("committing")?;
    ensure(told.len() == marks.len(), || {
        format!("{} marks had {} answers", marks.len(), told.len())
    })?;
    Ok(told
        .into_iter()
        .map(|told| told.err().map(|error| error.kind()))
        .collect())
}

const OVER: [Option<ErrorKind>; 2] = [Some(ErrorKind::Fenced), Some(ErrorKind::Expired)];

/// In a table of leases: what an ended stay commits, renews or releases moves nothing.
async fn commits(trial: &Trial, stage: Stage, group: &str, what: Option<Disturb>) -> Judged {
    let name = stage.name.clone();
    stage
        .topic
        .append(groups::batch(1, 0, 48))
        .await
        .during("appending")?;
    // Core makes the group, and leaves it.
    let subscription = groups::join(trial, &stage, group)
        .await
        .during("subscribing")?;
    trial
        .soon("a close", subscription.close(CLOSE))
        .await?
        .during("closing")?;
    let places = stage.read(Start::Beginning, Until::End).await?.records;
    let places: Vec<_> = places
        .iter()
        .filter_map(annals_core::Recorded::position)
        .collect();
    let group = Group::new(group)?;
    let group = &group;
    let table = |stage: &Stage| {
        stage
            .backend
            .leases(&name)
            .ok_or_else(|| Stop::broken("there are leases no more"))
    };
    let mut leases = table(&stage)?;
    let mut stays = Vec::new();
    for first in rows(leases.as_ref(), group).await? {
        let of = first.partition;
        let of_it: Vec<_> = places
            .iter()
            .filter(|at| at.partition() == of)
            .copied()
            .collect();
        let [one, two, three, .., last] = of_it.as_slice() else {
            continue;
        };
        let mark = |tenancy, at| Mark {
            tenancy,
            to: Frontier::after(at),
            attempts: 0,
        };
        let old = take(leases.as_ref(), group, of, "old").await?;
        let told = commit(leases.as_ref(), group, &[mark(old, *one)]).await?;
        ensure(told == [None], || {
            format!("the commit of who holds the lease is answered with {told:?}")
        })?;
        let new = take(leases.as_ref(), group, of, "new").await?;
        stays.push((of, old, new, *two, *three, *last));
    }
    ensure(!stays.is_empty(), || {
        "no partition has records enough".into()
    })?;
    if let Some(what) = what {
        trial.disturb(&name, what).await?;
        drop(stage);
        let stage = trial.on(&name).await?;
        leases = table(&stage)?;
        // Whose process was killed is replaced once more.
        for (of, _, new, ..) in &mut stays {
            *new = take(leases.as_ref(), group, *of, "newer").await?;
        }
    }
    let leases = leases.as_ref();
    let mut fenced = 0;
    for (of, old, new, two, three, last) in &stays {
        let before = row(leases, group, *of).await?;
        for to in [Frontier::after(*last), Frontier::ENDED, Frontier::START] {
            let zombie = Mark {
                tenancy: *old,
                to,
                attempts: 9,
            };
            let told = commit(leases, group, &[zombie]).await?;
            ensure(told.iter().all(|told| OVER.contains(told)), || {
                format!(
                    "the commit of an ended stay of partition {of} to {to:?} is answered with {told:?}, not refused"
                )
            })?;
            fenced += 1;
        }
        let told = leases.renew(group, &[*old]).await.during("renewing")?;
        let told: Vec<_> = told
            .into_iter()
            .map(|told| told.err().map(|error| error.kind()))
            .collect();
        ensure(
            told.len() == 1 && told.iter().all(|told| OVER.contains(told)),
            || {
                format!(
                    "the renewal of an ended stay of partition {of} is answered with {told:?}, not refused"
                )
            },
        )?;
        // Ending what has ended is no mistake, and has no effect either.
        let _ = leases.release(group, *old).await;
        let after = row(leases, group, *of).await?;
        ensure(after == before, || {
            format!(
                "what an ended stay did changed the row of partition {of} from {before:?} to {after:?}"
            )
        })?;
        // Of one commit each mark has its own answer, and the holder's holds.
        let own = Mark {
            tenancy: *new,
            to: Frontier::after(*two),
            attempts: 0,
        };
        let zombie = Mark {
            tenancy: *old,
            to: Frontier::after(*last),
            attempts: 0,
        };
        for marks in [[zombie, own], [own, zombie]] {
            let told = commit(leases, group, &marks).await?;
            for (mark, told) in marks.iter().zip(&told) {
                let is_right = if mark.tenancy == *old {
                    OVER.contains(told)
                } else {
                    told.is_none()
                };
                ensure(is_right, || {
                    format!("of two marks of partition {of} {mark:?} is answered with {told:?}")
                })?;
            }
            fenced += 1;
        }
        let at = row(leases, group, *of).await?.at;
        ensure(at == Frontier::after(*two), || {
            format!("the holder committed {two:?} in partition {of}, and the table says {at:?}")
        })?;
        // Given up, a stay has ended too.
        leases.release(group, *new).await.during("releasing")?;
        let told = commit(
            leases,
            group,
            &[Mark {
                tenancy: *new,
                to: Frontier::after(*three),
                attempts: 0,
            }],
        )
        .await?;
        let at = row(leases, group, *of).await?.at;
        ensure(
            told.iter().all(|told| OVER.contains(told)) && at == Frontier::after(*two),
            || {
                format!(
                    "the commit of a stay of partition {of} that was given up is answered with {told:?}, and the table says {at:?}"
                )
            },
        )?;
        fenced += 1;
    }
    Ok(Counts::new()
        .of("partitions", stays.len(), 1)
        .of("fenced commits", fenced, 6))
}

/// At a service that lends each record: the token of a hold that has run out settles nothing, not
/// even when the record is lent to another by then.
async fn settlements(
    trial: &Trial,
    mut stage: Stage,
    group: &str,
    what: Option<Disturb>,
) -> Judged {
    let values = ["a", "b", "c"];
    for value in values {
        stage
            .topic
            .append(Record::new(value))
            .await
            .during("appending")?;
    }
    let name = stage.name.clone();
    let short = groups::lease(trial);
    let mut old = groups::Lent::join(&stage, group, short).await?;
    let mut tokens = Vec::new();
    for _ in values {
        let loan = old.one(trial).await?;
        tokens.push((loan.value, loan.token));
    }
    if let Some(what) = what {
        trial.disturb(&name, what).await?;
        stage = trial.on(&name).await?;
        old = groups::Lent::join(&stage, group, short).await?;
    }
    let other = trial.on(&name).await?;
    // Longer than anything here takes: the new holder's own hold does not run out.
    let mut new = groups::Lent::join(&other, group, 20 * short).await?;
    let mut loans = Vec::new();
    for _ in values {
        loans.push(
            new.one(trial)
                .await
                .during("what another member's hold has run out of")?,
        );
    }
    let came: BTreeSet<&str> = loans.iter().map(|loan| loan.value.as_str()).collect();
    ensure(came == values.into(), || format!("{came:?} came again"))?;
    let mut fenced = 0;
    for (value, token) in &tokens {
        for verdict in [
            Verdict::Done,
            Verdict::Return,
            Verdict::Retry { after: short },
        ] {
            let told = old.settle(*token, verdict).await?;
            ensure(matches!(told, Settled::Expired), || {
                format!(
                    "{verdict:?} for {value:?}, whose hold has run out, is answered with {told:?}"
                )
            })?;
            fenced += 1;
        }
        let told = old.extend(*token, short).await?;
        ensure(matches!(told, Settled::Expired), || {
            format!("an extension for {value:?}, whose hold has run out, is answered with {told:?}")
        })?;
        old.settler.release(&[*token]);
    }
    // None of that gave one to a third, or took one from who has it.
    let third = trial.on(&name).await?;
    let mut third = groups::Lent::join(&third, group, 20 * short).await?;
    let beside = third.fetch(groups::ONE, groups::moment(trial)).await?;
    ensure(beside.is_empty(), || {
        format!(
            "{:?} is held, and came to a third member",
            beside.iter().map(|loan| &loan.value).collect::<Vec<_>>()
        )
    })?;
    for loan in &loans {
        let told = old.settle(loan.token, Verdict::Done).await?;
        ensure(matches!(told, Settled::Expired), || {
            format!(
                "the token of another member's {:?} settles it: {told:?}",
                loan.value
            )
        })?;
        let told = new.settle(loan.token, Verdict::Return).await?;
        ensure(matches!(told, Settled::Yes), || {
            format!("who holds {:?} cannot give it back: {told:?}", loan.value)
        })?;
        fenced += 1;
    }
    let mut left: BTreeSet<&str> = values.into();
    while !left.is_empty() {
        let loan = third.one(trial).await.during("what was given back")?;
        let told = third.settle(loan.token, Verdict::Done).await?;
        let known = left.remove(loan.value.as_str());
        ensure(known && matches!(told, Settled::Yes), || {
            format!(
                "{:?} came at last, and its settlement is answered with {told:?}",
                loan.value
            )
        })?;
        fenced += usize::from(matches!(
            third.settle(loan.token, Verdict::Done).await?,
            Settled::Expired
        ));
    }
    Ok(Counts::new()
        .of("fenced settlements", fenced, 12)
        .of("records", values.len(), 3))
}

/// Through core: a member whose partition another one takes is told that it settled nothing, and
/// what it had comes again.
async fn robbed(trial: Trial) -> Judged {
    let (stage, group) = groups::staged(&trial, GROUP).await?;
    if !stage.capabilities().groups.fenced.is(&true) {
        return Ok(Counts::new().of("declarations", 1, 1));
    }
    let Some(leases) = stage.backend.leases(&stage.name) else {
        return settlements(&trial, stage, &group, None).await;
    };
    let batch = groups::batch(1, 0, 24);
    let mut open: BTreeSet<String> = workload::offered(&batch).into_iter().collect();
    stage.topic.append(batch).await.during("appending")?;
    let subscription = groups::join(&trial, &stage, &group)
        // Nothing is committed behind the handlers' backs meanwhile.
        .commit_interval(trial.patience())
        .await
        .during("subscribing")?;
    let mut hand = Vec::new();
    for _ in 0..8 {
        hand.push(groups::next(&trial, &subscription).await?);
    }
    let name = Group::new(&group)?;
    let thief: Arc<str> = "thief".into();
    let mut stolen = Vec::new();
    for row in rows(leases.as_ref(), &name).await? {
        let taken = leases
            .take(&name, &row, &thief)
            .await
            .during("taking a lease")?;
        if let Some(tenancy) = taken {
            stolen.push((tenancy, row.at));
        }
    }
    let is_stolen = |partition| {
        stolen
            .iter()
            .any(|(tenancy, _)| tenancy.partition == partition)
    };
    let mut refused = 0;
    for delivery in hand {
        let Some(position) = delivery.position() else {
            continue;
        };
        if !is_stolen(position.partition()) {
            continue;
        }
        let told = trial.soon("a settlement", delivery.done_and_wait()).await?;
        let is_over = told.as_ref().is_err_and(groups::is_over);
        ensure(is_over, || {
            format!(
                "the record at {position:?} was settled by who was robbed of its partition, and that is answered with {told:?}"
            )
        })?;
        refused += 1;
    }
    for (tenancy, at) in &stolen {
        let now = row(leases.as_ref(), &name, tenancy.partition).await?.at;
        ensure(now == *at, || {
            format!(
                "who was robbed moved partition {} from {at:?} to {now:?}",
                tenancy.partition
            )
        })?;
        leases.release(&name, *tenancy).await.during("releasing")?;
    }
    drop(subscription);
    let again = trial.on(&stage.name).await?;
    let subscription = groups::join(&trial, &again, &group)
        .await
        .during("subscribing")?;
    let awaited = std::mem::take(&mut open);
    let came = groups::handle(&trial, &subscription, awaited, |_| Ok(())).await?;
    Ok(Counts::new()
        .of("partitions that were taken", stolen.len(), 1)
        .of("settlements that were refused", refused, 1)
        .of("records that came again", came, 24))
}
