//! Deciding each batch of a group against what is durable and what comes before it in the group.

use annals_core::{Error, ErrorKind, Result, Timestamp};

use super::ids::{Known, outcomes};
use super::newest::Provisional;
use super::{Answer, Framed, Ready, Request, Writer, refused};
use crate::log::encode::Encoded;
use crate::log::frame::{FrameHeader, put};
use crate::log::options::Condition;

impl Writer {
    /// Decides each batch against what is durable and what comes before it in the group.
    pub(super) fn evaluate(
        &mut self,
        requests: impl Iterator<Item = Request>,
        now: Timestamp,
    ) -> Vec<Ready> {
        let start = self.end;
        self.provisional = Provisional::default();
        let commit = self.chain.commit + 1;
        let mut group: Vec<Ready> = Vec::with_capacity(requests.size_hint().0);
        for request in requests {
            let decided = self.decide(&request, &group, now);
            let (answer, instead) = match decided {
                Ok(decided) => decided,
                Err(error) => (Some(Answer::rejected(error)), None),
            };
            let stores = instead.is_some() || answer.is_none();
            let mut ready = Ready {
                request,
                frame: None,
                answer: answer.unwrap_or(Answer::Stored(self.chain.next)),
            };
            if stores {
                let epoch = ready.request.epoch.unwrap_or(0).max(self.chain.epoch);
                let encoded = instead.as_ref().unwrap_or(&ready.request.batch);
                let header = FrameHeader {
                    body: encoded.body,
                    count: encoded.count,
                    first: self.chain.next,
                    commit,
                    time: now,
                    epoch,
                    group: u32::try_from(self.end - start).unwrap_or(u32::MAX),
                    check: encoded.check,
                    topic: self.topic.id.tag(),
                };
                let offset = self.end;
                self.chain.advance(&header);
                self.end += header.whole();
                ready.frame = Some(Framed { offset, instead });
                let encoded = match &mut ready.frame {
                    Some(Framed {
                        instead: Some(instead),
                        ..
                    }) => instead,
                    _ => &mut ready.request.batch,
                };
                put(&mut encoded.frame, 0, &header.encode());
                if let Some(ids) = &mut self.ids {
                    ids.remember(&header, encoded.body(), offset);
                }
            }
            group.push(ready);
        }
        group
    }

    /// `(None, None)`: store it. An answer and no bytes: answer it. Both: store these, then answer.
    fn decide(
        &mut self,
        request: &Request,
        group: &[Ready],
        now: Timestamp,
    ) -> Result<(Option<Answer>, Option<Encoded>)> {
        // Repeats first: of what is stored nobody may say that it is not.
        let known = self.duplicates(&request.batch, group, now)?;
        if let Some(known) = &known
            && known.iter().all(|k| matches!(k, Known::Stored(_)))
        {
            return Ok((
                Some(Answer::Mixed(outcomes(known, self.chain.next, None))),
                None,
            ));
        }
        let refusal = self.refusal(request, group)?;
        let Some(known) = known else {
            return match refusal {
                Some(error) => Err(error),
                None => Ok((None, None)),
            };
        };
        if let Some(error) = refusal {
            return Ok((
                Some(Answer::Mixed(outcomes(
                    &known,
                    self.chain.next,
                    Some(&error),
                ))),
                None,
            ));
        }
        let instead = request
            .batch
            .without(|index| !matches!(known.get(index), Some(Known::New)));
        Ok((
            Some(Answer::Mixed(outcomes(&known, self.chain.next, None))),
            instead,
        ))
    }

    /// The fence and the condition.
    fn refusal(&mut self, request: &Request, group: &[Ready]) -> Result<Option<Error>> {
        let fence = self.chain.epoch;
        if let Some(epoch) = request.epoch.filter(|epoch| *epoch < fence) {
            return Ok(Some(refused(
                ErrorKind::Fenced,
                format!("epoch {epoch} was fenced by epoch {fence}; a newer writer has taken over"),
            )));
        }
        let conflict = |what: String| {
            Some(refused(
                ErrorKind::Conflict,
                format!("{what}; read on, decide again and append with the new condition"),
            ))
        };
        match &request.condition {
            Condition::None => Ok(None),
            Condition::End(next) if *next == self.chain.next => Ok(None),
            Condition::End(next) => Ok(conflict(format!(
                "the log ends before position {}, not {next}",
                self.chain.next
            ))),
            Condition::KeyAt { key, last } => {
                let found = self.newest_of(key, group)?;
                if found == *last {
                    return Ok(None);
                }
                if let (None, Some(last)) = (found, last) {
                    return Ok(conflict(format!(
                        "the key has no record that is kept, so its last is not at position {last}; retention may have removed it"
                    )));
                }
                let say = |at: Option<u64>| at.map_or("none".to_owned(), |at| at.to_string());
                Ok(conflict(format!(
                    "the key's last position is {}, not {}",
                    say(found),
                    say(*last)
                )))
            }
        }
    }
}
