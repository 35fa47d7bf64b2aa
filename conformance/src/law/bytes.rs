//! *Bytes*: a record survives whole, or is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use annals_core::capability::Claim;
use annals_core::driver::AppendOptions;
use annals_core::{
    Batch, Effect, Error, ErrorKind, Key, Outcome, Record, Recorded, Timestamp, Value,
};

use super::{ANY, Law};
use crate::harness::{Disturb, Want};
use crate::history::order;
use crate::trial::{During, Judged, Stage, Stop, Trial, ensure};
use crate::verdict::Counts;
use crate::workload::sights::{self, Sight};

const GROUP: &str = "bytes";
/// Larger records than this are not made.
const LARGE: u64 = 2 << 20;

pub(crate) fn law() -> Law {
    Law::new(
        "bytes",
        "the whole record survives, whatever bytes and nulls it has, or it is refused with no effect",
        ANY,
    )
    .case("values and keys of every kind", |trial| of(trial, values_and_keys()))
    .case("headers of every kind", |trial| of(trial, headers()))
    .case("ids and timestamps of every kind", |trial| of(trial, ids_and_times()))
    .case("of every length", |trial| of(trial, lengths()))
    .case("all kinds in one request", together)
    .case("at the limits and one beyond", limits)
    .fault("after a restart", |trial| {
        disturbed(trial, Disturb::Restart)
    })
    .fault("after a kill", |trial| disturbed(trial, Disturb::Kill))
}

/// A record as one line, with its long fields beside it: equal where all of it is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Whole {
    line: String,
    long: Vec<Vec<u8>>,
}

fn whole(
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    id: Option<&[u8]>,
    headers: &[(String, Option<Vec<u8>>)],
    time: Option<Timestamp>,
) -> Whole {
    let mut long = Vec::new();
    let mut show = |bytes: Option<&[u8]>| match bytes {
        None => "null".to_owned(),
        Some(bytes) if bytes.len() > 60 => {
            long.push(bytes.to_vec());
            let head = bytes.get(..20).unwrap_or_default().escape_ascii();
            format!("\"{head}…\" ({})", bytes.len())
        }
        Some(bytes) => format!("\"{}\"", bytes.escape_ascii()),
    };
    let mut line = format!("key {} value {} id {}", show(key), show(value), show(id));
    for (name, value) in headers {
        let name = show(Some(name.as_bytes()));
        let _ = write!(line, " header {name} {}", show(value.as_deref()));
    }
    if let Some(time) = time {
        let _ = write!(line, " at {}", time.as_millis());
    }
    Whole { line, long }
}

fn owned(headers: annals_core::headers::HeaderIter<'_>) -> Vec<(String, Option<Vec<u8>>)> {
    let mut headers: Vec<_> = headers
        .map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec)))
        .collect();
    // Those of different names come in the service's order.
    headers.sort_by(|one, other| one.0.cmp(&other.0));
    headers
}

fn offered(record: &Record) -> Whole {
    whole(
        record.key_bytes().map(|key| &**key),
        record.value_bytes().map(|value| &**value),
        record.id_bytes().map(|id| &**id),
        &owned(record.header_list().iter()),
        record.written_at(),
    )
}

/// `timed`: whether its writer set a time; else it may have the service's.
fn seen(record: &Recorded, timed: bool) -> Whole {
    let value = (!record.is_tombstone()).then(|| record.value());
    whole(
        record.key(),
        value,
        record.id(),
        &owned(record.headers()),
        record.timestamp().filter(|_| timed),
    )
}

/// What was taken and what was refused.
#[derive(Default)]
struct Told {
    taken: Vec<Record>,
    refused: Vec<Record>,
}

