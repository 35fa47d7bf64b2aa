//! `annals read` and `annals follow`: records to standard output, and the cursor behind exactly
//! what was written.

use std::time::Instant;

use annals::capability::{ByKey, Claim};
use annals::{Bus, Cursor, ErrorKind, Frontier, Position, Replay, Start, Topic, Until};

use crate::arguments::{Follow, Read, Reading};
use crate::bus::open;
use crate::cursor_file::CursorFile;
use crate::exit::{Code, Failure, tell, text_of};
use crate::format::Printer;
use crate::output::{Chunk, Ending, closed};
use crate::stop::Stop;

/// How much is gathered before it is written, when there is so much.
const GATHER: usize = 256 << 10;

pub(crate) async fn read(bus: &Bus, arguments: &Read, stop: &Stop) -> Result<(), Failure> {
    let topic = stop.or(open(bus, &arguments.topic)).await?;
    let until = arguments.until.clone().unwrap_or_default();
    run(
        &topic,
        &arguments.reading,
        Start::Beginning,
        Some(until),
        stop,
    )
    .await
}

pub(crate) async fn follow(bus: &Bus, arguments: &Follow, stop: &Stop) -> Result<(), Failure> {
    let topic = stop.or(open(bus, &arguments.topic)).await?;
    run(
        &topic,
        &arguments.reading,
        Start::Latest,
        arguments.until.clone(),
        stop,
    )
    .await
}

async fn run(
    topic: &Topic,
    arguments: &Reading,
    start: Start,
    until: Option<Until>,
    stop: &Stop,
) -> Result<(), Failure> {
    let file = arguments.cursor_file.as_deref();
    let file = file.map(CursorFile::open).transpose()?;
    let kept = file.as_ref().and_then(CursorFile::cursor).cloned();
    let start = match (kept, &arguments.from) {
        (Some(cursor), _) => Start::After(cursor),
        (None, Some(from)) => from.clone(),
        (None, None) => start,
    };
    let endless = until.is_none();
    let mut opening = match until {
        None => topic.follow(start),
        Some(until) => topic.replay(start).until(until),
    };
    if let Some(key) = arguments.key()? {
        opening = match &topic.capabilities().by_key {
            Claim::Is(ByKey::Scanned) => {
                tell(
                    "this topic has no index of keys: everything is read to find this one's records",
                );
                opening.scan_key(key)
            }
            _ => opening.key(key),
        };
    }
    let replay = stop.or(async { Ok(opening.await?) }).await?;
    let mut session = Session {
        cursor: replay.cursor().clone(),
        gathering: Gathering {
            replay,
            chunk: Chunk::default(),
            places: Vec::new(),
            printer: Printer::new(arguments.format),
            left: arguments.limit.unwrap_or(u64::MAX),
            torn: false,
        },
        over_gaps: arguments.over_gaps,
        file,
    };
    let ended = session.run(stop).await;
    let saved = session.save();
    let ambiguous = session.gathering.printer.ambiguous;
    if ambiguous > 0 {
        tell(format!(
            "{ambiguous} values are null or have a line end in them, which lines cannot tell; --format ndjson can"
        ));
    }
    // Even where it failed: the next run goes on from here.
    tell(format!("cursor: {}", session.cursor));
    match ended {
        Ok(End::Range | End::Reader) => saved,
        // A follower has no other end.
        Ok(End::Asked) if endless => saved,
        Ok(End::Asked) => saved.and(Err(Failure::silent(stop.code()))),
        Err(failure) => Err(failure),
    }
}

/// Why a reading ended in order.
enum End {
    /// It came to its end, or to its limit.
    Range,
    /// Nobody reads its output any more.
    Reader,
    /// The user wants it to end.
    Asked,
}

/// What stands behind the records that were gathered.
enum Next {
    /// Nothing yet.
    More,
    End(End),
    Gap(annals::Error),
    Failed(Failure),
}

/// Takes records from a replay and puts them into text.
struct Gathering {
    replay: Replay,
    chunk: Chunk,
    /// Of the records in the chunk.
    places: Vec<Option<Position>>,
    printer: Printer,
    /// Records that may still be printed.
    left: u64,
    /// A record was taken that could not be printed.
    torn: bool,
}

struct Session {
    gathering: Gathering,
    /// Behind what was written.
    cursor: Cursor,
    over_gaps: bool,
    file: Option<CursorFile>,
}

