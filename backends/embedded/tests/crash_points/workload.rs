//! Random work on a directory of topics, with a note of what must be there at each moment.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use annals_core::driver::{Admin, Leases, Mark, Room, Tenancy};
use annals_core::{Clock, Frontier, Group, PartitionId, Position, TopicName};
use annals_embedded::disk::{Call, Disk, Fault, FaultyDisk};
use annals_embedded::log::{
    Condition, Dedupe, Encoded, Fetch, Place, Request, Scan, Settings, Sizes, StopAt, Topic,
    TopicId, Writer, create,
};
use annals_embedded::{Builder, Embedded, Groups};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use crate::dice::Dice;
use crate::model::{Answer, Ask, Log, Offer, Row, State};
use crate::saboteur::Lie;

/// Small enough that segments roll, groups split and pages end within a few records.
pub(crate) const TINY: Sizes = Sizes {
    segment: 7 << 10,
    records: 24,
    reserve_first: 512,
    reserve_most: 2048,
    group: 3 << 10,
    page: 600,
};

/// The log's directory: the first process makes it.
pub(crate) const ROOT: &str = "log";

const TOPICS: [&str; 2] = ["a", "b"];
const GROUPS: [&str; 2] = ["g", "h"];

/// What holds at one moment: `known` is promised from here on, `offered` is what may be there at
/// any moment since the mark before this one.
#[derive(Clone)]
pub(crate) struct Moment {
    pub(crate) at: usize,
    pub(crate) known: State,
    pub(crate) offered: State,
}

/// A process at work.
pub(crate) struct Work<'a> {
    pub(crate) disk: FaultyDisk,
    pub(crate) lie: Lie,
    pub(crate) clock: Clock,
    pub(crate) state: State,
    pub(crate) moments: Vec<Moment>,
    /// Each step and its outcome.
    pub(crate) trace: Vec<String>,
    process: Option<Process>,
    dice: Dice,
    pub(crate) seed: u64,
    serial: usize,
    pub(crate) runtime: &'a Runtime,
}

/// What is gone with the process.
pub(crate) struct Process {
    pub(crate) root: Embedded,
    pub(crate) writers: BTreeMap<String, Writer>,
    groups: BTreeMap<String, Groups>,
    held: BTreeMap<(String, String), Tenancy>,
}

pub(crate) fn place(disk: &Arc<dyn Disk>, name: &str) -> Place {
    Place {
        disk: Arc::clone(disk),
        root: Path::new(ROOT).to_owned(),
        name: TopicName::new(name).unwrap(),
        sizes: TINY,
    }
}

pub(crate) fn groups_of(disk: &Arc<dyn Disk>, topic: &str) -> Groups {
    let dir = Path::new(ROOT).join(topic);
    Groups::new(Arc::clone(disk), dir, "me".to_owned())
}

pub(crate) fn group(name: &str) -> Group {
    Group::new(name).unwrap()
}

pub(crate) fn after(position: u64) -> Frontier {
    Frontier::after(Position::new(PartitionId::ONLY, position))
}

/// Takes the root's lock and clears what a crash left, as the first call that writes does.
pub(crate) fn claim(disk: &Arc<dyn Disk>, runtime: &Runtime) -> Result<Embedded, String> {
    let built = Builder::memory().disk(Arc::clone(disk), ROOT).sizes(TINY);
    let root = built.build().map_err(|e| e.to_string())?;
    let nobody = TopicName::new("nobody").unwrap();
    match runtime.block_on(root.delete(&nobody)) {
        Err(e) if e.kind() == annals_core::ErrorKind::NotFound => Ok(root),
        other => Err(format!("claiming the root: {other:?}")),
    }
}

/// Makes the indexes that are missing or torn, as the background and readers do: a group of appends
/// makes one at most, and refuses what needs more. What cannot be made is told by the append.
fn mend_indexes(topic: &Arc<Topic>) {
    let _ = topic.index_sealed();
    let room = Room {
        records: 100,
        bytes: 1 << 20,
    };
    for key in ["k0", "k1", "k2"] {
        let mut scan = Scan::new(Arc::clone(topic), 0, StopAt::Never).of_key(key.into());
        let mut records = Vec::new();
        while !matches!(scan.fetch(room, &mut records), Ok(Fetch::CaughtUp) | Err(_)) {}
    }
}