impl Told {
    /// It is stored, or refused with no effect.
    fn note(&mut self, record: &Record, told: Result<(), Error>) -> Judged<()> {
        match told {
            Ok(()) => self.taken.push(record.clone()),
            Err(error)
                if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::TooLarge)
                    && error.effect() == Effect::None =>
            {
                self.refused.push(record.clone());
            }
            Err(error) => {
                return Err(Stop::broken(format!(
                    "{} is answered with {error:?}; a record is stored, or Unsupported or TooLarge with no effect",
                    offered(record).line
                )));
            }
        }
        Ok(())
    }

    async fn append(&mut self, stage: &Stage, record: Record) -> Judged<()> {
        let told = stage.topic.append(record.clone()).await;
        self.note(&record, told.map(drop).map_err(Into::into))
    }

    async fn attempt(&mut self, stage: &Stage, record: Record) -> Judged<()> {
        let batch = Batch::from(record.clone());
        let told = stage
            .backend
            .append(&stage.name, &batch, &AppendOptions::default())
            .await;
        let told = told.and_then(|report| match report.into_outcomes().pop() {
            Some(Outcome::Rejected(error) | Outcome::Unknown(error)) => Err(error),
            Some(Outcome::NotAttempted) => Err(Error::unsupported("not attempted")),
            Some(Outcome::Stored(_)) | None => Ok(()),
        });
        self.note(&record, told)
    }

    /// Each record that was taken came as it was, and nothing else.
    fn survives(&self, sight: &Sight) -> Judged<()> {
        let by = sight.by;
        // Those whose writer set no time may have the service's.
        let mut open: BTreeMap<(bool, Whole), usize> = BTreeMap::new();
        for record in &self.taken {
            let timed = record.written_at().is_some();
            *open.entry((timed, offered(record))).or_default() += 1;
        }
        let mut strange = Vec::new();
        let mut came = BTreeSet::new();
        for record in &sight.records {
            let place = record.position().map(|position| order(&position));
            if place.is_some_and(|place| !came.insert(place)) {
                continue;
            }
            let found = [true, false].into_iter().find_map(|timed| {
                let key = (timed, seen(record, timed));
                let left = open.get_mut(&key).filter(|left| **left > 0)?;
                *left -= 1;
                Some(())
            });
            if found.is_none() {
                strange.push(seen(record, true).line);
            }
        }
        open.retain(|_, left| *left > 0);
        let refused: Vec<String> = self.refused.iter().map(|r| offered(r).line).collect();
        if let Some(((_, gone), _)) = open.first_key_value() {
            return Err(Stop::broken(format!(
                "{by}: of {} records {} did not come as they were appended; missing is {}; what came and was never appended so: {:?}",
                self.taken.len(),
                open.len(),
                gone.line,
                strange.first()
            )));
        }
        ensure(strange.is_empty(), || {
            format!(
                "{by}: {:?} came, and is none of what was taken; {} were refused, among them {:?}",
                strange.first(),
                refused.len(),
                refused.first()
            )
        })
    }

    async fn judged(&self, trial: &Trial, stage: &Stage, least: usize) -> Judged {
        for sight in sights::all(trial, stage, GROUP, &self.keys(), 0).await? {
            self.survives(&sight)?;
        }
        Ok(Counts::new()
            .of("records that survived", self.taken.len(), least)
            .of("records refused", self.refused.len(), 0))
    }

    /// The keys that were taken and leave room for a marker behind each.
    fn keys(&self) -> Vec<Key> {
        let mut keys: Vec<_> = self.taken.iter().filter_map(Record::key_bytes).collect();
        keys.retain(|key| key.len() <= 2_048);
        keys.sort();
        keys.dedup();
        keys.into_iter().map(|key| Key::from(key.clone())).collect()
    }
}

fn blobs() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = [
        &b""[..],
        b"a",
        b"\0",
        b"a\0b",
        b"\xff",
        b"\xff\x00\xfe",
        b"\xc3\x28",
        "grün ключ 鍵 🔑".as_bytes(),
        b" ",
        b"\n",
        b" a ",
        b"\"quoted\\\"",
        b"<&>;,=",
        b"%41",
        b"YQ==",
        b"null",
        b"0",
        b"{}",
    ]
    .map(<[u8]>::to_vec)
    .to_vec();
    all.push((0..=255).collect());
    all
}

