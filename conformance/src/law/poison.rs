//! *Poison*: what cannot be handled becomes a dead letter, once, and nothing else does.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use annals_core::capability::{Attempts, Dedupe};
use annals_core::{ErrorKind, OpenSubscription, Record, Recorded, letters};

use super::{ANY, Law, Shape};
use crate::harness::{Call, Disturb, Fault, Time, Want};
use crate::trial::{During, Judged, Stage, Stop, Trial, ensure};
use crate::verdict::Counts;
use crate::workload::{self, groups};

const GROUP: &str = "poison";
const RECORDS: usize = 40;
const LIMIT: u32 = 3;
const REASON: &str = "it is poison: \u{2620}";
const CLOSE: Duration = Duration::from_secs(5);

pub(crate) fn law() -> Law {
    Law::new(
        "poison",
        "what fails too often is in the dead letters once, with its reason, at the limit; nothing else is there, and other keys go on",
        ANY,
    )
    .claimed_by(|has| groups::are_there(has) && is_counted(has.groups.attempts.known()))
    .case("by retries and by rejection", |trial| by_retry(trial, None))
    .fault("a letter gets no answer", |trial| {
        by_retry(trial, Some(Fault::Lose { done: false }))
    })
    .fault("by what ends its process", by_crash)
    .refusal("a limit that cannot be counted is refused", refused)
}

fn is_counted(attempts: Option<&Attempts>) -> bool {
    attempts.is_some_and(|attempts| *attempts != Attempts::None)
}

/// A topic with its dead letters.
struct Place {
    stage: Stage,
    group: String,
    letters: annals_core::TopicName,
    /// The letters' own group.
    inspectors: String,
}

impl Place {
    async fn made(trial: &Trial) -> Judged<Self> {
        let (stage, group) = groups::staged(trial, GROUP).await?;
        let (letters, inspectors) = groups::staged(trial, "poison-letters").await?;
        Ok(Self {
            stage,
            group,
            letters: letters.name,
            inspectors,
        })
    }

    fn join(&self, trial: &Trial, stage: &Stage) -> OpenSubscription {
        groups::join(trial, stage, &self.group)
            .max_attempts(LIMIT)
            .dead_letters(self.letters.as_str())
    }

    /// All letters that there are.
    async fn letters(&self, trial: &Trial) -> Judged<Vec<Recorded>> {
        let stage = trial.on(&self.letters).await?;
        if Shape::of(stage.capabilities()) != Shape::Queue {
            return stage.read_all().await;
        }
        let markers = workload::batch(9, 0, 3, 3);
        let awaited = workload::offered(&markers);
        stage.topic.append(markers).await.during("appending")?;
        let mut letters = workload::delivered(trial, &stage, &self.inspectors, &awaited).await?;
        letters.retain(|letter| !awaited.contains(&workload::text(letter)));
        Ok(letters)
    }
}

/// Records of many keys; those in `poison` can never be handled.
fn record(number: usize) -> Record {
    groups::record(1, number).header("own", format!("h{number}"))
}

