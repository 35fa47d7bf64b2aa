//! How the command ends: one line on standard error, and a code that scripts can go by.

use std::error::Error as _;
use std::fmt;
use std::io::Write as _;
use std::process::ExitCode;

use annals::{Effect, Error, ErrorKind};

/// What the exit codes mean; `--help` and the README say the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Code {
    Failed = 1,
    Usage = 2,
    NotFound = 3,
    NotWhole = 4,
    Unknown = 5,
    Violated = 6,
    Interrupted = 130,
    Terminated = 143,
}

/// Why the command did not do what it was asked for.
#[derive(Debug)]
pub(crate) struct Failure {
    code: Code,
    /// One lower-case line; empty when everything has been said.
    message: String,
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    pub(crate) fn failed(message: impl fmt::Display) -> Self {
        Self::new(Code::Failed, message.to_string())
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Code::Usage, message)
    }

    /// Everything has been said already.
    pub(crate) fn silent(code: Code) -> Self {
        Self::new(code, "")
    }

    /// Closing failed too, after this was told.
    pub(crate) fn after(self, closing: &Error) -> Self {
        Self::new(self.code, text_of(closing))
    }

    #[cfg(test)]
    pub(crate) fn code(&self) -> Code {
        self.code
    }

    pub(crate) fn exit(&self) -> ExitCode {
        tell(self);
        ExitCode::from(self.code as u8)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(code_of(&error), text_of(&error))
    }
}

/// The code of what the library says.
pub(crate) fn code_of(error: &Error) -> Code {
    match (error.effect(), error.kind()) {
        (Effect::Unknown, _) => Code::Unknown,
        (_, ErrorKind::Config) => Code::Usage,
        (_, ErrorKind::NotFound) => Code::NotFound,
        (_, ErrorKind::Gap | ErrorKind::Corrupt) => Code::NotWhole,
        _ => Code::Failed,
    }
}

/// The library's sentence, and the system's words where it points to them.
pub(crate) fn text_of(error: &Error) -> String {
    let mut text = error.to_string();
    // That a file is not there is how a topic is found missing: it adds nothing.
    if error.kind() == ErrorKind::NotFound {
        return text;
    }
    let mut next = error.source();
    while let Some(cause) = next {
        // The library's own causes are told by what they caused.
        if !cause.is::<Error>() {
            text = format!("{text} ({cause})");
        }
        next = cause.source();
    }
    text
}

/// Says a line on standard error; where nobody listens, it is not said.
pub(crate) fn tell(what: impl fmt::Display) {
    let line = what.to_string();
    if !line.is_empty() {
        let _ = writeln!(std::io::stderr(), "annals: {line}");
    }
}

#[cfg(test)]
mod tests {
    use annals::{Operation, Retry};

    use super::*;

    #[test]
    fn kinds_have_their_codes_and_the_worst_wins() {
        let of = |kind, effect| code_of(&Error::new(kind, effect, Retry::Never, "x"));
        assert_eq!(of(ErrorKind::Config, Effect::None), Code::Usage);
        assert_eq!(of(ErrorKind::NotFound, Effect::None), Code::NotFound);
        assert_eq!(of(ErrorKind::Gap, Effect::None), Code::NotWhole);
        assert_eq!(of(ErrorKind::Corrupt, Effect::None), Code::NotWhole);
        assert_eq!(of(ErrorKind::Denied, Effect::Partial), Code::Failed);
        assert_eq!(of(ErrorKind::Config, Effect::Unknown), Code::Unknown);
    }

    #[test]
    fn foreign_causes_are_named_and_own_ones_are_not_repeated() {
        let own = Error::config("inner").with_source(std::io::Error::other("disk on fire"));
        let outer = Error::config("outer")
            .during(Operation::Read)
            .with_source(own);
        assert_eq!(text_of(&outer), "read: outer (disk on fire)");
    }
}
