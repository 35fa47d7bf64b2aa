//! A small value in a file that is always whole: two slots, written in turn.
//!
//! The file has 8 KiB from its creation on, so that a write needs no room: it works on a full
//! disk, where writing anew and renaming does not. Each 4 KiB slot starts with a sequence number,
//! a length and a CRC-32C, then the value. A write goes to the older slot, and a value fits one
//! 512-byte sector with its header: a crash leaves each slot as it was or as it should be, synced
//! or not.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crc_fast::crc32_iscsi;

use crate::disk::{Disk, DiskFile, OpenMode, Reserved};

const SLOT: u64 = 4096;
const SECTOR: usize = 512;
const HEADER: usize = 16;

/// The longest value, in bytes.
pub const MAX_VALUE: usize = SECTOR - HEADER;

/// How often a reader looks again when writers were faster.
const LOOKS: usize = 1000;

/// What a slot file holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// The newest whole value.
    pub value: Option<Vec<u8>>,
    /// Whether a slot is neither whole nor unused, and stays so: it may have held a newer value.
    pub broken: bool,
}

/// A value and its number.
type Numbered = (u64, Vec<u8>);

/// An open slot file.
///
/// One writer at a time (whoever holds the lock on the thing it belongs to); any number of
/// readers, in other processes too: they see whole values only, and never an older one after a
/// newer one.
#[derive(Debug)]
pub struct Slot {
    file: Arc<dyn DiskFile>,
    newest: Mutex<Option<u64>>,
}

impl Slot {
    /// Makes the file, without a value, and syncs it. Its directory is the caller's to sync.
    /// After an error (a full disk, say) no file is left behind.
    pub fn create(disk: &dyn Disk, path: &Path) -> io::Result<Self> {
        let file = disk.open(path, OpenMode::CreateNew)?;
        if let Err(e) = prepare(&*file) {
            // What cannot be removed has no value, and is opened as such.
            let _ = disk.remove(path);
            return Err(e);
        }
        Ok(Self {
            file,
            newest: Mutex::default(),
        })
    }

    /// Opens the file for reading or for reading and writing; `NotFound` when it is not there.
    pub fn open(disk: &dyn Disk, path: &Path, mode: OpenMode) -> io::Result<Self> {
        if mode == OpenMode::CreateNew {
            return Self::create(disk, path);
        }
        let file = disk.open(path, mode)?;
        if mode == OpenMode::Write && file.len()? < 2 * SLOT {
            // The power went while it was being made.
            prepare(&*file)?;
        }
        Ok(Self {
            file,
            newest: Mutex::default(),
        })
    }

    /// The newest value; `None` when none was ever written, or none is whole.
    pub fn read(&self) -> io::Result<Option<Vec<u8>>> {
        Ok(self.look()?.value)
    }

    /// The newest value, and whether it is surely the last one that was written.
    pub fn look(&self) -> io::Result<Seen> {
        let (newest, broken) = self.newest()?;
        Ok(Seen {
            value: newest.map(|(_, value)| value),
            broken,
        })
    }

    /// Writes a value, and syncs it when `sync` says so: without, a process that is killed loses
    /// nothing and a power loss may bring back an older value, never a broken one.
    ///
    /// `InvalidInput` for more than [`MAX_VALUE`] bytes. After an error the last value still
    /// stands, or the new one does.
    pub fn write(&self, value: &[u8], sync: bool) -> io::Result<()> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let last = match *newest {
            Some(last) => last,
            None => self.newest()?.0.map_or(0, |(number, _)| number),
        };
        let number = last + 1;
        let sector = encode(number, value)?;
        let whole = sector
            .get(..HEADER + value.len())
            .ok_or(io::ErrorKind::InvalidInput)?;
        let at = (number % 2) * SLOT;
        let mut done = 0;
        while let Some(rest) = whole.get(done..).filter(|rest| !rest.is_empty()) {
            match self.file.write_at(rest, at + done as u64)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => done += written,
            }
        }
        *newest = Some(number);
        if sync {
            self.file.sync_data()?;
        }
        Ok(())
    }

    /// Makes what was written durable.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Marks the file as in use, until [`free`](Self::free) or this process's end.
    pub fn hold(&self) -> io::Result<()> {
        self.file.hold()
    }

    /// Ends [`hold`](Self::hold).
    pub fn free(&self) -> io::Result<()> {
        self.file.free()
    }

    /// Whether another opening holds it.
    pub fn is_held(&self) -> io::Result<bool> {
        self.file.is_held()
    }

    /// The newest whole value with its number, and whether a slot is broken.
    fn newest(&self) -> io::Result<(Option<Numbered>, bool)> {
        let mut before = None;
        for _ in 0..LOOKS {
            let slots = [self.sector(0)?, self.sector(SLOT)?];
            let values = slots.each_ref().map(decode);
            // A broken slot may be one that is being written, and then the other one may have
            // been written since it was looked at. One that stays broken was left by a crash.
            let whole = slots
                .iter()
                .zip(&values)
                .all(|(slot, value)| value.is_some() || slot.iter().all(|byte| *byte == 0));
            if whole || before.as_ref() == Some(&slots) {
                let newest = values
                    .into_iter()
                    .flatten()
                    .max_by_key(|(number, _)| *number);
                return Ok((newest, !whole));
            }
            before = Some(slots);
            std::thread::yield_now();
        }
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the file changes faster than it can be read",
        ))
    }

    fn sector(&self, at: u64) -> io::Result<[u8; SECTOR]> {
        let mut sector = [0; SECTOR];
        let mut done = 0;
        while let Some(rest) = sector.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, at + done as u64)? {
                0 => break,
                read => done += read,
            }
        }
        Ok(sector)
    }
}