/// Some fail each time, one is rejected; while they are in hand, and while they wait for their
/// retries, the records of other keys are handled.
async fn by_retry(mut trial: Trial, fault: Option<Fault>) -> Judged {
    let place = Place::made(&trial).await?;
    // One without a key, one with bytes for a key, one with a text; none of the key of another.
    let turn = 8 * trial.rng.usize(0..4);
    let poison: BTreeSet<String> = [turn, turn + 1, turn + 2]
        .map(|n| workload::value(1, n))
        .into();
    let rejected = workload::value(1, turn + 3);
    let keys: BTreeSet<Option<Vec<u8>>> = (0..RECORDS)
        .map(record)
        .filter(|record| {
            let value = record
                .value_bytes()
                .map(|value| String::from_utf8_lossy(value).into_owned());
            value.is_some_and(|value| poison.contains(&value) || value == rejected)
        })
        .filter_map(|record| record.key_bytes().map(|key| Some(key.to_vec())))
        .collect();
    let subscription = place
        .join(&trial, &place.stage)
        .await
        .during("subscribing")?;
    // The first records of a stay may come one after the other.
    let first = groups::batch(3, 0, 3 * 8);
    let values = workload::offered(&first);
    place.stage.topic.append(first).await.during("appending")?;
    groups::handle(&trial, &subscription, values, |_| Ok(())).await?;
    let batch: annals_core::Batch = (0..RECORDS).map(record).collect();
    place.stage.topic.append(batch).await.during("appending")?;
    let mut handed: BTreeMap<String, u32> = BTreeMap::new();
    let mut done: BTreeSet<String> = BTreeSet::new();
    let mut hand = Vec::new();
    let free: BTreeSet<String> = (0..RECORDS)
        .map(record)
        .filter(|record| !keys.contains(&record.key_bytes().map(|key| key.to_vec())))
        .map(|record| {
            String::from_utf8_lossy(record.value_bytes().map_or(&[][..], |v| v)).into_owned()
        })
        .filter(|value| !poison.contains(value))
        .collect();
    // First the poison stays in hand: who has another key goes on.
    while !free.is_subset(&done) || hand.len() < poison.len() + 1 {
        let delivery = groups::next(&trial, &subscription)
            .await
            .during("while poison is in hand")?;
        let value = workload::text(&delivery);
        *handed.entry(value.clone()).or_default() += 1;
        if poison.contains(&value) || value == rejected {
            hand.push(delivery);
        } else {
            done.insert(value);
            delivery.done();
        }
    }
    let fired = trial.fired();
    if let Some(fault) = &fault {
        trial
            .disturb(&place.letters, Disturb::Fault(Call::Append, fault.clone()))
            .await?;
    }
    // Then it waits for its retry: so does nobody else.
    let delay = 2 * groups::lease(&trial);
    for delivery in hand {
        if workload::text(&delivery) == rejected {
            delivery.reject(REASON);
        } else {
            delivery.retry(delay);
        }
    }
    let mut fresh: BTreeSet<String> = BTreeSet::new();
    if fault.is_none() {
        for number in 100..106 {
            let value = workload::value(1, number);
            let new = Record::new(value.clone()).key(format!("fresh{number}"));
            place.stage.topic.append(new).await.during("appending")?;
            fresh.insert(value);
        }
    }
    let all: BTreeSet<String> = (0..RECORDS)
        .map(|n| workload::value(1, n))
        .chain(fresh.iter().cloned())
        .collect();
    let mut open: BTreeSet<String> = all
        .iter()
        .filter(|v| !poison.contains(*v) && **v != rejected && !done.contains(*v))
        .cloned()
        .collect();
    let limits = |times: u32| {
        // A queue's count is an upper bound: it may be handed out once more.
        times >= LIMIT
            && times <= LIMIT + u32::from(!groups::settle_up_to(place.stage.capabilities()))
    };
    while !open.is_empty()
        || !poison
            .iter()
            .all(|value| handed.get(value).is_some_and(|times| *times >= LIMIT))
    {
        let delivery = groups::next(&trial, &subscription)
            .await
            .during("while poison waits")?;
        let value = workload::text(&delivery);
        let times = handed.entry(value.clone()).or_default();
        *times += 1;
        if poison.contains(&value) {
            let waiting = fresh.iter().filter(|value| open.contains(*value)).count();
            let is_first = *times == 2 && trial.harness().time() == Time::Virtual;
            ensure(!is_first || waiting == 0, || {
                format!(
                    "{waiting} records of other keys waited for {value:?}, which was to be retried after {delay:?}"
                )
            })?;
            ensure(*times <= LIMIT + 1, || {
                format!("{value:?} was handed out {times} times, the limit is {LIMIT}")
            })?;
            delivery.retry(groups::moment(&trial));
        } else {
            ensure(value != rejected, || {
                format!("{value:?} was rejected and comes again")
            })?;
            ensure(*times == 1, || {
                format!("{value:?}, which is done, comes again")
            })?;
            open.remove(&value);
            delivery.done();
        }
    }
    let stage = trial.on(&place.stage.name).await?;
    // A record behind them: by then the letters are written.
    for key in ["k0", "k1", "k2", "k3", "k4"] {
        stage
            .topic
            .append(Record::new(format!("end-{key}")).key(key))
            .await
            .during("appending")?;
    }
    let mut ends = 0;
    while ends < 5 {
        let delivery = groups::next(&trial, &subscription)
            .await
            .during("behind the poison")?;
        let value = workload::text(&delivery);
        if value.starts_with("end-") {
            ends += 1;
            delivery.done();
        } else {
            *handed.entry(value.clone()).or_default() += 1;
            ensure(poison.contains(&value), || format!("{value:?} comes again"))?;
            delivery.retry(groups::moment(&trial));
        }
    }
    trial
        .soon("a close", subscription.close(CLOSE))
        .await?
        .during("closing")?;
    for value in &poison {
        let times = handed.get(value).copied().unwrap_or_default();
        ensure(limits(times), || {
            format!("{value:?} was handed out {times} times, the limit is {LIMIT}")
        })?;
    }
    let once = fault.is_none() || !stage.capabilities().append.dedupe.is(&Dedupe::None);
    let mut expected: BTreeMap<String, Option<&str>> =
        poison.iter().map(|value| (value.clone(), None)).collect();
    expected.insert(rejected, Some(REASON));
    let letters = judge(&trial, &place, expected, once).await?;
    Ok(Counts::new()
        .of("records handled", all.len() - 4, RECORDS - 4)
        .of("letters", letters, 4)
        .of(
            "lost answers",
            trial.fired() - fired,
            usize::from(fault.is_some()),
        ))
}

