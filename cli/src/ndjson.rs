//! A record as one line of JSON, both ways, with nothing lost.

use std::fmt;

use annals::headers::Headers;
use annals::{Record, Recorded, Timestamp, Value};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap as _, SerializeSeq as _, Serializer};

/// Bytes as JSON: text as a string, anything else as `{"base64": "…"}`.
struct Bytes<'a>(&'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if let Ok(text) = std::str::from_utf8(self.0) {
            return to.serialize_str(text);
        }
        let mut map = to.serialize_map(Some(1))?;
        map.serialize_entry("base64", &BASE64.encode(self.0))?;
        map.end()
    }
}

struct HeaderList<'a>(&'a Recorded);

impl Serialize for HeaderList<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut list = to.serialize_seq(None)?;
        for (name, value) in self.0.headers() {
            list.serialize_element(&(name, value.map(Bytes)))?;
        }
        list.end()
    }
}

/// Writes a record as one line, the line end included.
pub(crate) fn write(record: &Recorded, out: &mut Vec<u8>) -> serde_json::Result<()> {
    struct Line<'a>(&'a Recorded);

    impl Serialize for Line<'_> {
        fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            let record = self.0;
            let mut map = to.serialize_map(None)?;
            if let Some(position) = record.position() {
                map.serialize_entry("position", &position.to_string())?;
            }
            if let Some(stored_at) = record.stored_at() {
                map.serialize_entry("stored_at", &stored_at.to_string())?;
            }
            if let Some(timestamp) = record.timestamp() {
                map.serialize_entry("timestamp", &timestamp.to_string())?;
            }
            if let Some(key) = record.key() {
                map.serialize_entry("key", &Bytes(key))?;
            }
            if let Some(id) = record.id() {
                map.serialize_entry("id", &Bytes(id))?;
            }
            if record.headers().next().is_some() {
                map.serialize_entry("headers", &HeaderList(record))?;
            }
            let value = (!record.is_tombstone()).then(|| Bytes(record.value()));
            map.serialize_entry("value", &value)?;
            map.end()
        }
    }

    serde_json::to_writer(&mut *out, &Line(record))?;
    out.push(b'\n');
    Ok(())
}

/// Bytes that were read from JSON.
struct Blob(Vec<u8>);

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Blob;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(r#"a string, null or {"base64": "…"}"#)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Blob, E> {
                Ok(Blob(text.as_bytes().to_vec()))
            }

            fn visit_string<E: de::Error>(self, text: String) -> Result<Blob, E> {
                Ok(Blob(text.into_bytes()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Blob, A::Error> {
                let wrong = || de::Error::custom(r#"bytes are written as {"base64": "…"}"#);
                let Some((name, encoded)) = map.next_entry::<String, String>()? else {
                    return Err(wrong());
                };
                if name != "base64" {
                    return Err(wrong());
                }
                if map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    return Err(wrong());
                }
                let bytes = BASE64.decode(encoded);
                bytes
                    .map(Blob)
                    .map_err(|_| de::Error::custom("it is not base64 with its padding"))
            }
        }

        from.deserialize_any(Either)
    }
}

/// A line as [`write`] makes it. What the log gave a record, its place and log time, is read over:
/// it gets new ones.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(default, rename = "position")]
    _position: IgnoredAny,
    #[serde(default, rename = "stored_at")]
    _stored_at: IgnoredAny,
    #[serde(default)]
    timestamp: Option<String>,
    #[serde(default)]
    key: Option<Blob>,
    #[serde(default)]
    id: Option<Blob>,
    #[serde(default)]
    headers: Vec<(String, Option<Blob>)>,
    /// Null is a value, and has to be written.
    #[serde(deserialize_with = "Option::deserialize")]
    value: Option<Blob>,
}

/// Reads a record; the error is one lower-case line that shows nothing of the payload.
pub(crate) fn read(line: &[u8]) -> Result<Record, String> {
    // A list of fields in order would pass for a record too.
    if line.trim_ascii_start().first().is_some_and(|b| *b != b'{') {
        return Err("it is no object".to_owned());
    }
    let line: Line = serde_json::from_slice(line).map_err(|e| explain(&e))?;
    let mut record = Record::new(line.value.map_or(Value::NULL, |value| value.0.into()));
    if let Some(key) = line.key {
        record = record.key(key.0);
    }
    if let Some(id) = line.id {
        record = record.id(id.0);
    }
    if let Some(timestamp) = line.timestamp {
        record = record.timestamp(
            timestamp
                .parse::<Timestamp>()
                .map_err(|_| "its timestamp is not like 2001-01-01T00:47:00.000Z".to_owned())?,
        );
    }
    let mut headers = Headers::new();
    for (name, value) in &line.headers {
        headers.push(name, value.as_ref().map(|value| value.0.as_slice()));
    }
    Ok(record.headers(headers))
}

