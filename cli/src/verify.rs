//! `annals verify`: every checksum of an embedded log.

use crate::arguments::Verify;
use crate::exit::Failure;
use crate::stop::Stop;

/// Without the embedded log there is nothing to check.
#[cfg(not(feature = "embedded"))]
pub(crate) async fn run(_: &str, _: &Verify, _: &Stop) -> Result<(), Failure> {
    std::future::ready(Err(Failure::usage(
        "this annals was built without the feature embedded, whose logs verify checks",
    )))
    .await
}

#[cfg(feature = "embedded")]
pub(crate) async fn run(url: &str, arguments: &Verify, stop: &Stop) -> Result<(), Failure> {
    use annals::driver::{Admin as _, Backend as _};
    use annals_embedded::{Builder, Config};

    use crate::bus::is_there;
    use crate::exit::{Code, code_of, tell, text_of};
    use crate::table::{columns, print};

    let address: annals::Address = url.parse()?;
    if address.scheme() != "file" {
        return Err(Failure::usage(
            "verify reads the files of an embedded log; give --url file:PATH",
        ));
    }
    is_there(url)?;
    let log = Builder::new(Config::of(&address)?).build()?;
    let topics = if arguments.topics.is_empty() {
        log.topics().await?
    } else {
        arguments.topics.clone()
    };
    if topics.is_empty() {
        tell("there are no topics");
        return Ok(());
    }
    let mut worst = None;
    let head = ["TOPIC", "SEGMENTS", "RECORDS", "BYTES", "STATE"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for topic in &topics {
        let mut row = vec![topic.to_string()];
        match stop.or(async { Ok(log.verify(topic).await) }).await? {
            Ok(seen) => {
                for index in &seen.unfit {
                    tell(format!(
                        "topic \"{topic}\": the index {} is {}; no record is lost with it: it is made anew when it is needed, and may be deleted",
                        index.file,
                        if index.stale { "stale" } else { "broken" },
                    ));
                }
                for broken in &seen.broken {
                    tell(format!("topic \"{topic}\": {broken}"));
                }
                row.extend([seen.segments, seen.records, seen.bytes].map(|n| n.to_string()));
                // All records can be read; that something else must be mended is no success.
                let state = if seen.broken.is_empty() {
                    "whole"
                } else {
                    worst = worst.max(Some(Code::NotWhole));
                    "damaged"
                };
                row.push(state.to_owned());
            }
            Err(error) => {
                tell(text_of(&error));
                let code = code_of(&error);
                worst = worst.max(Some(code));
                let state = if code == Code::NotWhole {
                    "BROKEN"
                } else {
                    "not checked"
                };
                row.extend(["-", "-", "-", state].map(str::to_owned));
            }
        }
        rows.push(row);
    }
    print(columns(&rows), stop).await?;
    log.close(annals::defaults::GRACE).await?;
    worst.map_or(Ok(()), |code| Err(Failure::silent(code)))
}
