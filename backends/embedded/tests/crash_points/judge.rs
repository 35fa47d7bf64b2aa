//! What a disk holds after a crash, and whether that is allowed.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use annals_core::driver::Room;
use annals_core::{Frontier, Recorded};
use annals_embedded::Groups;
use annals_embedded::disk::{Disk, FaultyDisk, OpenMode};
use annals_embedded::log::{Condition, Dedupe, Fetch, Scan, StopAt, Topic, TopicId, Writer};
use tokio::runtime::Runtime;

use crate::dice::Dice;
use crate::model::{Ask, Kept, Log, Offer, Row, State};
use crate::saboteur::Lie;
use crate::workload::{ROOT, claim, commit, group, groups_of, place, settle, take};

/// What a reader finds of a topic.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Found {
    incarnation: TopicId,
    earliest: usize,
    end: usize,
    /// From `earliest` on.
    records: Vec<Kept>,
    groups: BTreeMap<String, Option<u64>>,
}

type All = BTreeMap<String, Found>;

/// The bytes of a whole disk, and whether its page cache is the first one.
pub(crate) fn fingerprint(disk: &FaultyDisk) -> u64 {
    let mut hasher = DefaultHasher::new();
    disk.boot().hash(&mut hasher);
    let mut open = vec![PathBuf::new()];
    while let Some(dir) = open.pop() {
        let mut entries = disk.list(&dir).unwrap();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        for entry in entries {
            let path = dir.join(&entry.name);
            path.hash(&mut hasher);
            if entry.dir {
                open.push(path);
                continue;
            }
            let file = disk.open(&path, OpenMode::Read).unwrap();
            let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
            let mut done = 0;
            while done < bytes.len() {
                done += file.read_at(&mut bytes[done..], done as u64).unwrap();
            }
            crc_fast::crc32_iscsi(&bytes).hash(&mut hasher);
            bytes.len().hash(&mut hasher);
        }
    }
    hasher.finish()
}

fn kept(record: &Recorded) -> Kept {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Kept {
        value: text(record.value()),
        key: record.key().map(text),
        id: record.id().map(text),
        time: record
            .stored_at()
            .map_or(i64::MIN, annals_core::Timestamp::as_millis),
    }
}

/// Reads a topic and its groups as anybody would.
fn look(topic: &Arc<Topic>, groups: &Groups) -> Result<Found, String> {
    let fail = |e: annals_core::Error| e.to_string();
    let end = topic.refresh().map_err(fail)?;
    let (end, earliest) = (end.next, topic.reread_earliest().map_err(fail)?);
    let mut scan = Scan::new(Arc::clone(topic), 0, StopAt::Never);
    let room = Room {
        records: 100,
        bytes: 1 << 20,
    };
    let mut records = Vec::new();
    loop {
        match scan.fetch(room, &mut records).map_err(fail)? {
            Fetch::Gap { from: 0, to } if to == earliest && records.is_empty() => {}
            Fetch::More => {}
            Fetch::CaughtUp => break,
            other => return Err(format!("{other:?} where the log begins at {earliest}")),
        }
    }
    for (record, at) in records.iter().zip(earliest..) {
        if record.position().and_then(|p| p.number_u64()) != Some(at) {
            return Err(format!("{:?} stands at {at}", record.position()));
        }
    }
    if earliest + records.len() as u64 != end {
        return Err(format!(
            "{} records from {earliest} to {end}",
            records.len()
        ));
    }
    let mut rows = BTreeMap::new();
    for (name, lease) in groups.list().map_err(fail)? {
        let at = match lease.map_err(fail)?.at {
            Frontier::Start { .. } => None,
            Frontier::After { position, .. } => position.number_u64(),
            other => return Err(format!("group {name} stands at {other:?}")),
        };
        if at.is_some_and(|at| at >= end) {
            return Err(format!(
                "group {name} stands at {at:?}, the log ends at {end}"
            ));
        }
        rows.insert(name.to_string(), at);
    }
    Ok(Found {
        incarnation: topic.id(),
        earliest: usize::try_from(earliest).unwrap(),
        end: usize::try_from(end).unwrap(),
        records: records.iter().map(kept).collect(),
        groups: rows,
    })
}