/// Commits what waits together; `group_done` hears of each group.
pub(crate) fn commit(
    writer: &mut Writer,
    asks: &[Ask],
    mut group_done: impl FnMut(&Writer),
) -> Vec<Vec<Answer>> {
    let mut waiting = VecDeque::new();
    let mut answers = Vec::new();
    for ask in asks {
        let batch = ask.batch();
        let (answer, receiver) = oneshot::channel();
        answers.push((batch.len(), receiver));
        waiting.push_back(Request {
            batch: Encoded::new(&batch, Vec::new()).unwrap(),
            condition: ask.condition.clone(),
            epoch: ask.epoch,
            answer,
        });
    }
    while !waiting.is_empty() {
        mend_indexes(writer.topic());
        writer.commit(&mut waiting, drop);
        group_done(writer);
    }
    answers
        .into_iter()
        .map(|(len, mut answer)| {
            let report = answer.try_recv().unwrap().into_report(len);
            report.outcomes().iter().map(Answer::of).collect()
        })
        .collect()
}

impl<'a> Work<'a> {
    /// On an empty disk.
    pub(crate) fn new(seed: u64, lie: Lie, runtime: &'a Runtime) -> Self {
        let clock = Clock::moved(annals_core::Timestamp::from_millis(1_000));
        let disk = FaultyDisk::new(clock.clone());
        Self {
            disk,
            lie,
            clock,
            state: State::new(),
            moments: Vec::new(),
            trace: Vec::new(),
            process: None,
            dice: Dice(seed),
            seed,
            serial: 0,
            runtime,
        }
    }