/// The letters are these, each once, and say where they are from and why they are here.
async fn judge(
    trial: &Trial,
    place: &Place,
    mut expected: BTreeMap<String, Option<&str>>,
    once: bool,
) -> Judged<usize> {
    let found = place.letters(trial).await?;
    let mut seen = BTreeSet::new();
    for letter in &found {
        let value = workload::text(letter);
        if seen.contains(&value) {
            ensure(!once, || format!("{value:?} is in the dead letters twice"))?;
            continue;
        }
        let reason = expected.remove(&value).ok_or_else(|| {
            Stop::broken(format!(
                "{value:?} is in the dead letters, and was no poison"
            ))
        })?;
        let header = |name: &str| {
            let value = letter.header(name).flatten();
            value.map(|value| String::from_utf8_lossy(value).into_owned())
        };
        let said = header(letters::REASON);
        let right = match reason {
            Some(reason) => said.as_deref() == Some(reason),
            None => said.as_ref().is_some_and(|said| !said.is_empty()),
        };
        ensure(right, || {
            format!("the letter of {value:?} gives {said:?} as its reason, not {reason:?}")
        })?;
        let (topic, group) = (header(letters::TOPIC), header(letters::GROUP));
        let from_here = topic.as_deref() == Some(place.stage.name.as_str())
            && group.as_deref() == Some(place.group.as_str());
        ensure(from_here, || {
            format!("the letter of {value:?} says it is of topic {topic:?}, group {group:?}")
        })?;
        let attempts = header(letters::ATTEMPTS).and_then(|text| text.parse::<u32>().ok());
        let least = if reason.is_some() { 1 } else { LIMIT };
        ensure(attempts.is_some_and(|attempts| attempts >= least), || {
            format!(
                "the letter of {value:?} speaks of {attempts:?} attempts, there were {least} at least"
            )
        })?;
        let number: Option<usize> = value
            .rsplit('-')
            .next()
            .and_then(|number| number.parse().ok());
        let own = number.map(record);
        let key = own
            .as_ref()
            .and_then(Record::key_bytes)
            .map(|key| key.to_vec());
        ensure(letter.key().map(<[u8]>::to_vec) == key, || {
            format!(
                "the letter of {value:?} has the key {:?}, not {key:?}",
                letter.key()
            )
        })?;
        ensure(
            header("own") == number.map(|number| format!("h{number}")),
            || format!("the letter of {value:?} lost the record's own header"),
        )?;
        seen.insert(value);
    }
    ensure(expected.is_empty(), || {
        format!(
            "{:?} failed too often and are in no dead letter",
            expected.keys().collect::<Vec<_>>()
        )
    })?;
    Ok(found.len())
}

