//! *No skip*: a follower from the end gets every append after its open, in order, also what turns
//! up late.

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

use annals_core::driver::Stop as Bound;
use annals_core::{Recorded, Replay, Signal, Start, Until};

use super::{Law, REPLAYED};
use crate::harness::{Call, Disturb, Fault, Want};
use crate::trial::{During, Judged, Stage, Stop, Trial};
use crate::verdict::Counts;
use crate::workload;
use crate::workload::odd;
use crate::workload::readings::{self, Parts, ROOMS};

const BEFORE: usize = 20;
/// More than any page.
const MANY: usize = 1_030;

pub(crate) fn law() -> Law {
    Law::new(
        "no_skip",
        "a follower from Latest ascends, gets every append after its open, and misses nothing that turns up later",
        REPLAYED,
    )
    .claimed_by(|has| {
        let starts = has.starts.known();
        starts.is_some_and(|s| s.latest && (s.beginning || s.earliest))
    })
    .case("of four who append at once", four_writers)
    .case("of what comes before it looks", before_it_looks)
    .case("of what comes while it waits", while_it_waits)
    .case("of a burst larger than a page", burst)
    .case("below core, with any room", below_core)
    .case("of two followers, from the end's cursor too", two_followers)
    .case("where partitions split and merge, if they do", reshaped)
    .fault("of appends that are acknowledged late, or never", late)
    .fault("though fetches fail", fetches_fail)
    .fault("though the connection is cut", cut)
    .refusal("what cannot be followed says so", readings::starts_refused)
}

/// A follower, and what was there before it.
struct Follower {
    what: String,
    follow: Replay,
    before: BTreeSet<String>,
    seen: Vec<Recorded>,
}

/// What of the whole as it is now was not there before.
async fn since(stage: &Stage, before: &BTreeSet<String>) -> Judged<Parts> {
    let whole = stage.read(readings::first(stage), Until::End).await?;
    let new: Vec<Recorded> = whole
        .records
        .into_iter()
        .filter(|record| !before.contains(&workload::text(record)))
        .collect();
    readings::ascends("the whole", &new)?;
    Ok(readings::parts(&new))
}

impl Follower {
    async fn from(what: &str, stage: &Stage, start: Start) -> Judged<Self> {
        let before = stage
            .read(readings::first(stage), Until::End)
            .await?
            .records;
        let follow = stage.topic.follow(start).await.during("opening a follow")?;
        Ok(Self {
            what: what.into(),
            follow,
            before: workload::texts(&before).into_iter().collect(),
            seen: Vec::new(),
        })
    }

    async fn latest(stage: &Stage) -> Judged<Self> {
        Self::from("a follower from Latest", stage, Start::Latest).await
    }

    /// Follows while `writes` goes on.
    async fn during<T>(&mut self, writes: impl Future<Output = T>) -> Judged<T> {
        let mut writes = pin!(writes);
        loop {
            tokio::select! {
                biased;
                told = &mut writes => return Ok(told),
                next = self.follow.next() => self.take(next.during("following")?)?,
            }
        }
    }

    fn take(&mut self, record: Option<Recorded>) -> Judged<()> {
        let what = &self.what;
        let record = record.ok_or_else(|| Stop::broken(format!("{what} ended by itself")))?;
        self.seen.push(record);
        Ok(())
    }

    /// Reads until the last of each partition has come, then compares; how many there were.
    async fn misses_nothing(&mut self, trial: &Trial, stage: &Stage) -> Judged<usize> {
        let expected = since(stage, &self.before).await?;
        let mut last: BTreeSet<String> = expected
            .values()
            .filter_map(|records| records.last())
            .map(workload::text)
            .collect();
        for record in &self.seen {
            last.remove(&workload::text(record));
        }
        while !last.is_empty() {
            let next = tokio::time::timeout(trial.patience(), self.follow.next()).await;
            let Ok(next) = next else { break };
            let record = next.during("following")?;
            last.remove(&record.as_ref().map_or_else(String::new, workload::text));
            self.take(record)?;
        }
        readings::ascends(&self.what, &self.seen)?;
        readings::same(&self.what, &readings::parts(&self.seen), &expected)?;
        Ok(self.seen.len())
    }
}

