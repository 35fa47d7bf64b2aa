//! Calls outside a tokio runtime.

#![expect(clippy::panic, reason = "helpers of tests fail their test")]

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use annals_core::{Bus, Error, ErrorKind, Record, Start};
use annals_embedded::Builder;

const GRACE: Duration = Duration::from_secs(20);

/// What a future says at its first poll, with no runtime round it.
fn at_once<F: Future>(future: impl IntoFuture<IntoFuture = F>) -> F::Output {
    let future = pin!(future.into_future());
    let Poll::Ready(ready) = ({ future }).poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("it waits for something");
    };
    ready
}

fn is_refused(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(
        error.to_string().contains("inside one, with time"),
        "{error}"
    );
}

#[test]
fn a_call_outside_a_runtime_is_an_error_and_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    let bus = || Bus::new(Builder::directory(dir.path()).build().unwrap());
    is_refused(&at_once(bus().topic("orders")).unwrap_err());
    is_refused(&at_once(bus().topic("orders").create_if_missing()).unwrap_err());

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let (bus, topic) = runtime.block_on(async {
        let bus = bus();
        let topic = bus.topic("orders").create_if_missing().await.unwrap();
        (bus, topic)
    });
    // Before the log is open for appends, and afterwards.
    for _ in 0..2 {
        let failed = at_once(topic.append(Record::new("lost"))).unwrap_err();
        is_refused(failed.error());
        let appending = topic.append(Record::new("lost")).deadline(GRACE);
        is_refused(at_once(appending).unwrap_err().error());
        runtime.block_on(async { topic.append(Record::new("kept")).await.unwrap() });
    }
    is_refused(&at_once(topic.end()).unwrap_err());
    is_refused(&at_once(topic.replay(Start::Beginning)).unwrap_err());
    is_refused(&at_once(bus.clone().close(GRACE)).unwrap_err());

    // Nothing of it was stored, and nothing is in the way.
    let read = runtime.block_on(async {
        let mut replay = topic.replay(Start::Beginning).await.unwrap();
        let mut read = Vec::new();
        while let Some(record) = replay.next().await.unwrap() {
            read.push(record.value_str().unwrap().unwrap().to_owned());
        }
        bus.close(GRACE).await.unwrap();
        read
    });
    assert_eq!(read, ["kept", "kept"]);
}