fn values_and_keys() -> Vec<Record> {
    let mut all = Vec::new();
    for (number, blob) in blobs().into_iter().enumerate() {
        all.push(Record::new(blob.clone()));
        all.push(Record::new(blob.clone()).key("key"));
        // The value tells one from another.
        all.push(Record::new(format!("of key {number}")).key(blob.clone()));
        all.push(Record::new(Value::NULL).key(blob.clone()));
        all.push(Record::new(blob.clone()).key(blob));
    }
    all.push(Record::new(Value::NULL));
    all
}

fn headers() -> Vec<Record> {
    let mut all = Vec::new();
    let record = || Record::new("value").key("key");
    for blob in blobs() {
        all.push(record().header("name", blob.clone()));
        all.push(
            record()
                .header("name", blob.clone())
                .header("name", blob.clone()),
        );
        all.push(record().header("one", blob.clone()).header("two", "2"));
        if let Ok(name) = String::from_utf8(blob) {
            all.push(record().header(name, "value"));
        }
    }
    all.push(record().header("name", Value::NULL));
    all.push(record().header("name", Value::NULL).header("name", ""));
    all.push(
        record()
            .header("name", "2")
            .header("name", "1")
            .header("name", "2"),
    );
    all.push(
        record()
            .header("name", "1")
            .header("Name", "2")
            .header("NAME", "3"),
    );
    all.push(record().header("a", "1").header("b", "2").header("a", "3"));
    all.push(Record::new(Value::NULL).header("name", "value"));
    all.push(Record::new("").header("name", ""));
    // Names that services use themselves.
    for name in [
        "content-type",
        "id",
        "key",
        "timestamp",
        "x-death",
        "partition",
        "annals-id",
        "annals-key",
        "annals",
        "traceparent",
    ] {
        all.push(record().header(name, "mine"));
    }
    for many in [5, 10, 11, 40, 300] {
        let all_of_them = (0..many).fold(record(), |record, number| {
            record.header(format!("name-{number:03}"), format!("{number}"))
        });
        all.push(all_of_them);
    }
    all
}

fn ids_and_times() -> Vec<Record> {
    let mut all = Vec::new();
    for (number, blob) in blobs().into_iter().enumerate() {
        let record = Record::new(format!("of id {number}"));
        all.push(record.clone().id(blob.clone()));
        // Another id by one byte.
        let longer = [&blob[..], b"+key"].concat();
        all.push(record.key("key").id(longer));
    }
    for (number, millis) in [
        0,
        1,
        -1,
        999,
        1_000,
        1_001,
        1_700_000_000_123,
        253_402_300_799_999,
        -62_135_596_800_000,
        i64::from(i32::MAX),
        i64::from(u32::MAX) + 1,
        i64::MAX,
        i64::MIN,
        i64::MAX / 1_000,
    ]
    .into_iter()
    .enumerate()
    {
        let record = Record::new(format!("at {number}")).timestamp(Timestamp::from_millis(millis));
        all.push(record.clone());
        all.push(
            record
                .key("key")
                .header("name", "value")
                .id(format!("timed {number}")),
        );
    }
    all
}

fn lengths() -> Vec<Record> {
    let mut all = Vec::new();
    let pattern = |length: usize| -> Vec<u8> {
        let byte = |at: usize| u8::try_from((at * 7 + at / 251 + length) % 256).unwrap_or(0);
        (0..length).map(byte).collect()
    };
    for edge in [16, 64, 128, 256, 1_024, 4_096, 65_536] {
        for length in [edge - 1, edge, edge + 1] {
            all.push(Record::new(pattern(length)));
            if length < 60_000 {
                all.push(Record::new("header").header("long", pattern(length)));
            }
            if length <= 1_025 {
                all.push(Record::new(format!("key {length}")).key(pattern(length)));
                all.push(Record::new(format!("id {length}")).id(pattern(length)));
                all.push(Record::new("name").header("n".repeat(length), "value"));
            }
        }
    }
    all
}

