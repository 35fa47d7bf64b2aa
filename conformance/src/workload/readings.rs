//! Readings of a topic by partition, through core and raw, and how two of them differ.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use annals_core::capability::{Partitions, Replay as Kept};
use annals_core::driver::{Budget, Fetched, Partition, ReadRange, Reader, Room, Stop as Bound};
use annals_core::{
    Cursor, ErrorKind, Frontier, Origin, PartitionId, Record, Recorded, Rest, Start, Timestamp,
    TopicName,
};
use bytes::Bytes;
use std::sync::Arc;

use crate::trial::{During, Judged, Stage, Stop, Trial, ensure};
use crate::verdict::Counts;
use crate::workload;
use crate::workload::polls::Drops;

/// Rooms of every kind: one record, a few, a page, one byte, none.
pub const ROOMS: &[&[Room]] = &[
    &[room(1, usize::MAX)],
    &[room(7, usize::MAX)],
    &[room(1_000, usize::MAX)],
    &[room(usize::MAX, 1)],
    &[room(usize::MAX, 100), Room::NONE, room(2, 64)],
];

/// Rooms for more records than any page holds, where one record at a time would take long.
pub const PAGES: &[&[Room]] = &[
    &[room(100, usize::MAX)],
    &[room(1_000, usize::MAX), room(13, usize::MAX)],
];

/// So many fetches of one reading that it will never end.
const ENDLESS: usize = 100_000;
/// So many failures in a row that it will never heal.
const HOPELESS: usize = 50;

/// Room for so many records and bytes.
pub const fn room(records: usize, bytes: usize) -> Room {
    Room { records, bytes }
}

/// Records of many kinds: with keys that are text, bytes or none, with headers, ids and
/// timestamps that go back and forth, small and larger. Each value is its own.
pub fn varied(writer: u32, from: usize, records: usize) -> Vec<Record> {
    (from..from + records)
        .map(|number| {
            let mut value = workload::value(writer, number);
            if number % 11 == 3 {
                value.push_str(&"x".repeat(120));
            }
            let record = Record::new(value);
            let record = match number % 5 {
                0 => record,
                1 => record.key([0xff, 0x00, u8::try_from(number % 61).unwrap_or(0)]),
                _ => record.key(format!("key-{}", number % 97)),
            };
            match number % 4 {
                1 => record.header("kind", "first").header("kind", "second"),
                2 => record.id(format!("id-{writer}-{number}")),
                3 => {
                    let back = i64::try_from(number % 7).unwrap_or(0) * 1_000;
                    record.timestamp(Timestamp::from_millis(5_000_000 - back))
                }
                _ => record,
            }
        })
        .collect()
}

/// Appends records of many kinds, or plain ones to a backend that refuses some of these.
///
/// # Errors
/// What the backend says.
pub async fn append_varied(
    stage: &Stage,
    writer: u32,
    from: usize,
    records: usize,
) -> Judged<Vec<String>> {
    let batch = varied(writer, from, records)
        .into_iter()
        .collect::<annals_core::Batch>();
    let offered = workload::offered(&batch);
    match stage.topic.append(batch).await {
        Ok(_) => return Ok(offered),
        Err(error) if error.kind() == ErrorKind::Unsupported => {}
        Err(error) => return Err(error).during("appending records of many kinds"),
    }
    let batch = workload::batch(writer, from, records, 5);
    let offered = workload::offered(&batch);
    stage.topic.append(batch).await.during("appending")?;
    Ok(offered)
}

/// The start of everything that was ever appended, where nothing was trimmed.
pub fn first(stage: &Stage) -> Start {
    let starts = stage.capabilities().starts.known().copied();
    if starts.is_some_and(|starts| starts.beginning) {
        Start::Beginning
    } else {
        Start::Earliest
    }
}

