//! Crash points of the embedded log: random work on a disk in memory whose every operation is a
//! place to crash at, also inside recovery; a killed process and a loss of power apart.
//!
//! `ANNALS_DEPTH=full` tries more of them, `ANNALS_SEED=N` begins with another seed.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail their test"
)]

mod dice;
mod judge;
mod model;
mod saboteur;
mod workload;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use dice::Dice;
use judge::{Case, fingerprint};
use saboteur::{Lie, Where};
use tokio::runtime::Runtime;
use workload::{Moment, Work};

/// What one seed tries.
struct Plan {
    /// Processes, one after the other, each after a crash of the one before.
    lives: usize,
    steps: usize,
    /// Losses of power at each moment, beside the kill.
    losses: usize,
    /// One of so many recoveries is crashed at each of its own operations.
    nested: usize,
}

const PLAN: Plan = Plan {
    lives: 4,
    steps: 14,
    losses: 3,
    nested: 40,
};

/// Enough for what is wrong at every turn.
const LIGHT: Plan = Plan {
    lives: 4,
    steps: 14,
    losses: 1,
    nested: 1000,
};

fn full() -> bool {
    std::env::var("ANNALS_DEPTH").is_ok_and(|depth| depth == "full")
}

fn first_seed() -> u64 {
    match std::env::var("ANNALS_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => 1,
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
}

/// The crash points of one seed; what it tried is in `points`.
fn explore(seed: u64, lie: Lie, plan: &Plan, points: &mut HashSet<u64>) -> Result<(), String> {
    let runtime = runtime();
    let mut work = Work::new(seed, lie, &runtime);
    live(&mut work, plan, points).map_err(|e| {
        let steps = work.trace.join("\n  ");
        format!("{e}\nchanges so far in this life, and the step:\n  {steps}")
    })
}

fn live(work: &mut Work<'_>, plan: &Plan, points: &mut HashSet<u64>) -> Result<(), String> {
    let (seed, lie, runtime) = (work.seed, work.lie, work.runtime);
    let mut dice = Dice(seed ^ 0xc0_ffee);
    for life in 0..plan.lives {
        let say = |e| format!("seed {seed}, life {life}, at work: {e}");
        work.run(plan.steps).map_err(say)?;
        let history = work.disk.history();
        let next = dice.below(history.len() + 1);
        let mut left = None;
        let mut moments = history.moments();
        let mut seen = HashSet::new();
        loop {
            let at = moments.at();
            let (known, offered) = promised(&work.moments, at);
            for loss in 0..=plan.losses {
                let chance = dice.next();
                let disk = match loss {
                    0 => moments.after_kill(),
                    _ => moments.after_power_loss(chance),
                };
                let print = fingerprint(&disk);
                points.insert(print);
                // The same bytes with the same promises need no second look.
                if !seen.insert((print, known.at, offered.at)) {
                    continue;
                }
                let case = Case {
                    known: &known.known,
                    offered: &offered.offered,
                    lie,
                    seed: chance,
                    runtime,
                };
                let nested = chance.is_multiple_of(plan.nested as u64);
                if nested {
                    disk.record();
                }
                let what = || {
                    let how = if loss == 0 { "killed" } else { "power lost" };
                    format!("seed {seed}, life {life}, {how} at {at}, chance {chance}")
                };
                let state = case.judge(&disk).map_err(|e| format!("{}: {e}", what()))?;
                if nested {
                    inside(&case, &disk, points).map_err(|e| format!("{}: {e}", what()))?;
                }
                let better = at == next && dice.below(plan.losses) == 0;
                if (at >= next && left.is_none()) || better {
                    left = Some((disk, state));
                }
            }
            if !moments.step() {
                break;
            }
        }
        let (disk, state) = left.unwrap_or_else(|| (work.disk.after_kill(), work.state.clone()));
        work.go_on(disk, state)
            .map_err(|e| format!("seed {seed}, after life {life}: {e}"))?;
    }
    Ok(())
}

/// Crashes at each operation of a recovery that was recorded.
fn inside(
    case: &Case<'_>,
    disk: &annals_embedded::disk::FaultyDisk,
    points: &mut HashSet<u64>,
) -> Result<(), String> {
    let history = disk.history();
    let mut moments = history.moments();
    let mut dice = Dice(case.seed);
    loop {
        for disk in [moments.after_kill(), moments.after_power_loss(dice.next())] {
            if points.insert(fingerprint(&disk)) {
                let at = moments.at();
                case.judge(&disk)
                    .map_err(|e| format!("crashed in recovery at {at}: {e}"))?;
            }
        }
        if !moments.step() {
            return Ok(());
        }
    }
}

/// The last mark that was reached, and the one that was on its way.
fn promised(moments: &[Moment], at: usize) -> (&Moment, &Moment) {
    let next = moments.partition_point(|moment| moment.at <= at);
    let known = &moments[next - 1];
    (known, moments.get(next).unwrap_or(known))
}

/// Seeds from two threads; how many distinct crash points they tried.
fn explore_all(seeds: u64, plan: &Plan) -> Result<usize, String> {
    let first = first_seed();
    let next = AtomicU64::new(first);
    let points = Mutex::new(HashSet::new());
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        let seed = next.fetch_add(1, Ordering::SeqCst);
                        if seed >= first + seeds {
                            return Ok::<(), String>(());
                        }
                        let mut mine = HashSet::new();
                        explore(seed, Lie::None, plan, &mut mine)?;
                        points.lock().unwrap().extend(mine);
                    }
                })
            })
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap())
    })?;
    Ok(points.into_inner().unwrap().len())
}

