//! Appends: options of the contract into the engine's.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use annals_core::driver::{AppendOptions, Expect};
use annals_core::{
    AppendReport, Batch, Cursor, Effect, Error, ErrorKind, Frontier, Operation, Outcome,
    PartitionId, Position, Rest, Result, Retry, TopicName,
};

use crate::error::runtime;
use crate::log::{Condition, TopicId, TopicLog};
use crate::read::check_origin;
use crate::root::{Open, Root};

/// One attempt to append.
pub(crate) async fn append(
    root: &Arc<Root>,
    scheme: &'static str,
    topic: &TopicName,
    batch: &Batch,
    options: &AppendOptions,
) -> Result<AppendReport> {
    let Some(deadline) = options.deadline else {
        return in_order(root, scheme, topic, batch, options).await;
    };
    runtime()?;
    let append = Box::pin(in_order(root, scheme, topic, batch, options));
    match tokio::time::timeout(deadline, append).await {
        Ok(result) => result,
        Err(_) => Ok(AppendReport::all(
            batch.len(),
            &Outcome::Unknown(
                Error::new(
                    ErrorKind::Timeout,
                    Effect::Unknown,
                    Retry::Backoff,
                    "the disk did not answer in time; the records may still be stored",
                )
                .during(Operation::Append)
                .on_topic(topic),
            ),
        )),
    }
}

/// Order is fixed at the first poll, also while the log is only being opened.
async fn in_order(
    root: &Arc<Root>,
    scheme: &'static str,
    topic: &TopicName,
    batch: &Batch,
    options: &AppendOptions,
) -> Result<AppendReport> {
    let open = root.open(topic);
    if let Some(log) = open.ready() {
        return log
            .append(batch, condition(&log, scheme, options)?, options.epoch)
            .await;
    }
    // Boxed, for it is rare and large: every append would be moved with room for it.
    Box::pin(in_line(root, scheme, topic, batch, options, open)).await
}

/// While the log is only being opened appends wait in line, and each is with the engine before the
/// next one's turn. They wait in tasks of their own, so that one which nobody polls any more does
/// not hold up those behind it.
async fn in_line(
    root: &Arc<Root>,
    scheme: &'static str,
    topic: &TopicName,
    batch: &Batch,
    options: &AppendOptions,
    open: Arc<Open>,
) -> Result<AppendReport> {
    let runtime = runtime()?;
    let mut turn = Box::pin(Arc::clone(&open).turn());
    let first = poll_fn(|cx| Poll::Ready(turn.as_mut().poll(cx))).await;
    let root = Arc::clone(root);
    let (topic, batch, options) = (topic.clone(), batch.clone(), options.clone());
    let records = batch.len();
    let task = runtime.spawn(async move {
        let turn = match first {
            Poll::Ready(turn) => turn,
            Poll::Pending => turn.await,
        };
        let log = root.log(&topic, &open).await?;
        let condition = condition(&log, scheme, &options)?;
        let mut append = pin!(log.append(&batch, condition, options.epoch));
        let first = poll_fn(|cx| Poll::Ready(append.as_mut().poll(cx))).await;
        drop(turn);
        match first {
            Poll::Ready(result) => result,
            Poll::Pending => append.await,
        }
    });
    task.await.unwrap_or_else(|e| {
        let error = Error::new(
            ErrorKind::Internal,
            Effect::Unknown,
            Retry::Never,
            "an append did not end; its runtime is shutting down, or it panicked",
        );
        Ok(AppendReport::all(
            records,
            &Outcome::Unknown(error.with_source(e)),
        ))
    })
}

fn condition(log: &TopicLog, scheme: &str, options: &AppendOptions) -> Result<Condition> {
    match &options.expect {
        None => Ok(Condition::None),
        Some(Expect::End(cursor)) => {
            let topic = log.topic();
            check_origin(cursor, scheme, topic.name(), topic.id())?;
            Ok(Condition::End(end_of(cursor)?))
        }
        Some(Expect::KeyAt { key, last }) => Ok(Condition::KeyAt {
            key: key.as_bytes().clone(),
            last: last.as_ref().map(number).transpose()?,
        }),
    }
}

fn number(position: &Position) -> Result<u64> {
    position
        .number_u64()
        .filter(|_| position.partition() == PartitionId::ONLY && position.sub() == 0)
        .ok_or_else(|| Error::config("the position is not one of this topic's"))
}

/// The next position, as a cursor says it.
fn end_of(cursor: &Cursor) -> Result<u64> {
    match (cursor.frontier(PartitionId::ONLY), cursor.rest()) {
        (None, Rest::FromStart) | (Some(Frontier::Start { .. }), _) => Ok(0),
        (Some(Frontier::After { position, .. }), _) => Ok(number(position)?.saturating_add(1)),
        _ => Err(Error::config(
            "the cursor names no record, so the topic cannot end there; use one from a reader or from end()",
        )),
    }
}

/// The topic's incarnation, as it stands in cursors.
pub(crate) fn incarnation(id: TopicId) -> Arc<str> {
    id.to_string().into()
}
