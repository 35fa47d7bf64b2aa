//! Runs a law against a harness.

mod settings;

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Instant;

use annals_core::Capabilities;
use tokio::runtime::{Builder, Runtime};

use crate::harness::{Harness, Time, Want};
use crate::law::{self, Kind, Law, Scene, Shape};
use crate::report;
use crate::trial::{Stop, Trial};
use crate::verdict::{Case, Fate, State, Verdict};

pub use settings::{Depth, Settings};

/// Judges one law. A panic in it, and an overrun of its time, break the case they happen in.
///
/// It builds the runtime that the harness lives in, and must not be called on one. A law that never
/// waits and never ends leaves its thread running when its time is over: nothing can stop it.
pub fn judge(law: &Law, harness: &Arc<dyn Harness>, settings: &Settings) -> Verdict {
    let started = Instant::now();
    let (send, receive) = mpsc::channel();
    let worker = {
        let (law, harness, settings) = (law.clone(), Arc::clone(harness), settings.clone());
        move || {
            let told = panic::catch_unwind(AssertUnwindSafe(|| {
                let runtime = runtime(harness.time())?;
                let cases = runtime.block_on(cases(&law, &harness, &settings));
                // What a case left behind must not hold the test up.
                runtime.shutdown_background();
                Ok::<_, std::io::Error>(cases)
            }));
            // The receiver is gone when the time is over.
            let _ = send.send(told);
        }
    };
    let overall = settings.wall;
    let spawned = std::thread::Builder::new()
        .name(format!("law {}", law.name))
        .spawn(worker);
    let told = match spawned {
        Ok(_) => receive.recv_timeout(overall),
        Err(error) => return broken(law, &format!("no thread: {error}"), started),
    };
    match told {
        Ok(Ok(Ok((refusing, cases)))) => {
            Verdict::of(law.name, refusing, cases, started.elapsed().as_secs_f64())
        }
        Ok(Ok(Err(error))) => broken(law, &format!("no runtime: {error}"), started),
        Ok(Err(panic)) => broken(law, &format!("panicked: {}", said(&*panic)), started),
        Err(RecvTimeoutError::Timeout) => {
            broken(law, &format!("it did not end within {overall:?}"), started)
        }
        Err(RecvTimeoutError::Disconnected) => broken(law, "its thread is gone", started),
    }
}

fn broken(law: &Law, why: &str, started: Instant) -> Verdict {
    let case = Case {
        case: "the law".into(),
        fate: Fate::Broken { why: why.into() },
    };
    Verdict::of(law.name, false, vec![case], started.elapsed().as_secs_f64())
}

fn runtime(time: Time) -> std::io::Result<Runtime> {
    match time {
        Time::Virtual => Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build(),
        Time::Real => Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build(),
    }
}

/// Whether the cases are refusals, and what came of each.
async fn cases(law: &Law, harness: &Arc<dyn Harness>, settings: &Settings) -> (bool, Vec<Case>) {
    let has = match capabilities(law, harness, settings).await {
        Ok(has) => has,
        Err(stop) => {
            let case = Case {
                case: "a topic to begin with".into(),
                fate: Fate::Broken {
                    why: stop.to_string(),
                },
            };
            return (false, vec![case]);
        }
    };
    let refusing = !law.shapes.contains(&Shape::of(&has)) || !(law.claimed)(&has);
    let mut cases = Vec::new();
    for scene in &law.scenes {
        let due = match scene.kind {
            Kind::Refusal => refusing,
            Kind::Plain | Kind::Faulty => !refusing,
            Kind::Deep => !refusing && settings.depth == Depth::Full,
        };
        if due {
            cases.push(Case {
                case: scene.name.into(),
                fate: play(law, scene, harness, settings).await,
            });
        }
    }
    harness.clean().await;
    (refusing, cases)
}

/// What the topic promises that decides whether the law is claimed.
async fn capabilities(
    law: &Law,
    harness: &Arc<dyn Harness>,
    settings: &Settings,
) -> Result<Capabilities, Stop> {
    let trial = Trial::new(Arc::clone(harness), settings.clone(), settings.seed);
    if let Some(want) = law.want {
        match trial.stage(&want()).await {
            Ok(stage) => return Ok(stage.capabilities().clone()),
            Err(Stop::NotExercised(_)) => {}
            Err(stop) => return Err(stop),
        }
    }
    Ok(trial.stage(&Want::default()).await?.capabilities().clone())
}

async fn play(law: &Law, scene: &Scene, harness: &Arc<dyn Harness>, settings: &Settings) -> Fate {
    let seed = settings.seed_of(law.name, scene.name);
    let trial = Trial::new(Arc::clone(harness), settings.clone(), seed);
    // In a task of its own: a panic ends it and nothing else.
    let task = tokio::spawn((scene.play)(trial));
    let abort = task.abort_handle();
    // Virtual hours cost nothing: a case may idle for as long as it takes to see what ages.
    let limit = match harness.time() {
        Time::Virtual => settings.case * 60,
        Time::Real => settings.case,
    };
    let told = tokio::time::timeout(limit, task).await;
    match told {
        Ok(Ok(Ok(counts))) if counts.is_empty() => Fate::Empty {
            why: "it counted nothing, and so shows nothing".into(),
        },
        Ok(Ok(Ok(counts))) => match counts.short() {
            None => Fate::Held { counts },
            Some(short) => Fate::Empty {
                why: format!(
                    "it shows too little: {} {}, at least {} are needed",
                    short.seen, short.of, short.least
                ),
            },
        },
        Ok(Ok(Err(Stop::Broken(why)))) => Fate::Broken { why },
        Ok(Ok(Err(Stop::NotExercised(why)))) => Fate::NotExercised { why },
        Ok(Err(error)) => Fate::Broken {
            why: match error.try_into_panic() {
                Ok(panic) => format!("panicked: {}", said(&*panic)),
                Err(error) => format!("was cancelled: {error}"),
            },
        },
        Err(_) => {
            abort.abort();
            Fate::Broken {
                why: format!("it did not end within {limit:?}"),
            }
        }
    }
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a word".into())
}

/// How a test is run again.
#[derive(Clone, Copy, Debug)]
pub struct Again {
    /// The package it is in.
    pub package: &'static str,
    /// The test's binary.
    pub test: &'static str,
    /// The module that [`laws!`](crate::laws) made.
    pub module: &'static str,
}

/// What the tests of [`laws!`](crate::laws) do: judge one law, leave the verdict for the table,
/// fail unless it is what was expected.
///
/// # Panics
/// When it is not.
#[expect(clippy::panic, reason = "a test fails by it")]
pub fn test(name: &str, refused: bool, harness: &Arc<dyn Harness>, again: &Again) {
    let Some(law) = law::by_name(name) else {
        panic!("there is no law {name}");
    };
    let settings = match Settings::from_env() {
        Ok(settings) => settings,
        Err(error) => panic!("{error}"),
    };
    let (backend, service) = (harness.name(), harness.service());
    let verdict = judge(&law, harness, &settings);
    if let Err(error) = report::leave(&backend, &service, &settings, &verdict) {
        panic!("the verdict could not be written down: {error}");
    }
    let expected = if refused {
        State::Refused
    } else {
        State::Upheld
    };
    if verdict.state == expected {
        return;
    }
    panic!(
        "{backend}: the law {name} is {}, {expected} was expected\n  law: {}\n  why: {}\n  again: {} cargo test -p {} --test {} {}::law::{name} -- --exact",
        verdict.state,
        law.sentence,
        verdict.why,
        settings.again(),
        again.package,
        again.test,
        again.module,
    );
}
