//! Where a reading starts and stops, as it is written on the command line.

use annals::{Cursor, Start, Timestamp, Until, address::parse_duration};

/// What `--from` takes.
pub(crate) const FROM: &str = "beginning|earliest|latest|after:CURSOR|since:TIME";
/// What `--until` takes.
pub(crate) const UNTIL: &str = "end|through:CURSOR|before:TIME";

pub(crate) fn start(text: &str) -> Result<Start, String> {
    match text.split_once(':') {
        Some(("after", cursor)) => Ok(Start::After(parsed(cursor)?)),
        Some(("since", time)) => Ok(Start::Since(moment(time)?)),
        _ => match text {
            "beginning" => Ok(Start::Beginning),
            "earliest" => Ok(Start::Earliest),
            "latest" => Ok(Start::Latest),
            _ => Err(format!("write {FROM}")),
        },
    }
}

pub(crate) fn until(text: &str) -> Result<Until, String> {
    match text.split_once(':') {
        Some(("through", cursor)) => Ok(Until::Through(parsed(cursor)?)),
        Some(("before", time)) => Ok(Until::Before(moment(time)?)),
        _ if text == "end" => Ok(Until::End),
        _ => Err(format!("write {UNTIL}")),
    }
}

pub(crate) fn cursor(text: &str) -> Result<Cursor, String> {
    parsed(text)
}

fn parsed<T: std::str::FromStr<Err = annals::Error>>(text: &str) -> Result<T, String> {
    text.parse::<T>().map_err(|e| e.message().to_owned())
}

/// A moment, or so long ago: `-15m`.
fn moment(text: &str) -> Result<Timestamp, String> {
    if let Some(ago) = text.strip_prefix('-').and_then(parse_duration) {
        return Ok(Timestamp::now().saturating_sub(ago));
    }
    text.parse().map_err(|_| {
        "write the time as 2001-01-01T00:47:00Z, as milliseconds since 1970, or as -15m for so long ago"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_read_and_wrong_ones_say_what_would_do() {
        assert_eq!(start("beginning"), Ok(Start::Beginning));
        assert_eq!(
            start("since:1970-01-01T00:00:01Z"),
            Ok(Start::Since(Timestamp::from_millis(1_000)))
        );
        assert_eq!(
            until("before:1000"),
            Ok(Until::Before(Timestamp::from_millis(1_000)))
        );
        assert_eq!(until("end"), Ok(Until::End));
        let ago = Timestamp::now().saturating_sub(std::time::Duration::from_secs(900));
        let Ok(Start::Since(time)) = start("since:-15m") else {
            panic!("no time");
        };
        assert!(time >= ago && time.since(ago) < std::time::Duration::from_secs(60));
        for wrong in ["", "begin", "after:", "after:x", "since:noon", "latest:"] {
            assert!(start(wrong).is_err(), "{wrong}");
        }
        assert!(until("through:x").is_err() && until("latest").is_err());
    }
}
