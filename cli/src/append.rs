//! `annals append`: lines become records, and every line's fate is told.

use std::fmt::Write as _;
use std::ops::RangeInclusive;

use annals::{AppendError, Appended, Bus, ErrorKind, Outcome, Record, Topic};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;

use crate::arguments::Append;
use crate::bus::open;
use crate::exit::{Code, Failure, code_of, tell, text_of};
use crate::input::{Input, Making, Source};
use crate::stop::Stop;

/// Batches that wait are appended together up to about this.
const TOGETHER: usize = annals::defaults::BATCH_BYTES;

pub(crate) async fn run(bus: &Bus, arguments: &Append, stop: &Stop) -> Result<(), Failure> {
    let making = Making {
        format: arguments.format(),
        key: arguments.key.clone(),
        headers: arguments.header.clone(),
    };
    let source = Source::open(arguments.file.as_deref())?;
    let topic = if arguments.create {
        let opening = bus.topic(&arguments.topic).create_if_missing();
        stop.or(async { Ok(opening.await?) }).await?
    } else {
        stop.or(open(bus, &arguments.topic)).await?
    };
    if source.typed {
        tell("waiting for records from the terminal, one a line; Ctrl-D ends them");
    }
    let mut progress = Progress::new(source.size, arguments.from_line);
    let mut batches = source.read(arguments.from_line, making)?;
    let done = feed(&topic, &mut batches, &mut progress, stop).await;
    progress.bar.finish_and_clear();
    if done.is_ok() {
        tell(progress.summary(&topic));
    }
    done
}

/// What has been appended so far.
struct Progress {
    bar: ProgressBar,
    /// The line that is the next to be appended; all from `first` on and before it are.
    next: u64,
    first: u64,
    /// Records that were there before, by their ids.
    duplicates: u64,
}

impl Progress {
    fn new(size: Option<u64>, first: u64) -> Self {
        // Drawn on standard error, and only where that is a terminal.
        let (bar, template) = match size {
            Some(size) => (
                ProgressBar::new(size),
                "{bar:30} {bytes} of {total_bytes}, {msg}, {eta} left",
            ),
            None => (
                ProgressBar::new_spinner(),
                "{spinner} {bytes}, {msg}, {elapsed}",
            ),
        };
        let style = ProgressStyle::with_template(template);
        Self {
            bar: style.map_or_else(|_| ProgressBar::hidden(), |style| bar.with_style(style)),
            next: first,
            first,
            duplicates: 0,
        }
    }

    fn stored(&mut self, appended: &Appended, bytes: u64) {
        let records = appended.records();
        self.next += records.len() as u64;
        self.duplicates += records.iter().filter(|stored| stored.duplicate).count() as u64;
        self.bar
            .set_message(format!("{} records", self.next - self.first));
        self.bar.set_position(bytes);
    }

    fn summary(&self, topic: &Topic) -> String {
        let mut text = format!(
            "appended {} records to {}",
            self.next - self.first,
            topic.name()
        );
        if self.duplicates > 0 {
            let _ = write!(
                text,
                ", {} of which were there already by their ids",
                self.duplicates
            );
        }
        text
    }

    /// What is stored: all before `next`.
    fn before(&self) -> String {
        match lines(self.first..=self.next - 1) {
            None => "no line is stored".to_owned(),
            Some(lines) => format!("{lines} stored"),
        }
    }
}

/// Lines as people say them; `None`: there are none.
fn lines(range: RangeInclusive<u64>) -> Option<String> {
    let (from, to) = range.into_inner();
    match to.checked_sub(from)? {
        0 => Some(format!("line {from} is")),
        _ => Some(format!("lines {from} to {to} are")),
    }
}

