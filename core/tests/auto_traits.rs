//! What can be sent, shared and boxed: compiling is passing.

use annals_core::driver::{Admin, Backend, Commits, Leases, Reader, Settler, Source};
use annals_core::{
    Append, AppendError, Appended, Appender, Batch, Bus, Error, Full, OpenAppender, OpenTopic,
    Permit, Record, Result, Stored, Ticket, Topic,
};

const fn shared<T: Send + Sync + 'static>() {}
const fn unpin<T: Unpin>() {}
const fn future<F: Future<Output = O> + Send + 'static, O>() {}

#[test]
fn handles_and_futures_can_be_sent_and_shared() {
    shared::<Bus>();
    shared::<Topic>();
    shared::<OpenTopic>();
    shared::<Append>();
    shared::<OpenAppender>();
    shared::<Appender>();
    shared::<Ticket>();
    shared::<Permit>();
    shared::<Full>();
    shared::<Batch>();
    shared::<Error>();
    shared::<AppendError>();
    unpin::<Append>();
    unpin::<Ticket>();
    future::<Append, Result<Appended, AppendError>>();
    future::<OpenAppender, Result<Appender>>();
    future::<Ticket, Result<Stored>>();
}

#[test]
fn an_appenders_calls_can_be_spawned() {
    const fn sendable<T: Send>(_: &T) {}
    fn calls(appender: &Appender, record: Record) {
        sendable(&appender.append(record.clone()));
        sendable(&appender.submit(record));
        sendable(&appender.reserve(1));
        sendable(&appender.flush());
        sendable(&appender.close(std::time::Duration::ZERO));
    }
    let _ = calls;
}

#[test]
fn driver_traits_are_object_safe() {
    shared::<Box<dyn Backend>>();
    shared::<Box<dyn Reader>>();
    shared::<Box<dyn Source>>();
    shared::<Box<dyn Commits>>();
    shared::<Box<dyn Settler>>();
    shared::<Box<dyn Leases>>();
    shared::<Box<dyn Admin>>();
    assert_eq!(
        size_of::<Result<Appended, AppendError>>(),
        3 * size_of::<usize>()
    );
}
