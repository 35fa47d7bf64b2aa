//! *Truthful*: every value that is read or delivered was offered.

use std::collections::BTreeSet;
use std::time::Duration;

use annals_core::capability::ByKey;
use annals_core::{Batch, Delivery, ErrorKind, Record, Recorded, Until};

use super::{ANY, Law, Shape};
use crate::harness::{Call, Disturb, Fault, Want};
use crate::trial::{During, Judged, Stage, Stop, Trial, read_out};
use crate::verdict::Counts;
use crate::workload;
use crate::workload::readings::{self, ROOMS};

const GROUP: &str = "truthful";
/// Markers at the end, with keys of their own, until one of which nothing foreign may come.
const MARKERS: usize = 20;

/// What an aggregate of the Kinesis producer library holds: one record, `inner`, of the key `k`.
const AGGREGATE: &[u8] = b"\xf3\x89\x9a\xc2\x0a\x01k\x1a\x09\x08\x00\x1a\x05inner";
/// The digest that makes it a whole one.
const DIGEST: &[u8] = b"<\xe2\xa7\xd8\xcc\xf7\xd6\xa5fk\x16$\x10\xc2\xe4\xfc";

pub(crate) fn law() -> Law {
    Law::new(
        "truthful",
        "every value that is read or delivered was offered",
        ANY,
    )
    .case("what comes was offered", plain)
    .case("what looks like something else is left alone", lookalikes)
    .case("values of every length come whole", lengths)
    .fault("after a kill in mid-batch", killed)
    .fault("after refusals and lost answers", refused)
}

/// What a value may be mistaken for.
fn looks() -> Vec<Vec<u8>> {
    let mut looks: Vec<Vec<u8>> = [
        AGGREGATE,
        b"\xf3\x89\x9a\xc2",
        b"\0\0\0\0",
        b"\0\0\0\x01\0\0\0\0",
        br#"{"Type":"Notification","MessageId":"1","TopicArn":"arn:aws:sns:x:1:t","Message":"inner"}"#,
        br#"{"Records":[{"kinesis":{"data":"aW5uZXI="}},{"body":"inner"}]}"#,
        br#"{"specversion":"1.0","type":"t","source":"s","id":"1","data":"inner"}"#,
        br#"["inner","outer"]"#,
        br#"{"value":"inner"}"#,
        b"aW5uZXI=",
        b"inner\nouter\n",
        b"inner\r\nouter",
        b" inner ",
        b"inner\0outer",
        b"\xef\xbb\xbfinner",
        b"\xff\xfei\0n\0",
        b"\xc3\x28\xff",
        b"\x1f\x8b\x08\0\0\0\0\0\0\x03",
        b"\x28\xb5\x2f\xfd\x04\x58",
        b"\x0a\x05inner\x12\x05outer",
        b"%69nner",
        b"inner%00",
        b"null",
        b"",
    ]
    .map(<[u8]>::to_vec)
    .to_vec();
    looks.push([AGGREGATE, DIGEST].concat());
    looks.push([AGGREGATE, &[7; 16]].concat());
    looks
}

async fn plain(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::groups(&[GROUP])?).await?;
    let batch: Batch = readings::varied(1, 0, trial.size(50)).into_iter().collect();
    let mut offered = Offered::default();
    offered.add_all(&batch);
    match stage.topic.append(batch).await {
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            let batch = workload::batch(2, 0, trial.size(50), 7);
            offered.add_all(&batch);
            stage.topic.append(batch).await.during("appending")?;
        }
        told => drop(told.during("appending")?),
    }
    offered.only_these(&trial, &stage, 50).await
}

async fn lookalikes(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::groups(&[GROUP])?).await?;
    let mut offered = Offered::default();
    let mut taken = 0;
    for (number, value) in looks().into_iter().enumerate() {
        let record = Record::new(value).key(format!("k{}", number % 5));
        let batch: Batch = [record].into_iter().collect();
        offered.add_all(&batch);
        match stage.topic.append(batch).await {
            Ok(_) => taken += 1,
            // What it cannot carry as it is it refuses.
            Err(error) if error.kind() == ErrorKind::Unsupported => {}
            Err(error) => return Err(error).during("appending"),
        }
    }
    let counts = offered.only_these(&trial, &stage, taken).await?;
    Ok(counts.of("values that look like something else", taken, 12))
}

async fn lengths(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::groups(&[GROUP])?).await?;
    let limits = &stage.capabilities().limits;
    let most = limits.record_bytes.known().copied().flatten();
    let most = most.map_or(usize::MAX, |most| {
        usize::try_from(most).unwrap_or(usize::MAX)
    });
    let mut offered = Offered::default();
    let mut taken = 0;
    for edge in [1_usize, 64, 128, 256, 1_024, 4_096, 32_768, 65_536, 131_072] {
        for length in [edge - 1, edge, edge + 1] {
            // Room for a key and what belongs to it.
            if length.saturating_add(1_024) > most {
                continue;
            }
            let value: Vec<u8> = (0..length).map(|at| pattern(length, at)).collect();
            let batch: Batch = [Record::new(value).key("k")].into_iter().collect();
            offered.add_all(&batch);
            match stage.topic.append(batch).await {
                Ok(_) => taken += 1,
                // Empty ones only.
                Err(error) if length == 0 && error.kind() == ErrorKind::Unsupported => {}
                Err(error) => return Err(error).during("appending"),
            }
        }
    }
    let counts = offered.only_these(&trial, &stage, taken).await?;
    Ok(counts.of("values of other lengths", taken, 10))
}

/// No part of it stands for another one.
fn pattern(length: usize, at: usize) -> u8 {
    u8::try_from((length * 31 + at * 7 + at / 251) % 251).unwrap_or(0)
}