/// The names of the topics of a directory.
fn topics(disk: &Arc<dyn Disk>) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    let entries = match disk.list(Path::new(ROOT)) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        other => other.map_err(|e| e.to_string())?,
    };
    for entry in entries {
        if !entry.dir || entry.name.starts_with('.') {
            continue;
        }
        let name = place(disk, &entry.name).name;
        match annals_embedded::log::exists(&**disk, Path::new(ROOT), &name) {
            Ok(true) => names.push(entry.name),
            other => return Err(format!("the directory {}: {other:?}", entry.name)),
        }
    }
    names.sort();
    Ok(names)
}

/// What somebody sees who only reads.
fn read(disk: &Arc<dyn Disk>) -> Result<All, String> {
    let mut all = All::new();
    for name in topics(disk)? {
        let topic = Topic::open(&place(disk, &name)).map_err(|e| format!("reading {name}: {e}"))?;
        let found = look(&topic, &groups_of(disk, &name));
        all.insert(
            name.clone(),
            found.map_err(|e| format!("reading {name}: {e}"))?,
        );
    }
    Ok(all)
}

/// What the next process makes of it: the writers stay open for `then`.
fn recover<T>(
    disk: &Arc<dyn Disk>,
    runtime: &Runtime,
    then: impl FnOnce(&mut BTreeMap<String, Writer>, All) -> Result<T, String>,
) -> Result<T, String> {
    let _root = claim(disk, runtime)?;
    for entry in disk.list(Path::new(ROOT)).map_err(|e| e.to_string())? {
        if entry.dir && entry.name.starts_with('.') {
            return Err(format!("{} is left", entry.name));
        }
    }
    let mut writers = BTreeMap::new();
    let mut all = All::new();
    for name in topics(disk)? {
        let writer =
            Writer::open(&place(disk, &name)).map_err(|e| format!("opening {name}: {e}"))?;
        let found = look(writer.topic(), &groups_of(disk, &name));
        let found = found.map_err(|e| format!("written {name}: {e}"))?;
        whole(disk, &writer, found.earliest as u64)?;
        all.insert(name.clone(), found);
        writers.insert(name, writer);
    }
    then(&mut writers, all)
}

/// Whether nothing is left of what retention had removed, and no segment stands there unread.
fn whole(disk: &Arc<dyn Disk>, writer: &Writer, earliest: u64) -> Result<(), String> {
    let topic = writer.topic();
    let files = disk.list(topic.dir()).map_err(|e| e.to_string())?;
    let files = files.iter().filter(|e| e.name.contains(".seg")).count();
    let sealed = topic.sealed();
    if files != sealed.len() + 1 {
        return Err(format!("{files} files for {} segments", sealed.len() + 1));
    }
    let behind = sealed.iter().map(|(first, ..)| *first).skip(1);
    let behind = behind.chain([topic.end().segment]);
    if sealed.len() as u64 > 0
        && behind
            .into_iter()
            .next()
            .is_some_and(|next| next <= earliest)
    {
        return Err(format!("segments below {earliest} are left: {sealed:?}"));
    }
    annals_embedded::log::verify::verify(topic).map_err(|e| format!("verified: {e}"))?;
    Ok(())
}

/// The same without the groups.
fn logs(all: &All) -> All {
    let bare = all.iter().map(|(name, found)| {
        let groups = BTreeMap::new();
        let bare = Found {
            groups,
            ..found.clone()
        };
        (name.clone(), bare)
    });
    bare.collect()
}

/// Whether `found` lies between what was promised and what was offered.
fn compare(known: &State, offered: &State, found: &All) -> Result<(), String> {
    let names = known.keys().chain(offered.keys()).chain(found.keys());
    for name in names {
        let (low, high) = (known.get(name), offered.get(name));
        let found = found.get(name);
        let same = match (low, high, found) {
            (Some(low), Some(high), Some(found)) => bounds(low, high, found),
            (Some(one), None, Some(found)) => bounds(one, one, found),
            (None, Some(one), Some(found)) => {
                bounds(&Log::new(one.incarnation, one.dedupe), one, found)
            }
            (Some(_), Some(_), None) => Err("is lost".to_owned()),
            (None, None, _) => Err("was never made".to_owned()),
            _ => Ok(()),
        };
        same.map_err(|e| format!("topic {name} {e}"))?;
    }
    Ok(())
}

