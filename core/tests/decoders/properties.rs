//! What holds of each decoder whatever bytes it gets. Plain functions: the fuzz targets call them
//! too.

use std::fmt::Write;
use std::sync::Arc;

use annals_core::address::{parse_bytes, parse_duration, parse_retention};
use annals_core::headers::{HeaderIter, Headers, check_encoded};
use annals_core::{
    Address, Cursor, Frontier, Group, Origin, PartitionId, Parts, Position, Record, Recorded, Rest,
    Timestamp, TopicName, Value,
};

use super::bytes::Bytes;

/// Text is refused or a cursor, and every cursor survives its text.
pub fn cursor(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(cursor) = text.parse::<Cursor>()
    {
        let again = cursor.to_string();
        assert_eq!(again.parse::<Cursor>().unwrap(), cursor, "{text:?}");
        // An escape takes three characters where the text may have had one, leading zeros go.
        assert!(again.len() <= 3 * text.len(), "{text:?} became {again:?}");
        assert!(again.is_ascii() && !again.contains(' '));
    }
    let mut bytes = Bytes(data);
    let origin = Origin {
        scheme: bytes.text().into(),
        topic: TopicName::new("orders").unwrap(),
        incarnation: bytes.text().into(),
    };
    let mut cursor = Cursor::start(Arc::new(origin));
    if bytes.byte() % 2 == 0 {
        cursor = cursor.with_rest(Rest::Outside);
    }
    for _ in 0..bytes.byte() % 5 {
        let partition = PartitionId::new(bytes.number());
        let time = Timestamp::from_millis(bytes.number().cast_signed());
        let clear = (bytes.byte() % 2 == 0).then_some(time);
        let place = match bytes.byte() % 4 {
            0 => Frontier::Start { clear },
            1 => Frontier::Since(time),
            2 => Frontier::Ended { clear },
            _ => {
                let number = [(); 4].map(|()| bytes.number());
                let sub = u32::try_from(bytes.number() >> 32).unwrap();
                Frontier::After {
                    position: Position::wide(partition, number, sub),
                    clear,
                }
            }
        };
        cursor.set(partition, place);
    }
    let text = cursor.to_string();
    assert_eq!(text.parse::<Cursor>().unwrap(), cursor, "{text}");
}

/// An address is refused or taken apart, and shows nothing secret; what is escaped comes back.
pub fn address(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        // A refusal or a value.
        let _ = (
            parse_bytes(text),
            parse_duration(text),
            parse_retention(text),
        );
        let _ = (TopicName::new(text), Group::new(text));
        match text.parse::<Address>() {
            Ok(address) => {
                let parts = [Some(address.path()), address.user(), address.password()];
                let decoded: usize = parts.into_iter().flatten().map(str::len).sum();
                assert!(decoded <= text.len());
                assert!(address.hosts().is_none_or(|hosts| text.contains(hosts)));
                let shown = address.to_string();
                assert!(shown.starts_with(address.scheme()), "{shown}");
            }
            Err(error) => assert!(!error.to_string().contains('\n')),
        }
    }
    let mut bytes = Bytes(data);
    let [user, secret, path, key, value] = [(); 5].map(|()| bytes.text().replace('\0', ""));
    let secret = format!("hush-hush{secret}");
    let text = format!(
        "amqps://{}:{}@a:1,b:2/{}?k{}={}",
        escape(&user),
        escape(&secret),
        escape(&path),
        escape(&key),
        escape(&format!("hush-hush{value}"))
    );
    let address: Address = text.parse().unwrap();
    assert_eq!(address.user(), Some(user.as_str()), "{text}");
    assert_eq!(address.password(), Some(secret.as_str()), "{text}");
    assert_eq!(
        address.path().trim_start_matches('/'),
        path.trim_start_matches('/')
    );
    for shown in [address.to_string(), format!("{address:?}")] {
        assert!(!shown.contains("hush-hush"), "{shown}");
    }
}

fn escape(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        write!(out, "%{byte:02X}").unwrap();
        out
    })
}

/// Encoded headers are refused or exactly what was written.
pub fn headers(data: &[u8]) {
    let met: Vec<_> = HeaderIter::over(data).collect();
    match Headers::from_encoded(data.to_vec()) {
        Ok(headers) => {
            assert_eq!(headers.len(), met.len());
            assert_eq!(check_encoded(data).unwrap() as usize, met.len());
            let mut again = Headers::new();
            for (name, value) in &met {
                again.push(name, *value);
            }
            assert_eq!(again.as_encoded(), data);
        }
        Err(_) => assert!(check_encoded(data).is_err()),
    }
    let mut bytes = Bytes(data);
    let mut headers = Headers::new();
    let pairs: Vec<_> = (0..bytes.byte() % 5)
        .map(|_| (bytes.text(), bytes.maybe()))
        .collect();
    for (name, value) in &pairs {
        headers.push(name, *value);
    }
    let read: Vec<_> = headers.iter().map(|(n, v)| (n.to_owned(), v)).collect();
    assert_eq!(read, pairs);
    let encoded = headers.as_encoded().to_vec();
    assert_eq!(Headers::from_encoded(encoded).unwrap(), headers);
}

/// A record survives being recorded, and parts that lie outside their buffer are refused.
pub fn envelope(data: &[u8]) {
    let mut bytes = Bytes(data);
    let mut record = match bytes.maybe() {
        Some(value) => Record::new(value.to_vec()),
        None => Record::new(Value::NULL),
    };
    if let Some(key) = bytes.maybe() {
        record = record.key(key.to_vec());
    }
    record = record.maybe_id(bytes.maybe().map(<[u8]>::to_vec));
    for _ in 0..bytes.byte() % 4 {
        let name = bytes.text();
        record = match bytes.maybe() {
            Some(value) => record.header(name, value.to_vec()),
            None => record.header(name, Value::NULL),
        };
    }
    if bytes.byte() % 2 == 0 {
        record = record.timestamp(Timestamp::from_millis(bytes.number().cast_signed()));
    }
    let number = [(); 4].map(|()| bytes.number());
    let position = Position::wide(PartitionId::new(bytes.number()), number, 7);
    let stored = Timestamp::from_millis(bytes.number().cast_signed());
    let recorded = Recorded::of(&record, Some(position), Some(stored)).unwrap();
    assert_eq!(recorded.position(), Some(position));
    assert_eq!(recorded.stored_at(), Some(stored));
    assert_eq!(recorded.detach(), recorded);
    assert_eq!(recorded.into_record(), record);

    let buffer = bytes.some().to_vec();
    let len = buffer.len();
    let mut span = || {
        let (start, end) = (bytes.byte(), bytes.byte());
        (bytes.byte() % 3 > 0).then(|| usize::from(start % 48)..usize::from(end % 48))
    };
    let [key, value, id] = [(); 3].map(|()| span());
    let inside = |range: &Option<std::ops::Range<usize>>| {
        range
            .as_ref()
            .is_none_or(|r| r.start <= r.end && r.end <= len)
    };
    let fits = inside(&key) && inside(&value) && inside(&id);
    let parts = Parts {
        key: key.clone(),
        value,
        id,
        ..Parts::default()
    };
    match Recorded::within(bytes::Bytes::from(buffer.clone()), parts) {
        Ok(recorded) => {
            assert!(fits);
            assert_eq!(recorded.key(), key.and_then(|range| buffer.get(range)));
        }
        Err(_) => assert!(!fits),
    }
}