#[test]
fn every_crash_point_keeps_every_promise() {
    let (seeds, least) = if full() { (12, 10_000) } else { (2, 1_000) };
    let first = first_seed();
    println!("seeds {first} to {}", first + seeds - 1);
    let points = explore_all(seeds, &PLAN).unwrap_or_else(|e| panic!("{e}"));
    println!("crash_points: {points}");
    // For whoever counts them: `cargo xtask bench conformance`.
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("crash_points");
    std::fs::write(file, format!("{points}\n")).unwrap();
    assert!(
        points >= least,
        "{points} crash points, {least} are asked for"
    );
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let trace = |seed| {
        let runtime = runtime();
        let mut work = Work::new(seed, Lie::None, &runtime);
        work.run(30).unwrap();
        let history = work.disk.history();
        let mut moments = history.moments();
        let mut prints = vec![fingerprint(&moments.after_kill())];
        while moments.step() {
            prints.push(fingerprint(&moments.after_power_loss(seed)));
        }
        (work.trace, prints)
    };
    assert_eq!(trace(1), trace(1));
    assert_ne!(trace(1), trace(2));
}

/// What the engine must ask of its disk: where one thing is left out, some crash point shows it.
#[test]
fn a_disk_that_leaves_anything_out_is_found_out() {
    let lies = [
        Lie::Sync(".seg"),
        Lie::Sync("start"),
        Lie::Sync("cursor"),
        Lie::LateSync,
        Lie::SyncDir(Where::Above),
        Lie::SyncDir(Where::Root),
        Lie::SyncDir(Where::Topic),
        Lie::SyncDir(Where::Groups),
        Lie::Rewrite,
        Lie::Boot,
        Lie::Mark,
        Lie::Remove,
        Lie::Cursor,
    ];
    let mut survived = Vec::new();
    for lie in lies {
        let found = (1..12).find_map(|seed| explore(seed, lie, &LIGHT, &mut HashSet::new()).err());
        match found {
            Some(how) => println!("{lie:?}: {}", how.lines().next().unwrap_or_default()),
            None => survived.push(lie),
        }
    }
    assert!(survived.is_empty(), "nobody noticed {survived:?}");
}

/// A group whose first batch is torn and whose second is whole, and then the first one again: what
/// is left of the second must not count as stored behind it.
fn torn(lie: Lie) -> Result<(), String> {
    let runtime = runtime();
    let mut work = Work::new(1, Lie::None, &runtime);
    let disk = work.disk();
    work.run(0)?;
    work.go_on(work.disk.clone(), model::State::new())?;
    let here = workload::place(&disk, "a");
    let id = annals_embedded::log::TopicId([7; 16]);
    annals_embedded::log::create(
        &*disk,
        &here.root,
        &here.name,
        id,
        annals_embedded::log::Settings::default(),
    )
    .unwrap();
    let ask = |text: &str| model::Ask {
        records: vec![model::Offer {
            value: text.repeat(600),
            key: None,
            id: None,
        }],
        condition: annals_embedded::log::Condition::None,
        epoch: None,
    };
    work.disk.record();
    let mut writer = annals_embedded::log::Writer::open(&here).unwrap();
    workload::commit(&mut writer, &[ask("a"), ask("b")], |_| {});
    let history = work.disk.history();
    let mut moments = history.moments();
    let mut tried = HashSet::new();
    while moments.step() {
        for seed in 0..40 {
            let disk = moments.after_power_loss(seed);
            if !tried.insert(fingerprint(&disk)) {
                continue;
            }
            let here = workload::place(&lie.over(&disk), "a");
            let open = || annals_embedded::log::Writer::open(&here).map_err(|e| e.to_string());
            let mut writer = open()?;
            let before = writer.topic().end().next;
            workload::commit(&mut writer, &[ask("a")], |_| {});
            drop(writer);
            let after = open()?.topic().end().next;
            if after != before + 1 {
                return Err(format!("{after} records after {before} and one more"));
            }
        }
    }
    Ok(())
}

#[test]
fn what_is_left_of_a_torn_group_never_comes_back() {
    torn(Lie::None).unwrap_or_else(|e| panic!("{e}"));
    let how = torn(Lie::Cut).unwrap_err();
    println!("{:?}: {how}", Lie::Cut);
}
