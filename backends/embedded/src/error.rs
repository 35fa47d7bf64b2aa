//! What failures of the disk are to a caller: one table.

use std::io;

use annals_core::{Effect, Error, ErrorKind, Result, Retry};
use tokio::runtime::Handle;

/// The failure of a call that had no effect; `what` was being done: "opening the topic".
pub(crate) fn of_io(what: &str, error: io::Error) -> Error {
    use io::ErrorKind as Io;
    let (kind, retry, advice) = match error.kind() {
        Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => (
            ErrorKind::Blocked,
            Retry::Backoff,
            "for want of room; free some and try again",
        ),
        Io::NotFound => (ErrorKind::NotFound, Retry::Never, "; it is not there"),
        Io::AlreadyExists | Io::DirectoryNotEmpty => (
            ErrorKind::AlreadyExists,
            Retry::Never,
            "; it is there already",
        ),
        Io::ReadOnlyFilesystem => (
            ErrorKind::Denied,
            Retry::Never,
            "; the file system is mounted read-only, mount it for writing (mount -o remount,rw) and see why it was not (dmesg)",
        ),
        Io::PermissionDenied => (
            ErrorKind::Denied,
            Retry::Never,
            "; this process may not, check the owner and mode of the log's directory",
        ),
        Io::NotADirectory | Io::IsADirectory => (
            ErrorKind::Config,
            Retry::Never,
            "; the path names a file where a directory belongs, or the other way round",
        ),
        _ if is_out_of_files(&error) => (
            ErrorKind::Blocked,
            Retry::Backoff,
            "for want of file descriptors; raise the limit (ulimit -n)",
        ),
        Io::Interrupted | Io::WouldBlock | Io::TimedOut => {
            (ErrorKind::Blocked, Retry::Backoff, "; try again")
        }
        _ => (ErrorKind::Internal, Retry::Backoff, "; see the cause"),
    };
    let gap = if advice.starts_with(';') { "" } else { " " };
    Error::new(
        kind,
        Effect::None,
        retry,
        format!("{what} failed{gap}{advice}"),
    )
    .with_source(error)
}

/// `EMFILE` and `ENFILE`, which have no kind of their own.
fn is_out_of_files(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(23 | 24))
}

/// The runtime that does the work.
///
/// # Errors
/// `Config` outside one.
pub(crate) fn runtime() -> Result<Handle> {
    Handle::try_current().map_err(|e| {
        Error::config(
            "the embedded log was used outside a tokio runtime; run it inside one, with time enabled",
        )
        .with_source(e)
    })
}

/// Runs blocking work away from the async workers.
///
/// # Cancel safety
/// Dropped, the work goes on to its end and its result is lost.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match runtime()?.spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(Error::new(
            ErrorKind::Internal,
            Effect::Unknown,
            Retry::Never,
            "a blocking job did not end; its runtime is shutting down, or it panicked",
        )
        .with_source(e)),
    }
}

/// Runs to its end even if nobody polls it any more: what holds a place in a line must not be
/// parked with its caller.
///
/// # Cancel safety
/// Dropped, the work goes on to its end and its result is lost.
pub(crate) async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    match runtime()?.spawn(work).await {
        Ok(result) => result,
        Err(e) => Err(Error::new(
            ErrorKind::Internal,
            Effect::Unknown,
            Retry::Never,
            "a call did not end; its runtime is shutting down, or it panicked",
        )
        .with_source(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_has_its_kind() {
        for (errno, kind, retry) in [
            (28, ErrorKind::Blocked, Retry::Backoff),
            (122, ErrorKind::Blocked, Retry::Backoff),
            (24, ErrorKind::Blocked, Retry::Backoff),
            (2, ErrorKind::NotFound, Retry::Never),
            (17, ErrorKind::AlreadyExists, Retry::Never),
            (13, ErrorKind::Denied, Retry::Never),
            (30, ErrorKind::Denied, Retry::Never),
            (20, ErrorKind::Config, Retry::Never),
            (5, ErrorKind::Internal, Retry::Backoff),
        ] {
            let error = of_io("reading it", io::Error::from_raw_os_error(errno));
            assert_eq!((error.kind(), error.retry()), (kind, retry), "{errno}");
            assert_eq!(error.effect(), Effect::None);
            assert!(error.find_source::<io::Error>().is_some());
            assert!(error.to_string().starts_with("reading it failed"));
        }
    }

    #[test]
    fn a_read_only_mount_is_not_told_as_a_matter_of_rights() {
        let told = |errno| of_io("appending", io::Error::from_raw_os_error(errno)).to_string();
        assert!(told(30).contains("mounted read-only") && !told(30).contains("owner and mode"));
        assert!(told(13).contains("owner and mode") && !told(13).contains("mount"));
    }
}
