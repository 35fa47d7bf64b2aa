//! Records from lines: read on a thread of its own, in batches, with the lines they came from.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Read};
use std::path::Path;

use annals::Record;
use tokio::sync::mpsc;

use crate::exit::Failure;
use crate::ndjson;

/// What is read from the input at once.
const BUFFER: usize = 1 << 20;
/// The longest line: a record of the embedded log's largest size as base64, and more.
const LONGEST: u64 = 256 << 20;
/// When a batch waits no longer.
const RECORDS: usize = annals::defaults::BATCH_RECORDS;
const BYTES: usize = annals::defaults::BATCH_BYTES;
/// Batches read ahead.
const AHEAD: usize = 2;

/// How a line becomes a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Format {
    /// Records as read prints them (see --help of annals).
    Ndjson,
    /// Each line is JSON and becomes a value as it stands; --key FIELD gives it its key.
    Json,
    /// Each line is a value, whatever it holds; an empty line is an empty value.
    Lines,
}

/// How lines become records.
#[derive(Clone, Debug)]
pub(crate) struct Making {
    pub(crate) format: Format,
    pub(crate) key: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
}

/// What comes from the input, in order.
#[derive(Debug)]
pub(crate) enum Input {
    /// One record a line, from line `first` on.
    Batch {
        first: u64,
        records: Vec<Record>,
        /// Of the input, to the end of the batch.
        bytes: u64,
    },
    /// A line that is no record; nothing comes after it.
    Malformed { line: u64, why: String },
    /// The input cannot be read on behind line `line`.
    Failed { line: u64, why: io::Error },
}

/// An open input.
pub(crate) struct Source {
    input: Box<dyn Read + Send>,
    /// Whether somebody has to type it.
    pub(crate) typed: bool,
    /// Its size, where it has one.
    pub(crate) size: Option<u64>,
}

impl Source {
    /// A file, or standard input for none and for `-`.
    pub(crate) fn open(file: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = file.filter(|path| *path != Path::new("-")) else {
            return Ok(Self {
                input: Box::new(io::stdin()),
                typed: io::stdin().is_terminal(),
                size: None,
            });
        };
        let opened = File::open(path).and_then(|file| {
            let about = file.metadata()?;
            if about.is_dir() {
                return Err(io::ErrorKind::IsADirectory.into());
            }
            Ok((file, about))
        });
        let (file, about) = opened.map_err(|e| {
            Failure::failed(format!("the file {} cannot be read: {e}", path.display()))
        })?;
        Ok(Self {
            input: Box::new(file),
            typed: false,
            size: about.is_file().then_some(about.len()),
        })
    }

    /// Reads from line `from` (the first is 1) on. Dropping the receiver ends it.
    pub(crate) fn read(self, from: u64, making: Making) -> Result<mpsc::Receiver<Input>, Failure> {
        let (to, batches) = mpsc::channel(AHEAD);
        std::thread::Builder::new()
            .name("input".to_owned())
            .spawn(move || {
                let lines = Lines {
                    input: BufReader::with_capacity(BUFFER, self.input),
                    number: 0,
                    bytes: 0,
                };
                lines.send(from, &making, &to);
            })
            .map_err(|e| Failure::failed(format!("no thread can be started: {e}")))?;
        Ok(batches)
    }
}

struct Lines<R> {
    input: BufReader<R>,
    /// Of the line that was read last.
    number: u64,
    bytes: u64,
}