async fn killed(mut trial: Trial) -> Judged {
    let stage = trial.stage(&Want::groups(&[GROUP])?).await?;
    let mut offered = Offered::default();
    let mut number = 0;
    let rounds = 3;
    let mut stage = stage;
    for _ in 0..rounds {
        let batch = workload::batch(1, number, 10 + trial.rng.usize(0..20), 7);
        number += batch.len();
        offered.add_all(&batch);
        stage.topic.append(batch).await.during("appending")?;
        // Polled once, so that it is on its way, and never again.
        let batch = workload::batch(1, number, 10, 7);
        number += batch.len();
        offered.add_all(&batch);
        let mut parting = Box::pin(stage.topic.append(batch).into_future());
        std::future::poll_fn(|cx| {
            let _ = parting.as_mut().poll(cx);
            std::task::Poll::Ready(())
        })
        .await;
        trial.disturb(&stage.name, Disturb::Kill).await?;
        drop(parting);
        stage = trial.on(&stage.name).await?;
    }
    offered.only_these(&trial, &stage, 30).await
}

async fn refused(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::groups(&[GROUP])?).await?;
    let mut offered = Offered::default();
    let before = trial.fired();
    for (number, fault) in [
        Fault::Refuse(vec![0, 2, 3]),
        Fault::Lose { done: false },
        Fault::Lose { done: true },
        Fault::Disconnect,
    ]
    .into_iter()
    .enumerate()
    {
        let fault = Disturb::Fault(Call::Append, fault);
        trial.disturb(&stage.name, fault).await?;
        let batch = workload::batch(1, number * 10, 10, 7);
        offered.add_all(&batch);
        // Whatever became of it, it was offered.
        drop(stage.topic.append(batch).await);
    }
    let batch = workload::batch(2, 0, 50, 7);
    offered.add_all(&batch);
    stage.topic.append(batch).await.during("appending")?;
    let fired = trial.fired() - before;
    trial.disturb(&stage.name, Disturb::Heal).await?;
    let counts = offered.only_these(&trial, &stage, 50).await?;
    Ok(counts.of("failures", fired, 4))
}

/// What was offered.
#[derive(Default)]
struct Offered(BTreeSet<Vec<u8>>);

impl Offered {
    fn add_all(&mut self, batch: &Batch) {
        for record in batch.records() {
            self.0.insert(
                record
                    .value_bytes()
                    .map_or_else(Vec::new, |value| value.to_vec()),
            );
        }
    }

    fn holds(&self, by: &str, records: &[Recorded]) -> Judged<()> {
        match records.iter().find(|r| !self.0.contains(r.value())) {
            None => Ok(()),
            Some(foreign) => Err(Stop::broken(format!(
                "{by}: a record came that nobody appended: {}",
                readings::print(foreign)
            ))),
        }
    }

    /// Looks at all that there is to see: by replay and by a group, through core and below it.
    async fn only_these(mut self, trial: &Trial, stage: &Stage, least: usize) -> Judged {
        let markers = workload::batch(99, 0, MARKERS, MARKERS);
        self.add_all(&markers);
        let awaited = workload::offered(&markers);
        stage
            .topic
            .append(markers)
            .await
            .during("appending the markers")?;
        let other = trial.on(&stage.name).await?;
        let mut seen = 0;
        if Shape::of(stage.capabilities()) != Shape::Queue {
            for stage in [stage, &other] {
                let read = stage.read_all().await?;
                self.holds("by a replay", &read)?;
                seen = read.len();
            }
            let from = stage.read(readings::first(stage), Until::End).await?;
            let end = from.cursor.filter(|_| has_after(stage));
            if let Some(end) = end {
                let start = annals_core::Cursor::start(end.origin().clone());
                let bound = annals_core::driver::Stop::Through(end);
                for rooms in [ROOMS.first(), ROOMS.get(4)].into_iter().flatten() {
                    let read = readings::read_raw(trial, stage, &start, &bound, rooms).await?;
                    self.holds("below core", &read)?;
                }
            }
            if stage.capabilities().by_key.is(&ByKey::Indexed) {
                for key in ["k", "k1", "key-22"] {
                    let replay = stage.topic.replay(readings::first(stage)).key(key);
                    let replay = replay.await.during("opening a replay of a key")?;
                    self.holds("by its key", &read_out(replay).await?.records)?;
                }
            }
        }
        let groups = stage.capabilities().groups.names.known();
        if groups.is_some_and(|names| *names != annals_core::capability::GroupNames::None) {
            let taken = self.delivered(trial, &other, &awaited).await?;
            self.holds("by a group", &taken)?;
            seen = seen.max(taken.len());
        }
        Ok(Counts::new().of("values offered", self.0.len(), least).of(
            "records seen",
            seen,
            least.min(MARKERS),
        ))
    }

    /// What a group is handed until all markers have come; one is given back first, to see it
    /// come again as it was.
    async fn delivered(
        &self,
        trial: &Trial,
        stage: &Stage,
        awaited: &[String],
    ) -> Judged<Vec<Recorded>> {
        let subscription = stage.topic.subscribe(GROUP).await.during("subscribing")?;
        let mut taken = Vec::new();
        if let Some(first) = trial
            .soon("a delivery", subscription.next())
            .await?
            .during("receiving")?
        {
            taken.push(first.record().detach());
            Delivery::retry(first, Duration::ZERO);
        }
        taken.extend(workload::drain(trial, &subscription, awaited).await?);
        subscription
            .close(Duration::from_secs(5))
            .await
            .during("closing the subscription")?;
        Ok(taken)
    }
}

fn has_after(stage: &Stage) -> bool {
    let starts = stage.capabilities().starts.known();
    starts.is_some_and(|starts| starts.after && starts.beginning)
}