async fn of(trial: Trial, records: Vec<Record>) -> Judged {
    let stage = trial.stage(&Want::groups(&[GROUP])?).await?;
    let other = trial.on(&stage.name).await?;
    let mut told = Told::default();
    let all = records.len();
    for (number, record) in records.into_iter().enumerate() {
        let by = if number % 3 == 0 { &other } else { &stage };
        // Where a repeated id is recognised each must be its own.
        let record = match record.id_bytes() {
            None if number % 5 == 0 => record.id(format!("number {number}")),
            _ => record,
        };
        if number % 2 == 0 {
            told.append(by, record).await?;
        } else {
            told.attempt(by, record).await?;
        }
    }
    told.judged(&trial, &stage, all / 4).await
}

async fn together(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::groups(&[GROUP])?).await?;
    let mut told = Told::default();
    let all = [values_and_keys(), headers(), ids_and_times()].concat();
    // Which of them are taken is found by themselves, in another topic.
    let alone = trial.stage(&Want::groups(&[GROUP])?).await?;
    let mut taken = Told::default();
    for record in all.iter().cloned() {
        taken.append(&alone, record).await?;
    }
    for records in [
        taken.taken.clone(),
        taken.taken.iter().rev().cloned().collect(),
    ] {
        // Ids only once.
        let records: Vec<Record> = records
            .into_iter()
            .filter(|record| record.id_bytes().is_none() || told.taken.is_empty())
            .collect();
        let appended = stage.topic.append(records.clone()).await;
        let appended = appended.during("appending together what was taken alone")?;
        ensure(appended.records().len() == records.len(), || {
            format!(
                "{} receipts for {}",
                appended.records().len(),
                records.len()
            )
        })?;
        told.taken.extend(records);
    }
    told.judged(&trial, &stage, all.len() / 2).await
}

fn limit(claim: &Claim<Option<u64>>) -> Option<usize> {
    let limit = claim.known().copied().flatten();
    let limit = limit.filter(|limit| *limit <= LARGE)?;
    usize::try_from(limit).ok()
}

/// A record of exactly so many bytes, all but a few in one field; `None` where it has no room.
fn of_bytes(field: &str, bytes: usize, number: usize) -> Option<Record> {
    let tag = format!("{number} ");
    let fill = |n: usize| "é".repeat(n / 2) + if n % 2 == 1 { "x" } else { "" };
    let record = Record::new(tag.clone());
    let with = |n: usize| match field {
        "value" => Record::new(format!("{tag}{}", fill(n))),
        "key" => record.clone().key(fill(n)),
        "id" => record.clone().id(fill(n)),
        _ => record.clone().header("h", fill(n)),
    };
    let over = with(0).len_bytes();
    let record = with(bytes.checked_sub(over)?);
    (record.len_bytes() == bytes).then_some(record)
}

