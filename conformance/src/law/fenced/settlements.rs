//! The fence of what is lent.

use std::collections::BTreeSet;

use annals_core::Record;
use annals_core::driver::{Settled, Verdict};

use crate::harness::Disturb;
use crate::trial::{During, Judged, Stage, Trial, ensure};
use crate::verdict::Counts;
use crate::workload::groups;

/// At a service that lends each record: the token of a hold that has run out settles nothing, not
/// even when the record is lent to another by then.
pub(super) async fn settlements(
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
