//! `cargo xtask laws`: runs the suite on every backend, leaves what it found in `target/laws`, and
//! keeps the table in README.md true.

use std::fs;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use annals_conformance::report::{self, Report};
use annals_conformance::{State, law};

use crate::step;
use crate::workspace;

/// The backends that have laws, and the package whose test `laws` judges them.
const BACKENDS: [(&str, &str); 5] = [
    ("embedded", "annals-embedded"),
    ("memory", "annals-embedded"),
    ("model-log", "annals-conformance"),
    ("model-sharded", "annals-conformance"),
    ("model-queue", "annals-conformance"),
];

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Which backends; all when none is named.
    names: Vec<String>,
    /// How much is tried.
    #[arg(long, value_enum, default_value_t = Depth::Quick)]
    depth: Depth,
    /// Write the table into README.md instead of comparing it.
    #[arg(long)]
    write: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Depth {
    Quick,
    Full,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if let Some(unknown) = arguments
        .names
        .iter()
        .find(|name| BACKENDS.iter().all(|(backend, _)| backend != name))
    {
        let known: Vec<&str> = BACKENDS.iter().map(|(backend, _)| *backend).collect();
        bail!(
            "there is no backend {unknown}; there are {}",
            known.join(", ")
        );
    }
    forget()?;
    let chosen =
        |name: &str| arguments.names.is_empty() || arguments.names.iter().any(|n| n == name);
    let mut failed = false;
    for (backend, package) in BACKENDS.iter().filter(|(backend, _)| chosen(backend)) {
        let mut command = step::cargo(["test", "--locked", "--quiet", "--package", package]);
        command.args(["--test", "laws", "--"]);
        command.arg(format!("{}::", backend.replace('-', "_")));
        command.env(
            "ANNALS_LAWS_DEPTH",
            match arguments.depth {
                Depth::Quick => "quick",
                Depth::Full => "full",
            },
        );
        let ended = step::attempt(&format!("laws of {backend}"), &mut command)?;
        if !ended.success {
            println!("{}", ended.output.trim_end());
            failed = true;
        }
    }
    let reports = gather()?;
    print!("{}", table(&reports));
    if failed {
        bail!("a law did not end as it was expected to");
    }
    if !arguments.names.is_empty() {
        // A part of the table cannot be compared with the whole one.
        return Ok(());
    }
    if arguments.write {
        write(&reports)
    } else {
        compare(&reports)
    }
}

/// Forgets what earlier runs left.
pub(crate) fn forget() -> Result<()> {
    match fs::remove_dir_all(report::directory().join("parts")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context("removing what earlier runs left")
        }
        _ => Ok(()),
    }
}

/// Puts what the tests left together: one file a run, and one a backend with the worst state of
/// each law.
pub(crate) fn gather() -> Result<Vec<Report>> {
    let directory = report::directory();
    let runs = report::collect(&directory).context("reading what the laws left")?;
    fs::create_dir_all(directory.join("runs"))?;
    let mut backends: Vec<Report> = Vec::new();
    for run in &runs {
        let name = format!("runs/{}@{}-{}.json", run.backend, run.service, run.version);
        fs::write(directory.join(name), serde_json::to_vec_pretty(run)?)?;
        match backends.iter_mut().find(|b| b.backend == run.backend) {
            None => backends.push(run.clone()),
            Some(whole) => whole.worsen(run),
        }
    }
    for backend in &backends {
        let name = format!("{}.json", backend.backend);
        fs::write(directory.join(name), serde_json::to_vec_pretty(backend)?)?;
    }
    Ok(shown(backends))
}

/// Those that have a column, in the order of the columns: what an example's tests left has none.
fn shown(mut reports: Vec<Report>) -> Vec<Report> {
    let place = |report: &Report| BACKENDS.iter().position(|(b, _)| *b == report.backend);
    reports.retain(|report| place(report).is_some());
    reports.sort_by_key(place);
    reports
}