/// All that can be told of a record, as one line.
pub fn print(record: &Recorded) -> String {
    let mut value = record.value().escape_ascii().to_string();
    if value.len() > 40 {
        let end = value.len();
        value = format!("{}… ({end})", value.get(..40).unwrap_or_default());
    }
    let mut line = record.position().map_or_else(
        || format!("nowhere {value:?}"),
        |position| format!("{position} {value:?}"),
    );
    let mut add = |what: &str, is: Option<String>| {
        if let Some(is) = is {
            line = format!("{line} {what} {is}");
        }
    };
    let escaped = |bytes: &[u8]| bytes.escape_ascii().to_string();
    add("key", record.key().map(escaped));
    add("id", record.id().map(escaped));
    for (name, value) in record.headers() {
        add(name, Some(value.map_or_else(|| "null".into(), escaped)));
    }
    let millis = |time: Timestamp| time.as_millis().to_string();
    add("written", record.timestamp().map(millis));
    add("stored", record.stored_at().map(millis));
    line
}

/// Records by partition.
pub type Parts = BTreeMap<Option<PartitionId>, Vec<Recorded>>;

/// What was read of each partition, in the order in which it was read.
pub fn parts(records: &[Recorded]) -> Parts {
    let mut parts = Parts::new();
    for record in records {
        let partition = record.position().map(|position| position.partition());
        parts.entry(partition).or_default().push(record.clone());
    }
    parts
}

/// Where two readings first differ.
pub fn difference(read: &Parts, expected: &Parts) -> Option<String> {
    let partitions: BTreeSet<_> = read.keys().chain(expected.keys()).collect();
    let none = Vec::new();
    for partition in partitions {
        let read = read.get(partition).unwrap_or(&none);
        let expected = expected.get(partition).unwrap_or(&none);
        let at = read
            .iter()
            .zip(expected)
            .take_while(|(a, b)| a == b)
            .count();
        if at == read.len() && at == expected.len() {
            continue;
        }
        let show = |records: &[Recorded]| {
            let record = records.get(at).map(print);
            record.unwrap_or_else(|| "nothing".into())
        };
        let partition = partition.map_or_else(|| "none".into(), |id| id.to_string());
        return Some(format!(
            "of partition {partition} {} records were read and {} expected; number {at} is {}, not {}",
            read.len(),
            expected.len(),
            show(read),
            show(expected),
        ));
    }
    None
}

/// Breaks the case unless both are equal.
///
/// # Errors
/// [`Stop::Broken`] with `what` and the first difference.
pub fn same(what: &str, read: &Parts, expected: &Parts) -> Judged<()> {
    match difference(read, expected) {
        None => Ok(()),
        Some(difference) => Err(Stop::broken(format!("{what}: {difference}"))),
    }
}

/// Whether each partition's records come in the order of their positions, none twice.
///
/// # Errors
/// [`Stop::Broken`] with the two that do not.
pub fn ascends(what: &str, records: &[Recorded]) -> Judged<()> {
    let mut last: BTreeMap<PartitionId, &Recorded> = BTreeMap::new();
    for record in records {
        let Some(position) = record.position() else {
            return Err(Stop::broken(format!(
                "{what}: a record has no position: {}",
                print(record)
            )));
        };
        if let Some(before) = last.insert(position.partition(), record)
            && before.position() >= Some(position)
        {
            return Err(Stop::broken(format!(
                "{what}: {} comes behind {}",
                print(record),
                print(before)
            )));
        }
    }
    Ok(())
}

/// One reader below core.
#[derive(Debug)]
pub struct Raw {
    /// Of which partition, where each has a reader of its own.
    pub partition: Option<PartitionId>,
    reader: Box<dyn Reader>,
    rooms: &'static [Room],
    turns: usize,
    failures: usize,
    /// What it pushed.
    pub records: Vec<Recorded>,
    /// What it said, each with how many records had come by then; not that there are records.
    pub said: Vec<(usize, Fetched)>,
    /// Whether it has ended.
    pub over: bool,
}