fn bounds(low: &Log, high: &Log, found: &Found) -> Result<(), String> {
    if found.incarnation != low.incarnation {
        return Err("is another one".to_owned());
    }
    if !(low.len()..=high.len()).contains(&found.end) {
        let (low, high) = (low.len(), high.len());
        return Err(format!(
            "ends at {}: {low} were acknowledged and {high} offered",
            found.end
        ));
    }
    if !(low.earliest..=high.earliest).contains(&found.earliest) {
        return Err(format!("begins at {}", found.earliest));
    }
    let kept = &high.records[..found.end];
    if kept.last().is_some_and(|entry| !entry.last) {
        return Err(format!("has half a batch at {}", found.end));
    }
    let kept = kept.iter().skip(found.earliest);
    if let Some((at, (_, there))) = kept
        .zip(&found.records)
        .enumerate()
        .find(|(_, (entry, there))| entry.kept != **there)
    {
        return Err(format!("has {there:?} at {}", found.earliest + at));
    }
    let names = low.groups.keys().chain(high.groups.keys());
    for name in names.chain(found.groups.keys()) {
        let (low, high) = (low.groups.get(name), high.groups.get(name));
        let right = match found.groups.get(name) {
            Some(at) => [low, high].into_iter().flatten().any(|row| row.at == *at),
            None => low.is_none() || high.is_none(),
        };
        if !right {
            let found = found.groups.get(name);
            return Err(format!(
                "has group {name} at {found:?}, not {low:?} or {high:?}"
            ));
        }
    }
    Ok(())
}

/// The state that a recovery settled on, to go on from.
fn adopt(known: &State, offered: &State, found: &All) -> State {
    let mut state = State::new();
    for (name, found) in found {
        let Some(from) = offered.get(name).or_else(|| known.get(name)) else {
            continue;
        };
        let mut log = from.cut(found.end);
        log.earliest = found.earliest;
        let epoch = |state: &State, group: &str| {
            let row = state.get(name).and_then(|log| log.groups.get(group));
            row.map_or(0, |row| row.epoch)
        };
        log.groups = found
            .groups
            .iter()
            .map(|(group, at)| {
                let row = Row {
                    at: *at,
                    epoch: epoch(known, group),
                };
                (group.clone(), row)
            })
            .collect();
        state.insert(name.clone(), log);
    }
    state
}

/// Looks whether ids, conditions and fences still hold, and goes on.
fn probe(writer: &mut Writer, log: &mut Log, now: i64) -> Result<(), String> {
    let new = |value: &str, id: Option<String>| Offer {
        value: value.to_owned(),
        key: Some("k0".to_owned()),
        id,
    };
    let mut asks = Vec::new();
    let kept = log.records.iter().skip(log.earliest);
    let ids = kept.filter_map(|entry| entry.kept.id.clone());
    let ids: Vec<String> = ids.collect();
    for id in ids.first().into_iter().chain(ids.last()) {
        asks.push(Ask {
            records: vec![new("repeat", Some(id.clone()))],
            condition: Condition::None,
            epoch: None,
        });
    }
    let key = |last| Condition::KeyAt {
        key: "k0".into(),
        last,
    };
    let newest = log.newest_of("k0");
    let fence = log.fence();
    let conditions = [
        (key(newest.map_or(Some(0), |at| at.checked_sub(1))), None),
        (key(newest), Some(fence)),
        (key(newest), None),
        (Condition::End(log.len() as u64), None),
        (Condition::None, Some(fence.wrapping_sub(1))),
        (Condition::None, Some(fence + 1)),
        (Condition::None, Some(fence)),
    ];
    for (condition, epoch) in conditions {
        asks.push(Ask {
            records: vec![new("probe", None), new("probe", None)],
            condition,
            epoch,
        });
    }
    let expected: Vec<_> = asks.iter().map(|ask| log.decide(ask, now)).collect();
    let answers = commit(writer, &asks, |_| {});
    if answers != expected {
        let dedupe = log.dedupe == Dedupe::Off;
        return Err(format!(
            "{answers:?}, not {expected:?} (fence {fence}, newest {newest:?}, without ids: {dedupe})"
        ));
    }
    Ok(())
}