const BEGIN: &str =
    "<!-- The table of laws, written by `cargo xtask laws --write` from a run of the suite. -->\n";
const END: &str = "<!-- The end of the table of laws. -->\n";

fn row<'r>(first: &str, reports: &'r [Report], cell: impl Fn(&'r Report) -> &'r str) -> String {
    let cells: Vec<&str> = reports.iter().map(cell).collect();
    format!("| {first} | {} |\n", cells.join(" | "))
}

/// Laws by backends.
fn table(reports: &[Report]) -> String {
    let mut text = row("law", reports, |report| &report.backend);
    text += &row("---", reports, |_| "---");
    for law in law::all() {
        let state = |report: &Report| {
            let verdict = report.laws.iter().find(|verdict| verdict.law == law.name());
            match verdict.map(|verdict| verdict.state) {
                Some(State::Upheld) => "upheld",
                Some(State::Refused) => "refused",
                Some(State::Violated) => "**violated**",
                None => "not judged",
            }
        };
        text += &row(&law.name().replace('_', " "), reports, state);
    }
    text
}

fn readme() -> Result<(std::path::PathBuf, String, usize, usize)> {
    let path = workspace::root().join("README.md");
    let text = fs::read_to_string(&path).context("reading README.md")?;
    let from = text.find(BEGIN).map(|at| at + BEGIN.len());
    let to = text.find(END);
    match (from, to) {
        (Some(from), Some(to)) if from <= to => Ok((path, text, from, to)),
        _ => bail!("README.md has no place for the table of laws"),
    }
}

fn write(reports: &[Report]) -> Result<()> {
    let (path, text, from, to) = readme()?;
    let (before, after) = (text.get(..from), text.get(to..));
    let whole = [
        before.unwrap_or_default(),
        &table(reports),
        after.unwrap_or_default(),
    ]
    .concat();
    fs::write(path, whole).context("writing README.md")
}

/// Fails when README.md says something else.
pub(crate) fn compare(reports: &[Report]) -> Result<()> {
    let (_, text, from, to) = readme()?;
    if text.get(from..to) == Some(table(reports).as_str()) {
        return Ok(());
    }
    bail!(
        "the table of laws in README.md is not what the suite found; `cargo xtask laws --write` renews it"
    )
}

/// Whether there is anything to compare: not where only some crates, or some laws, were tested.
pub(crate) fn complete(reports: &[Report]) -> bool {
    let laws = law::all();
    let judged = |report: &Report| {
        let has = |law: &str| report.laws.iter().any(|verdict| verdict.law == law);
        laws.iter().all(|law| has(law.name()))
    };
    BACKENDS.iter().all(|(backend, _)| {
        let mut of = reports.iter().filter(|report| report.backend == *backend);
        of.any(judged)
    })
}

#[cfg(test)]
mod tests {
    use annals_conformance::Verdict;
    use annals_conformance::verdict::Reach;

    use super::*;

    fn report(backend: &str) -> Report {
        let verdict = |law: &law::Law| Verdict {
            law: law.name().into(),
            state: State::Upheld,
            reach: Reach::Full,
            cases: Vec::new(),
            seconds: 0.0,
            why: String::new(),
        };
        Report {
            backend: backend.into(),
            service: "s".into(),
            version: "1".into(),
            depth: "quick".into(),
            laws: law::all().iter().map(verdict).collect(),
        }
    }

    #[test]
    fn a_part_of_the_table_is_not_compared() {
        let all = || BACKENDS.map(|(backend, _)| report(backend)).to_vec();
        assert!(complete(&all()));
        assert!(!complete(&all()[1..]));
        let mut one_law_less = all();
        one_law_less[0].laws.pop();
        assert!(!complete(&one_law_less));
    }

    #[test]
    fn columns_have_their_order_and_an_example_has_none() {
        let found = ["small", "model-log", "embedded"].map(report).to_vec();
        let text = table(&shown(found));
        assert_eq!(text.lines().next(), Some("| law | embedded | model-log |"));
    }
}
