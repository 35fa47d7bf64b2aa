//! What the examples share: a check that is shown, and a topic that is empty when they begin.

use std::error::Error;

use annals::{Bus, ErrorKind, Topic, TopicName, TopicSpec};

/// Shows what must hold, and fails the example when it does not.
pub(crate) fn check(holds: bool, what: &str) -> Result<(), Box<dyn Error + Send + Sync>> {
    println!("{} {what}", if holds { "ok  " } else { "FAIL" });
    if holds {
        Ok(())
    } else {
        Err(format!("check failed: {what}").into())
    }
}

/// The topic as `spec` says, and empty also when an earlier run left one.
pub(crate) async fn fresh(bus: &Bus, name: &str, spec: TopicSpec) -> annals::Result<Topic> {
    match bus.admin()?.delete(&TopicName::new(name)?).await {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    bus.topic(name).create_with(spec).await
}