/// Groups can be taken again, and their old owners are out.
fn probe_groups(groups: &Groups, log: &mut Log, runtime: &Runtime) -> Result<(), String> {
    let len = log.len() as u64;
    for (name, row) in &mut log.groups {
        let old = take(groups, name, runtime)?;
        if old.epoch <= row.epoch {
            return Err(format!("{name} was taken with {old:?} after {row:?}"));
        }
        let tenancy = take(groups, name, runtime)?;
        if let Some(to) = len.checked_sub(1) {
            match settle(groups, name, old, to, runtime) {
                Err(e) if e.starts_with("Fenced") => {}
                other => return Err(format!("{name}: the old owner's commit was {other:?}")),
            }
            settle(groups, name, tenancy, to, runtime)?;
            row.at = Some(to);
        }
        row.epoch = tenancy.epoch;
    }
    groups
        .list()
        .map_err(|e| e.to_string())?
        .iter()
        .all(|(name, _)| log.groups.contains_key(name.as_str()) && *name == group(name.as_str()))
        .then_some(())
        .ok_or_else(|| "another group came".to_owned())
}

/// What is judged of one crash.
pub(crate) struct Case<'a> {
    pub(crate) known: &'a State,
    pub(crate) offered: &'a State,
    pub(crate) lie: Lie,
    pub(crate) seed: u64,
    pub(crate) runtime: &'a Runtime,
}

impl Case<'_> {
    /// Recovers the disk, and again after another crash with the same result; then goes on.
    /// Leaves `disk` recovered, and says what it holds.
    pub(crate) fn judge(&self, disk: &FaultyDisk) -> Result<State, String> {
        let engine = self.lie.over(disk);
        let seen = read(&engine)?;
        compare(self.known, self.offered, &seen).map_err(|e| format!("read: {e}"))?;
        let first = recover(&engine, self.runtime, |_, found| Ok(found))?;
        compare(self.known, self.offered, &first).map_err(|e| format!("recovered: {e}"))?;
        for (name, before) in &seen {
            // What somebody has read stays.
            if first.get(name).is_none_or(|now| now.end < before.end) {
                return Err(format!("{name}: a reader saw {} records", before.end));
            }
        }
        let state = adopt(self.known, self.offered, &first);
        self.go_on(disk, &first)?;
        Ok(state)
    }

    fn go_on(&self, disk: &FaultyDisk, first: &All) -> Result<(), String> {
        let again = self.crash(disk, 0);
        let engine = self.lie.over(&again);
        let mut state = State::new();
        recover(&engine, self.runtime, |writers, found| {
            if logs(&found) != logs(first) {
                return Err(format!("{found:?}, not {first:?}"));
            }
            // A group's change that was on its way may still be lost.
            compare(self.known, self.offered, &found)?;
            state = adopt(self.known, self.offered, &found);
            let now = again.now().as_millis();
            for (name, writer) in writers {
                let log = state.get_mut(name).unwrap();
                probe(writer, log, now).map_err(|e| format!("gone on in {name}: {e}"))?;
                probe_groups(&groups_of(&engine, name), log, self.runtime)?;
            }
            Ok(())
        })
        .map_err(|e| format!("recovered again: {e}"))?;
        let engine = self.lie.over(&self.crash(&again, 1));
        let last = recover(&engine, self.runtime, |_, found| Ok(found))
            .map_err(|e| format!("after it went on: {e}"))?;
        // The end of a group that nobody was told of may be undone.
        let mut low = state.clone();
        for (name, log) in &mut low {
            let known = self.known.get(name);
            for (group, row) in known.into_iter().flat_map(|known| &known.groups) {
                log.groups.entry(group.clone()).or_insert(*row);
            }
        }
        compare(&low, &state, &last).map_err(|e| format!("after it went on: {e}"))
    }

    fn crash(&self, disk: &FaultyDisk, which: u64) -> FaultyDisk {
        let chance = Dice(self.seed ^ which).next();
        if chance.is_multiple_of(2) {
            disk.after_kill()
        } else {
            disk.after_power_loss(chance)
        }
    }
}
