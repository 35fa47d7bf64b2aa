//! A subscriber that keeps the fields of every span.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, Once};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{DefaultGuard, Interest};
use tracing::{Event, Metadata, Subscriber};

pub(crate) type Span = BTreeMap<&'static str, String>;

#[derive(Clone, Default)]
pub(crate) struct Spans(Arc<Mutex<Vec<Span>>>);

impl Spans {
    /// Keeps what happens on this thread from now on.
    pub(crate) fn listen() -> (Self, DefaultGuard) {
        // tracing remembers of each place in the code whether anybody wants it. A test on another
        // thread must not have it remember that nobody does.
        static SOMEBODY: Once = Once::new();
        SOMEBODY.call_once(|| tracing::subscriber::set_global_default(Nobody).unwrap());
        let spans = Self::default();
        let guard = tracing::subscriber::set_default(spans.clone());
        (spans, guard)
    }

    pub(crate) fn all(&self) -> Vec<Span> {
        self.0.lock().unwrap().clone()
    }

    /// The spans of one operation.
    pub(crate) fn of(&self, operation: &str) -> Vec<Span> {
        let mut spans = self.all();
        spans.retain(|span| {
            span.get("messaging.operation.name")
                .is_some_and(|name| name == operation)
        });
        spans
    }
}

struct Fields<'a>(&'a mut Span);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

/// Wants nothing for now, and is asked every time.
struct Nobody;

impl Subscriber for Nobody {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        false
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

impl Subscriber for Spans {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "annals"
    }
    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut span = Span::new();
        attributes.record(&mut Fields(&mut span));
        let mut spans = self.0.lock().unwrap();
        spans.push(span);
        Id::from_u64(spans.len() as u64)
    }
    fn record(&self, id: &Id, values: &Record<'_>) {
        let mut spans = self.0.lock().unwrap();
        let index = usize::try_from(id.into_u64() - 1).unwrap();
        values.record(&mut Fields(spans.get_mut(index).unwrap()));
    }
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}
