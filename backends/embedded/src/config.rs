//! URLs of the embedded log, and what can be set.

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use annals_core::capability::{Dedupe, Retention};
use annals_core::{Error, Result};

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
const KEYS: &str = "segment, chunk, dedupe, retention";

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
        let (head, query) = url.split_once('?').unwrap_or((url, ""));
        let place = match head.split_once(':') {
            Some(("file", path)) => Place::Directory(directory(path)?),
            Some(("memory", name)) => Place::Memory(memory(name)?),
            _ => {
                return Err(Error::config(
                    "the embedded log has URLs like file:PATH, memory: and memory:NAME",
                ));
            }
        };
        let mut config = Self::new(place);
        let mut seen = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if seen.contains(&key) {
                return Err(Error::config(format!("the key {key:?} is given twice")));
            }
            seen.push(key);
            match key {
                "segment" => config.segment = size(key, value)?,
                "chunk" => {
                    config.chunk = usize::try_from(size(key, value)?).unwrap_or(usize::MAX);
                }
                "dedupe" => {
                    config.dedupe = match value {
                        "off" => Dedupe::None,
                        "forever" => Dedupe::Forever,
                        _ => Dedupe::Window(
                            time(value).ok_or_else(|| wrong(key, value, "off, forever or 10m"))?,
                        ),
                    };
                }
                "retention" => {
                    config.retention = if value == "forever" {
                        Retention::Forever
                    } else if let Some(age) = time(value) {
                        Retention::Age(age)
                    } else {
                        bytes(value)
                            .map(Retention::Bytes)
                            .ok_or_else(|| wrong(key, value, "forever, 30d or 10GiB"))?
                    };
                }
                _ => {
                    return Err(Error::config(format!(
                        "unknown key {key:?}; the embedded log knows {KEYS}"
                    )));
                }
            }
        }
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

fn directory(path: &str) -> Result<PathBuf> {
    let path = match path.strip_prefix("//") {
        Some(rest) if rest.starts_with('/') => rest,
        Some(_) => {
            return Err(Error::config(
                "a file URL has no host; write file:PATH, or file:///PATH for an absolute one",
            ));
        }
        None => path,
    };
    if path.is_empty() {
        return Err(Error::config(
            "a file URL needs a directory: file:data, file:///var/lib/app",
        ));
    }
    let mut decoded = Vec::new();
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let byte = digit(rest.next())
            .zip(digit(rest.next()))
            .and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        match byte {
            Some(byte) if byte != 0 => decoded.push(byte),
            _ => {
                return Err(Error::config(
                    "a % in a file URL is followed by two hexadecimal digits; write %25 for itself",
                ));
            }
        }
    }
    String::from_utf8(decoded)
        .map(PathBuf::from)
        .map_err(|_| Error::config("the path of a file URL is not UTF-8"))
}

fn memory(name: &str) -> Result<Option<String>> {
    if name.is_empty() {
        return Ok(None);
    }
    // The same rule as for topics: no surprises from slashes and dots.
    annals_core::TopicName::new(name).map_err(|e| {
        Error::config(format!(
            "the name in memory:NAME is no name: {}",
            e.message()
        ))
    })?;
    Ok(Some(name.to_owned()))
}

fn wrong(key: &str, value: &str, like: &str) -> Error {
    Error::config(format!(
        "{key}={value:?} cannot be read; write it like {like}"
    ))
}

fn size(key: &str, value: &str) -> Result<u64> {
    bytes(value).ok_or_else(|| wrong(key, value, "65536B, 512KiB, 64MiB or 1GiB"))
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
