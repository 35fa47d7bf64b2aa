//! Whether a segment may hold a key: a Bloom filter of lines that are one cache line long each.

/// About one in a hundred keys that are not there passes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Filter(Vec<u8>);

const BITS_PER_KEY: usize = 10;
const PROBES: u32 = 7;

impl Filter {
    /// The bytes of a line.
    pub(super) const LINE: usize = 64;

    pub(super) fn sized_for(keys: usize) -> Self {
        let lines = (keys * BITS_PER_KEY).div_ceil(8 * Self::LINE);
        Self(vec![0; lines * Self::LINE])
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn lines(&self) -> u32 {
        u32::try_from(self.0.len() / Self::LINE).unwrap_or(u32::MAX)
    }

    pub(super) fn insert(&mut self, hash: u32) {
        for (byte, bit) in self.probes(hash) {
            if let Some(byte) = self.0.get_mut(byte) {
                *byte |= bit;
            }
        }
    }

    /// False: it is not there.
    pub(super) fn may_hold(&self, hash: u32) -> bool {
        !self.0.is_empty()
            && self
                .probes(hash)
                .all(|(byte, bit)| self.0.get(byte).is_some_and(|b| b & bit != 0))
    }

    /// The upper half of the mixed hash chooses the line, nine bits each of another mix the bits.
    fn probes(&self, hash: u32) -> impl Iterator<Item = (usize, u8)> + use<> {
        let mixed = mix(u64::from(hash) + 1);
        let lines = (self.0.len() / Self::LINE) as u64;
        let line = usize::try_from(((mixed >> 32) * lines) >> 32).unwrap_or(0);
        let bits = mix(mixed);
        (0..PROBES).map(move |probe| {
            let bit = (bits >> (9 * probe)) & 511;
            let byte = line * Self::LINE + usize::try_from(bit / 8).unwrap_or(0);
            (byte, 1 << (bit % 8))
        })
    }
}

/// The finalizer of splitmix64.
const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_was_put_in_and_little_else() {
        let mut filter = Filter::sized_for(10_000);
        let key = |n: u32| n.wrapping_mul(0x9e37_79b1);
        (0..10_000).for_each(|n| filter.insert(key(n)));
        assert!((0..10_000).all(|n| filter.may_hold(key(n))));
        let wrong = (10_000..110_000)
            .filter(|n| filter.may_hold(key(*n)))
            .count();
        assert!(wrong < 2_500, "{wrong} of 100,000");
        assert!(!Filter::sized_for(0).may_hold(0));
    }
}