/// One writer's batches, one after the other; what failed may be stored all the same.
async fn write(client: &Stage, writer: u32, batches: usize) -> usize {
    let mut from = 0;
    for batch in 0..batches {
        let records = 1 + (batch * 7 + writer as usize) % 5;
        let batch = workload::batch(writer, from, records, if writer == 4 { 0 } else { 7 });
        drop(client.topic.append(batch).await);
        from += records;
    }
    from
}

async fn four_at_once(trial: &Trial, follower: &mut Follower, name: &Stage) -> Judged<usize> {
    let [a, b, c, d] = [
        trial.on(&name.name).await?,
        trial.on(&name.name).await?,
        trial.on(&name.name).await?,
        trial.on(&name.name).await?,
    ];
    let writes = async {
        let (a, b, c, d) = tokio::join!(
            write(&a, 1, 12),
            write(&b, 2, 12),
            write(&c, 3, 12),
            write(&d, 4, 12)
        );
        a + b + c + d
    };
    let appended = trial
        .soon("four writers", follower.during(writes))
        .await??;
    // Something behind it all, in as many partitions as can be.
    readings::append_varied(name, 9, 0, 20).await?;
    Ok(appended)
}

async fn four_writers(trial: Trial) -> Judged {
    let stage = readings::several(&trial, 3).await?;
    readings::append_varied(&stage, 8, 0, BEFORE).await?;
    let mut follower = Follower::latest(&stage).await?;
    let appended = four_at_once(&trial, &mut follower, &stage).await?;
    let seen = follower.misses_nothing(&trial, &stage).await?;
    Ok(Counts::new()
        .of("records appended", appended, 100)
        .of("records followed", seen, 100))
}

async fn before_it_looks(trial: Trial) -> Judged {
    let mut seen = 0;
    for before in [0, BEFORE] {
        let stage = readings::several(&trial, 3).await?;
        readings::append_varied(&stage, 8, 0, before).await?;
        let mut follower = Follower::latest(&stage).await?;
        readings::append_varied(&stage, 1, 0, 10).await?;
        seen += follower.misses_nothing(&trial, &stage).await?;
        for round in 1..6 {
            readings::append_varied(&stage, 1, round * 10, round).await?;
            odd::append_odd(&stage, 2, u8::try_from(round).unwrap_or(0)).await?;
            // Behind those that have no value, by which they could be told.
            readings::append_varied(&stage, 3, round * 20, 20).await?;
            seen += follower.misses_nothing(&trial, &stage).await?;
        }
    }
    Ok(Counts::new().of("records followed", seen, 40))
}

/// Caught up, and waiting, when one comes, or several at once.
async fn while_it_waits(trial: Trial) -> Judged {
    let stage = readings::several(&trial, 3).await?;
    readings::append_varied(&stage, 8, 0, BEFORE).await?;
    let writer = trial.on(&stage.name).await?;
    let mut follower = Follower::latest(&stage).await?;
    loop {
        let signal = trial.soon("catching up", follower.follow.next_signal());
        match signal.await?.during("catching up")? {
            Some(Signal::CaughtUp(_)) => break,
            Some(Signal::Record(record)) => follower.take(Some(record))?,
            _ => {}
        }
    }
    let mut from = 0;
    for burst in [1, 2, 30, 3, 120, 1] {
        let next = tokio::time::timeout(trial.patience(), follower.follow.next());
        let (next, written) = tokio::join!(next, readings::append_varied(&writer, 1, from, burst));
        written?;
        from += burst;
        // That nothing comes at all the whole shows.
        if let Ok(next) = next {
            follower.take(next.during("following")?)?;
        }
        follower.misses_nothing(&trial, &stage).await?;
    }
    Ok(Counts::new().of("records followed", follower.seen.len(), from))
}

