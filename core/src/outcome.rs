//! What became of each record of an append.

use std::fmt;

use crate::batch::Batch;
use crate::error::{Effect, Error, ErrorKind, Retry};
use crate::position::{PartitionId, Position};

/// A record that is stored durably, as the capability `durability` says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Stored {
    /// In which partition, where the service says.
    pub partition: Option<PartitionId>,
    /// Where, if the service says (not AMQP confirms, not SQS).
    pub position: Option<Position>,
    /// It had been stored before, as the service says (many do not): this is the first one's place.
    pub duplicate: bool,
}

impl Stored {
    /// Stored at `position`.
    pub const fn at(position: Position) -> Self {
        Self {
            partition: Some(position.partition()),
            position: Some(position),
            duplicate: false,
        }
    }

    /// Stored where the service does not say.
    pub const fn somewhere() -> Self {
        Self {
            partition: None,
            position: None,
            duplicate: false,
        }
    }

    /// The same, stored before.
    #[must_use]
    pub const fn as_duplicate(mut self) -> Self {
        self.duplicate = true;
        self
    }
}

/// What became of one record.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It is stored.
    Stored(Stored),
    /// It is certainly not stored.
    Rejected(Error),
    /// It may be stored, now or later (behind later records of its key, then), or never.
    Unknown(Error),
    /// It was not sent: an earlier record of its key, or of its batch, was not stored, or there was
    /// no room for it in the request.
    NotAttempted,
}

impl Outcome {
    /// The place, when it is stored.
    pub fn stored(&self) -> Option<&Stored> {
        match self {
            Self::Stored(stored) => Some(stored),
            _ => None,
        }
    }

    /// The reason, when it was refused or cannot be known.
    pub fn error(&self) -> Option<&Error> {
        match self {
            Self::Rejected(error) | Self::Unknown(error) => Some(error),
            Self::Stored(_) | Self::NotAttempted => None,
        }
    }
}

/// One outcome per record, in the order of the batch: what a backend answers once a request has
/// left.
#[derive(Clone, Debug)]
#[must_use = "records may be refused or unknown in here"]
pub struct AppendReport {
    outcomes: Vec<Outcome>,
}

impl AppendReport {
    /// A report of these outcomes, one per record, in order. Core treats a report of another
    /// length as `Unknown` for the whole batch.
    pub fn new(outcomes: Vec<Outcome>) -> Self {
        Self { outcomes }
    }

    /// The same outcome for `records` records.
    pub fn all(records: usize, outcome: &Outcome) -> Self {
        Self {
            outcomes: vec![outcome.clone(); records],
        }
    }

    /// The outcomes, in order.
    pub fn outcomes(&self) -> &[Outcome] {
        &self.outcomes
    }

    /// The outcomes, taken out.
    pub fn into_outcomes(self) -> Vec<Outcome> {
        self.outcomes
    }
}

/// Every record is stored.
#[derive(Clone, Debug)]
pub struct Appended {
    records: Vec<Stored>,
}

impl Appended {
    /// These places, in the order of the batch.
    pub fn new(records: Vec<Stored>) -> Self {
        Self { records }
    }

    /// Where each record is, in the order of the batch.
    pub fn records(&self) -> &[Stored] {
        &self.records
    }

    /// The last record's place; `None` after an empty batch.
    pub fn last(&self) -> Option<&Stored> {
        self.records.last()
    }
}

/// Not every record of an append is known to be stored: says, record by record, what is stored,
/// what is not, what may be; and hands back what is unconfirmed.
///
/// Boxed inside, so that `Result<Appended, AppendError>` stays small.
#[derive(Clone)]
pub struct AppendError(Box<Failed>);

#[derive(Clone)]
struct Failed {
    outcomes: Vec<Outcome>,
    batch: Batch,
    error: Error,
}

impl AppendError {
    /// The outcomes of `batch`, at least one of which is not `Stored`.
    pub fn new(batch: Batch, outcomes: Vec<Outcome>) -> Self {
        let error = Self::summary(&batch, &outcomes);
        Self(Box::new(Failed {
            outcomes,
            batch,
            error,
        }))
    }

    /// Nothing of `batch` was stored, because of `error`.
    pub fn refused(batch: Batch, error: &Error) -> Self {
        let outcomes = vec![Outcome::Rejected(error.clone()); batch.len()];
        let error = error.clone().with_effect(Effect::None);
        Self(Box::new(Failed {
            outcomes,
            batch,
            error,
        }))
    }