async fn feed(
    topic: &Topic,
    batches: &mut mpsc::Receiver<Input>,
    progress: &mut Progress,
    stop: &Stop,
) -> Result<(), Failure> {
    let mut put_back = None;
    loop {
        let input = match put_back.take() {
            Some(input) if stop.times() == 0 => Some(input),
            _ => tokio::select! {
                biased;
                () = stop.asked(1) => return Err(interrupted(progress, stop)),
                input = batches.recv() => input,
            },
        };
        match input {
            None => return Ok(()),
            Some(Input::Batch {
                first,
                mut records,
                mut bytes,
            }) => {
                let mut size: usize = records.iter().map(Record::len_bytes).sum();
                while size < TOGETHER && put_back.is_none() {
                    match batches.try_recv() {
                        Ok(Input::Batch {
                            records: more,
                            bytes: to,
                            ..
                        }) => {
                            size += more.iter().map(Record::len_bytes).sum::<usize>();
                            records.extend(more);
                            bytes = to;
                        }
                        Ok(other) => put_back = Some(other),
                        Err(_) => break,
                    }
                }
                let last = first + records.len() as u64 - 1;
                let appending = topic.append(records);
                let appended = tokio::select! {
                    biased;
                    appended = appending => appended,
                    () = stop.asked(2) => return Err(abandoned(progress, last, stop)),
                };
                match appended {
                    Ok(appended) => progress.stored(&appended, bytes),
                    Err(error) => return Err(refused(&error, first, progress)),
                }
            }
            Some(Input::Malformed { line, why }) => {
                return Err(Failure::failed(format!(
                    "line {line}: {why}; {}; mend it and go on with --from-line {line}",
                    progress.before()
                )));
            }
            Some(Input::Failed { line, why }) => {
                return Err(Failure::failed(format!(
                    "the input cannot be read on behind line {line}: {why}; {}; go on with --from-line {}",
                    progress.before(),
                    progress.next
                )));
            }
        }
    }
}

/// The user wants it to end: what was sent has its outcome, the rest was not sent.
fn interrupted(progress: &Progress, stop: &Stop) -> Failure {
    Failure::new(
        stop.code(),
        format!(
            "interrupted at line {next}; {}; go on with --from-line {next}",
            progress.before(),
            next = progress.next
        ),
    )
}

/// The user does not wait for the outcome of what was sent.
fn abandoned(progress: &Progress, last: u64, stop: &Stop) -> Failure {
    let may = lines(progress.next..=last).unwrap_or_default();
    Failure::new(
        stop.code(),
        format!(
            "interrupted without waiting: {may} on the way and may be stored; {}; look at the topic's end before you go on with --from-line",
            progress.before()
        ),
    )
}

/// What became of the lines of a batch of which not all is known to be stored.
fn refused(error: &AppendError, first: u64, progress: &Progress) -> Failure {
    let outcomes = error.outcomes();
    let before = (progress.first < first).then_some((progress.first, first - 1));
    let of = |before, wanted: fn(&Outcome) -> bool| ranges(before, first, outcomes, wanted);
    let stored = of(before, |outcome| matches!(outcome, Outcome::Stored(_)));
    let may = of(None, |outcome| matches!(outcome, Outcome::Unknown(_)));
    let not = of(None, |outcome| {
        matches!(outcome, Outcome::Rejected(_) | Outcome::NotAttempted)
    });
    let mut text = text_of(error.error());
    for (lines, what) in [
        (&stored, "stored"),
        (&may, "perhaps stored"),
        (&not, "not stored"),
    ] {
        if !lines.is_empty() {
            let _ = write!(text, "; {what}: {}", lines.join(", "));
        }
    }
    let prefix = outcomes
        .iter()
        .take_while(|outcome| matches!(outcome, Outcome::Stored(_)))
        .count();
    let rest_is_open = !outcomes
        .iter()
        .skip(prefix)
        .any(|outcome| matches!(outcome, Outcome::Stored(_)));
    let next = first + prefix as u64;
    let long = (first..)
        .zip(outcomes)
        .find(|(_, outcome)| {
            outcome
                .error()
                .is_some_and(|e| e.kind() == ErrorKind::TooLarge)
        })
        .map(|(line, _)| line);
    let _ = match (may.is_empty(), rest_is_open) {
        (true, true)
            if let Some(long) = long
                && long == next =>
        {
            write!(
                text,
                "; shorten it and go on with --from-line {next}, or leave it out with --from-line {}",
                next + 1
            )
        }
        (true, true) if let Some(long) = long => write!(
            text,
            "; shorten line {long} or take it out, and go on with --from-line {next}"
        ),
        (true, true) => write!(text, "; go on with --from-line {next}"),
        (false, true) => write!(
            text,
            "; look which of them are there, or go on with --from-line {next} where a repeat does no harm"
        ),
        (_, false) => write!(text, "; append those lines alone to go on"),
    };
    let code = if may.is_empty() {
        code_of(error.error())
    } else {
        Code::Unknown
    };
    Failure::new(code, text)
}