async fn burst(trial: Trial) -> Judged {
    let stage = trial.stage(&Want::default()).await?;
    readings::append_varied(&stage, 8, 0, BEFORE).await?;
    let mut one = Follower::latest(&stage).await?;
    let mut two = Follower::latest(&stage).await?;
    readings::append_varied(&stage, 1, 0, MANY).await?;
    let seen = one.misses_nothing(&trial, &stage).await?;
    // The other one in batches.
    while two.seen.len() < seen {
        let batch = trial.soon("a batch", two.follow.next_batch()).await?;
        let batch = batch.during("following in batches")?;
        let batch = batch.ok_or_else(|| Stop::broken("a follow ended by itself"))?;
        two.seen.extend(batch);
    }
    two.misses_nothing(&trial, &stage).await?;
    Ok(Counts::new().of("records followed", seen, MANY))
}

async fn below_core(trial: Trial) -> Judged {
    let stage = readings::several(&trial, 3).await?;
    let writer = trial.on(&stage.name).await?;
    let mut before: BTreeSet<String> = readings::append_varied(&stage, 8, 0, BEFORE)
        .await?
        .into_iter()
        .collect();
    let (mut seen, mut number) = (0, 0);
    for rooms in ROOMS {
        let from = stage.backend.locate(&stage.name, &Start::Latest).await?;
        let mut readers = readings::raw_readers(&stage, &from, &Bound::Never, None, rooms).await?;
        let mut records = Vec::new();
        for _ in 0..4 {
            readings::append_varied(&writer, 1, number, 12).await?;
            number += 12;
            let expected = since(&stage, &before).await?;
            let all: usize = expected.values().map(Vec::len).sum();
            for reader in &mut readers {
                let awaited = match reader.partition {
                    Some(id) => expected.get(&Some(id)).map_or(0, Vec::len),
                    None => all,
                };
                // Not all of it: the rest waits while more is appended.
                reader.at_most(&trial, awaited.saturating_sub(3)).await?;
            }
        }
        let expected = since(&stage, &before).await?;
        for reader in &mut readers {
            let awaited = match reader.partition {
                Some(id) => expected.get(&Some(id)).map_or(0, Vec::len),
                None => expected.values().map(Vec::len).sum(),
            };
            reader.at_most(&trial, awaited).await?;
            records.append(&mut reader.records);
        }
        let what = format!("below core, from Latest, {:?}", rooms.first());
        readings::ascends(&what, &records)?;
        readings::same(&what, &readings::parts(&records), &expected)?;
        seen += records.len();
        before.extend(workload::texts(&records));
    }
    Ok(Counts::new().of("records followed", seen, 200))
}

async fn two_followers(trial: Trial) -> Judged {
    let stage = readings::several(&trial, 3).await?;
    readings::append_varied(&stage, 8, 0, BEFORE).await?;
    let other = trial.on(&stage.name).await?;
    let mut followers = vec![
        Follower::latest(&stage).await?,
        Follower::latest(&other).await?,
    ];
    if stage.capabilities().starts.known().is_some_and(|s| s.after) {
        let end = stage.backend.locate(&stage.name, &Start::Latest).await?;
        let start = Start::After(end);
        followers.push(Follower::from("a follower from the end's cursor", &other, start).await?);
    }
    let mut seen = 0;
    for round in 0..5 {
        readings::append_varied(&stage, 1, round * 20, 7 + round).await?;
        readings::append_varied(&other, 2, round * 20, 5).await?;
        for (number, follower) in followers.iter_mut().enumerate() {
            // Not each every time.
            if round == 4 || (round + number) % 2 == 0 {
                seen += follower.misses_nothing(&trial, &stage).await?;
            }
        }
    }
    Ok(Counts::new().of("records followed", seen, 100))
}

async fn reshaped(trial: Trial) -> Judged {
    let stage = readings::several(&trial, 3).await?;
    readings::append_varied(&stage, 8, 0, BEFORE).await?;
    let mut follower = Follower::latest(&stage).await?;
    for step in 0..4 {
        readings::append_varied(&stage, 1, step * 40, 20).await?;
        readings::reshape(&trial, &stage, step).await?;
        readings::append_varied(&stage, 1, step * 40 + 20, 20).await?;
        if step % 2 == 1 {
            follower.misses_nothing(&trial, &stage).await?;
        }
    }
    let mut after = Follower::latest(&stage).await?;
    readings::append_varied(&stage, 2, 0, 20).await?;
    let seen = follower.misses_nothing(&trial, &stage).await?;
    let late = after.misses_nothing(&trial, &stage).await?;
    Ok(Counts::new().of("records followed", seen, 160).of(
        "records followed from the last shape",
        late,
        20,
    ))
}

