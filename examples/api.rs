//! An HTTP API over one shared appender, with answers that are true.
//!
//! `cargo run --example api [-- --url URL]`
//!
//! | answer | when |
//! | --- | --- |
//! | 201, 200 | the order is stored durably; it had been stored before |
//! | 202 | it was accepted and is on its way, its outcome not known yet |
//! | 503, with `Retry-After` | there is no room for it now, and nothing was done |
//! | 413, 504, 500 | too large; it may be stored, ask again with the same key; anything else |
//!
//! Checks each of the first four by HTTP over loopback, that an order is stored although its client
//! left, and that in the end every accepted order is in the log, once.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

mod check;

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use annals::{Appender, Effect, ErrorKind, Record, Start, TopicSpec};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use check::{check, fresh};
use clap::Parser;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

const TOPIC: &str = "annals-example-api";
/// The header by which a repeated request is recognised.
const KEY: &str = "idempotency-key";
const GRACE: Duration = Duration::from_secs(5);

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

#[derive(Parser)]
struct Args {
    /// Where the log lives; the topic `annals-example-api` there is deleted and made anew.
    #[arg(long, default_value = "file:./target/api")]
    url: String,
}

/// What all requests share.
#[derive(Clone)]
struct Api {
    appender: Appender,
    /// How long a client waits for the outcome.
    patience: Duration,
    /// How many orders were accepted.
    accepted: watch::Sender<u64>,
}

/// `POST /orders/{order}`: the body becomes a record of that order.
async fn place(
    State(api): State<Api>,
    Path(order): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let id = headers.get(KEY).map(HeaderValue::as_bytes);
    let record = Record::new(body).key(order).maybe_id(id);
    let ticket = match api.appender.try_submit(record) {
        Ok(ticket) => ticket,
        Err(full) => return refusal(full.error()),
    };
    api.accepted.send_modify(|accepted| *accepted += 1);
    // From here on the record is sent whatever becomes of this request: when its client leaves,
    // the server drops this future, and dropping a ticket cancels nothing.
    match timeout(api.patience, ticket).await {
        Ok(Ok(stored)) if stored.duplicate => StatusCode::OK.into_response(),
        Ok(Ok(_)) => StatusCode::CREATED.into_response(),
        Ok(Err(error)) => refusal(&error),
        Err(_) => StatusCode::ACCEPTED.into_response(),
    }
}

fn refusal(error: &annals::Error) -> Response {
    match (error.kind(), error.effect()) {
        (ErrorKind::TooLarge, _) => StatusCode::PAYLOAD_TOO_LARGE.into_response(),
        (kind, Effect::None) if error.is_retryable() || kind == ErrorKind::Closed => {
            (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")]).into_response()
        }
        (_, Effect::Unknown) => StatusCode::GATEWAY_TIMEOUT.into_response(),
        _ => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Serves until the process ends; answers where.
async fn serve(api: Api) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let at = listener.local_addr()?;
    let routes = Router::new()
        .route("/orders/{order}", post(place))
        .with_state(api);
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok(at)
}

#[tokio::main]
async fn main() -> Result<()> {
    let bus = annals::connect(&Args::parse().url).await?;
    let spec = TopicSpec {
        dedupe: Some(Duration::from_secs(600)),
        ..TopicSpec::default()
    };
    let topic = fresh(&bus, TOPIC, spec).await?;

    let quick = Api {
        appender: topic.appender().await?,
        patience: GRACE,
        accepted: watch::Sender::default(),
    };
    let at = serve(quick.clone()).await?;
    let (status, _) = send(at, "order-1", "key-1").await?;
    check(status == StatusCode::CREATED, "201: the order is stored")?;
    let (status, _) = send(at, "order-1", "key-1").await?;
    check(
        status == StatusCode::OK,
        "200: the repeated request found it stored",
    )?;

    // Its log is so slow that nothing is stored before a flush, and it has room for one order.
    let slow = Api {
        appender: topic
            .appender()
            .linger(Duration::MAX)
            .bytes_in_flight(1)
            .await?,
        patience: Duration::from_millis(20),
        accepted: watch::Sender::default(),
    };
    let at_slow = serve(slow.clone()).await?;
    let (status, _) = send(at_slow, "order-2", "key-2").await?;
    check(
        status == StatusCode::ACCEPTED,
        "202: the outcome was not known in time",
    )?;
    let (status, headers) = send(at_slow, "order-3", "key-3").await?;
    check(
        status == StatusCode::SERVICE_UNAVAILABLE && headers.contains_key(RETRY_AFTER),
        "503: there is no room, and a time to try again",
    )?;
    slow.appender.flush().await?;
    let (status, _) = send(at, "order-2", "key-2").await?;
    check(
        status == StatusCode::OK,
        "200: what was answered by 202 is stored by now",
    )?;

    // A client who would have to wait leaves once its order is accepted.
    let waiting = Api {
        patience: GRACE,
        ..slow.clone()
    };
    let at_waiting = serve(waiting).await?;
    let mut accepted = slow.accepted.subscribe();
    tokio::select! {
        left = accepted.wait_for(|orders| *orders == 2) => drop(left?),
        answer = send(at_waiting, "order-4", "key-4") => {
            return Err(format!("nothing was stored, and the answer is {answer:?}").into());
        }
    }
    slow.appender.close(GRACE).await?;
    let (status, _) = send(at, "order-4", "key-4").await?;
    check(
        status == StatusCode::OK,
        "an order is stored although its client left",
    )?;

    quick.appender.close(GRACE).await?;
    let mut replay = topic.replay(Start::Beginning).await?;
    let mut orders = Vec::new();
    while let Some(record) = replay.next().await? {
        orders.push(record.key_str()?.unwrap_or_default().to_owned());
    }
    check(
        orders == ["order-1", "order-2", "order-4"],
        "every accepted order is in the log, once",
    )?;
    bus.close(GRACE).await?;
    Ok(())
}

/// A client: one order on a connection of its own, which ends with this future.
async fn send(at: SocketAddr, order: &str, key: &str) -> Result<(StatusCode, HeaderMap)> {
    let stream = TcpStream::connect(at).await?;
    let (mut client, connection) = handshake(TokioIo::new(stream)).await?;
    let request = Request::post(format!("/orders/{order}"))
        .header("host", "localhost")
        .header(KEY, key)
        .body(Body::from("placed"))?;
    tokio::select! {
        answer = client.send_request(request) => {
            let answer = answer?;
            Ok((answer.status(), answer.headers().clone()))
        }
        ended = connection => Err(format!("the server hung up: {ended:?}").into()),
    }
}
