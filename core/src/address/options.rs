//! The query of an address, taken key by key; what is left over is an error.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::capability::Retention;
use crate::error::{Error, Operation, Result};

/// The options in an address's query.
///
/// A backend asks for each key it knows, then calls [`finish`](Options::finish), which refuses
/// what nobody asked for and names what could have been given. Values of keys that a backend asks
/// for appear in errors, except by [`secret`](Options::secret).
///
/// ```
/// use annals_core::Address;
/// let address: Address = "file:./data?segment=64MiB&idle=10s".parse()?;
/// let mut options = address.options();
/// assert_eq!(options.bytes("segment")?, Some(64 << 20));
/// assert_eq!(options.duration("idle")?, Some(std::time::Duration::from_secs(10)));
/// assert_eq!(options.flag("sync")?, None);
/// options.finish()?;
/// # Ok::<(), annals_core::Error>(())
/// ```
#[must_use = "call finish, which refuses unknown options"]
pub struct Options {
    left: Vec<(String, String)>,
    known: Vec<&'static str>,
}

impl Options {
    pub(super) const fn new(left: Vec<(String, String)>) -> Self {
        Self {
            left,
            known: Vec::new(),
        }
    }

    fn take(&mut self, key: &'static str) -> Option<String> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        let at = self.left.iter().position(|(name, _)| name == key)?;
        Some(self.left.swap_remove(at).1)
    }

    /// The value as `parse` reads it, for values that no other method reads.
    ///
    /// # Errors
    /// `Config` when it reads none: "the option key=value is not", and then `form`.
    pub fn parsed<T>(
        &mut self,
        key: &'static str,
        form: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(text) = self.take(key) else {
            return Ok(None);
        };
        match parse(&text) {
            Some(value) => Ok(Some(value)),
            None => Err(refused(format!("the option {key}={text} is not {form}"))),
        }
    }

    /// The value as text.
    pub fn text(&mut self, key: &'static str) -> Option<String> {
        self.take(key)
    }

    /// The value as text that never appears in an error: a password, a token.
    pub fn secret(&mut self, key: &'static str) -> Option<String> {
        self.take(key)
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// `Config` for anything else.
    pub fn flag(&mut self, key: &'static str) -> Result<Option<bool>> {
        self.parsed(key, "true or false", |text| text.parse().ok())
    }

    /// A whole number.
    ///
    /// # Errors
    /// `Config` for anything else, and for what does not fit `T`.
    pub fn integer<T: FromStr>(&mut self, key: &'static str) -> Result<Option<T>> {
        self.parsed(key, "a whole number in range", |text| {
            text.bytes()
                .all(|b| b.is_ascii_digit() || b == b'-')
                .then(|| text.parse().ok())
                .flatten()
        })
    }

    /// One of these words.
    ///
    /// # Errors
    /// `Config` for anything else, naming them.
    pub fn word(
        &mut self,
        key: &'static str,
        words: &[&'static str],
    ) -> Result<Option<&'static str>> {
        let form = format!("one of {}", words.join(", "));
        self.parsed(key, &form, |text| {
            words.iter().copied().find(|word| *word == text)
        })
    }

    /// A number of bytes: `512`, `64KiB`, `64MiB`, `1GiB`, `2TiB`.
    ///
    /// # Errors
    /// `Config` for anything else.
    pub fn bytes(&mut self, key: &'static str) -> Result<Option<u64>> {
        let form = "a size in bytes; write it as 512, 64KiB, 64MiB or 1GiB";
        self.parsed(key, form, parse_bytes)
    }

    /// A span of time: `250ms`, `10s`, `5m`, `12h`, `7d`.
    ///
    /// # Errors
    /// `Config` for anything else, a number without a unit too.
    pub fn duration(&mut self, key: &'static str) -> Result<Option<Duration>> {
        let form = "a span of time; write it as 250ms, 10s, 5m, 12h or 7d";
        self.parsed(key, form, parse_duration)
    }

    /// What a topic keeps: `forever`, a time like `30d` or a size like `10GiB`.
    ///
    /// # Errors
    /// `Config` for anything else, a number without a unit too: it could be either.
    pub fn retention(&mut self, key: &'static str) -> Result<Option<Retention>> {
        let form = "a retention; write it as forever, 30d or 10GiB";
        self.parsed(key, form, parse_retention)
    }

    /// Ends the taking apart.
    ///
    /// # Errors
    /// `Config` when options are left that nobody asked for, naming them and those that there
    /// are.
    pub fn finish(self) -> Result<()> {
        if self.left.is_empty() {
            return Ok(());
        }
        let mut unknown: Vec<String> = self
            .left
            .iter()
            .map(|(key, _)| format!("{key:?}"))
            .collect();
        unknown.sort();
        let unknown = unknown.join(", ");
        let known = if self.known.is_empty() {
            "there are none".to_owned()
        } else {
            format!("there are {}", self.known.join(", "))
        };
        Err(refused(format!(
            "the address has unknown options: {unknown}; {known}"
        )))
    }
}

fn refused(message: String) -> Error {
    Error::config(message).during(Operation::Connect)
}

/// Reads a number of bytes: `512B`, `64KiB`, `64MiB`, `1GiB`, `2TiB`; without a unit, bytes.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text)?;
    let factor = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// Reads a span of time: `250ms`, `10s`, `5m`, `12h`, `7d`; a unit is needed.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = number_and_unit(text)?;
    let factor = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(factor).map(Duration::from_millis)
}

/// Reads what a topic keeps: `forever`, a time like `30d` or a size like `10GiB`; a unit is needed,
/// because a number alone could be either.
///
/// ```
/// use annals_core::address::parse_retention;
/// use annals_core::capability::Retention;
/// assert_eq!(parse_retention("10GiB"), Some(Retention::Bytes(10 << 30)));
/// assert_eq!(parse_retention("30"), None);
/// ```
pub fn parse_retention(text: &str) -> Option<Retention> {
    if text == "forever" {
        return Some(Retention::Forever);
    }
    let (_, unit) = number_and_unit(text)?;
    let size = || parse_bytes(text).filter(|_| !unit.is_empty());
    let age = parse_duration(text).map(Retention::Age);
    age.or_else(|| size().map(Retention::Bytes))
}

fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let (number, unit) = text.split_at(
        text.find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len()),
    );
    Some((number.parse().ok()?, unit))
}

impl fmt::Debug for Options {
    /// The names only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.left.iter().map(|(key, _)| key))
            .finish()
    }
}