impl Raw {
    /// One more fetch, with the next room. One without room is given up when nothing is said.
    ///
    /// # Errors
    /// What the backend says and cannot heal; a reading without end; more than there was room for.
    pub async fn turn(&mut self, trial: &Trial) -> Judged<()> {
        if self.over {
            return Ok(());
        }
        let room = self.rooms.get(self.turns % self.rooms.len().max(1));
        let room = room.copied().unwrap_or(Room::NONE);
        self.turns += 1;
        if self.turns > ENDLESS {
            return Err(Stop::broken("a reading of a range does not end"));
        }
        let before = self.records.len();
        let fetch = self.reader.fetch(room, &mut self.records);
        let told = if room.is_none() {
            match tokio::time::timeout(Duration::from_millis(1), fetch).await {
                Ok(told) => told,
                Err(_) => return Ok(()),
            }
        } else {
            trial.soon("a fetch", fetch).await?
        };
        if room.is_none() && self.records.len() > before {
            return Err(Stop::broken("records were pushed where there was no room"));
        }
        match told {
            Ok(said) => {
                self.failures = 0;
                self.over = said == Fetched::End
                    || (self.partition.is_some() && matches!(said, Fetched::PartitionEnded { .. }));
                if said != Fetched::Records {
                    self.said.push((self.records.len(), said));
                }
                Ok(())
            }
            Err(error) if error.is_retryable() && self.failures < HOPELESS => {
                self.failures += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
                Ok(())
            }
            Err(error) => Err(error).during("a fetch"),
        }
    }

    /// One more fetch, with the next room, that is dropped as `drops` has it.
    ///
    /// # Errors
    /// As for [`turn`](Self::turn).
    pub async fn turn_dropped(&mut self, trial: &Trial, drops: &mut Drops) -> Judged<()> {
        let room = self.rooms.get(self.turns % self.rooms.len().max(1));
        let room = room.copied().unwrap_or(Room::NONE);
        let fetch = self.reader.fetch(room, &mut self.records);
        let Some(told) = drops.turn(trial, "a fetch", fetch).await? else {
            return Ok(());
        };
        self.turns += 1;
        if self.turns > ENDLESS {
            return Err(Stop::broken("a reading of a range does not end"));
        }
        match told.during("a fetch after dropped ones")? {
            Fetched::End => self.over = true,
            Fetched::PartitionEnded { .. } => self.over |= self.partition.is_some(),
            _ => {}
        }
        Ok(())
    }

    /// Fetches until it has ended.
    ///
    /// # Errors
    /// As for [`turn`](Self::turn).
    pub async fn out(&mut self, trial: &Trial) -> Judged<()> {
        while !self.over {
            self.turn(trial).await?;
        }
        Ok(())
    }

    /// Fetches until this many records have come, or it has ended.
    ///
    /// # Errors
    /// As for [`turn`](Self::turn).
    pub async fn until(&mut self, trial: &Trial, records: usize) -> Judged<()> {
        while !self.over && self.records.len() < records {
            self.turn(trial).await?;
        }
        Ok(())
    }

    /// As [`until`](Self::until), and gives up quietly when nothing comes any more.
    ///
    /// # Errors
    /// As for [`turn`](Self::turn).
    pub async fn at_most(&mut self, trial: &Trial, records: usize) -> Judged<()> {
        let come = self.until(trial, records);
        let come = tokio::time::timeout(trial.patience() / 10, come).await;
        come.unwrap_or(Ok(()))
    }

    /// How often it said this, and after how many records the first time.
    pub fn told(&self, is: impl Fn(&Fetched) -> bool) -> (usize, Option<usize>) {
        let mut times = self.said.iter().filter(|(_, said)| is(said));
        let first = times.next().map(|(after, _)| *after);
        (usize::from(first.is_some()) + times.count(), first)
    }
}

/// Whether each partition has a reader of its own.
pub fn has_lineage(stage: &Stage) -> bool {
    stage.capabilities().partitions.is(&Partitions::Lineage)
}

