//! `annals conformance`: the laws, tried on topics of one's own.

mod ask;
mod table;

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use annals::{Address, Bus, TopicName};
use annals_conformance::harness::Plain;
use annals_conformance::report::Report;
use annals_conformance::runner::{self, Settings};
use annals_conformance::{Harness, Law, State, Verdict};
use indicatif::{ProgressBar, ProgressStyle};

use crate::arguments::Conformance;
use crate::bus;
use crate::exit::{Code, Failure, tell, text_of};
use crate::stop::Stop;
use crate::table::{print, span};

/// What the names of all topics that it makes begin with.
const STEM: &str = "annals-laws-";

pub(crate) async fn run(
    url: Option<&str>,
    arguments: &Conformance,
    stop: &Stop,
) -> Result<(), Failure> {
    let url = bus::url(arguments.log.as_deref().or(url))?;
    let address: Address = url.parse()?;
    let settings = arguments.settings();
    let laws = arguments.laws();
    if let Some(path) = &arguments.report {
        can_be_written(path)?;
    }
    let prefix = Plain::prefix(STEM);
    if !arguments.yes && !ask::is_here(&address) {
        ask::may_go_on(&address, &prefix, stop).await?;
    }
    let mut suite = Suite::new(url, &address, prefix);
    // Held to the end: a log in memory lives for as long as somebody has it.
    let first = stop.or(async { Ok(annals::connect(&suite.url).await?) });
    let first = first.await?;
    tell(format!(
        "the topics made here are called {}…, and are removed",
        suite.prefix
    ));
    let judged = suite.judge(first.scheme(), laws, &settings, stop).await;
    suite.remove(stop).await;
    let report = Report {
        backend: first.scheme().into(),
        service: address.to_string(),
        version: "unknown".into(),
        depth: settings.depth.as_str().into(),
        laws: judged?,
    };
    print(table::of(&report), stop).await?;
    if let Some(path) = &arguments.report {
        write(path, &report)?;
    }
    if !suite.left.is_empty() {
        return Err(Failure::silent(Code::Failed));
    }
    if report.laws.iter().any(|law| law.state == State::Violated) {
        return Err(Failure::silent(Code::Violated));
    }
    Ok(())
}

/// The topics of a run and what is to come of them.
struct Suite {
    url: Arc<str>,
    address: String,
    prefix: String,
    /// One harness a law, in which topics are left.
    harnesses: Vec<Arc<Plain>>,
    left: Vec<TopicName>,
}

impl Suite {
    fn new(url: &str, address: &Address, prefix: String) -> Self {
        // Every client is to see the same log.
        let url = match url.split_once(':') {
            Some((scheme, rest)) if address.scheme() == "memory" && address.path().is_empty() => {
                format!("{scheme}:{}{rest}", prefix.trim_end_matches('-'))
            }
            _ => url.to_owned(),
        };
        Self {
            url: url.into(),
            address: address.to_string(),
            prefix,
            harnesses: Vec::new(),
            left: Vec::new(),
        }
    }

    fn harness(&self, backend: &str, law: &Law) -> Arc<Plain> {
        let prefix = format!("{}{}-", self.prefix, law.name().replace('_', "-"));
        let url = Arc::clone(&self.url);
        let connect = move || {
            let url = Arc::clone(&url);
            async move { Ok(Bus::backend(&annals::connect(&url).await?).clone()) }
        };
        let plain = Plain::new(backend, prefix, connect);
        Arc::new(plain.of_service(&self.address, "unknown"))
    }

    /// The verdicts; how it went on is told law by law.
    async fn judge(
        &mut self,
        backend: &str,
        laws: Vec<Law>,
        settings: &Settings,
        stop: &Stop,
    ) -> Result<Vec<Verdict>, Failure> {
        let bar = bar(laws.len());
        let mut verdicts = Vec::new();
        for law in laws {
            bar.set_message(table::name(law.name()));
            let plain = self.harness(backend, &law);
            self.harnesses.push(Arc::clone(&plain));
            let harness: Arc<dyn Harness> = plain.clone();
            let settings = settings.clone();
            // On a thread that may wait, and that nobody waits for once the user has had enough.
            let judging =
                tokio::task::spawn_blocking(move || runner::judge(&law, &harness, &settings));
            let verdict = stop.or(async { judging.await.map_err(Failure::failed) });
            let verdict = verdict.await.inspect_err(|_| bar.finish_and_clear())?;
            bar.inc(1);
            bar.suspend(|| tell(line(&verdict)));
            verdicts.push(verdict);
            // What a law that did not end has left.
            if stop.or(async { Ok(plain.end().await) }).await?.is_empty() {
                self.harnesses.pop();
            }
        }
        bar.finish_and_clear();
        Ok(verdicts)
    }

    /// Removes what there still is, and says what could not be; asked a second time to end, it
    /// leaves the rest.
    async fn remove(&mut self, stop: &Stop) {
        for harness in std::mem::take(&mut self.harnesses) {
            let left = tokio::select! {
                biased;
                () = stop.asked(2) => {
                    tell(format!("topics called {}… may be left", self.prefix));
                    return;
                }
                left = harness.end() => left,
            };
            for (topic, error) in left {
                tell(format!(
                    "the topic \"{topic}\" could not be removed: {}",
                    text_of(&error)
                ));
                self.left.push(topic);
            }
        }
        if self.left.is_empty() {
            tell("all topics made here are removed");
        }
    }
}

fn line(verdict: &Verdict) -> String {
    let took = span(std::time::Duration::from_secs_f64(verdict.seconds));
    format!("{}: {} ({took})", table::name(&verdict.law), verdict.state)
}

/// Drawn on standard error, and only where that is a terminal.
fn bar(laws: usize) -> ProgressBar {
    let bar = ProgressBar::new(laws as u64);
    let style = ProgressStyle::with_template("{bar:30} {pos} of {len} laws, {msg}, {elapsed}");
    style.map_or_else(|_| ProgressBar::hidden(), |style| bar.with_style(style))
}

/// Told before minutes of work, not after.
fn can_be_written(path: &Path) -> Result<(), Failure> {
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    if path.is_dir() || folder.is_some_and(|folder| !folder.is_dir()) {
        return Err(Failure::usage(format!(
            "{} cannot be a report: there is no such directory, or it is one",
            path.display()
        )));
    }
    Ok(())
}

fn write(path: &Path, report: &Report) -> Result<(), Failure> {
    let text = if path.extension() == Some(OsStr::new("json")) {
        let json = serde_json::to_string_pretty(report);
        json.map_err(Failure::failed)? + "\n"
    } else {
        report.html()
    };
    let cannot = |e| Failure::failed(format!("{} cannot be written: {e}", path.display()));
    fs::write(path, text).map_err(cannot)?;
    tell(format!("the report is in {}", path.display()));
    Ok(())
}
