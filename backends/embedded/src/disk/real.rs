//! The disk of this machine.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use annals_core::{Clock, Timestamp};

use super::watch;
use super::{BootId, DirEntry, Disk, DiskFile, DiskLock, DiskWatch, HeldBy, OpenMode, Reserved};

/// The disk of this machine: a local file system. Network file systems are not supported: their
/// locks and syncs promise less.
///
/// - `read_now_at` reads from the page cache on Linux, and never elsewhere.
/// - `sync_data` is `fdatasync`. `reserve` is a plain `fallocate` on Linux and unsupported
///   elsewhere.
/// - Locks are `flock`-style: they belong to one opening of the file, so a second lock in the
///   same process is refused too, and the system frees them when the process ends.
/// - Watches share one inotify instance and one thread per process. Where inotify cannot be had
///   (other systems, or the user's limits are used up) a thread polls, at first each 10 ms, after
///   a while without changes each 250 ms.
/// - [`boot`](Disk::boot) is the kernel's boot id. Where there is none it is a new random number
///   in each process: then every open after another process counts as one after a power loss,
///   which costs a scan and loses nothing.
#[derive(Clone, Debug, Default)]
pub struct RealDisk {
    clock: Clock,
}

impl RealDisk {
    /// This machine's disk, with `clock` for [`now`](Disk::now).
    pub fn new(clock: Clock) -> Self {
        Self { clock }
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => {}
            OpenMode::Write => {
                options.write(true);
            }
            OpenMode::CreateNew => {
                options.write(true).create_new(true);
            }
        }
        let file = options.open(path)?;
        // Opening a directory for reading succeeds, and fails at the first read.
        if mode == OpenMode::Read && file.metadata()?.is_dir() {
            return Err(io::Error::from(io::ErrorKind::IsADirectory));
        }
        Ok(Arc::new(RealFile(file)))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let kind = match entry.file_type() {
                Ok(kind) => kind,
                // Removed since the listing.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            entries.push(DirEntry {
                name: entry.file_name().to_string_lossy().into_owned(),
                dir: kind.is_dir(),
            });
        }
        Ok(entries)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if fs::symlink_metadata(path)?.is_dir() {
            fs::remove_dir(path)
        } else {
            fs::remove_file(path)
        }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn lock(&self, path: &Path, owner: &str) -> io::Result<Result<Box<dyn DiskLock>, HeldBy>> {
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let mut text = [0; 256];
                    let len = file.read_at(&mut text, 0)?;
                    let text = String::from_utf8_lossy(text.get(..len).unwrap_or_default());
                    return Ok(Err(HeldBy {
                        owner: text.trim_end().to_owned(),
                    }));
                }
                Err(TryLockError::Error(e)) => return Err(e),
            }
            // Somebody may have removed or replaced the file between the two calls.
            let here = file.metadata()?;
            match fs::metadata(path) {
                Ok(there) if (there.dev(), there.ino()) == (here.dev(), here.ino()) => {}
                Ok(_) => continue,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            }
            // The text is a courtesy: on a full disk the lock holds without it. Written before
            // it is cut, so that a block that is there is not given away.
            if file.write_all_at(owner.as_bytes(), 0).is_ok() {
                let _ = file.set_len(owner.len() as u64);
            }
            return Ok(Ok(Box::new(RealLock(file))));
        }
    }

    fn watch(
        &self,
        path: &Path,
        wake: Arc<dyn Fn() + Send + Sync>,
    ) -> io::Result<Box<dyn DiskWatch>> {
        watch::watch(path, wake)
    }

    fn boot(&self) -> BootId {
        static BOOT: OnceLock<BootId> = OnceLock::new();
        *BOOT.get_or_init(|| {
            fs::read_to_string("/proc/sys/kernel/random/boot_id")
                .ok()
                .and_then(|text| parse_boot_id(&text))
                .unwrap_or_else(random_boot_id)
        })
    }

    fn draw(&self) -> io::Result<u64> {
        getrandom::u64().map_err(io::Error::other)
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

fn parse_boot_id(text: &str) -> Option<BootId> {
    let digits: String = text.trim().chars().filter(|c| *c != '-').collect();
    if digits.len() != 32 {
        return None;
    }
    let number = u128::from_str_radix(&digits, 16).ok()?;
    Some(BootId(number.to_be_bytes()))
}

fn random_boot_id() -> BootId {
    let mut bytes = [0; 16];
    if getrandom::fill(&mut bytes).is_err() {
        // No random source: the time and the process tell the lives apart.
        let now = Timestamp::now().as_millis().to_le_bytes();
        let pid = u64::from(std::process::id()).to_le_bytes();
        for (to, from) in bytes.iter_mut().zip(now.into_iter().chain(pid)) {
            *to = from;
        }
    }
    BootId(bytes)
}

#[derive(Debug)]
struct RealFile(File);

impl DiskFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        loop {
            match self.0.read_at(buf, at) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    #[cfg(target_os = "linux")]
    fn read_now_at(&self, buf: &mut [u8], at: u64) -> io::Result<Option<usize>> {
        use rustix::io::{Errno, ReadWriteFlags, preadv2};
        let buf = &mut [io::IoSliceMut::new(buf)];
        match preadv2(&self.0, buf, at, ReadWriteFlags::NOWAIT) {
            Ok(read) => Ok(Some(read)),
            Err(Errno::AGAIN | Errno::INTR | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn read_now_at(&self, _buf: &mut [u8], _at: u64) -> io::Result<Option<usize>> {
        Ok(None)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        loop {
            match self.0.write_at(bytes, at) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    #[cfg(target_os = "linux")]
    fn reserve(&self, at: u64, len: u64) -> io::Result<Reserved> {
        use rustix::fs::{FallocateFlags, fallocate};
        use rustix::io::Errno;
        if len == 0 {
            return Ok(Reserved::Done);
        }
        loop {
            match fallocate(&self.0, FallocateFlags::empty(), at, len) {
                Ok(()) => return Ok(Reserved::Done),
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(Reserved::Unsupported),
                Err(e) => return Err(e.into()),
            }
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn reserve(&self, _at: u64, _len: u64) -> io::Result<Reserved> {
        Ok(Reserved::Unsupported)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn hold(&self) -> io::Result<()> {
        loop {
            match self.0.lock() {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    fn free(&self) -> io::Result<()> {
        self.0.unlock()
    }

    fn is_held(&self) -> io::Result<bool> {
        match self.0.try_lock_shared() {
            Ok(()) => self.0.unlock().map(|()| false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(e)) => Err(e),
        }
    }
}

#[derive(Debug)]
struct RealLock(
    #[expect(dead_code, reason = "the open file is the lock; closing it frees it")] File,
);

impl DiskLock for RealLock {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_ids_parse_and_odd_ones_do_not() {
        let id = parse_boot_id("00112233-4455-6677-8899-aabbccddeeff\n").unwrap();
        assert_eq!(&id.0[..4], [0x00, 0x11, 0x22, 0x33]);
        for odd in ["", "0", "zz112233-4455-6677-8899-aabbccddeeff"] {
            assert_eq!(parse_boot_id(odd), None);
        }
        assert_ne!(random_boot_id(), random_boot_id());
    }
}
