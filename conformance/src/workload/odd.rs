//! Records that are easily taken for nothing, or for more than fits: without a value, without a key,
//! large.

use annals_core::{Batch, ErrorKind, Record, Recorded, Value};

use crate::trial::{During, Judged, Stage};
use crate::workload;

/// Larger than what fits beside others in a page or a packet.
const LARGE: usize = 9_000;

/// Some of each kind; those of another `round` are others. What has no value has a key of its own,
/// what has one has a value of its own: by [`name`] they can be told apart.
pub fn odd(writer: u32, round: u8) -> Vec<Record> {
    let value = |number: usize| workload::value(writer, 100_000 + usize::from(round) * 10 + number);
    vec![
        Record::new(Value::NULL).key(format!("null-{writer}-{round}")),
        Record::new("").key(format!("empty-{writer}-{round}")),
        Record::new(value(0)).key(""),
        Record::new(value(1)),
        Record::new(Value::NULL).key([0xff, 0x00, 0xc3, round]),
        Record::new(value(2)).key([0xff, 0x80, round]),
        Record::new(value(3))
            .id(format!("odd-{writer}-{round}"))
            .header("", Value::NULL)
            .header("h", ""),
        Record::new(value(4) + &"x".repeat(LARGE)).key("large"),
        Record::new(value(5)).key("large"),
    ]
}

/// What a record is told from all others by.
pub fn name(key: Option<&[u8]>, value: Option<&[u8]>) -> String {
    match value {
        Some(value) if !value.is_empty() => String::from_utf8_lossy(value).into_owned(),
        _ => format!(
            "nothing, of the key \"{}\"",
            key.unwrap_or_default().escape_ascii()
        ),
    }
}

/// The name of what was read.
pub fn name_of(record: &Recorded) -> String {
    name(record.key(), Some(record.value()))
}

/// Appends some of each kind, one by one; the names of those that were taken. What the backend
/// cannot carry as it is it refuses, and that is left out.
///
/// # Errors
/// What else the backend says.
pub async fn append_odd(stage: &Stage, writer: u32, round: u8) -> Judged<Vec<String>> {
    let mut taken = Vec::new();
    for record in odd(writer, round) {
        let bytes = |part: Option<&bytes::Bytes>| part.map(|bytes| bytes.to_vec());
        let (key, value) = (bytes(record.key_bytes()), bytes(record.value_bytes()));
        match stage.topic.append(Batch::from(record)).await {
            Ok(_) => taken.push(name(key.as_deref(), value.as_deref())),
            Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::TooLarge) => {}
            Err(error) => return Err(error).during("appending records with parts that are empty"),
        }
    }
    Ok(taken)
}
