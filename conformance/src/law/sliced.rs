//! *Sliced*: a replay of some partitions, or of a key, is that part of the whole.

use std::collections::BTreeSet;
use std::time::Duration;

use annals_core::capability::ByKey;
use annals_core::driver::Stop as Bound;
use annals_core::{
    Batch, Cursor, ErrorKind, Frontier, Key, OpenReplay, PartitionId, Record, Recorded, Signal,
    Start, Until,
};

use super::{Law, REPLAYED};
use crate::harness::{Disturb, Want};
use crate::trial::{During, Judged, Stage, Trial, ensure, read_out};
use crate::verdict::Counts;
use crate::workload;
use crate::workload::readings::{self, PAGES, Parts, ROOMS};

/// More than any page, of all keys together.
const MANY: usize = 1_030;
/// Longer than stamps are apart that are told from each other.
const STEP: Duration = Duration::from_millis(10);

pub(crate) fn law() -> Law {
    Law::new(
        "sliced",
        "a replay of some partitions, or of a key, is that part of the whole",
        REPLAYED,
    )
    .claimed_by(|has| {
        let starts = has.starts.known();
        starts.is_some_and(|starts| starts.beginning || starts.earliest)
    })
    .case("by keys that are easily confused", confused)
    .case("by a key among very many", among_many)
    .case("by a key, from here to there", ranges)
    .case("by a key, between two moments", moments)
    .case("by partitions", partitions)
    .case("by a key that is followed", followed)
    .fault("after restarts", |trial| disturbed(trial, Disturb::Restart))
    .fault("after kills", |trial| disturbed(trial, Disturb::Kill))
    .fault("after a trim", trimmed)
    .refusal("what cannot be replayed says so", readings::starts_refused)
}

/// Keys that are prefixes of each other, that differ in case, in a byte that is no text, in length
/// alone, that weak hashes take for one another (of Java, FNV-1 and FNV-1a, CRC-32, djb2), that
/// are a value of another record, or empty.
fn keys() -> Vec<Vec<u8>> {
    let keys: &[&[u8]] = &[
        b"k",
        b"k1",
        b"k10",
        b"K1",
        b"k1 ",
        b" k1",
        b"k1\0",
        b"k1\n",
        b"1k",
        b"Aa",
        b"BB",
        b"AaAa",
        b"BBBB",
        b"AaBB",
        b"BBAa",
        b"costarring",
        b"liquid",
        b"declinate",
        b"macallums",
        b"altarage",
        b"zinke",
        b"plumless",
        b"buckeroo",
        b"hetairas",
        b"mentioner",
        b"\0",
        b"\0\0",
        b"\xff",
        b"\xff\0",
        b"\x80",
        b"\xc3\xa9",
        b"e\xcc\x81",
        b"\xc3",
        b"w1-0",
        b"id",
        b"",
        b"a/b",
        b"a%2Fb",
        b"a:b",
        b"a,b",
        b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdeg",
    ];
    keys.iter().map(|key| key.to_vec()).collect()
}

/// A replay of one key, as far as the topic offers one.
fn by_key(stage: &Stage, replay: OpenReplay, key: &[u8]) -> Option<OpenReplay> {
    let key = Key::from(key);
    match stage.capabilities().by_key.known() {
        Some(ByKey::Indexed) => Some(replay.key(key)),
        Some(ByKey::Scanned) => Some(replay.scan_key(key)),
        _ => None,
    }
}

/// Appends a few of each key, in turns, and some without one. A key that the backend refuses is
/// left out.
async fn append_of(stage: &Stage, from: usize, keys: &[Vec<u8>], each: usize) -> Judged<usize> {
    let mut number = from;
    for round in 0..each {
        let mut record = |key: Option<&Vec<u8>>| {
            let record = Record::new(workload::value(1, number));
            number += 1;
            match key {
                // A key whose last record says that it is gone is still asked for.
                Some(key) if number % 7 == 3 => {
                    Record::new(annals_core::Value::NULL).key(Key::from(key.as_slice()))
                }
                Some(key) if number % 7 == 5 => Record::new("").key(Key::from(key.as_slice())),
                Some(key) => record.key(Key::from(key.as_slice())),
                None => record.header("k1", "k1").id(format!("k{number}")),
            }
        };
        let mut records: Vec<Record> = keys.iter().map(|key| record(Some(key))).collect();
        if round % 2 == 0 {
            records.reverse();
        }
        records.push(record(None));
        let batch: Batch = records.iter().cloned().collect();
        match stage.topic.append(batch).await {
            Ok(_) => continue,
            Err(error) if error.kind() == ErrorKind::Unsupported => {}
            Err(error) => return Err(error).during("appending"),
        }
        for record in records {
            match stage.topic.append(Batch::from_iter([record])).await {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Unsupported => {}
                Err(error) => return Err(error).during("appending one"),
            }
        }
    }
    Ok(number)
}