/// What lies before the partitions that a cursor names.
fn before(listed: &[Partition], cursor: &Cursor) -> BTreeSet<PartitionId> {
    let mut line: Vec<PartitionId> = cursor.places().map(|(id, _)| id).collect();
    let mut found = BTreeSet::new();
    while let Some(id) = line.pop() {
        let of = listed.iter().filter(|partition| partition.id == id);
        for parent in of.flat_map(|partition| &partition.parents) {
            if found.insert(*parent) {
                line.push(*parent);
            }
        }
    }
    found
}

/// Opens the readers that core would open for a range, all at once: one for each partition where
/// they have lineage, else one for all.
///
/// # Errors
/// What the backend says.
pub async fn raw_readers(
    stage: &Stage,
    from: &Cursor,
    bound: &Bound,
    key: Option<&[u8]>,
    rooms: &'static [Room],
) -> Judged<Vec<Raw>> {
    let mut ranges = Vec::new();
    let range = |from: Cursor, stop: &Bound, partitions| ReadRange {
        from,
        stop: stop.clone(),
        partitions,
        key: key.map(Bytes::copy_from_slice),
        budget: Budget::new(1 << 20),
    };
    if has_lineage(stage) {
        let listed = stage.backend.partitions(&stage.name).await?;
        let read = before(&listed, from);
        let finished = match bound {
            Bound::Through(to) => before(&listed, to),
            _ => BTreeSet::new(),
        };
        for partition in &listed {
            let id = partition.id;
            let at = match (from.frontier(id), from.rest()) {
                (Some(Frontier::Ended { .. }), _) | (None, Rest::Outside) => continue,
                (Some(at), _) => *at,
                (None, Rest::FromStart) if read.contains(&id) => continue,
                (None, Rest::FromStart) => Frontier::START,
            };
            let stop = match bound {
                Bound::Through(to) => match to.frontier(id) {
                    Some(Frontier::Start { .. }) => continue,
                    Some(_) => bound,
                    None if finished.contains(&id) => &Bound::Never,
                    None => continue,
                },
                _ => bound,
            };
            let origin = Arc::clone(from.origin());
            let from = Cursor::new(origin, [(id, at)], Rest::Outside);
            ranges.push((Some(id), range(from, stop, Some(vec![id]))));
        }
    } else {
        let named = (from.rest() == Rest::Outside).then(|| from.places().map(|(id, _)| id));
        let range = range(from.clone(), bound, named.map(Iterator::collect));
        ranges.push((None, range));
    }
    let mut readers = Vec::new();
    for (partition, range) in ranges {
        let opened = stage.backend.read(&stage.name, &range).await;
        readers.push(Raw {
            partition,
            reader: opened.during("opening a reader")?.reader,
            rooms,
            turns: 0,
            failures: 0,
            records: Vec::new(),
            said: Vec::new(),
            over: false,
        });
    }
    Ok(readers)
}

/// Reads a range to its end below core.
///
/// # Errors
/// What the backend says; a reading that does not end.
pub async fn read_raw(
    trial: &Trial,
    stage: &Stage,
    from: &Cursor,
    bound: &Bound,
    rooms: &'static [Room],
) -> Judged<Vec<Recorded>> {
    let mut records = Vec::new();
    for mut reader in raw_readers(stage, from, bound, None, rooms).await? {
        reader.out(trial).await?;
        records.append(&mut reader.records);
    }
    Ok(records)
}

/// A cursor that somebody made up.
///
/// # Errors
/// None: the name is one.
pub fn forged(stage: &Stage) -> Judged<Cursor> {
    let origin = Origin {
        scheme: stage.backend.scheme().into(),
        topic: TopicName::new("forged")?,
        incarnation: "1".into(),
    };
    Ok(Cursor::start(Arc::new(origin)))
}

