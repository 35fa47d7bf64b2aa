//! What a faulty disk knows: the image of its durable bytes, the failures to come, its room.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::fault::{Call, Fault, How};
use crate::disk::image::{Change, Image};

pub(super) struct State {
    pub(super) image: Image,
    pub(super) history: Option<Vec<Change>>,
    pub(super) first: Option<Box<Image>>,
    pub(super) faults: Vec<Fault>,
    pub(super) fired: u64,
    pub(super) calls: BTreeMap<Call, u64>,
    pub(super) room: Option<u64>,
    /// Bytes that each file has on the disk, holes not counted.
    pub(super) allocated: BTreeMap<u64, u64>,
    pub(super) cut: bool,
}

impl State {
    pub(super) fn of(image: Image) -> Self {
        Self {
            image,
            history: None,
            first: None,
            faults: Vec::new(),
            fired: 0,
            calls: BTreeMap::new(),
            room: None,
            allocated: BTreeMap::new(),
            cut: false,
        }
    }

    /// Counts the call and says which failure meets it.
    pub(super) fn meet(&mut self, call: Call, path: &Path) -> io::Result<Option<How>> {
        if self.cut {
            return Err(io::Error::new(
                io::ErrorKind::BrokenPipe,
                "the disk is cut off",
            ));
        }
        *self.calls.entry(call).or_default() += 1;
        let text = path.to_string_lossy();
        let mut met = None;
        for fault in &mut self.faults {
            let here = fault.name.as_ref().is_none_or(|end| text.ends_with(end));
            if fault.call != call || !here || fault.times == 0 {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
            } else if met.is_none() {
                fault.times -= 1;
                met = Some(fault.how);
            }
        }
        self.faults.retain(|fault| fault.times > 0);
        self.fired += u64::from(met.is_some());
        Ok(met)
    }

    /// As [`meet`](Self::meet), for calls that can only fail with an error.
    pub(super) fn pass(&mut self, call: Call, path: &Path) -> io::Result<()> {
        match self.meet(call, path)? {
            Some(How::Errno(errno)) => Err(io::Error::from_raw_os_error(errno)),
            Some(How::Short(_) | How::Unsupported) | None => Ok(()),
        }
    }

    pub(super) fn note(&mut self, change: Change) {
        self.image.apply(&change);
        if let Some(history) = &mut self.history {
            history.push(change);
        }
    }

    /// Takes room for the file up to `end`, and says up to where there is some.
    pub(super) fn allocate(&mut self, id: u64, end: u64) -> u64 {
        let has = self.allocated.entry(id).or_default();
        let mut wanted = end.saturating_sub(*has);
        if let Some(room) = &mut self.room {
            wanted = wanted.min(*room);
            *room -= wanted;
        }
        *has += wanted;
        end.min(*has)
    }

    pub(super) fn free(&mut self, id: u64, from: u64) {
        if let Some(has) = self.allocated.get_mut(&id) {
            let freed = has.saturating_sub(from);
            *has -= freed;
            if let Some(room) = &mut self.room {
                *room += freed;
            }
        }
    }
}