impl<R: Read> Lines<R> {
    fn send(mut self, from: u64, making: &Making, to: &mpsc::Sender<Input>) {
        let mut records = Vec::new();
        let mut size = 0;
        let mut line = Vec::new();
        let last = loop {
            // Whoever writes slowly has what is there appended before the next line is waited for.
            let waits = !self.input.buffer().contains(&b'\n');
            if size >= BYTES || records.len() >= RECORDS || waits && !records.is_empty() {
                size = 0;
                if to
                    .blocking_send(self.batch(std::mem::take(&mut records)))
                    .is_err()
                {
                    return;
                }
            }
            match self.next(&mut line) {
                Ok(true) if self.number < from => {}
                Ok(true) => match making.record(&line) {
                    Ok(record) => {
                        size += record.len_bytes();
                        records.push(record);
                    }
                    Err(why) => {
                        let line = self.number;
                        self.number -= 1;
                        break Some(Input::Malformed { line, why });
                    }
                },
                Ok(false) if self.number + 1 < from => {
                    let line = self.number;
                    let why = io::Error::other(format!("it has no line {from} to begin with"));
                    break Some(Input::Failed { line, why });
                }
                Ok(false) => break None,
                Err(why) => {
                    let line = self.number;
                    break Some(Input::Failed { line, why });
                }
            }
        };
        if !records.is_empty() && to.blocking_send(self.batch(records)).is_err() {
            return;
        }
        if let Some(last) = last {
            let _ = to.blocking_send(last);
        }
    }

    /// The records of the lines up to the one that was read last.
    fn batch(&self, records: Vec<Record>) -> Input {
        Input::Batch {
            first: self.number + 1 - records.len() as u64,
            records,
            bytes: self.bytes,
        }
    }

    /// The next line without its end; whether there is one.
    fn next(&mut self, line: &mut Vec<u8>) -> io::Result<bool> {
        line.clear();
        let read = (&mut self.input).take(LONGEST).read_until(b'\n', line)?;
        if read == 0 {
            return Ok(false);
        }
        if line.pop_if(|last| *last == b'\n').is_none() && read as u64 == LONGEST {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the next line has more than {LONGEST} bytes; shorten it or take it out"),
            ));
        }
        self.number += 1;
        self.bytes += read as u64;
        Ok(true)
    }
}

impl Making {
    fn record(&self, line: &[u8]) -> Result<Record, String> {
        let json = line.strip_suffix(b"\r").unwrap_or(line);
        let empty = json.iter().all(u8::is_ascii_whitespace);
        let mut record = match self.format {
            Format::Lines => Record::new(line),
            _ if empty => return Err("it is empty; leave the line out".to_owned()),
            Format::Json => ndjson::value(json, self.key.as_deref())?,
            Format::Ndjson => ndjson::read(json).map_err(|why| {
                format!(
                    "it is no record as annals read prints it ({why}); for lines that are values use --format json or --format lines"
                )
            })?,
        };
        for (name, value) in &self.headers {
            record = record.header(name, value);
        }
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(input: &'static [u8], from: u64, format: Format) -> Vec<Input> {
        let source = Source {
            input: Box::new(input),
            typed: false,
            size: None,
        };
        let making = Making {
            format,
            key: None,
            headers: vec![("h".to_owned(), "1".to_owned())],
        };
        let mut batches = source.read(from, making).unwrap();
        std::iter::from_fn(|| batches.blocking_recv()).collect()
    }

    #[test]
    fn lines_keep_their_numbers_and_a_wrong_one_ends_it_after_those_before() {
        let input = b"\"a\"\n\"b\"\r\n\"c\"\nnope\n\"d\"\n";
        let got = all(input, 2, Format::Json);
        let [
            Input::Batch {
                first: 2, records, ..
            },
            Input::Malformed { line: 4, .. },
        ] = &got[..]
        else {
            panic!("{got:?}");
        };
        assert_eq!(records[0], Record::new("\"b\"").header("h", "1"));
        assert_eq!(records.len(), 2);
        let got = all(b"1\n\n", 1, Format::Json);
        assert!(
            matches!(got[1], Input::Malformed { line: 2, .. }),
            "{got:?}"
        );
    }

    #[test]
    fn a_last_line_without_an_end_counts_and_empty_lines_are_empty_values() {
        let got = all(b"a\n\nb", 1, Format::Lines);
        let records: usize = got
            .iter()
            .map(|input| match input {
                Input::Batch { records, .. } => records.len(),
                _ => panic!("{input:?}"),
            })
            .sum();
        assert_eq!(records, 3);
        assert!(all(b"", 1, Format::Lines).is_empty());
    }
}
