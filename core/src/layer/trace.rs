//! Each attempt is a span.

use std::sync::Arc;
use std::time::Duration;

use tracing::field::{Empty, debug};
use tracing::{Instrument, Span};

use super::Layer;
use super::attempt::{Answer, Around, Attempt};
use super::wrap::Wrapped;
use crate::clock::Clock;
use crate::driver::Backend;
use crate::error::{ErrorKind, Operation, Result};

/// Makes every attempt a [`tracing`] span of level `INFO` and target `annals`, named and attributed
/// by OpenTelemetry's semantic conventions for messaging, as `tracing-opentelemetry` exports it.
///
/// | field | holds |
/// | --- | --- |
/// | `otel.name` | operation and topic: `append orders` |
/// | `otel.kind` | `client` |
/// | `otel.status_code` | `ERROR` when something failed |
/// | `messaging.system` | the backend: its scheme, or the conventions' name for it (`rabbitmq`, `aws_sqs`, `aws.sns`) |
/// | `messaging.operation.name` | the driver's method; `receive` for a member's fetch |
/// | `messaging.operation.type` | `send` for an append, `receive` for fetches, `settle` for settlements and commits; else absent |
/// | `messaging.destination.name` | the topic |
/// | `messaging.destination.partition.id` | the partition, where the call is about one |
/// | `messaging.consumer.group.name` | the group |
/// | `messaging.batch.message_count` | records sent, received or settled |
/// | `error.type` | the [`ErrorKind`] of the failure, or of the first record that failed |
///
/// No key, value, header or id is in any of them, nor an address, nor an error's text.
///
/// A fetch that waits for records is a span for as long as it waits. One attempt is one span: what
/// core tries three times is three.
///
/// **Order.** The inner append's first poll is within the layer's own.
///
/// # Cancel safety
/// As the backend's: a call that is dropped ends its span, without `error.type`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Trace(());

impl Trace {
    /// A layer that traces.
    pub const fn new() -> Self {
        Self(())
    }
}

impl Layer for Trace {
    fn wrap(&self, inner: Arc<dyn Backend>, _: &Clock) -> Arc<dyn Backend> {
        Arc::new(Wrapped { inner, by: Traced })
    }
}

#[derive(Clone, Copy, Debug)]
struct Traced;

impl Around for Traced {
    fn limit(&self) -> Option<Duration> {
        None
    }

    async fn around<T: Answer>(
        &self,
        attempt: Attempt<'_>,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let span = open(&attempt);
        let answer = call.instrument(span.clone()).await;
        match &answer {
            Ok(answer) => {
                if let Some(records) = answer.records() {
                    span.record("messaging.batch.message_count", records);
                }
                if let Some(kind) = answer.failure() {
                    fail(&span, kind);
                }
            }
            Err(error) => fail(&span, error.kind()),
        }
        answer
    }
}

fn fail(span: &Span, kind: ErrorKind) {
    span.record("error.type", debug(kind));
    span.record("otel.status_code", "ERROR");
}

fn open(attempt: &Attempt<'_>) -> Span {
    let span = tracing::info_span!(
        target: "annals",
        "annals",
        otel.name = Empty,
        otel.kind = "client",
        otel.status_code = Empty,
        messaging.system = system(attempt.scheme),
        messaging.operation.name = attempt.name,
        messaging.operation.type = kind(attempt),
        messaging.destination.name = attempt.topic.map(display),
        messaging.destination.partition.id = attempt.partition.map(display),
        messaging.consumer.group.name = attempt.group.map(display),
        messaging.batch.message_count = attempt.records,
        error.type = Empty,
    );
    if !span.is_disabled() {
        match attempt.topic {
            Some(topic) => span.record("otel.name", format!("{} {topic}", attempt.name)),
            None => span.record("otel.name", attempt.name),
        };
    }
    span
}

/// The conventions' name of a backend.
fn system(scheme: &'static str) -> &'static str {
    match scheme {
        "amqp" => "rabbitmq",
        "sqs" => "aws_sqs",
        "sns" => "aws.sns",
        other => other,
    }
}

fn kind(attempt: &Attempt<'_>) -> Option<&'static str> {
    match (attempt.operation, attempt.name) {
        (Operation::Append, _) => Some("send"),
        (_, "fetch" | "receive") => Some("receive"),
        (Operation::Settle, _) => Some("settle"),
        _ => None,
    }
}
