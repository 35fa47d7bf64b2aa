//! Which call fails, when and how.

/// A call of [`Disk`](crate::disk::Disk) or [`DiskFile`](crate::disk::DiskFile) that can be made to fail.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Call {
    /// [`Disk::open`](crate::disk::Disk::open).
    Open,
    /// [`Disk::create_dir`](crate::disk::Disk::create_dir).
    CreateDir,
    /// [`Disk::rename`](crate::disk::Disk::rename).
    Rename,
    /// [`Disk::remove`](crate::disk::Disk::remove).
    Remove,
    /// [`Disk::sync_dir`](crate::disk::Disk::sync_dir).
    SyncDir,
    /// [`Disk::lock`](crate::disk::Disk::lock).
    Lock,
    /// [`DiskFile::read_at`](crate::disk::DiskFile::read_at).
    Read,
    /// [`DiskFile::write_at`](crate::disk::DiskFile::write_at).
    Write,
    /// [`DiskFile::reserve`](crate::disk::DiskFile::reserve).
    Reserve,
    /// [`DiskFile::set_len`](crate::disk::DiskFile::set_len).
    SetLen,
    /// [`DiskFile::sync_data`](crate::disk::DiskFile::sync_data).
    Sync,
}

/// One planned failure: which call, on which files, when, how often and how.
///
/// By default the next call fails once, with an I/O error.
#[derive(Clone, Debug)]
#[must_use = "a fault does nothing until it is injected"]
pub struct Fault {
    pub(super) call: Call,
    pub(super) name: Option<String>,
    pub(super) skip: u64,
    pub(super) times: u64,
    pub(super) how: How,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum How {
    Errno(i32),
    Short(usize),
    Unsupported,
}

/// The number of an I/O error on every system that has numbers (`EIO`).
const EIO: i32 = 5;

impl Fault {
    /// The next such call fails once, with an I/O error (errno 5).
    pub fn new(call: Call) -> Self {
        Self {
            call,
            name: None,
            skip: 0,
            times: 1,
            how: How::Errno(EIO),
        }
    }

    /// Only calls on paths that end with this text count, `.seg` say.
    pub fn on(mut self, end_of_path: impl Into<String>) -> Self {
        self.name = Some(end_of_path.into());
        self
    }

    /// Lets `calls` of them pass first. Default: 0.
    pub fn skip(mut self, calls: u64) -> Self {
        self.skip = calls;
        self
    }

    /// Fails so many of them. Default: 1; `u64::MAX` is for ever.
    pub fn times(mut self, calls: u64) -> Self {
        self.times = calls;
        self
    }

    /// Fails with this error number of the operating system, 28 for a full disk on Linux.
    ///
    /// A failed sync loses what it should have written: the cache still shows it, later syncs say
    /// `Ok`, and a power loss brings the old bytes back, as on real file systems.
    pub fn errno(mut self, errno: i32) -> Self {
        self.how = How::Errno(errno);
        self
    }

    /// Writes at most so many bytes and says how many. For [`Call::Write`]; other calls pass.
    pub fn short(mut self, bytes: usize) -> Self {
        self.how = How::Short(bytes);
        self
    }

    /// Answers that the file system cannot reserve. For [`Call::Reserve`]; other calls pass.
    pub fn unsupported(mut self) -> Self {
        self.how = How::Unsupported;
        self
    }
}
