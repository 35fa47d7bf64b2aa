//! A full disk is not waited for in silence.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::unchecked_time_subtraction,
    reason = "a test may panic"
)]

mod scripted;

use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex};

use annals_core::capability::Batching;
use annals_core::{Effect, ErrorKind, Retry};
use scripted::{Answer, Scripted, capabilities, error, records};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Keeps the level and the fields of each event.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<(Level, String)>>>);

struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = write!(self.0, "{field}={value:?} ");
    }
}

impl Subscriber for Told {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut text = String::new();
        event.record(&mut Fields(&mut text));
        let mut told = self.0.lock().unwrap();
        told.push((*event.metadata().level(), text));
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[tokio::test(start_paused = true)]
async fn an_append_that_waits_for_room_warns_once() {
    let told = Told::default();
    let _listening = tracing::subscriber::set_default(told.clone());
    let fails = |kind| Answer::Fail(error(kind, Effect::None, Retry::Backoff));
    let busy = fails(ErrorKind::Disconnected);
    let full = fails(ErrorKind::Blocked);
    let answers = [busy, full.clone(), full.clone(), full];
    let backend = Scripted::new(capabilities(Batching::Prefix), answers);
    let topic = backend.topic().await;
    topic.append(records("a1")).await.unwrap();
    let told: Vec<_> = {
        let mut told = told.0.lock().unwrap().clone();
        told.retain(|(_, text)| text.contains("tried again"));
        told
    };
    let levels: Vec<_> = told.iter().map(|(level, _)| *level).collect();
    let expected = [Level::DEBUG, Level::WARN, Level::DEBUG, Level::DEBUG];
    assert_eq!(levels, expected, "{told:?}");
    for part in ["topic=", "records=1", "pause=", "error="] {
        assert!(told[1].1.contains(part), "{told:?}");
    }
}
