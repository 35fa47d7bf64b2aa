//! What is known of each record of one append, and what follows from a request's answer.

use super::lanes::Lanes;
use super::places;
use crate::batch::Batch;
use crate::error::{Effect, Error, ErrorKind, Result, Retry};
use crate::outcome::{AppendError, AppendReport, Appended, Outcome};

/// What the record before one, of the same key and in the same request, means for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Before {
    /// Nothing: there is none, or it is settled and lets it pass.
    Free,
    /// It is sent again, and this one behind it.
    Again,
    /// It was not stored and will not be: the key has stopped.
    Stopped,
}

/// What is known of each record of one append.
#[derive(Debug)]
pub(super) struct Progress {
    /// `None`: nothing that would be final if the append ended now.
    outcomes: Vec<Option<Outcome>>,
    /// Records that an attempt has left unknown: they may be stored, whatever later attempts say.
    doubtful: Vec<usize>,
    /// A key goes on behind a record that is not stored.
    allow_holes: bool,
    /// A request may store a record without the ones of its key before it.
    may_pass: bool,
    moved: bool,
    last_error: Option<Error>,
}

impl Progress {
    pub(super) fn new(records: usize, allow_holes: bool, may_pass: bool) -> Self {
        Self {
            outcomes: vec![None; records],
            doubtful: Vec::new(),
            allow_holes,
            may_pass,
            moved: false,
            last_error: None,
        }
    }

    /// Whether the last answer settled anything.
    pub(super) fn moved(&self) -> bool {
        self.moved
    }

    /// The last failure.
    pub(super) fn last_error(&self) -> Option<&Error> {
        self.last_error.as_ref()
    }

    /// Why the record was last not stored.
    pub(super) fn error(&self, index: usize) -> Option<&Error> {
        self.outcomes.get(index)?.as_ref()?.error()
    }

    /// Records that may be stored and are not known to be.
    pub(super) fn doubtful(&self) -> impl Iterator<Item = usize> {
        self.doubtful
            .iter()
            .copied()
            .filter(|index| !self.is_stored(*index))
    }

    fn is_stored(&self, index: usize) -> bool {
        matches!(self.outcomes.get(index), Some(Some(Outcome::Stored(_))))
    }

    fn set(&mut self, index: usize, outcome: Option<Outcome>) {
        if let Some(place) = self.outcomes.get_mut(index) {
            *place = outcome;
        }
    }

    /// Notes a request's answer. A record that was unknown once is stored or stays unknown.
    fn note(
        &mut self,
        request: &[usize],
        answer: Result<AppendReport>,
        place: impl Fn(Error) -> Error,
    ) {
        let outcomes = match answer {
            Ok(report) if report.outcomes().len() == request.len() => report.into_outcomes(),
            Ok(report) => {
                vec![
                    Outcome::Unknown(place(wrong_length(report.outcomes().len(), request.len())));
                    request.len()
                ]
            }
            // An error that itself says otherwise is not taken for the promise that `Err` is.
            Err(error) if error.effect() != Effect::None => {
                vec![Outcome::Unknown(place(error)); request.len()]
            }
            Err(error) => vec![Outcome::Rejected(place(error)); request.len()],
        };
        for (index, outcome) in request.iter().zip(outcomes) {
            let was = self.doubtful.binary_search(index);
            let outcome = match (outcome, was) {
                (Outcome::Stored(stored), _) => Outcome::Stored(stored),
                (Outcome::NotAttempted, Ok(_)) => continue,
                (Outcome::NotAttempted, Err(_)) => Outcome::NotAttempted,
                (Outcome::Rejected(error), Err(_)) => Outcome::Rejected(place(error)),
                (Outcome::Rejected(error) | Outcome::Unknown(error), was) => {
                    if let Err(at) = was {
                        self.doubtful.insert(at, *index);
                    }
                    Outcome::Unknown(place(error).with_effect(Effect::Unknown))
                }
            };
            if let Some(error) = outcome.error() {
                self.last_error = Some(error.clone());
            }
            self.set(*index, Some(outcome));
        }
    }

    /// Takes the answer for a batch that goes whole or not at all; whether it may be sent again.
    pub(super) fn take_whole(
        &mut self,
        request: &[usize],
        answer: Result<AppendReport>,
        place: impl Fn(Error) -> Error,
    ) -> bool {
        self.note(request, answer, place);
        let mut outcomes = self.outcomes.iter().flatten();
        let heals = |outcome: &Outcome| match outcome {
            Outcome::Stored(_) => false,
            Outcome::NotAttempted => true,
            Outcome::Rejected(error) | Outcome::Unknown(error) => error.is_retryable(),
        };
        self.moved = false;
        outcomes.all(heals)
    }

