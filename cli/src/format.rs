//! How records are shown.

use annals::Recorded;

use crate::ndjson;
use crate::output::Chunk;

/// What `read` and `follow` print.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Format {
    /// A line of JSON per record with everything it has; append takes it back.
    Ndjson,
    /// The value's bytes and a line end, nothing else.
    Value,
    /// Columns for reading; long values are cut, line ends and the like are shown as escapes.
    Table,
}

/// How much of a key and a value a table shows, in characters.
const KEY: usize = 24;
const VALUE: usize = 96;

/// Shows records one by one.
#[derive(Debug)]
pub(crate) struct Printer {
    format: Format,
    headed: bool,
    /// Values that a line cannot tell from others: null, or with a line end in them.
    pub(crate) ambiguous: u64,
}

impl Printer {
    pub(crate) const fn new(format: Format) -> Self {
        Self {
            format,
            headed: false,
            ambiguous: 0,
        }
    }

    /// Adds a record to what is to be written.
    pub(crate) fn push(&mut self, record: &Recorded, to: &mut Chunk) -> Result<(), String> {
        match self.format {
            Format::Ndjson => {
                let begins = to.bytes.len();
                ndjson::write(record, &mut to.bytes).map_err(|e| {
                    to.bytes.truncate(begins);
                    e.to_string()
                })?;
            }
            Format::Value => {
                if record.is_tombstone() || record.value().contains(&b'\n') {
                    self.ambiguous += 1;
                }
                to.bytes.extend_from_slice(record.value());
                to.bytes.push(b'\n');
            }
            Format::Table => {
                if !std::mem::replace(&mut self.headed, true) {
                    to.bytes
                        .extend_from_slice(row("POSITION", "STORED", "KEY", "VALUE").as_bytes());
                }
                let position = record
                    .position()
                    .map_or_else(|| "-".to_owned(), |p| p.to_string());
                let stored = record
                    .stored_at()
                    .map_or_else(|| "-".to_owned(), |t| t.to_string());
                let key = record
                    .key()
                    .map_or_else(|| "-".to_owned(), |key| shown(key, KEY));
                let value = if record.is_tombstone() {
                    "(null)".to_owned()
                } else {
                    shown(record.value(), VALUE)
                };
                to.bytes
                    .extend_from_slice(row(&position, &stored, &key, &value).as_bytes());
            }
        }
        to.end_record();
        Ok(())
    }
}

fn row(position: &str, stored: &str, key: &str, value: &str) -> String {
    let line = format!("{position:<12} {stored:<24} {key:<KEY$} {value}");
    format!("{}\n", line.trim_end())
}

/// At most so many characters of it, without any that moves the terminal's cursor.
fn shown(bytes: &[u8], most: usize) -> String {
    // A character has four bytes at most; the rest of a long value is not looked at.
    let front = bytes.get(..most * 4).unwrap_or(bytes);
    let text = String::from_utf8_lossy(front);
    let mut out = String::new();
    let mut count = 0;
    for c in text.chars() {
        let piece: String = if c.is_control() {
            c.escape_default().collect()
        } else {
            c.into()
        };
        count += piece.chars().count();
        if count > most {
            out.push('…');
            return out;
        }
        out.push_str(&piece);
    }
    if front.len() < bytes.len() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use annals::{PartitionId, Position, Record, Timestamp, Value};

    use super::*;

    fn print(format: Format, records: &[Record]) -> (String, Printer) {
        let mut printer = Printer::new(format);
        let mut chunk = Chunk::default();
        for record in records {
            let place = Position::new(PartitionId::ONLY, 7);
            let recorded = Recorded::of(record, Some(place), Some(Timestamp::EPOCH)).unwrap();
            printer.push(&recorded, &mut chunk).unwrap();
        }
        assert_eq!(chunk.records(), records.len());
        (String::from_utf8(chunk.bytes).unwrap(), printer)
    }

    #[test]
    fn values_are_bytes_and_what_lines_cannot_tell_is_counted() {
        let records = [
            Record::new("a"),
            Record::new(Value::NULL),
            Record::new("b\nc"),
        ];
        let (text, printer) = print(Format::Value, &records);
        assert_eq!((text.as_str(), printer.ambiguous), ("a\n\nb\nc\n", 2));
    }

    #[test]
    fn a_table_keeps_to_its_lines() {
        let long = "x".repeat(200);
        let records = [
            Record::new("a\u{1b}[2J\nb").key("k"),
            Record::new(Value::NULL),
            Record::new(long),
        ];
        let (text, _) = print(Format::Table, &records);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(lines[0].starts_with("POSITION"));
        assert!(lines[1].starts_with("0@7 ") && lines[1].ends_with(r"a\u{1b}[2J\nb"));
        assert!(lines[2].ends_with("(null)"));
        assert!(lines[3].ends_with("x…") && lines[3].chars().count() < 170);
    }
}