/// Takes a line of JSON as the value, and the field `key` of it as the key.
pub(crate) fn value(line: &[u8], key: Option<&str>) -> Result<Record, String> {
    let Some(field) = key else {
        let checked: Result<IgnoredAny, _> = serde_json::from_slice(line);
        return checked.map(|_| Record::new(line)).map_err(|e| explain(&e));
    };
    let mut from = serde_json::Deserializer::from_slice(line);
    let found = from
        .deserialize_map(Field(field))
        .and_then(|found| from.end().map(|()| found))
        .map_err(|e| explain(&e))?;
    let key = match found {
        Some(serde_json::Value::String(text)) => text,
        Some(number @ serde_json::Value::Number(_)) => number.to_string(),
        Some(_) => {
            return Err(format!(
                "its field {field:?} is no string or number to be a key"
            ));
        }
        None => return Err(format!("it has no field {field:?} to be the key")),
    };
    Ok(Record::new(line).key(key))
}

/// Finds one field of an object.
struct Field<'a>(&'a str);

impl<'de> Visitor<'de> for Field<'_> {
    type Value = Option<serde_json::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(name) = map.next_key::<String>()? {
            if name != self.0 {
                map.next_value::<IgnoredAny>()?;
            } else if found.replace(map.next_value()?).is_some() {
                return Err(de::Error::custom("it has the key's field twice"));
            }
        }
        Ok(found)
    }
}

/// What is wrong with a line, without the values that the parser quotes.
fn explain(error: &serde_json::Error) -> String {
    let said = error.to_string();
    let said = said
        .rsplit_once(" at line ")
        .map_or(said.as_str(), |(said, _)| said);
    let said = match (said.split_once(": "), said.rsplit_once(", expected ")) {
        (Some((what, found)), Some((_, expected)))
            if what == "invalid type" || what == "invalid value" =>
        {
            let found = found.split([' ', ',']).next().unwrap_or_default();
            format!("{found} where {expected} belongs")
        }
        _ => said.to_owned(),
    };
    match error.column() {
        0 => said,
        column => format!("{said}, at column {column}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(record: &Record) -> String {
        let recorded = Recorded::of(record, None, Some(Timestamp::EPOCH)).unwrap();
        let mut line = Vec::new();
        write(&recorded, &mut line).unwrap();
        assert_eq!(read(&line), Ok(record.clone()));
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn every_record_survives() {
        let binary: &[u8] = &[0, 255, 10, 34];
        assert_eq!(
            round(&Record::new(Value::NULL)),
            "{\"stored_at\":\"1970-01-01T00:00:00.000Z\",\"value\":null}\n"
        );
        round(&Record::new(""));
        round(&Record::new("").key("").id(""));
        round(&Record::new(binary).key(binary).id(binary));
        round(&Record::new("a\nb\u{2028}\"\\\u{7f}\0").key("ключ"));
        round(
            &Record::new("x")
                .header("a", "1")
                .header("a", Value::NULL)
                .header("", "")
                .header("b", binary)
                .timestamp(Timestamp::from_millis(-1)),
        );
        round(&Record::new("x").timestamp(Timestamp::MIN));
        // Text that looks like the form of bytes is text all the same.
        round(&Record::new(r#"{"base64":"AA=="}"#));
    }

    #[test]
    fn wrong_lines_are_refused_without_their_payload() {
        for (line, says) in [
            (r#"{"key":"a"}"#, "missing field `value`"),
            (r#"{"value":"a","Value":"b"}"#, "unknown field `Value`"),
            (r#"{"value":"a","value":"b"}"#, "duplicate field `value`"),
            (
                r#"{"value":7}"#,
                r#"integer where a string, null or {"base64": "…"} belongs"#,
            ),
            (r#"{"value":{"base64":"*"}}"#, "it is not base64"),
            (r#"{"value":{"base65":"AA=="}}"#, "bytes are written as"),
            (
                r#"{"value":{"base64":"AA==","x":1}}"#,
                "bytes are written as",
            ),
            (
                r#"{"value":"a","timestamp":"noon"}"#,
                "its timestamp is not like",
            ),
            (
                r#"{"value":"a","headers":"secret, expected"}"#,
                "string where a sequence belongs",
            ),
            (r#"{"value":"a"} x"#, "trailing characters"),
            (r#"{"value":"#, "EOF while parsing a value"),
            (
                r#"[null,null,null,"key","secret",[],"value"]"#,
                "it is no object",
            ),
            (r#" "secret""#, "it is no object"),
            ("", "EOF while parsing a value"),
        ] {
            let error = read(line.as_bytes()).unwrap_err();
            assert!(error.starts_with(says), "{line}: {error}");
            assert!(
                !error.contains("secret") && !error.contains('\n'),
                "{error}"
            );
        }
    }

    #[test]
    fn a_field_is_the_key_or_the_line_is_refused() {
        let line = br#"{"origin":"ABE", "n": 17, "none": null}"#;
        assert_eq!(value(line, None), Ok(Record::new(line)));
        assert_eq!(
            value(line, Some("origin")),
            Ok(Record::new(line).key("ABE"))
        );
        assert_eq!(value(line, Some("n")), Ok(Record::new(line).key("17")));
        for (line, key) in [
            (&line[..], Some("none")),
            (line, Some("absent")),
            (br#"{"a":"1","a":"2"}"#, Some("a")),
            (b"[1]", Some("a")),
            (b"{\"a\":\"1\"", Some("a")),
            (b"{\"a\":\"1\"} 2", Some("a")),
            (b"nul", None),
        ] {
            assert!(value(line, key).is_err(), "{key:?}");
        }
    }
}