    /// Takes the answer for a request, whose indices ascend: lets the keys go on behind what is
    /// stored, and holds what is to be sent again.
    pub(super) fn take(
        &mut self,
        request: &[usize],
        answer: Result<AppendReport>,
        lanes: &mut Lanes,
        place: impl Fn(Error) -> Error,
    ) {
        self.note(request, answer, place);
        let passed = self.passed(request, lanes);
        let mut before = vec![Before::Free; request.len()];
        let mut again = Vec::new();
        let mut skipped = Vec::new();
        self.moved = false;
        for (at, index) in request.iter().copied().enumerate() {
            let after = lanes.after(index);
            let after_at = after.and_then(|after| request.binary_search(&after).ok());
            let behind = before.get(at).copied().unwrap_or(Before::Free);
            let passed = passed.get(at).copied().unwrap_or(false);
            let state = self.judge(index, behind, passed);
            if state == Before::Again && behind == Before::Free {
                if self.error(index).is_some() {
                    again.push(index);
                } else {
                    skipped.push(index);
                }
            }
            match (after_at.and_then(|at| before.get_mut(at)), after) {
                (Some(mark), _) => *mark = state,
                (None, Some(after)) if state == Before::Free => lanes.ready(after),
                (None, _) => {}
            }
        }
        for index in again {
            lanes.hold(index);
        }
        for index in skipped {
            // Not sent for another record's sake: at once, unless nothing would have changed.
            if self.moved {
                lanes.ready(index);
            } else {
                lanes.hold(index);
            }
        }
    }

    /// What one record's outcome means for it and for the next one of its key.
    fn judge(&mut self, index: usize, behind: Before, passed: bool) -> Before {
        let outcome = self.outcomes.get(index).cloned().flatten();
        let outcome = match outcome {
            Some(Outcome::Stored(_)) => {
                self.moved = true;
                return Before::Free;
            }
            other => other.unwrap_or(Outcome::NotAttempted),
        };
        let stopped = if self.allow_holes {
            Before::Free
        } else {
            Before::Stopped
        };
        if passed {
            if !matches!(outcome, Outcome::Unknown(_)) {
                let cause = outcome.error().cloned();
                if cause.as_ref().is_none_or(Error::is_retryable) {
                    self.set(index, Some(Outcome::Rejected(overtaken(cause))));
                }
            }
            self.moved = true;
            return stopped;
        }
        if behind != Before::Free {
            if behind == Before::Again && !matches!(outcome, Outcome::Unknown(_)) {
                self.set(index, None);
            }
            return behind;
        }
        match outcome {
            Outcome::Rejected(error) | Outcome::Unknown(error) if error.is_retryable() => {
                Before::Again
            }
            Outcome::Rejected(_) | Outcome::Unknown(_) => {
                self.moved = true;
                stopped
            }
            Outcome::NotAttempted | Outcome::Stored(_) => Before::Again,
        }
    }

    /// These are not sent, because of `error`.
    pub(super) fn refuse(&mut self, request: &[usize], error: &Error) {
        for index in request {
            if self.error(*index).is_none() {
                self.set(*index, Some(Outcome::Rejected(error.clone())));
            }
        }
    }

    /// Which records of the request a later one of their key has passed, or may have.
    fn passed(&self, request: &[usize], lanes: &Lanes) -> Vec<bool> {
        let mut passed = vec![false; request.len()];
        for at in (0..request.len()).rev() {
            let after = request.get(at).and_then(|index| lanes.after(*index));
            let Some(after) = after else { continue };
            let behind = request.binary_search(&after).ok();
            let and_so = behind.and_then(|at| passed.get(at)).copied();
            let unknown = matches!(self.outcomes.get(after), Some(Some(Outcome::Unknown(_))));
            if let Some(passed) = passed.get_mut(at) {
                *passed =
                    self.is_stored(after) || and_so.unwrap_or(false) || (self.may_pass && unknown);
            }
        }
        passed
    }

    /// The answer to the caller.
    pub(super) fn finish(self, batch: Batch) -> Result<Appended, AppendError> {
        let outcomes = self
            .outcomes
            .into_iter()
            .map(|outcome| outcome.unwrap_or(Outcome::NotAttempted));
        let outcomes: Vec<Outcome> = outcomes.collect();
        if outcomes.iter().all(|o| matches!(o, Outcome::Stored(_))) {
            return Ok(Appended::new(places(outcomes)));
        }
        Err(AppendError::new(batch, outcomes))
    }
}

fn overtaken(cause: Option<Error>) -> Error {
    let mut error = Error::new(
        ErrorKind::Overtaken,
        Effect::None,
        Retry::Never,
        "a later record of the same key was stored first; append it anew if its place does not matter",
    );
    if let Some(cause) = cause {
        if let Some(topic) = cause.topic() {
            error = error.on_topic(topic);
        }
        if let Some(operation) = cause.operation() {
            error = error.during(operation);
        }
        if let Some(scheme) = cause.scheme() {
            error = error.by(scheme);
        }
        error = error.with_source(cause);
    }
    error
}

fn wrong_length(has: usize, wanted: usize) -> Error {
    Error::new(
        ErrorKind::Internal,
        Effect::Unknown,
        Retry::Backoff,
        format!(
            "the backend gave {has} outcomes for {wanted} records, so none can be trusted; report this"
        ),
    )
}
