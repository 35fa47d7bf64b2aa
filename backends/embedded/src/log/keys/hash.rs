//! The hash of a key, as it stands in index files.

use siphasher::sip::SipHasher13;

use crate::log::options::TopicId;

/// SipHash-1-3 keyed with the topic's id, so that nobody who does not know it can choose keys that
/// collide; its lower half. Keys that collide all the same cost a look at a record each.
#[derive(Debug)]
pub(in crate::log) struct KeyHasher {
    sip: SipHasher13,
    #[cfg(test)]
    mask: std::sync::atomic::AtomicU32,
}

impl KeyHasher {
    pub(super) fn new(topic: TopicId) -> Self {
        Self {
            sip: SipHasher13::new_with_key(&topic.0),
            #[cfg(test)]
            mask: u32::MAX.into(),
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "the lower half is wanted")]
    pub(in crate::log) fn hash(&self, key: &[u8]) -> u32 {
        let hash = self.sip.hash(key) as u32;
        #[cfg(test)]
        let hash = hash & self.mask.load(std::sync::atomic::Ordering::Relaxed);
        hash
    }

    /// Lets hashes collide: only the bits of `mask` count.
    #[cfg(test)]
    pub(in crate::log) fn collide(&self, mask: u32) {
        self.mask.store(mask, std::sync::atomic::Ordering::Relaxed);
    }
}