async fn late(trial: Trial) -> Judged {
    let stage = readings::several(&trial, 3).await?;
    readings::append_varied(&stage, 8, 0, BEFORE).await?;
    let mut follower = Follower::latest(&stage).await?;
    let before = trial.fired();
    for round in 0..6_u64 {
        for fault in [
            Fault::Delay(Duration::from_millis(5 + round)),
            Fault::Lose { done: true },
            Fault::Delay(Duration::from_millis(1)),
            Fault::Lose { done: false },
        ] {
            let fault = Disturb::Fault(Call::Append, fault);
            trial.disturb(&stage.name, fault).await?;
        }
    }
    let appended = four_at_once(&trial, &mut follower, &stage).await?;
    let fired = trial.fired() - before;
    trial.disturb(&stage.name, Disturb::Heal).await?;
    readings::append_varied(&stage, 10, 0, 20).await?;
    let seen = follower.misses_nothing(&trial, &stage).await?;
    Ok(Counts::new()
        .of("records appended", appended, 100)
        .of("records followed", seen, 80)
        .of("answers delayed or lost", fired, 10))
}

async fn fetches_fail(trial: Trial) -> Judged {
    let stage = readings::several(&trial, 3).await?;
    let writer = trial.on(&stage.name).await?;
    readings::append_varied(&stage, 8, 0, BEFORE).await?;
    let before = trial.fired();
    let mut seen = 0;
    // Before the first record, once caught up, and in the middle of some.
    for (round, failures) in [1, 4].into_iter().enumerate() {
        let from = round * 100;
        let mut follower = Follower::latest(&stage).await?;
        let fail = async |fault: Fault| {
            for _ in 0..failures {
                let fault = Disturb::Fault(Call::Fetch, fault.clone());
                trial.disturb(&stage.name, fault).await?;
            }
            Judged::Ok(())
        };
        fail(Fault::Disconnect).await?;
        readings::append_varied(&writer, 1, from, 10).await?;
        follower
            .misses_nothing(&trial, &trial.on(&stage.name).await?)
            .await?;
        fail(Fault::Lose { done: true }).await?;
        let writes = async {
            for step in 0..5 {
                readings::append_varied(&writer, 1, from + 10 + step * 5, 5).await?;
                let pass = Disturb::Pass(Duration::from_millis(50));
                trial.disturb(&writer.name, pass).await?;
            }
            Judged::Ok(())
        };
        follower.during(writes).await??;
        fail(Fault::Throttle(Duration::from_millis(5))).await?;
        readings::append_varied(&writer, 1, from + 50, 10).await?;
        seen += follower
            .misses_nothing(&trial, &trial.on(&stage.name).await?)
            .await?;
    }
    let fired = trial.fired() - before;
    trial.disturb(&stage.name, Disturb::Heal).await?;
    Ok(Counts::new()
        .of("records followed", seen, 80)
        .of("failures", fired, 10))
}

async fn cut(trial: Trial) -> Judged {
    let stage = readings::several(&trial, 3).await?;
    readings::append_varied(&stage, 8, 0, BEFORE).await?;
    let before = trial.fired();
    let mut follower = Follower::latest(&stage).await?;
    for round in 0..3 {
        readings::append_varied(&stage, 1, round * 40, 15).await?;
        trial.disturb(&stage.name, Disturb::Cut).await?;
        // It tries again and again meanwhile.
        let wait = trial.disturb(&stage.name, Disturb::Pass(Duration::from_millis(900)));
        follower.during(wait).await??;
        trial.disturb(&stage.name, Disturb::Heal).await?;
        let client = trial.on(&stage.name).await?;
        readings::append_varied(&client, 1, round * 40 + 15, 15).await?;
        follower.misses_nothing(&trial, &client).await?;
    }
    Ok(Counts::new()
        .of("records followed", follower.seen.len(), 90)
        .of("calls that were cut off", trial.fired() - before, 1))
}
