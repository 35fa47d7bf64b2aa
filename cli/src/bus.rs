//! From a URL to an open topic, with the command line's own advice.

use annals::{Bus, ErrorKind, Topic};

use crate::exit::{Code, Failure};

/// The address that was given, by option or by the environment.
pub(crate) fn url(given: Option<&str>) -> Result<&str, Failure> {
    match given {
        Some(url) if !url.is_empty() => Ok(url),
        _ => Err(Failure::usage(
            "no log is named; give --url URL or set ANNALS_URL, for example to file:./data",
        )),
    }
}

pub(crate) async fn connect(url: &str) -> Result<Bus, Failure> {
    let bus = annals::connect(url).await?;
    if bus.scheme() == "memory" {
        return Err(Failure::usage(
            "a log in memory would end with this command; name one that stays, like file:./data",
        ));
    }
    Ok(bus)
}

/// Whether there is a log: a directory that is not there holds no topics, and nobody meant an
/// empty log by it.
#[cfg(feature = "embedded")]
pub(crate) fn is_there(url: &str) -> Result<(), Failure> {
    use annals_embedded::{Config, Place};

    let address: annals::Address = url.parse()?;
    if address.scheme() != "file" {
        return Ok(());
    }
    match Config::of(&address)?.place {
        Place::Directory(dir) if !dir.exists() => Err(Failure::new(
            Code::NotFound,
            format!("there is no log in {}", dir.display()),
        )),
        _ => Ok(()),
    }
}

/// The services say it themselves.
#[cfg(not(feature = "embedded"))]
pub(crate) fn is_there(_: &str) -> Result<(), Failure> {
    Ok(())
}

/// Opens a topic that is to be there.
pub(crate) async fn open(bus: &Bus, topic: &str) -> Result<Topic, Failure> {
    bus.topic(topic)
        .await
        .map_err(|error| match error.kind() {
            ErrorKind::NotFound => Failure::new(
                Code::NotFound,
                format!(
                    "there is no topic \"{topic}\" here; annals topics list shows those there are, annals topics create {topic} makes it"
                ),
            ),
            _ => error.into(),
        })
}