fn of_key(whole: &[Recorded], key: &[u8]) -> Parts {
    let is = |record: &&Recorded| record.key() == Some(key);
    let records: Vec<Recorded> = whole.iter().filter(is).cloned().collect();
    readings::parts(&records)
}

/// Whether each key's replay is its part of the whole; where there is none it is refused.
async fn keys_are_parts(trial: &Trial, stage: &Stage, keys: &[Vec<u8>]) -> Judged<usize> {
    let whole = stage.read_all().await?;
    let start = || match stage.capabilities().starts.known() {
        Some(starts) if starts.earliest => Start::Earliest,
        _ => Start::Beginning,
    };
    let mut read = 0;
    for (number, key) in keys.iter().enumerate() {
        let name = key.escape_ascii();
        let Some(replay) = by_key(stage, stage.topic.replay(start()), key) else {
            for replay in [
                stage.topic.replay(start()).key(Key::from(key.as_slice())),
                stage
                    .topic
                    .replay(start())
                    .scan_key(Key::from(key.as_slice())),
            ] {
                readings::refused("a search for a key", replay.await.map(drop))?;
            }
            read += 1;
            continue;
        };
        let replay = replay.await.during("opening a replay of a key")?;
        let records = trial
            .soon("a replay of a key", read_out(replay))
            .await??
            .records;
        let expected = of_key(&whole, key);
        readings::same(
            &format!("the key \"{name}\""),
            &readings::parts(&records),
            &expected,
        )?;
        // Below core, where it is found by an index: nothing else comes.
        if stage.capabilities().by_key.is(&ByKey::Indexed) {
            let from = stage.backend.locate(&stage.name, &start()).await?;
            let rooms = ROOMS.get(number % ROOMS.len()).copied().unwrap_or_default();
            let readers =
                readings::raw_readers(stage, &from, &Bound::End, Some(key), rooms).await?;
            let mut records = Vec::new();
            for mut reader in readers {
                reader.out(trial).await?;
                records.append(&mut reader.records);
            }
            readings::same(
                &format!("below core, the key \"{name}\""),
                &readings::parts(&records),
                &expected,
            )?;
        }
        read += 1;
    }
    Ok(read)
}

async fn confused(trial: Trial) -> Judged {
    let stage = readings::several(&trial, 3).await?;
    let keys = keys();
    // One that nobody ever has, before and after others come.
    let mut asked = keys.clone();
    asked.push(b"nobody's".to_vec());
    let next = append_of(&stage, 0, &keys, 3).await?;
    let mut read = keys_are_parts(&trial, &stage, &asked).await?;
    readings::reshape(&trial, &stage, 0).await?;
    // An index that was built by the first search knows nothing of these.
    let next = append_of(&stage, next, &keys, 1).await?;
    let other = trial.on(&stage.name).await?;
    let some: Vec<Vec<u8>> = asked.iter().step_by(3).cloned().collect();
    read += keys_are_parts(&trial, &other, &some).await?;
    Ok(Counts::new().of("records", next, 3 * keys.len()).of(
        "searches",
        read,
        asked.len() + some.len(),
    ))
}