async fn limits(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::groups(&[GROUP])?).await?;
    let other = trial.on(&stage.name).await?;
    let limits = stage.capabilities().limits;
    let mut told = Told::default();
    let mut number = 0;
    let mut tried = 0;
    if let Some(most) = limit(&limits.record_bytes) {
        for field in ["value", "key", "id", "header"] {
            for (length, fits) in [(most, true), (most + 1, false)] {
                for raw in [false, true] {
                    number += 1;
                    let Some(record) = of_bytes(field, length, number) else {
                        continue;
                    };
                    let before = told.taken.len();
                    if raw {
                        told.attempt(&other, record).await?;
                    } else {
                        told.append(&stage, record).await?;
                    }
                    let taken = told.taken.len() > before;
                    // A key or id may have a limit of its own.
                    ensure(
                        taken == fits || (fits && matches!(field, "key" | "id")),
                        || {
                            format!(
                                "a record of {length} bytes, all but a few of its {field}, was {}, limits.record_bytes is {most}",
                                if taken { "taken" } else { "refused" }
                            )
                        },
                    )?;
                    tried += 1;
                }
            }
        }
    }
    if let Some(most) = limit(&limits.key_bytes) {
        for (length, fits) in [(most, true), (most + 1, false)] {
            for raw in [false, true] {
                // In bytes, not in characters.
                let key = "é".repeat(length / 2) + if length % 2 == 1 { "x" } else { "" };
                number += 1;
                let record = Record::new(format!("{number}")).key(key);
                let before = told.taken.len();
                if raw {
                    told.attempt(&other, record).await?;
                } else {
                    told.append(&stage, record).await?;
                }
                ensure((told.taken.len() > before) == fits, || {
                    format!("a key of {length} bytes meets limits.key_bytes of {most} wrongly")
                })?;
                tried += 1;
            }
        }
    }
    let headers = limits.headers.known().copied().flatten();
    let headers = headers.and_then(|most| usize::try_from(most).ok());
    if let Some(most) = headers.filter(|most| *most <= 10_000) {
        for (count, fits) in [(most, true), (most + 1, false)] {
            number += 1;
            let record = Record::new(format!("{number}"));
            let record = (0..count).fold(record, |record, at| record.header(format!("h{at}"), "v"));
            let before = told.taken.len();
            told.append(&stage, record).await?;
            ensure((told.taken.len() > before) == fits, || {
                format!("{count} headers meet limits.headers of {most} wrongly")
            })?;
            tried += 1;
        }
    }
    if let Some(most) = limit(&limits.batch_records).filter(|n| *n <= 10_000) {
        for (count, fits) in [(most, true), (most + 1, false)] {
            let records: Vec<Record> = (0..count)
                .map(|at| Record::new(format!("batch {count} {at}")))
                .collect();
            let batch = Batch::new(records.clone());
            let options = AppendOptions::default();
            let answer = stage.backend.append(&stage.name, &batch, &options).await;
            let outcomes =
                answer.map_or_else(|_| Vec::new(), annals_core::AppendReport::into_outcomes);
            let stored = outcomes.iter().filter(|o| o.stored().is_some()).count();
            ensure((stored == count) == fits && (fits || stored == 0), || {
                format!(
                    "of a request of {count} records {stored} were stored, limits.batch_records is {most}"
                )
            })?;
            if fits {
                told.taken.extend(records);
            }
            tried += 1;
        }
    }
    // The longest name that a header can have, and one that is longer.
    for (length, fits) in [
        (annals_core::headers::MAX_HEADER_NAME, None),
        (annals_core::headers::MAX_HEADER_NAME + 1, Some(false)),
    ] {
        number += 1;
        let record = Record::new(format!("{number}")).header("n".repeat(length), "v");
        let before = told.taken.len();
        told.append(&stage, record).await?;
        let taken = told.taken.len() > before;
        ensure(fits.is_none_or(|fits| fits == taken), || {
            format!("a header's name of {length} bytes was taken")
        })?;
        tried += 1;
    }
    let counts = told.judged(&trial, &stage, 0).await?;
    Ok(counts.of("records at limits", tried, 2))
}

async fn disturbed(trial: Trial, what: Disturb) -> Judged {
    let stage = trial.stage(&Want::groups(&[GROUP])?).await?;
    let mut told = Told::default();
    let all = [values_and_keys(), headers(), ids_and_times()].concat();
    let least = all.len() / 4;
    for record in all {
        told.append(&stage, record).await?;
    }
    trial.disturb(&stage.name, what).await?;
    let stage = trial.on(&stage.name).await?;
    told.judged(&trial, &stage, least).await
}