/// One record ends its process whenever it is handed out. Where commits carry attempts it is found
/// so, and those beside it are not taken for it; a queue hands it out once more, and it fails then.
async fn by_crash(mut trial: Trial) -> Judged {
    let place = Place::made(&trial).await?;
    let batch: annals_core::Batch = (0..RECORDS / 2).map(record).collect();
    let poison = workload::value(1, trial.rng.usize(0..RECORDS / 2));
    place.stage.topic.append(batch).await.during("appending")?;
    let survives = matches!(
        place.stage.capabilities().groups.attempts.known(),
        Some(Attempts::Handed | Attempts::Taken)
    );
    if !survives {
        return Err(Stop::NotExercised("attempts do not survive a crash".into()));
    }
    let found = groups::settle_up_to(place.stage.capabilities());
    let everything: BTreeSet<String> = (0..RECORDS / 2).map(|n| workload::value(1, n)).collect();
    let (mut handled, mut crashes) = (BTreeSet::new(), 0);
    let name = place.stage.name.clone();
    for life in 0.. {
        ensure(life < 12, || {
            format!("{poison:?} ended its process {crashes} times and is no dead letter")
        })?;
        let stage = trial.on(&name).await?;
        let subscription = place.join(&trial, &stage).await.during("subscribing")?;
        let mut alive = true;
        // Until all is handled, and the letter stands: a record behind the poison tells.
        let marker = format!("life-{life}");
        stage
            .topic
            .append(Record::new(marker.clone()))
            .await
            .during("appending")?;
        let (mut marked, mut failed) = (false, found);
        while alive && !(marked && failed && handled.len() + 1 == everything.len()) {
            let delivery = groups::next(&trial, &subscription)
                .await
                .during("in a life")?;
            let value = workload::text(&delivery);
            if value == poison && (found || crashes < LIMIT) {
                alive = false;
                crashes += 1;
                trial.disturb(&name, Disturb::Kill).await?;
                drop(delivery);
            } else if value == poison {
                failed = true;
                delivery.retry(groups::moment(&trial));
            } else {
                marked |= value == marker;
                if everything.contains(&value) {
                    handled.insert(value);
                }
                delivery.done();
            }
        }
        if !alive {
            continue;
        }
        // Whoever is over its limit is buried while the member goes.
        let end = trial.clock().elapsed() + 4 * groups::lease(&trial);
        while trial.clock().elapsed() < end {
            match groups::perhaps(&subscription, 3 * groups::lease(&trial)).await? {
                Ok(delivery) if workload::text(&delivery) == poison && found => {
                    alive = false;
                    crashes += 1;
                    trial.disturb(&name, Disturb::Kill).await?;
                    drop(delivery);
                    break;
                }
                Ok(delivery) if workload::text(&delivery) == poison => {
                    delivery.retry(groups::moment(&trial));
                }
                Ok(delivery) => delivery.done(),
                Err(_) => break,
            }
        }
        if alive {
            trial
                .soon("a close", subscription.close(CLOSE))
                .await?
                .during("closing")?;
            break;
        }
    }
    let expected = BTreeMap::from([(poison, None)]);
    let letters = judge(&trial, &place, expected, true).await?;
    let crashes = usize::try_from(crashes).unwrap_or(usize::MAX);
    Ok(Counts::new()
        .of("records handled", handled.len(), RECORDS / 2 - 1)
        .of("crashes", crashes, 1)
        .of("letters", letters, 1))
}

/// Where no attempts are counted, a limit to them is refused.
async fn refused(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::default()).await?;
    let letters = trial.stage(&Want::default()).await?;
    let told = stage
        .topic
        .subscribe(GROUP)
        .max_attempts(LIMIT)
        .dead_letters(letters.name.as_str())
        .await;
    let kind = told.err().map(|error| error.kind());
    ensure(kind == Some(ErrorKind::Unsupported), || {
        format!("a limit that cannot be counted is answered with {kind:?}, not refused")
    })?;
    Ok(Counts::new().of("refusals", 1, 1))
}