/// Takes all the room that the file will ever need.
fn prepare(file: &dyn DiskFile) -> io::Result<()> {
    match file.reserve(0, 2 * SLOT)? {
        Reserved::Done => {}
        Reserved::Unsupported => {
            let zeros = [0; SECTOR];
            for at in (0..2 * SLOT).step_by(SECTOR) {
                if file.write_at(&zeros, at)? < SECTOR {
                    return Err(io::ErrorKind::StorageFull.into());
                }
            }
        }
    }
    file.sync_data()
}

fn encode(number: u64, value: &[u8]) -> io::Result<[u8; SECTOR]> {
    let mut sector = [0; SECTOR];
    let too_long = || {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{} bytes do not fit a slot of {MAX_VALUE}", value.len()),
        )
    };
    let Ok(len) = u32::try_from(value.len()) else {
        return Err(too_long());
    };
    let body = sector
        .get_mut(HEADER..HEADER + value.len())
        .ok_or_else(too_long)?;
    body.copy_from_slice(value);
    put(&mut sector, 0, &number.to_le_bytes());
    put(&mut sector, 8, &len.to_le_bytes());
    let crc = checksum(&sector, value.len()).ok_or_else(too_long)?;
    put(&mut sector, 12, &crc.to_le_bytes());
    Ok(sector)
}

fn put(sector: &mut [u8; SECTOR], at: usize, bytes: &[u8]) {
    for (to, from) in sector.iter_mut().skip(at).zip(bytes) {
        *to = *from;
    }
}

/// Over number, length and value; the checksum's own field counts as zeros.
fn checksum(sector: &[u8; SECTOR], len: usize) -> Option<u32> {
    let mut copy = *sector;
    put(&mut copy, 12, &[0; 4]);
    Some(crc32_iscsi(copy.get(..HEADER + len)?))
}