/// Long stretches without it, and one with hardly any other.
async fn among_many(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::default()).await?;
    let record = |number: usize| {
        let key = match number {
            0 | 11 | 101 | 1_001 | 1_029 => "rare",
            300..600 => "often",
            _ => "other",
        };
        let record = Record::new(workload::value(1, number));
        if number % 4 == 2 {
            record
        } else {
            record.key(key)
        }
    };
    // In batches of one key at a time, since a request may take one of each only.
    for from in (0..MANY).step_by(206) {
        let batch: Batch = (from..MANY.min(from + 206)).map(record).collect();
        stage
            .topic
            .append(batch)
            .allow_holes()
            .await
            .during("appending")?;
    }
    let keys = ["rare", "often", "other", "none"].map(|key| key.as_bytes().to_vec());
    let read = keys_are_parts(&trial, &stage, &keys).await?;
    let whole = stage.read_all().await?;
    if stage.capabilities().by_key.is(&ByKey::Indexed) {
        let from = stage
            .backend
            .locate(&stage.name, &readings::first(&stage))
            .await?;
        for (key, rooms) in keys.iter().zip(PAGES.iter().cycle()) {
            let mut records = Vec::new();
            let bound = &Bound::End;
            for mut reader in readings::raw_readers(&stage, &from, bound, Some(key), rooms).await? {
                reader.out(&trial).await?;
                records.append(&mut reader.records);
            }
            readings::same("in pages", &readings::parts(&records), &of_key(&whole, key))?;
        }
    }
    Ok(Counts::new()
        .of("records", whole.len(), MANY)
        .of("searches", read, keys.len()))
}

/// A key's records in `(c, d]`, and where the reading of the key itself was.
async fn ranges(mut trial: Trial) -> Judged {
    let stage = readings::several(&trial, 3).await?;
    let keys = ["a", "b", "c"].map(|key| key.as_bytes().to_vec());
    append_of(&stage, 0, &keys, 12).await?;
    let after = stage.capabilities().starts.known().is_some_and(|s| s.after);
    let mut replay = stage.topic.replay(readings::first(&stage)).await?;
    let mut whole: Vec<Recorded> = Vec::new();
    let mut cursors = vec![replay.cursor().clone()];
    while let Some(record) = replay.next().await.during("reading the whole")? {
        whole.push(record);
        cursors.push(replay.cursor().clone());
        ensure(whole.len() <= 1_000, || {
            "more is read than was appended".into()
        })?;
    }
    append_of(&stage, 100, &keys, 3).await?;
    let mut tried = 0;
    for _ in 0..12 {
        if !after {
            break;
        }
        for key in &keys {
            let from = trial.rng.usize(0..cursors.len());
            let to = trial.rng.usize(from..cursors.len());
            let (Some(c), Some(d)) = (cursors.get(from), cursors.get(to)) else {
                continue;
            };
            let replay = stage.topic.replay(c).until(Until::Through(d.clone()));
            let Some(replay) = by_key(&stage, replay, key) else {
                continue;
            };
            let mut replay = replay.await.during("opening a replay of a key")?;
            let expected = of_key(whole.get(from..to).unwrap_or_default(), key);
            let count: usize = expected.values().map(Vec::len).sum();
            // Some of it, then on from its own cursor.
            let mut records = Vec::new();
            for _ in 0..trial.rng.usize(0..=count) {
                records.extend(replay.next().await.during("reading a key")?);
            }
            let middle = replay.cursor().clone();
            let rest = stage.topic.replay(&middle).until(Until::Through(d.clone()));
            if let Some(rest) = by_key(&stage, rest, key) {
                let rest = rest.await.during("going on with a key")?;
                records.extend(read_out(rest).await?.records);
            }
            readings::same(
                &format!("the key \"{}\" in a range", key.escape_ascii()),
                &readings::parts(&records),
                &expected,
            )?;
            tried += 1;
        }
    }
    let offered = after && by_key(&stage, stage.topic.replay(Start::Beginning), b"a").is_some();
    Ok(Counts::new().of("records", whole.len(), 36).of(
        "ranges",
        tried,
        if offered { 36 } else { 0 },
    ))
}

