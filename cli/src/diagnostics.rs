//! What the library has to say besides results and errors: warnings, and with `--verbose` what it
//! is doing, on standard error.

use std::fmt;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

/// Shows them for as long as the process lives.
pub(crate) fn show(verbose: bool) {
    let subscriber = subscriber(verbose, std::io::stderr);
    // Nobody else sets one, and without one nothing but these lines is missing.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

fn subscriber<W>(verbose: bool, to: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    tracing_subscriber::fmt()
        .with_max_level(if verbose { Level::DEBUG } else { Level::WARN })
        // Where nobody listens, nothing is said.
        .log_internal_errors(false)
        .event_format(Lines)
        .with_writer(to)
        .finish()
}

/// One line each, like all that the command says.
struct Lines;

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut to: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            _ => "debug",
        };
        write!(to, "annals: {level}: ")?;
        context.format_fields(to.by_ref(), event)?;
        writeln!(to)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Said(Arc<Mutex<Vec<u8>>>);

    impl Write for Said {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn said(verbose: bool) -> String {
        let said = Said::default();
        let to = said.clone();
        tracing::subscriber::with_default(subscriber(verbose, move || to.clone()), || {
            tracing::warn!(topic = "t", "retention failed");
            tracing::debug!("reading on");
        });
        let bytes = said.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn warnings_are_shown_and_the_rest_when_asked_for() {
        let warning = "annals: warning: retention failed topic=\"t\"\n";
        assert_eq!(said(false), warning);
        assert_eq!(said(true), format!("{warning}annals: debug: reading on\n"));
    }
}
