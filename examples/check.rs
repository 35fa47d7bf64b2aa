//! What the examples share: a check that is shown, and a topic that is empty when they begin.

use std::error::Error;
use std::fmt::Display;
use std::io::Write;

use annals::{Bus, ErrorKind, Topic, TopicName, TopicSpec};

/// Shows what must hold, and fails the example when it does not.
pub(crate) fn check(holds: bool, what: &str) -> Result<(), Box<dyn Error + Send + Sync>> {
    say(format_args!(
        "{} {what}",
        if holds { "ok  " } else { "FAIL" }
    ));
    if holds {
        Ok(())
    } else {
        Err(format!("check failed: {what}").into())
    }
}

/// Prints a line. Where nobody reads on (`| head`), the example ends there, quietly.
pub(crate) fn say(line: impl Display) {
    if let Err(error) = writeln!(std::io::stdout(), "{line}") {
        let gone = error.kind() == std::io::ErrorKind::BrokenPipe;
        std::process::exit(i32::from(!gone));
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