fn decode(sector: &[u8; SECTOR]) -> Option<(u64, Vec<u8>)> {
    let number = u64::from_le_bytes(*sector.first_chunk()?);
    let len = u32::from_le_bytes(*sector.get(8..)?.first_chunk()?);
    let crc = u32::from_le_bytes(*sector.get(12..)?.first_chunk()?);
    let len = usize::try_from(len).ok()?;
    // Number 0 is never written: zeros have no value.
    if number == 0 || checksum(sector, len)? != crc {
        return None;
    }
    Some((number, sector.get(HEADER..HEADER + len)?.to_vec()))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use annals_core::Clock;

    use super::*;
    use crate::disk::{Call, Fault, FaultyDisk, RealDisk};

    fn path() -> &'static Path {
        Path::new("slot")
    }

    fn number(value: Option<Vec<u8>>) -> u64 {
        let value = value.unwrap();
        assert!(value.chunks(8).all(|chunk| chunk == &value[..8]), "torn");
        u64::from_le_bytes(*value.first_chunk().unwrap())
    }

    fn value(number: u64) -> Vec<u8> {
        number.to_le_bytes().repeat(60)
    }

    #[test]
    fn the_newest_value_is_read_also_by_the_next_process() {
        let disk = FaultyDisk::new(Clock::system());
        let slot = Slot::create(&disk, path()).unwrap();
        assert_eq!(slot.read().unwrap(), None);
        for n in 1..6 {
            slot.write(&value(n), false).unwrap();
            assert_eq!(number(slot.read().unwrap()), n);
            let next = disk.after_kill();
            let slot = Slot::open(&next, path(), OpenMode::Write).unwrap();
            assert_eq!(number(slot.read().unwrap()), n);
            slot.write(&value(n + 100), false).unwrap();
            assert_eq!(number(slot.read().unwrap()), n + 100);
        }
        slot.write(b"", true).unwrap();
        assert_eq!(slot.read().unwrap(), Some(Vec::new()));
        slot.write(&[1; MAX_VALUE], true).unwrap();
        let long = slot.write(&[1; MAX_VALUE + 1], true).unwrap_err();
        assert_eq!(long.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(slot.read().unwrap(), Some(vec![1; MAX_VALUE]));
    }

    #[test]
    fn a_power_loss_brings_back_the_synced_value_or_a_newer_one() {
        let disk = FaultyDisk::new(Clock::system());
        let slot = Slot::create(&disk, path()).unwrap();
        disk.sync_dir(Path::new("")).unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for synced in 1..30 {
            slot.write(&value(synced * 10), true).unwrap();
            for later in 1..4 {
                slot.write(&value(synced * 10 + later), false).unwrap();
                for seed in 0..10 {
                    let lost = disk.after_power_loss(synced * 1000 + seed);
                    let slot = Slot::open(&lost, path(), OpenMode::Write).unwrap();
                    let left = number(slot.read().unwrap());
                    assert!(
                        (synced * 10..=synced * 10 + later).contains(&left),
                        "{left}"
                    );
                    seen.insert(left - synced * 10);
                }
            }
            slot.sync().unwrap();
            let lost = disk.after_power_loss(synced);
            let slot = Slot::open(&lost, path(), OpenMode::Read).unwrap();
            assert_eq!(number(slot.read().unwrap()), synced * 10 + 3);
        }
        assert!(seen.len() > 2);
    }

    #[test]
    fn a_full_disk_takes_writes_but_no_new_slot() {
        let disk = FaultyDisk::new(Clock::system());
        let slot = Slot::create(&disk, path()).unwrap();
        disk.faults().room(Some(0));
        for n in 1..4 {
            slot.write(&value(n), true).unwrap();
        }
        let other = Path::new("other");
        let full = Slot::create(&disk, other).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        let gone = Slot::open(&disk, other, OpenMode::Read).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
        disk.faults().clear();
        disk.faults()
            .inject(Fault::new(Call::Reserve).unsupported());
        let slot = Slot::create(&disk, other).unwrap();
        disk.faults().room(Some(0));
        slot.write(&value(1), true).unwrap();
        slot.write(&value(2), true).unwrap();
        assert_eq!(number(slot.read().unwrap()), 2);
    }

    #[test]
    fn failed_and_short_writes_leave_the_last_value() {
        let disk = FaultyDisk::new(Clock::system());
        let slot = Slot::create(&disk, path()).unwrap();
        slot.write(&value(1), true).unwrap();
        disk.faults().inject(Fault::new(Call::Write).short(20));
        disk.faults().inject(Fault::new(Call::Write).skip(1));
        assert!(slot.write(&value(2), true).is_err());
        assert_eq!(disk.faults().fired(), 2);
        assert_eq!(number(slot.read().unwrap()), 1);
        slot.write(&value(3), true).unwrap();
        assert_eq!(number(slot.read().unwrap()), 3);
    }

    #[test]
    fn readers_beside_a_writer_see_whole_values_that_never_go_back() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("slot");
        let disk = RealDisk::default();
        let slot = Slot::create(&disk, &path).unwrap();
        slot.write(&value(1), false).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let readers: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        let slot = Slot::open(&disk, &path, OpenMode::Read).unwrap();
                        let mut last = 0;
                        while !done.load(Ordering::SeqCst) {
                            let now = number(slot.read().unwrap());
                            assert!(now >= last, "{now} after {last}");
                            last = now;
                        }
                        last
                    })
                })
                .collect();
            for n in 2..20_000 {
                slot.write(&value(n), false).unwrap();
            }
            done.store(true, Ordering::SeqCst);
            for reader in readers {
                assert!(reader.join().unwrap() > 1);
            }
        });
    }
}