    /// One error for many outcomes: the first unknown one's, else the first refusal's. The effect
    /// is the worst: `Unknown` if any record's is, `Partial` if some are stored, else `None`.
    fn summary(batch: &Batch, outcomes: &[Outcome]) -> Error {
        let unknown = outcomes.iter().find(|o| matches!(o, Outcome::Unknown(_)));
        let stored = outcomes.iter().filter(|o| o.stored().is_some()).count();
        let first = unknown.or_else(|| outcomes.iter().find(|o| o.error().is_some()));
        let effect = match (unknown, stored) {
            (Some(_), _) => Effect::Unknown,
            (None, 0) => Effect::None,
            (None, _) => Effect::Partial,
        };
        let error = first.and_then(Outcome::error).cloned().unwrap_or_else(|| {
            Error::new(
                ErrorKind::Internal,
                Effect::None,
                Retry::Never,
                "records were not attempted, and no outcome says why",
            )
        });
        let error = error.with_effect(effect);
        if batch.len() < 2 {
            return error;
        }
        let unknowns = outcomes
            .iter()
            .filter(|o| matches!(o, Outcome::Unknown(_)))
            .count();
        let mut whole = Error::new(
            error.kind(),
            effect,
            error.retry(),
            format!(
                "{stored} of {} records are stored, {unknowns} may be, {} are not: {}",
                batch.len(),
                outcomes.len().saturating_sub(stored + unknowns),
                error.message()
            ),
        );
        if let Some(topic) = error.topic() {
            whole = whole.on_topic(topic);
        }
        if let Some(operation) = error.operation() {
            whole = whole.during(operation);
        }
        if let Some(scheme) = error.scheme() {
            whole = whole.by(scheme);
        }
        if let Some(partition) = error.partition() {
            whole = whole.in_partition(partition);
        }
        whole.with_source(error)
    }

    /// The kind of the first record that may be stored, else of the first that was refused.
    pub fn kind(&self) -> ErrorKind {
        self.0.error.kind()
    }

    /// `Unknown` if any record may be stored, `Partial` if some are, `None` if none is.
    pub fn effect(&self) -> Effect {
        self.0.error.effect()
    }

    /// Whether appending [`unconfirmed`](Self::unconfirmed) again is sensible.
    pub fn retry(&self) -> Retry {
        self.0.error.retry()
    }

    /// What became of each record, in the order of the batch.
    pub fn outcomes(&self) -> &[Outcome] {
        &self.0.outcomes
    }

    /// Everything that is not known to be stored, in order, its submissions kept. Appending it
    /// again may store twice what is `Unknown`, unless the capability `resubmit` or `dedupe` says
    /// otherwise.
    #[must_use]
    pub fn unconfirmed(&self) -> Batch {
        let open = |index: &usize| !matches!(self.0.outcomes.get(*index), Some(Outcome::Stored(_)));
        self.0.batch.select((0..self.0.batch.len()).filter(open))
    }

    /// The records as they were appended.
    pub(crate) fn batch(&self) -> &Batch {
        &self.0.batch
    }

    /// The error in one.
    pub fn error(&self) -> &Error {
        &self.0.error
    }
}

impl From<AppendError> for Error {
    fn from(failed: AppendError) -> Self {
        failed.0.error
    }
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.error.fmt(f)
    }
}

impl fmt::Debug for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.error.fmt(f)
    }
}

impl std::error::Error for AppendError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.error.source()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Record;

    #[test]
    fn the_worst_effect_wins_and_the_unconfirmed_come_back_in_order() {
        let batch: Batch = (0..4).map(|n| Record::new(n.to_string())).collect();
        let refused = Error::config("too odd");
        let lost = Error::new(
            ErrorKind::Timeout,
            Effect::Unknown,
            Retry::Backoff,
            "no answer",
        );
        let outcomes = |third: Outcome| {
            vec![
                Outcome::Stored(Stored::somewhere()),
                Outcome::Rejected(refused.clone()),
                third,
                Outcome::NotAttempted,
            ]
        };
        let failed = AppendError::new(batch.clone(), outcomes(Outcome::Unknown(lost)));
        assert_eq!(
            (failed.effect(), failed.kind()),
            (Effect::Unknown, ErrorKind::Timeout)
        );
        assert_eq!(failed.retry(), Retry::Backoff);
        let open = failed.unconfirmed();
        assert_eq!(open.len(), 3);
        assert_eq!(open.submission(0), batch.submission(1));
        assert!(
            failed
                .to_string()
                .contains("1 of 4 records are stored, 1 may be, 2 are not")
        );

        let failed = AppendError::new(batch.clone(), outcomes(Outcome::NotAttempted));
        assert_eq!(
            (failed.effect(), failed.kind()),
            (Effect::Partial, ErrorKind::Config)
        );
        let failed = AppendError::refused(batch, &refused);
        assert_eq!(failed.effect(), Effect::None);
    }
}
