//! URLs of the embedded log, and what can be set.

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use annals_core::capability::{Dedupe, Retention};
use annals_core::{Address, Error, Result, TopicName};

/// Where the log lives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// In this directory, which is made when it is first written to.
    Directory(PathBuf),
    /// In memory, for as long as a handle on it lives. With a name it is shared by all in the
    /// process who use that name; without, it is the handle's own.
    Memory(Option<String>),
}

/// What can be set, from a URL or one by one.
///
/// | URL | means |
/// | --- | --- |
/// | `file:data`, `file:./data` | a directory, relative to the current one |
/// | `file:/var/lib/app`, `file:///var/lib/app` | an absolute one; `%20` is a space |
/// | `memory:` | a log in memory of one's own |
/// | `memory:NAME` | a log in memory that is shared within the process |
///
/// | key | values | default | means |
/// | --- | --- | --- | --- |
/// | `segment` | `64KiB` to `1GiB` | `64MiB` | the size of a segment file: the step of retention |
/// | `chunk` | `4KiB` to `64MiB` | `512KiB` | what a reader takes from the disk at once |
/// | `dedupe` | `off`, `forever`, or a time | `off` | for new topics: how long a repeated id is recognised |
/// | `retention` | `forever`, a time or a size | `forever` | for new topics: how long, or how much, is kept |
///
/// Sizes are whole numbers with `B`, `KiB`, `MiB` or `GiB`; times whole numbers with `ms`, `s`,
/// `m`, `h` or `d`. Example: `file:data?segment=16MiB&retention=30d`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Where the log lives.
    pub place: Place,
    /// The size of a segment file in bytes.
    pub segment: u64,
    /// What a reader takes from the disk at once, in bytes.
    pub chunk: usize,
    /// For new topics that do not say: how long a repeated id is recognised.
    pub dedupe: Dedupe,
    /// For new topics that do not say: what is kept.
    pub retention: Retention,
}

const SEGMENT: std::ops::RangeInclusive<u64> = (64 << 10)..=(1 << 30);
const CHUNK: std::ops::RangeInclusive<u64> = (4 << 10)..=(64 << 20);

impl Config {
    /// The defaults, at `place`.
    pub fn new(place: Place) -> Self {
        Self {
            place,
            segment: 64 << 20,
            chunk: 512 << 10,
            dedupe: Dedupe::None,
            retention: Retention::Forever,
        }
    }

    /// Reads a URL.
    ///
    /// # Errors
    /// `Config`: another scheme, no path, a host, an unknown key, a key given twice, or a value
    /// that is none; the text says what would do.
    pub fn parse(url: &str) -> Result<Self> {
        Self::of(&url.parse()?)
    }

    /// Reads a URL that has been taken apart.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn of(address: &Address) -> Result<Self> {
        let place = match address.scheme() {
            "file" => Place::Directory(directory(address)?),
            "memory" => Place::Memory(memory(address)?),
            _ => {
                return Err(Error::config(
                    "the embedded log has URLs like file:PATH, memory: and memory:NAME",
                ));
            }
        };
        let mut config = Self::new(place);
        let mut options = address.options();
        if let Some(segment) = options.bytes("segment")? {
            config.segment = segment;
        }
        if let Some(chunk) = options.bytes("chunk")? {
            config.chunk = usize::try_from(chunk).unwrap_or(usize::MAX);
        }
        if let Some(text) = options.text("dedupe") {
            config.dedupe = match text.as_str() {
                "off" => Dedupe::None,
                "forever" => Dedupe::Forever,
                text => Dedupe::Window(
                    time(text).ok_or_else(|| wrong("dedupe", "off, forever or 10m"))?,
                ),
            };
        }
        if let Some(text) = options.text("retention") {
            let age = || time(&text).map(Retention::Age);
            let size = || bytes(&text).map(Retention::Bytes);
            config.retention = match text.as_str() {
                "forever" => Retention::Forever,
                _ => age()
                    .or_else(size)
                    .ok_or_else(|| wrong("retention", "forever, 30d or 10GiB"))?,
            };
        }
        options.finish()?;
        config.check()?;
        Ok(config)
    }

    /// Checks the bounds of what was set one by one.
    ///
    /// # Errors
    /// `Config`, naming the bound.
    pub fn check(&self) -> Result<()> {
        bounded("segment", self.segment, &SEGMENT)?;
        bounded("chunk", self.chunk as u64, &CHUNK)?;
        check_dedupe(self.dedupe)?;
        check_retention(self.retention)
    }
}

/// Times are kept in whole milliseconds, and none at all is no window.
pub(crate) fn check_dedupe(dedupe: Dedupe) -> Result<()> {
    match dedupe {
        Dedupe::Window(window) if window < Duration::from_millis(1) => Err(Error::config(
            "a dedupe window is one millisecond at least; leave it out for none",
        )),
        _ => Ok(()),
    }
}

/// Nothing at all is no retention.
pub(crate) fn check_retention(retention: Retention) -> Result<()> {
    let nothing = match retention {
        Retention::Forever => false,
        Retention::Age(age) => age < Duration::from_millis(1),
        Retention::Bytes(bytes) => bytes == 0,
    };
    if nothing {
        return Err(Error::config(
            "retention is one millisecond or one byte at least",
        ));
    }
    Ok(())
}

fn bounded(key: &str, value: u64, bounds: &std::ops::RangeInclusive<u64>) -> Result<()> {
    if bounds.contains(&value) {
        return Ok(());
    }
    Err(Error::config(format!(
        "{key} is {value} bytes; it goes from {} to {}",
        bounds.start(),
        bounds.end()
    )))
}

fn directory(address: &Address) -> Result<PathBuf> {
    if address.hosts().is_some_and(|hosts| !hosts.is_empty()) || address.user().is_some() {
        return Err(Error::config(
            "a file URL has no host; write file:PATH, or file:///PATH for an absolute one",
        ));
    }
    match address.path() {
        "" => Err(Error::config(
            "a file URL needs a directory: file:data, file:///var/lib/app",
        )),
        path => Ok(PathBuf::from(path)),
    }
}

fn memory(address: &Address) -> Result<Option<String>> {
    if address.hosts().is_some() {
        return Err(Error::config(
            "a log in memory has no host; write memory: or memory:NAME",
        ));
    }
    let name = address.path();
    if name.is_empty() {
        return Ok(None);
    }
    // The same rule as for topics: no surprises from slashes and dots.
    TopicName::new(name).map_err(|e| {
        Error::config(format!(
            "the name in memory:NAME is no name: {}",
            e.message()
        ))
    })?;
    Ok(Some(name.to_owned()))
}

fn wrong(key: &str, like: &str) -> Error {
    Error::config(format!(
        "the option {key:?} cannot be read; write it like {like}"
    ))
}

fn split(text: &str) -> Option<(u64, &str)> {
    let unit = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(unit)?;
    Some((number.parse().ok()?, unit))
}

fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let unit = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(unit)
}

fn time(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(millis).map(Duration::from_millis)
}
