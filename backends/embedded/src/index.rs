//! Key indexes of sealed segments, made in the background.

use std::sync::{Arc, Weak};

use crate::log::Topic;

/// Makes what is missing now and after each seal, until the topic is dropped or closed. One
/// blocking job at a time; appends and readers do not wait for it, unless they ask for a key in
/// the very segment.
pub(crate) fn watch(topic: &Arc<Topic>) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else {
        return;
    };
    let mut seals = topic.watch_seals();
    let topic: Weak<Topic> = Arc::downgrade(topic);
    runtime.spawn(async move {
        loop {
            seals.borrow_and_update();
            let Some(now) = topic.upgrade() else { return };
            let done = tokio::task::spawn_blocking(move || now.index_sealed()).await;
            if let Ok(Err(e)) = done {
                tracing::warn!(error = %e, "indexing keys failed; it is tried again after the next seal");
            }
            if seals.changed().await.is_err() {
                return;
            }
        }
    });
}
