//! A hash table from ids to their first records. It holds hashes only: whoever asks compares the
//! real bytes.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};

use annals_core::Timestamp;

/// Where an entry lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::log::commit) struct Spot {
    pub(in crate::log::commit) position: u64,
    /// In its segment's file.
    pub(in crate::log::commit) offset: u64,
    /// Its append time.
    pub(in crate::log::commit) time: Timestamp,
}

/// A hash drawn anew per table, so that nobody can choose keys that collide.
#[derive(Debug)]
struct Hasher {
    state: RandomState,
    /// All ones; tests cut it so that everything collides.
    mask: u64,
}

impl Hasher {
    fn hash(&self, bytes: &[u8]) -> u64 {
        self.state.hash_one(bytes) & self.mask
    }
}

/// Id to first record, as long as it counts.
#[derive(Debug)]
pub(in crate::log::commit) struct Ids {
    hasher: Hasher,
    known: HashMap<u64, Spot>,
    /// Ids whose hash another id had first.
    collided: HashMap<u64, Vec<Spot>>,
    /// By append time, for a window; empty where ids count for ever.
    queue: VecDeque<(Timestamp, u64)>,
    window: bool,
}

impl Ids {
    pub(in crate::log::commit) fn new(mask: u64, window: bool) -> Self {
        Self {
            hasher: Hasher {
                state: RandomState::new(),
                mask,
            },
            known: HashMap::new(),
            collided: HashMap::new(),
            queue: VecDeque::new(),
            window,
        }
    }

    /// Takes in an id that [`Ids::candidates`] did not have.
    pub(in crate::log::commit) fn insert(&mut self, id: &[u8], spot: Spot) {
        let hash = self.hasher.hash(id);
        match self.known.entry(hash) {
            Entry::Occupied(_) => self.collided.entry(hash).or_default().push(spot),
            Entry::Vacant(free) => {
                free.insert(spot);
            }
        }
        if self.window {
            self.queue.push_back((spot.time, hash));
        }
    }

    /// The records that may have this id.
    pub(in crate::log::commit) fn candidates(
        &self,
        id: &[u8],
    ) -> impl Iterator<Item = Spot> + use<'_> {
        let hash = self.hasher.hash(id);
        let collided = self.collided.get(&hash).map_or(&[][..], Vec::as_slice);
        self.known.get(&hash).into_iter().chain(collided).copied()
    }

    /// Forgets what was appended before `oldest`.
    pub(in crate::log::commit) fn expire(&mut self, oldest: Timestamp) {
        while let Some((time, hash)) = self.queue.front().copied().filter(|(t, _)| *t < oldest) {
            self.queue.pop_front();
            if self.known.get(&hash).is_some_and(|spot| spot.time == time) {
                self.known.remove(&hash);
            }
            if let Some(spots) = self.collided.get_mut(&hash) {
                spots.retain(|spot| spot.time >= oldest);
                if spots.is_empty() {
                    self.collided.remove(&hash);
                }
            }
        }
    }

    pub(in crate::log::commit) fn len(&self) -> usize {
        self.known.len() + self.collided.values().map(Vec::len).sum::<usize>()
    }
}