/// What cannot be replayed, or not from there, says so: through core and below it.
///
/// # Errors
/// [`Stop::Broken`] where one is answered otherwise.
pub async fn starts_refused(trial: Trial) -> Judged {
    let stage = trial.stage(&crate::harness::Want::default()).await?;
    let has = stage.capabilities().clone();
    let replayed = matches!(has.replay.known(), Some(Kept::Retained(_) | Kept::Full));
    let starts = has.starts.known().copied();
    let offers = |is: fn(&annals_core::capability::Starts) -> bool| {
        replayed && starts.is_some_and(|s| is(&s))
    };
    let cursor = forged(&stage)?;
    let all = [
        (Start::Beginning, offers(|s| s.beginning)),
        (Start::Earliest, offers(|s| s.earliest)),
        (Start::Latest, offers(|s| s.latest)),
        (Start::After(cursor.clone()), offers(|s| s.after)),
        (
            Start::Since(Timestamp::from_millis(1)),
            offers(|s| s.since.is_some()),
        ),
    ];
    let mut refusals = 0;
    for (start, _) in all.iter().filter(|(_, offered)| !offered) {
        for follows in [false, true] {
            let open = if follows {
                stage.topic.follow(start.clone())
            } else {
                stage.topic.replay(start.clone())
            };
            let told = trial.soon("a refusal", open).await?;
            refused(&format!("a reading from {start:?}"), told.map(drop))?;
            refusals += 1;
        }
        let located = stage.backend.locate(&stage.name, start);
        let told = trial.soon("a refusal", located).await?;
        refused(&format!("the place of {start:?}"), told.map(drop))?;
    }
    if !replayed {
        let range = ReadRange {
            from: cursor,
            stop: Bound::End,
            partitions: None,
            key: None,
            budget: Budget::new(1 << 20),
        };
        let told = trial
            .soon("a refusal", stage.backend.read(&stage.name, &range))
            .await?;
        refused("a reading below core", told.map(drop))?;
        refusals += 1;
    }
    Ok(Counts::new().of("refusals", refusals, 1))
}

/// Breaks the case unless it was refused as what is not supported.
///
/// # Errors
/// [`Stop::Broken`] with `what`.
pub fn refused(what: &str, told: Result<(), annals_core::Error>) -> Judged<()> {
    let kind = told.err().map(|error| error.kind());
    ensure(kind == Some(ErrorKind::Unsupported), || {
        format!("{what} is answered with {kind:?}, not refused as Unsupported")
    })
}

/// A topic with so many partitions, or as many as there are to be had.
///
/// # Errors
/// As for [`Trial::stage`].
pub async fn several(trial: &Trial, partitions: u32) -> Judged<Stage> {
    let want = crate::harness::Want {
        partitions: Some(partitions),
        ..crate::harness::Want::default()
    };
    match trial.stage(&want).await {
        Err(Stop::NotExercised(_)) => trial.stage(&crate::harness::Want::default()).await,
        stage => stage,
    }
}

/// Splits the first open partition, or merges what continues it if `step` is odd, where partitions
/// do so; whether they did.
///
/// # Errors
/// [`Stop::NotExercised`] where they do and the harness cannot make them.
pub async fn reshape(trial: &Trial, stage: &Stage, step: usize) -> Judged<bool> {
    if !has_lineage(stage) {
        return Ok(false);
    }
    let listed = stage.backend.partitions(&stage.name).await?;
    let mut open = listed.iter().filter(|partition| partition.open);
    let what = if step.is_multiple_of(2) {
        open.next()
            .map(|one| crate::harness::Disturb::Split(one.id))
    } else {
        // Those of one parent lie side by side.
        let mut siblings = open.filter(|partition| !partition.parents.is_empty());
        let one = siblings.next();
        let other = siblings.find(|other| one.is_some_and(|one| one.parents == other.parents));
        one.zip(other)
            .map(|(one, other)| crate::harness::Disturb::Merge(one.id, other.id))
    };
    let Some(what) = what else { return Ok(false) };
    trial.disturb(&stage.name, what).await?;
    Ok(true)
}
