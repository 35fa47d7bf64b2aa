//! Which law catches which saboteur.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use serde::Serialize;

use super::{Model, Sabotaged, Saboteur};
use crate::harness::Harness;
use crate::law::{self, Law};
use crate::runner::{self, Settings};
use crate::verdict::{State, Verdict};

/// What became of one saboteur.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Kill {
    /// Its name.
    pub saboteur: String,
    /// What it breaks.
    pub shape: Model,
    /// The law that was meant to catch it.
    pub law: String,
    /// The laws that caught it.
    pub killed_by: Vec<String>,
    /// Why each of them did.
    #[serde(skip)]
    pub why: Vec<String>,
    /// Whether none did, or it never got to do its harm.
    pub survived: bool,
    /// How often it did its harm, over all laws.
    pub acted: usize,
}

/// By saboteur and job: how often it acted, and why it was caught if it was.
type Told = BTreeMap<(usize, usize), (usize, Option<String>)>;

/// Tries `saboteurs` by `laws`: a kill is a law that is violated, or refused where the unbroken
/// model upholds it, by a case that is not empty, while the saboteur did its harm.
pub fn matrix(saboteurs: &[Saboteur], laws: &[Law], settings: &Settings) -> Vec<Kill> {
    judged(saboteurs, laws, settings, |_, _| true)
}

/// As [`matrix`], each saboteur by the law that is meant to catch it alone.
pub fn meant(saboteurs: &[Saboteur], settings: &Settings) -> Vec<Kill> {
    judged(saboteurs, &law::all(), settings, |saboteur, law| {
        saboteur.law == law.name
    })
}

fn judged(
    saboteurs: &[Saboteur],
    laws: &[Law],
    settings: &Settings,
    tried: fn(&Saboteur, &Law) -> bool,
) -> Vec<Kill> {
    let whole = unbroken(laws, settings);
    let next = AtomicUsize::new(0);
    let jobs: Vec<(usize, &Law)> = saboteurs
        .iter()
        .enumerate()
        .flat_map(|(index, saboteur)| {
            let laws = laws.iter().filter(move |law| tried(saboteur, law));
            laws.map(move |law| (index, law))
        })
        .collect();
    let told: Mutex<Told> = Mutex::default();
    let work = || {
        loop {
            let job = next.fetch_add(1, Ordering::SeqCst);
            let Some((index, law)) = jobs.get(job) else {
                return;
            };
            let Some(saboteur) = saboteurs.get(*index) else {
                return;
            };
            let expected = whole.get(&(saboteur.model, law.name)).copied();
            let said = try_one(saboteur, law, expected, settings);
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            told.insert((*index, job), said);
        }
    };
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(work);
        }
    });
    let told = told.into_inner().unwrap_or_else(PoisonError::into_inner);
    saboteurs
        .iter()
        .enumerate()
        .map(|(index, saboteur)| {
            let mut kill = Kill {
                saboteur: saboteur.name.into(),
                shape: saboteur.model,
                law: saboteur.law.into(),
                killed_by: Vec::new(),
                why: Vec::new(),
                survived: true,
                acted: 0,
            };
            for ((_, job), (acted, why)) in told.range((index, 0)..(index + 1, 0)) {
                kill.acted += acted;
                if let (Some(why), Some((_, law))) = (why, jobs.get(*job)) {
                    kill.killed_by.push(law.name.into());
                    kill.why.push(why.clone());
                }
            }
            kill.survived = kill.killed_by.is_empty();
            kill
        })
        .collect()
}

/// What the unbroken models end as.
fn unbroken(laws: &[Law], settings: &Settings) -> BTreeMap<(Model, &'static str), State> {
    let mut states = BTreeMap::new();
    for model in [Model::Log, Model::Sharded, Model::Queue] {
        for law in laws {
            let verdict = runner::judge(law, &model.harness(), settings);
            states.insert((model, law.name), verdict.state);
        }
    }
    states
}

/// How often the saboteur acted, and why the law caught it, if it did.
fn try_one(
    saboteur: &Saboteur,
    law: &Law,
    expected: Option<State>,
    settings: &Settings,
) -> (usize, Option<String>) {
    let broken = Arc::new(Sabotaged::new(saboteur));
    let harness: Arc<dyn Harness> = broken.clone();
    let verdict = runner::judge(law, &harness, settings);
    let acted = broken.acted().times();
    let why = (acted > 0).then(|| caught(&verdict, expected)).flatten();
    (acted, why)
}

fn caught(verdict: &Verdict, expected: Option<State>) -> Option<String> {
    match verdict.state {
        State::Violated if verdict.shows_it() => Some(verdict.why.clone()),
        State::Violated => None,
        state if Some(state) == expected => None,
        state => Some(format!("{state} where the unbroken model ends otherwise")),
    }
}