/// A key's records of `[t, u)`, and those from the first on.
async fn moments(trial: Trial) -> Judged {
    let stage = readings::several(&trial, 3).await?;
    let keys = ["a", "b"].map(|key| key.as_bytes().to_vec());
    let mut next = 0;
    for _ in 0..4 {
        next = append_of(&stage, next, &keys, 3).await?;
        trial.disturb(&stage.name, Disturb::Pass(STEP)).await?;
    }
    let whole = stage.read_all().await?;
    let stamps: BTreeSet<_> = whole.iter().filter_map(Recorded::stored_at).collect();
    let timed = stage.capabilities().starts.known();
    let timed = timed.is_some_and(|starts| starts.since.is_some());
    let offered = timed && by_key(&stage, stage.topic.replay(Start::Beginning), b"a").is_some();
    let mut tried = 0;
    for key in keys.iter().filter(|_| offered) {
        let step = stamps.len().div_ceil(4).max(1);
        for (number, stamp) in stamps.iter().step_by(step).enumerate() {
            let until = stamps.iter().skip((number + 1) * step).step_by(2 * step);
            let until = until.map(|stamp| Until::Before(*stamp));
            let since = Start::Since(*stamp);
            let ranges = until.chain([Until::End]).map(|until| (&since, until));
            let first = readings::first(&stage);
            for (from, until) in ranges.chain([(&first, Until::Before(*stamp))]) {
                let all = stage.read(from.clone(), until.clone()).await?.records;
                let replay = stage.topic.replay(from.clone()).until(until.clone());
                let Some(replay) = by_key(&stage, replay, key) else {
                    continue;
                };
                let replay = replay.await.during("opening a replay of a key")?;
                let read = trial
                    .soon("a key between moments", read_out(replay))
                    .await??;
                readings::same(
                    &format!(
                        "the key \"{}\" from {from:?} until {until:?}",
                        key.escape_ascii()
                    ),
                    &readings::parts(&read.records),
                    &of_key(&all, key),
                )?;
                tried += 1;
            }
        }
    }
    Ok(Counts::new().of("records", whole.len(), 30).of(
        "ranges",
        tried,
        if offered { 6 } else { 0 },
    ))
}

async fn partitions(trial: Trial) -> Judged {
    let stage = readings::several(&trial, 4).await?;
    readings::append_varied(&stage, 1, 0, 60).await?;
    let mut slices = 0;
    for step in 0..3 {
        let whole = readings::parts(&stage.read_all().await?);
        let listed = stage.partitions().await?;
        let mut chosen: Vec<Vec<PartitionId>> = listed.iter().map(|id| vec![*id]).collect();
        chosen.push(listed.clone());
        chosen.push(listed.iter().copied().step_by(2).collect());
        chosen.push(listed.iter().copied().skip(1).step_by(2).collect());
        chosen.push(listed.iter().rev().take(2).copied().collect());
        for ids in chosen.iter().filter(|ids| !ids.is_empty()) {
            let open = || {
                let replay = stage.topic.replay(readings::first(&stage));
                replay.partitions(ids.iter().copied())
            };
            let replay = open().await.during("opening a replay of partitions")?;
            let read = trial
                .soon("a replay of partitions", read_out(replay))
                .await??;
            let part: Parts = whole
                .iter()
                .filter(|(id, _)| id.is_some_and(|id| ids.contains(&id)))
                .map(|(id, records)| (*id, records.clone()))
                .collect();
            let what = format!("the partitions {ids:?}");
            readings::same(&what, &readings::parts(&read.records), &part)?;
            // And of these one key.
            let of: Vec<Recorded> = part.values().flatten().cloned().collect();
            if let Some(replay) = by_key(&stage, open(), b"key-22") {
                let replay = replay
                    .await
                    .during("opening a replay of partitions and a key")?;
                let read = trial.soon("a replay of both", read_out(replay)).await??;
                let expected = of_key(&of, b"key-22");
                readings::same(&what, &readings::parts(&read.records), &expected)?;
            }
            raw_slice(&trial, &stage, ids, &part).await?;
            slices += 1;
        }
        let beyond = listed.iter().map(|id| id.get()).max().unwrap_or(0) + 1_000;
        let unknown = stage
            .topic
            .replay(readings::first(&stage))
            .partitions([PartitionId::new(beyond)])
            .await;
        let kind = unknown.err().map(|error| error.kind());
        ensure(
            matches!(kind, Some(ErrorKind::Config | ErrorKind::NotFound)),
            || format!("a replay of a partition that is not there is answered with {kind:?}"),
        )?;
        readings::reshape(&trial, &stage, step).await?;
        readings::append_varied(&stage, 1, 60 + step * 20, 20).await?;
    }
    Ok(Counts::new().of("slices", slices, 9))
}

