//! The text form of a cursor: one line of printable ASCII without spaces, safe in a URL's query,
//! a file name or a shell argument.
//!
//! `annals1:file:orders:5f1c…:*:0=a42` is version, scheme, topic, incarnation, rest (`*` from
//! the start, `-` outside) and the places: `s[~<ms>]` start, `t<ms>` since,
//! `a<number>[.<sub>][~<ms>]` after, `e[~<ms>]` ended, each with its `clear`; places are joined by
//! commas.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Cursor, Frontier, Origin, Rest};
use crate::error::{Effect, Error, ErrorKind, Retry};
use crate::name::TopicName;
use crate::position::{PartitionId, Position};
use crate::time::Timestamp;

const VERSION: &str = "annals1";

fn plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

/// Percent-encodes what could be mistaken for a separator; incarnations are the backends' own
/// words (ARNs, file ids).
fn write_escaped(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    for byte in text.bytes() {
        if plain(char::from(byte)) {
            write!(f, "{}", char::from(byte))?;
        } else {
            write!(f, "%{byte:02X}")?;
        }
    }
    Ok(())
}

fn unescape(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let high = char::from(bytes.next()?).to_digit(16)?;
            let low = char::from(bytes.next()?).to_digit(16)?;
            out.push(u8::try_from(high * 16 + low).ok()?);
        } else if plain(char::from(byte)) {
            out.push(byte);
        } else {
            return None;
        }
    }
    String::from_utf8(out).ok()
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{VERSION}:")?;
        write_escaped(f, &self.origin.scheme)?;
        write!(f, ":{}:", self.origin.topic)?;
        write_escaped(f, &self.origin.incarnation)?;
        f.write_str(match self.rest {
            Rest::FromStart => ":*:",
            Rest::Outside => ":-:",
        })?;
        for (i, (partition, frontier)) in self.places.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{partition}=")?;
            match frontier {
                Frontier::Start { .. } => f.write_str("s")?,
                Frontier::Since(time) => write!(f, "t{}", time.as_millis())?,
                Frontier::After { position, .. } => {
                    write!(f, "a{}", position.decimal())?;
                    if position.sub() != 0 {
                        write!(f, ".{}", position.sub())?;
                    }
                }
                Frontier::Ended { .. } => f.write_str("e")?,
            }
            if let Frontier::Start { clear: Some(clear) }
            | Frontier::After {
                clear: Some(clear), ..
            }
            | Frontier::Ended { clear: Some(clear) } = frontier
            {
                write!(f, "~{}", clear.as_millis())?;
            }
        }
        Ok(())
    }
}

fn frontier(partition: PartitionId, text: &str) -> Option<Frontier> {
    let (text, clear) = match text.split_once('~') {
        Some((text, clear)) => (text, Some(Timestamp::from_millis(clear.parse().ok()?))),
        None => (text, None),
    };
    let (kind, rest) = text.split_at_checked(1)?;
    match (kind, rest) {
        ("s", "") => Some(Frontier::Start { clear }),
        ("e", "") => Some(Frontier::Ended { clear }),
        ("t", _) if clear.is_some() => None,
        ("t", millis) => Some(Frontier::Since(Timestamp::from_millis(
            millis.parse().ok()?,
        ))),
        ("a", place) => {
            let (number, sub) = match place.split_once('.') {
                Some((number, sub)) => (number, sub.parse().ok()?),
                None => (place, 0),
            };
            let position = Position::parse_decimal(partition, number, sub).ok()?;
            Some(Frontier::After { position, clear })
        }
        _ => None,
    }
}

fn parse(text: &str) -> Option<Cursor> {
    let mut fields = text.split(':');
    if fields.next()? != VERSION {
        return None;
    }
    let scheme = unescape(fields.next()?)?;
    let topic = TopicName::new(fields.next()?).ok()?;
    let incarnation = unescape(fields.next()?)?;
    let rest = match fields.next()? {
        "*" => Rest::FromStart,
        "-" => Rest::Outside,
        _ => return None,
    };
    let named = fields.next()?;
    if fields.next().is_some() {
        return None;
    }
    let mut places = BTreeMap::new();
    for place in named.split(',').filter(|_| !named.is_empty()) {
        let (partition, at) = place.split_once('=')?;
        let partition = PartitionId::new(partition.parse().ok()?);
        if places.insert(partition, frontier(partition, at)?).is_some() {
            return None;
        }
    }
    let origin = Origin {
        scheme: scheme.into(),
        topic,
        incarnation: incarnation.into(),
    };
    Some(Cursor {
        origin: Arc::new(origin),
        places,
        rest,
    })
}

impl FromStr for Cursor {
    type Err = Error;

    /// Reads what [`Display`](fmt::Display) writes.
    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text).ok_or_else(|| {
            Error::new(
                ErrorKind::Decode,
                Effect::None,
                Retry::Never,
                "this text is no cursor; pass one exactly as annals printed it (annals1:…)",
            )
        })
    }
}

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Cursor;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a cursor as annals prints it")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Cursor, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frontier_survives_text_and_serde() {
        let id = PartitionId::new;
        let places = [
            (id(0), Frontier::START),
            (id(1), Frontier::Since(Timestamp::from_millis(-5))),
            (id(2), Frontier::after(Position::new(id(2), u64::MAX))),
            (
                id(3),
                Frontier::After {
                    position: Position::wide(id(3), [u64::MAX; 4], 9),
                    clear: Some(Timestamp::from_millis(17)),
                },
            ),
            (id(u64::MAX), Frontier::ENDED),
            (
                id(4),
                Frontier::Start {
                    clear: Some(Timestamp::from_millis(-1)),
                },
            ),
            (
                id(5),
                Frontier::Ended {
                    clear: Some(Timestamp::from_millis(0)),
                },
            ),
        ];
        let origin = Arc::new(Origin {
            scheme: "kinesis".into(),
            topic: TopicName::new("a.b").unwrap(),
            incarnation: "arn:aws/é %1".into(),
        });
        for rest in [Rest::FromStart, Rest::Outside] {
            for cursor in [
                Cursor::new(Arc::clone(&origin), places, rest),
                Cursor::new(Arc::clone(&origin), [], rest),
            ] {
                let text = cursor.to_string();
                assert!(text.is_ascii() && !text.contains(' '), "{text}");
                assert_eq!(text.parse::<Cursor>().unwrap(), cursor);
                let json = serde_json::to_string(&cursor).unwrap();
                assert_eq!(serde_json::from_str::<Cursor>(&json).unwrap(), cursor);
            }
        }
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        for bad in [
            "",
            "annals2:file:t::*:",
            "annals1:file:t::*",
            "annals1:file:t::*::",
            "annals1:file:t::x:",
            "annals1:file:a/b::*:",
            "annals1:file:t:%:*:",
            "annals1:file:t:%FF:*:",
            "annals1:file:t::*:0",
            "annals1:file:t::*:0=",
            "annals1:file:t::*:0=q",
            "annals1:file:t::*:0=s1",
            "annals1:file:t::*:0=s~",
            "annals1:file:t::*:0=e~x",
            "annals1:file:t::*:0=t1~2",
            "annals1:file:t::*:0=a1~2~3",
            "annals1:file:t::*:0=s,0=e",
            "annals1:file:t::*:0=s,",
            "annals1:file:t::*:0=a",
            "annals1:file:t::*:0=aé",
        ] {
            assert_eq!(
                bad.parse::<Cursor>().unwrap_err().kind(),
                ErrorKind::Decode,
                "{bad}"
            );
        }
    }
}
