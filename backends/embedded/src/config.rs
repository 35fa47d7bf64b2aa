//! URLs of the embedded log, and what can be set.

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use annals_core::address::parse_duration;
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
/// Sizes are whole numbers with `B`, `KiB`, `MiB`, `GiB` or `TiB`; times whole numbers with `ms`,
/// `s`, `m`, `h` or `d`. A number alone is bytes for `segment` and `chunk`, and refused where it
/// could be a time. Example: `file:data?segment=16MiB&retention=30d`.
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
        let form = "a window; write it as off, forever or 10m";
        if let Some(window) = options.parsed("dedupe", form, dedupe)? {
            config.dedupe = window;
        }
        if let Some(kept) = options.retention("retention")? {
            config.retention = kept;
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

fn dedupe(text: &str) -> Option<Dedupe> {
    match text {
        "off" => Some(Dedupe::None),
        "forever" => Some(Dedupe::Forever),
        text => parse_duration(text).map(Dedupe::Window),
    }
}