/// The same below core, where one reader may hold several.
async fn raw_slice(trial: &Trial, stage: &Stage, ids: &[PartitionId], part: &Parts) -> Judged<()> {
    let start = stage
        .backend
        .locate(&stage.name, &readings::first(stage))
        .await?;
    let places = ids.iter().map(|id| {
        let at = start.frontier(*id).copied();
        (*id, at.unwrap_or(Frontier::START))
    });
    let from = Cursor::new(start.origin().clone(), places, annals_core::Rest::Outside);
    let rooms = ROOMS
        .get(ids.len() % ROOMS.len())
        .copied()
        .unwrap_or_default();
    let read = readings::read_raw(trial, stage, &from, &Bound::End, rooms).await?;
    readings::same(
        &format!("below core, the partitions {ids:?}"),
        &readings::parts(&read),
        part,
    )
}

/// One key's, while those of others come.
async fn followed(trial: Trial) -> Judged {
    let stage = readings::several(&trial, 3).await?;
    let keys = ["a", "b", "c", "d", "e"].map(|key| key.as_bytes().to_vec());
    let mut next = append_of(&stage, 0, &keys, 4).await?;
    let mut follows = Vec::new();
    for key in &keys {
        if let Some(follow) = by_key(&stage, stage.topic.follow(readings::first(&stage)), key) {
            let follow = follow.await.during("opening a follow of a key")?;
            follows.push((key, follow, Vec::new(), false));
        }
    }
    for _ in 0..4 {
        next = append_of(&stage, next, &keys, 3).await?;
        let whole = stage.read_all().await?;
        for (key, follow, read, caught_up) in &mut follows {
            let expected = of_key(&whole, key);
            let count: usize = expected.values().map(Vec::len).sum();
            // What comes once it has caught up comes by another path.
            while read.len() < count || !*caught_up {
                let signal = trial.soon("a followed key", follow.next_signal()).await?;
                match signal.during("following a key")? {
                    Some(Signal::Record(record)) => read.push(record),
                    Some(Signal::CaughtUp(_)) => *caught_up = true,
                    _ => {}
                }
            }
            readings::same(
                &format!("the followed key \"{}\"", key.escape_ascii()),
                &readings::parts(read),
                &expected,
            )?;
        }
    }
    let refused = keys_are_parts(&trial, &stage, &keys).await?;
    Ok(Counts::new()
        .of("records", next, 50)
        .of("searches", refused + follows.len(), keys.len()))
}

async fn disturbed(trial: Trial, what: Disturb) -> Judged {
    let mut stage = readings::several(&trial, 3).await?;
    let keys: Vec<Vec<u8>> = keys().into_iter().step_by(3).collect();
    let (mut next, mut read) = (0, 0);
    for _ in 0..2 {
        next = append_of(&stage, next, &keys, 2).await?;
        read += keys_are_parts(&trial, &stage, &keys).await?;
        trial.disturb(&stage.name, what.clone()).await?;
        stage = trial.on(&stage.name).await?;
        read += keys_are_parts(&trial, &stage, &keys).await?;
        next = append_of(&stage, next, &keys, 1).await?;
        read += keys_are_parts(&trial, &stage, &keys).await?;
    }
    Ok(Counts::new()
        .of("records", next, 4 * keys.len())
        .of("searches", read, 6 * keys.len()))
}

async fn trimmed(trial: Trial) -> Judged {
    let stage = readings::several(&trial, 3).await?;
    let keys = ["a", "b", "c", "d", "e"].map(|key| key.as_bytes().to_vec());
    let mut next = append_of(&stage, 0, &keys, 10).await?;
    let mut read = 0;
    for keep in [7, 0, 5] {
        trial.disturb(&stage.name, Disturb::Trim { keep }).await?;
        read += keys_are_parts(&trial, &stage, &keys).await?;
        next = append_of(&stage, next, &keys, 3).await?;
        read += keys_are_parts(&trial, &stage, &keys).await?;
    }
    let known: BTreeSet<&Vec<u8>> = keys.iter().collect();
    Ok(Counts::new()
        .of("records", next, 60)
        .of("searches", read, 6 * known.len()))
}