/// The lines whose outcome is the wanted one, those before them included.
fn ranges(
    before: Option<(u64, u64)>,
    first: u64,
    outcomes: &[Outcome],
    wanted: fn(&Outcome) -> bool,
) -> Vec<String> {
    let mut found = Vec::from_iter(before);
    for (line, outcome) in (first..).zip(outcomes) {
        if !wanted(outcome) {
            continue;
        }
        match found.last_mut() {
            Some((_, last)) if *last + 1 == line => *last = line,
            _ => found.push((line, line)),
        }
    }
    found
        .into_iter()
        .map(|(from, to)| {
            if from == to {
                format!("line {from}")
            } else {
                format!("lines {from} to {to}")
            }
        })
        .collect()
}

/// `NAME=VALUE`.
pub(crate) fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err("write NAME=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use annals::{Batch, Effect, Error, Retry, Stored};

    use super::*;

    fn failed(outcomes: Vec<Outcome>) -> Failure {
        let batch: Batch = (0..outcomes.len())
            .map(|n| Record::new(n.to_string()))
            .collect();
        let mut progress = Progress::new(None, 1);
        progress.next = 11;
        refused(&AppendError::new(batch, outcomes), 11, &progress)
    }

    fn stored() -> Outcome {
        Outcome::Stored(Stored::somewhere())
    }

    #[test]
    fn an_unknown_outcome_names_its_lines() {
        let lost = Error::new(
            ErrorKind::Timeout,
            Effect::Unknown,
            Retry::Backoff,
            "no answer",
        );
        let failure = failed(vec![
            stored(),
            Outcome::Unknown(lost.clone()),
            Outcome::Unknown(lost),
            Outcome::NotAttempted,
        ]);
        assert_eq!(failure.code(), Code::Unknown);
        assert_eq!(
            failure.to_string(),
            "1 of 4 records are stored, 2 may be, 1 are not: no answer; stored: lines 1 to 11; perhaps stored: lines 12 to 13; not stored: line 14; look which of them are there, or go on with --from-line 12 where a repeat does no harm"
        );
    }

    #[test]
    fn a_refusal_in_the_middle_does_not_advise_a_repeat_of_what_is_stored() {
        let no = Error::config("too odd");
        let failure = failed(vec![stored(), Outcome::Rejected(no.clone()), stored()]);
        assert_eq!(failure.code(), Code::Usage);
        assert!(failure.to_string().contains(
            "stored: lines 1 to 11, line 13; not stored: line 12; append those lines alone"
        ));
        let failure = failed(vec![stored(), Outcome::Rejected(no)]);
        assert!(failure.to_string().ends_with("go on with --from-line 12"));
    }

    #[test]
    fn a_line_that_is_too_long_is_not_met_again() {
        let long = Error::new(ErrorKind::TooLarge, Effect::None, Retry::Never, "too long");
        let long = Outcome::Rejected(long);
        let failure = failed(vec![long.clone(), Outcome::NotAttempted]);
        assert!(failure.to_string().ends_with(
            "shorten it and go on with --from-line 11, or leave it out with --from-line 12"
        ));
        let failure = failed(vec![Outcome::NotAttempted, long]);
        assert!(
            failure
                .to_string()
                .ends_with("shorten line 12 or take it out, and go on with --from-line 11")
        );
    }
}