impl Gathering {
    /// Waits for a record and takes those that are there too.
    ///
    /// # Cancel safety
    /// Cancel safe: it never waits with records in the chunk.
    async fn gather(&mut self) -> Next {
        while self.left > 0 && self.chunk.bytes.len() < GATHER {
            let mut next = std::pin::pin!(self.replay.next());
            let got = if self.chunk.is_empty() {
                next.await
            } else {
                // No more than what is there now: who reads a follower does not wait.
                match poll_once(next.as_mut()).await {
                    Some(got) => got,
                    None => return Next::More,
                }
            };
            match got {
                Ok(Some(record)) => {
                    if let Err(why) = self.printer.push(&record, &mut self.chunk) {
                        self.torn = true;
                        return Next::Failed(Failure::failed(format!(
                            "a record cannot be printed: {why}"
                        )));
                    }
                    self.places.push(record.position());
                    self.left -= 1;
                }
                Ok(None) => return Next::End(End::Range),
                Err(error) if error.kind() == ErrorKind::Gap => return Next::Gap(error),
                Err(error) => return Next::Failed(error.into()),
            }
        }
        if self.left == 0 {
            return Next::End(End::Range);
        }
        Next::More
    }
}

impl Session {
    async fn run(&mut self, stop: &Stop) -> Result<End, Failure> {
        let mut reader_gone = std::pin::pin!(closed());
        loop {
            let next = tokio::select! {
                biased;
                () = stop.asked(1) => return Ok(End::Asked),
                () = &mut reader_gone => return Ok(End::Reader),
                next = self.gathering.gather() => next,
                () = due(self.file.as_ref(), &self.cursor) => Next::More,
            };
            if let Some(end) = self.write(stop).await? {
                return Ok(end);
            }
            if self
                .file
                .as_ref()
                .is_some_and(|file| file.due() <= Instant::now())
            {
                self.save()?;
            }
            match next {
                Next::More => {}
                Next::End(end) => return Ok(end),
                Next::Gap(error) if self.over_gaps => tell(gap_text(&error)),
                Next::Gap(error) => {
                    return Err(Failure::new(
                        Code::NotWhole,
                        format!(
                            "{}; --over-gaps goes on behind them, --from earliest begins there",
                            gap_text(&error)
                        ),
                    ));
                }
                Next::Failed(failure) => return Err(failure),
            }
        }
    }

    /// Writes what was gathered; whether that was the end.
    async fn write(&mut self, stop: &Stop) -> Result<Option<End>, Failure> {
        let Gathering {
            replay,
            chunk,
            places,
            torn,
            ..
        } = &mut self.gathering;
        let (mut done, written) = std::mem::take(chunk).write(stop).await?;
        if written.records == done.records() && !*torn {
            self.cursor = replay.cursor().clone();
        } else {
            for place in places.iter().take(written.records).flatten() {
                self.cursor.set(place.partition(), Frontier::after(*place));
            }
        }
        done.clear();
        *chunk = done;
        places.clear();
        match written.ending {
            Ending::All => Ok(None),
            Ending::Closed => Ok(Some(End::Reader)),
            Ending::Asked => Ok(Some(End::Asked)),
            Ending::Failed(e) => Err(Failure::failed(format!(
                "standard output cannot be written to: {e}"
            ))),
        }
    }

    fn save(&mut self) -> Result<(), Failure> {
        match &mut self.file {
            Some(file) => tokio::task::block_in_place(|| file.save(&self.cursor)),
            None => Ok(()),
        }
    }
}

/// Waits until a cursor that is not in its file yet should be.
async fn due(file: Option<&CursorFile>, cursor: &Cursor) {
    match file {
        Some(file) if file.cursor() != Some(cursor) => {
            tokio::time::sleep_until(file.due().into()).await;
        }
        _ => std::future::pending().await,
    }
}

/// What a future has now, without waiting.
async fn poll_once<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
    std::future::poll_fn(|cx| {
        std::task::Poll::Ready(match std::pin::Pin::new(&mut future).poll(cx) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

/// The library's advice is for programs; this is what is gone.
fn gap_text(error: &annals::Error) -> String {
    let text = text_of(error);
    match text.split_once(" are gone") {
        Some((what, _)) => format!("{what} are gone"),
        None => text,
    }
}