    /// Another process goes on where a crash has left `disk` with `state`. What a group's change
    /// that nobody was told of has become, is settled first.
    pub(crate) fn go_on(&mut self, disk: FaultyDisk, state: State) -> Result<(), String> {
        self.process = None;
        self.disk = disk;
        self.state = state;
        let engine = self.disk();
        for (topic, log) in &mut self.state {
            let groups = groups_of(&engine, topic);
            for (name, row) in &mut log.groups {
                let tenancy = take(&groups, name, self.runtime)?;
                row.epoch = tenancy.epoch;
                let name = group(name);
                let released = groups.release(&name, tenancy);
                self.runtime.block_on(released).map_err(|e| e.to_string())?;
            }
            for dir in [
                Path::new(ROOT).join(topic).join("groups"),
                Path::new(ROOT).join(topic),
            ] {
                match self.disk.sync_dir(&dir) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e.to_string()),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    pub(crate) fn disk(&self) -> Arc<dyn Disk> {
        self.lie.over(&self.disk)
    }

    fn mark(&mut self) {
        self.mark_as(self.state.clone());
    }

    fn mark_as(&mut self, offered: State) {
        self.moments.push(Moment {
            at: self.disk.recorded(),
            known: self.state.clone(),
            offered,
        });
    }

    /// Records some steps anew.
    pub(crate) fn run(&mut self, steps: usize) -> Result<(), String> {
        self.disk.record();
        self.moments.clear();
        self.trace.clear();
        self.mark();
        self.start()?;
        for _ in 0..steps {
            self.step()?;
        }
        Ok(())
    }

    /// The first call that writes, and the topics that are there.
    fn start(&mut self) -> Result<(), String> {
        let disk = self.disk();
        let mut process = Process {
            root: claim(&disk, self.runtime)?,
            writers: BTreeMap::new(),
            groups: BTreeMap::new(),
            held: BTreeMap::new(),
        };
        for name in self.state.keys() {
            let writer = Writer::open(&place(&disk, name));
            let writer = writer.map_err(|e| format!("opening {name}: {e}"))?;
            process.writers.insert(name.clone(), writer);
            process.groups.insert(name.clone(), groups_of(&disk, name));
        }
        self.process = Some(process);
        self.mark();
        self.note("start");
        Ok(())
    }

    fn note(&mut self, what: impl Into<String>) {
        self.trace
            .push(format!("{} {}", self.disk.recorded(), what.into()));
    }

    fn step(&mut self) -> Result<(), String> {
        let Some(mut process) = self.process.take() else {
            return Err("no process".to_owned());
        };
        let topic = self.dice.pick(self.state.keys().cloned());
        let dice = self.dice.below(40);
        let ended = match topic {
            None => self.create(&mut process),
            Some(_) if dice == 0 => self.create(&mut process),
            Some(topic) => self.on(&mut process, &topic, dice),
        };
        self.process = Some(process);
        ended?;
        if dice >= 38 {
            // Killed, and started again.
            self.process = None;
            self.start()?;
        }
        self.mark();
        Ok(())
    }

    fn on(&mut self, process: &mut Process, topic: &str, dice: usize) -> Result<(), String> {
        match dice {
            1 => self.delete(process, topic),
            2..5 => self.trim(process, topic),
            5..15 => self.group_step(process, topic),
            15 => self.fail(process, topic),
            16..18 => self.close(process, topic),
            18 => {
                let writer = process.writers.get_mut(topic).unwrap();
                writer.sync_tail();
                writer.rest();
                self.note("rest");
                Ok(())
            }
            19..21 => {
                let made = process.writers[topic].topic().index_sealed();
                self.note(format!("index {made:?}"));
                made.map_err(|e| e.to_string())
            }
            21 => {
                self.clock.advance(Duration::from_millis(400));
                Ok(())
            }
            _ => self.append(process, topic),
        }
    }

    fn create(&mut self, process: &mut Process) -> Result<(), String> {
        let Some(name) = TOPICS.iter().find(|name| !self.state.contains_key(**name)) else {
            return Ok(());
        };
        let dedupe = match self.dice.below(4) {
            0 => Dedupe::Off,
            1 => Dedupe::Window(Duration::from_secs(1)),
            _ => Dedupe::Forever,
        };
        self.serial += 1;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.dice.next().to_le_bytes());
        id[8..].copy_from_slice(&self.serial.to_le_bytes());
        let log = Log::new(TopicId(id), dedupe);
        let settings = Settings {
            dedupe,
            ..Settings::default()
        };
        let disk = self.disk();
        let here = place(&disk, name);
        create(&*disk, &here.root, &here.name, log.incarnation, settings)
            .map_err(|e| format!("creating {name}: {e}"))?;
        self.state.insert((*name).to_owned(), log);
        self.mark();
        let writer = Writer::open(&here).map_err(|e| format!("opening {name}: {e}"))?;
        process.writers.insert((*name).to_owned(), writer);
        process
            .groups
            .insert((*name).to_owned(), groups_of(&disk, name));
        self.note(format!("create {name}"));
        Ok(())
    }

    fn delete(&mut self, process: &mut Process, name: &str) -> Result<(), String> {
        if let Some(mut writer) = process.writers.remove(name) {
            writer.close().map_err(|e| e.to_string())?;
        }
        if let Some(groups) = process.groups.remove(name) {
            groups.let_go();
        }
        process.held.retain(|(topic, _), _| topic != name);
        self.mark();
        let topic = TopicName::new(name).unwrap();
        self.runtime
            .block_on(process.root.delete(&topic))
            .map_err(|e| format!("deleting {name}: {e}"))?;
        self.state.remove(name);
        self.note(format!("delete {name}"));
        Ok(())
    }

    fn trim(&mut self, process: &mut Process, name: &str) -> Result<(), String> {
        let mut log = self.state[name].clone();
        let to = log.earliest + self.dice.below(log.len() - log.earliest + 1);
        log.earliest = to;
        if to > self.state[name].earliest && self.dice.below(4) == 0 && !self.lie.spares("start") {
            return self.trim_in_vain(process, name, log);
        }
        self.state.insert(name.to_owned(), log);
        let trimmed = process.writers[name].topic().trim(to as u64);
        self.note(format!("trim {name} {to}"));
        trimmed.map_err(|e| e.to_string())
    }

    /// The sync of the low-water mark fails; the next writer finds out where it is.
    fn trim_in_vain(
        &mut self,
        process: &mut Process,
        name: &str,
        trimmed: Log,
    ) -> Result<(), String> {
        let fault = Fault::new(Call::Sync).on("start");
        self.disk.faults().inject(fault);
        let writer = process.writers.get_mut(name).unwrap();
        let to = trimmed.earliest;
        if writer.topic().trim(to as u64).is_ok() {
            return Err("a failed sync of the low-water mark went unnoticed".to_owned());
        }
        let mut offered = self.state.clone();
        offered.insert(name.to_owned(), trimmed);
        self.mark_as(offered.clone());
        let opened = Writer::open(&place(&self.disk(), name));
        *writer = opened.map_err(|e| format!("after a failed sync: {e}"))?;
        let earliest = usize::try_from(writer.topic().end().earliest).unwrap();
        let log = self.state.get_mut(name).unwrap();
        if earliest != log.earliest && earliest != to {
            return Err(format!("after a failed sync: the log begins at {earliest}"));
        }
        log.earliest = earliest;
        self.mark_as(offered);
        self.note(format!("trim {name} {to} in vain: {earliest}"));
        Ok(())
    }

    fn close(&mut self, process: &mut Process, name: &str) -> Result<(), String> {
        let writer = process.writers.get_mut(name).unwrap();
        writer.close().map_err(|e| e.to_string())?;
        *writer = Writer::open(&place(&self.disk(), name)).map_err(|e| e.to_string())?;
        self.note(format!("close {name}"));
        Ok(())
    }

    /// One append whose sync fails; the next writer finds out what became of it.
    fn fail(&mut self, process: &mut Process, name: &str) -> Result<(), String> {
        if self.lie.spares(".seg") {
            return Ok(());
        }
        let mut log = self.state[name].clone();
        let value = self.value();
        let ask = Ask {
            records: vec![Offer {
                value,
                key: None,
                id: None,
            }],
            condition: Condition::None,
            epoch: None,
        };
        log.decide(&ask, self.clock.now().as_millis());
        let mut offered = self.state.clone();
        offered.insert(name.to_owned(), log.clone());
        let writer = process.writers.get_mut(name).unwrap();
        self.disk
            .faults()
            .inject(Fault::new(Call::Sync).on(".seg").errno(28));
        let answers = commit(writer, &[ask], |_| {});
        self.disk.faults().clear();
        if writer.failed().is_none() {
            return Err(format!("a failed sync left the log open: {answers:?}"));
        }
        self.mark_as(offered.clone());
        let opened = Writer::open(&place(&self.disk(), name));
        *writer = opened.map_err(|e| format!("after a failed sync: {e}"))?;
        let len = usize::try_from(writer.topic().end().next).unwrap();
        let before = self.state[name].len();
        if len != before
            && (len != log.len()
                || answers == [[Answer::Refused(annals_core::ErrorKind::Internal)]])
        {
            return Err(format!(
                "after a failed sync: {len} records, {before} before it"
            ));
        }
        self.state.insert(name.to_owned(), log.cut(len));
        self.mark_as(offered);
        self.note(format!("fail {name} {answers:?} {len}"));
        Ok(())
    }

    fn value(&mut self) -> String {
        self.serial += 1;
        // Few lengths: what is left of a torn group can then fit behind what is written anew.
        let fill = [0, 0, 0, 100, 100, 300, 700, 1700][self.dice.below(8)];
        format!("{:03}.{:04}.{:x>fill$}", self.seed, self.serial, "")
    }

    fn ask(&mut self, log: &Log) -> Ask {
        let records = (0..=self.dice.below(4).saturating_sub(1))
            .map(|_| {
                let value = self.value();
                let key = (self.dice.below(4) > 0).then(|| format!("k{}", self.dice.below(3)));
                let id = match self.dice.below(4) {
                    0 => None,
                    // One that may have been.
                    1 => Some(format!("i{:04}", 1 + self.dice.below(self.serial))),
                    _ => Some(format!("i{:04}", self.serial)),
                };
                Offer { value, key, id }
            })
            .collect();
        let right = self.dice.below(3) > 0;
        let condition = match self.dice.below(6) {
            0 => Condition::End(log.len() as u64 + u64::from(!right)),
            1 => {
                let key = format!("k{}", self.dice.below(3));
                let last = log.newest_of(&key);
                Condition::KeyAt {
                    key: key.into_bytes().into(),
                    last: if right { last } else { Some(77) },
                }
            }
            _ => Condition::None,
        };
        let fence = log.fence();
        let epoch = match self.dice.below(12) {
            0 => Some(fence + 1),
            1 => Some(fence.saturating_sub(1)),
            2..4 => Some(fence),
            _ => None,
        };
        Ask {
            records,
            condition,
            epoch,
        }
    }

    fn append(&mut self, process: &mut Process, name: &str) -> Result<(), String> {
        let mut log = self.state[name].clone();
        let now = self.clock.now().as_millis();
        let mut asks = Vec::new();
        let mut expected = Vec::new();
        for _ in 0..=self.dice.below(4) {
            let ask = self.ask(&log);
            expected.push(log.decide(&ask, now));
            asks.push(ask);
        }
        let mut offered = self.state.clone();
        offered.insert(name.to_owned(), log.clone());
        let writer = process.writers.get_mut(name).unwrap();
        let answers = commit(writer, &asks, |writer| {
            let len = usize::try_from(writer.topic().end().next).unwrap();
            let mut known = self.state.clone();
            known.insert(name.to_owned(), log.cut(len));
            self.moments.push(Moment {
                at: self.disk.recorded(),
                known,
                offered: offered.clone(),
            });
        });
        self.note(format!("append {name} {answers:?}"));
        if answers != expected {
            return Err(format!(
                "{name}: {asks:?} gave {answers:?}, not {expected:?}"
            ));
        }
        self.state.insert(name.to_owned(), log);
        Ok(())
    }

    fn group_step(&mut self, process: &mut Process, topic: &str) -> Result<(), String> {
        let name = self.dice.pick(GROUPS).unwrap();
        let log = self.state.get_mut(topic).unwrap();
        let groups = &process.groups[topic];
        let of = group(name);
        let place = (topic.to_owned(), name.to_owned());
        let fail = |what: &str, e: annals_core::Error| format!("{what} {topic} {name}: {e}");
        let Some(row) = log.groups.get_mut(name) else {
            let start = Row { at: None, epoch: 0 };
            log.groups.insert(name.to_owned(), start);
            let made = groups.create(&of, Frontier::START);
            self.note(format!("found {topic} {name}"));
            return if made.map_err(|e| fail("founding", e))? {
                Ok(())
            } else {
                Err(format!("group {name} is there already"))
            };
        };
        let Some(tenancy) = process.held.get(&place).copied() else {
            if self.dice.below(6) == 0 {
                log.groups.remove(name);
                let gone = groups.delete(&of);
                self.note(format!("delete {topic} {name}"));
                return gone.map_err(|e| fail("deleting", e));
            }
            let tenancy = take(groups, name, self.runtime)?;
            if tenancy.epoch <= row.epoch {
                return Err(format!("{name} was taken with {tenancy:?} after {row:?}"));
            }
            row.epoch = tenancy.epoch;
            process.held.insert(place, tenancy);
            self.note(format!("take {topic} {name} {tenancy:?}"));
            return Ok(());
        };
        let kept = log.records.len() as u64;
        let next = row.at.map_or(0, |at| at + 1);
        if next >= kept || self.dice.below(6) == 0 {
            process.held.remove(&place);
            let released = self.runtime.block_on(groups.release(&of, tenancy));
            self.note(format!("release {topic} {name}"));
            return released.map_err(|e| fail("releasing", e));
        }
        let to = next + self.dice.next() % (kept - next);
        row.at = Some(to);
        let committed = settle(groups, name, tenancy, to, self.runtime);
        self.note(format!("commit {topic} {name} {to} {committed:?}"));
        committed
    }
}

pub(crate) fn take(groups: &Groups, name: &str, runtime: &Runtime) -> Result<Tenancy, String> {
    let fail = |e: annals_core::Error| format!("taking {name}: {e}");
    runtime.block_on(async {
        let rows = groups.load(&group(name)).await.map_err(fail)?;
        let rows = rows.ok_or_else(|| format!("there is no group {name}"))?;
        let taken = groups
            .take(&group(name), &rows[0], &Arc::from("member"))
            .await;
        taken
            .map_err(fail)?
            .ok_or_else(|| format!("{name} cannot be taken"))
    })
}

pub(crate) fn settle(
    groups: &Groups,
    name: &str,
    tenancy: Tenancy,
    to: u64,
    runtime: &Runtime,
) -> Result<(), String> {
    let mark = Mark {
        tenancy,
        to: after(to),
        attempts: 0,
    };
    let fail = |e: annals_core::Error| format!("{:?}: {e}", e.kind());
    let done = runtime.block_on(groups.commit(&group(name), &[mark]));
    done.map_err(fail)?.remove(0).map_err(fail)
}
