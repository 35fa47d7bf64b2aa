//! All that there is to see of a topic: by a replay, below core, by a group.

use std::collections::BTreeSet;

use annals_core::capability::GroupNames;
use annals_core::driver::Stop as Bound;
use annals_core::{Batch, Key, PartitionId, Record, Recorded, Stored};

use super::readings::{self, ROOMS};
use crate::law::Shape;
use crate::trial::{During, Judged, Stage, Stop, Trial};
use crate::workload;

/// Writers from this one on write markers.
const MARKERS: u32 = 9_000;
/// Markers without a key.
const KEYLESS: usize = 3;
/// So many keys are tried to reach every partition.
const PROBES: usize = 200;

/// What one way of looking showed, markers left out.
#[derive(Debug)]
pub struct Sight {
    /// Which way.
    pub by: &'static str,
    /// The records, in the order in which they came.
    pub records: Vec<Recorded>,
}

impl Sight {
    /// The values, in their order.
    pub fn texts(&self) -> Vec<String> {
        workload::texts(&self.records)
    }
}

/// Appends a marker behind each of `keys`, some without a key, and one in each open partition.
async fn mark(stage: &Stage, keys: &[Key], round: u32) -> Judged<Vec<String>> {
    let marker = |number| Record::new(workload::value(MARKERS + round, number));
    let keyed = keys.iter().zip(KEYLESS..);
    let keyed = keyed.map(|(key, number)| marker(number).key(key.clone()));
    let markers: Batch = (0..KEYLESS).map(marker).chain(keyed).collect();
    let mut offered = workload::offered(&markers);
    let told = stage.topic.append(markers).await;
    let told = told.during("appending the markers")?;
    // Where receipts name partitions none is left without a marker: keys are probed for one.
    let place = |stored: &Stored| {
        let at = stored.position.map(|position| position.partition());
        stored.partition.or(at)
    };
    let mut marked: BTreeSet<PartitionId> = told.records().iter().filter_map(place).collect();
    if marked.is_empty() {
        return Ok(offered);
    }
    let listed = stage.backend.partitions(&stage.name).await;
    let listed = listed.during("listing the partitions")?;
    let open = listed.iter().filter(|partition| partition.open);
    let open: BTreeSet<PartitionId> = open.map(|partition| partition.id).collect();
    for probe in 0..PROBES {
        if open.is_subset(&marked) {
            break;
        }
        let number = offered.len();
        offered.push(workload::value(MARKERS + round, number));
        let record = marker(number).key(format!("probe-{probe}"));
        let told = stage.topic.append(record).await;
        let told = told.during("appending a marker")?;
        marked.extend(told.records().iter().filter_map(place));
    }
    Ok(offered)
}

/// The values of the markers behind so many keys.
pub fn markers(keys: usize, round: u32) -> Vec<String> {
    let numbers = 0..KEYLESS + keys;
    numbers
        .map(|number| workload::value(MARKERS + round, number))
        .collect()
}

/// More records than any page or request holds; fewer where each is handed out by itself.
pub fn many(stage: &Stage) -> usize {
    if Shape::of(stage.capabilities()) == Shape::Queue {
        130
    } else {
        1_030
    }
}

/// Whether the topic can be subscribed to.
pub fn has_groups(stage: &Stage) -> bool {
    let names = stage.capabilities().groups.names.known();
    names.is_some_and(|names| *names != GroupNames::None)
}

/// Whether a reading can begin with the first record that is kept.
fn is_read(stage: &Stage) -> bool {
    let starts = stage.capabilities().starts.known();
    Shape::of(stage.capabilities()) != Shape::Queue
        && starts.is_some_and(|starts| starts.beginning || starts.earliest)
}

/// Looks in every way, by the client at hand and by another one, up to a marker behind each of
/// `keys`; `round` tells the markers of one look from those of another.
///
/// # Errors
/// What the backend says; a marker that does not come.
pub async fn all(
    trial: &Trial,
    stage: &Stage,
    group: &str,
    keys: &[Key],
    round: u32,
) -> Judged<Vec<Sight>> {
    let markers = mark(stage, keys, round).await?;
    let other = trial.on(&stage.name).await?;
    let mut sights = Vec::new();
    let mut add = |by, records: Vec<Recorded>| {
        let is_marker = |record: &Recorded| {
            let text = workload::text(record);
            (0..=round).any(|round| text.starts_with(&format!("w{}-", MARKERS + round)))
        };
        let records = records.into_iter().filter(|r| !is_marker(r)).collect();
        sights.push(Sight { by, records });
    };
    if is_read(stage) {
        add("by a replay", stage.read_all().await?);
        add("by another client's replay", other.read_all().await?);
        let first = readings::first(stage);
        let from = other.backend.locate(&stage.name, &first).await;
        let from = from.during("asking for the start")?;
        if let Some(rooms) = ROOMS.get(1) {
            let read = readings::read_raw(trial, &other, &from, &Bound::End, rooms).await?;
            add("below core", read);
        }
    }
    if has_groups(stage) {
        let taken = workload::delivered(trial, &other, group, &markers).await?;
        add("by a group", taken);
    }
    if sights.is_empty() {
        return Err(Stop::NotExercised(
            "the topic can neither be replayed nor subscribed to".into(),
        ));
    }
    Ok(sights)
}

/// The keys that [`workload::record`] gives.
pub fn keys(keys: usize) -> Vec<Key> {
    (0..keys).map(|key| Key::from(format!("k{key}"))).collect()
}
