//! Keys in flight: of each key one record at a time, in order of arrival.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

/// One lane a key; only the first of a lane may be handed out.
#[derive(Debug, Default)]
pub(super) struct Lanes(HashMap<Bytes, VecDeque<u64>>);

impl Lanes {
    /// A record of this key arrived, after all others in its lane; whether it is the first.
    pub(super) fn join(&mut self, key: &Bytes, id: u64) -> bool {
        let lane = self.0.entry(key.clone()).or_default();
        lane.push_back(id);
        lane.len() == 1
    }

    /// A record leaves its lane; the one that is first because of that.
    pub(super) fn leave(&mut self, key: &Bytes, id: u64) -> Option<u64> {
        let lane = self.0.get_mut(key)?;
        let was_first = lane.front() == Some(&id);
        if was_first {
            lane.pop_front();
        } else if let Ok(index) = lane.binary_search(&id) {
            lane.remove(index);
        }
        let next = lane.front().copied();
        if lane.is_empty() {
            self.0.remove(key);
        }
        next.filter(|_| was_first)
    }

    /// Those behind this one, in order.
    pub(super) fn behind(&self, key: &Bytes, id: u64) -> Vec<u64> {
        let lane = self.0.get(key).into_iter().flatten();
        lane.copied().filter(|other| *other > id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_lets_one_go_after_the_other() {
        let (a, b) = (Bytes::from_static(b"a"), Bytes::from_static(b"b"));
        let mut lanes = Lanes::default();
        assert!(lanes.join(&a, 1));
        assert!(!lanes.join(&a, 2));
        assert!(lanes.join(&b, 3));
        assert!(!lanes.join(&a, 4));
        assert!(!lanes.join(&a, 5));
        assert_eq!(lanes.behind(&a, 1), [2, 4, 5]);
        assert_eq!(lanes.leave(&a, 4), None, "it was not the first");
        assert_eq!(lanes.leave(&a, 1), Some(2));
        assert_eq!(lanes.leave(&a, 1), None, "it has left already");
        assert_eq!(lanes.leave(&a, 2), Some(5));
        assert_eq!(lanes.leave(&a, 5), None);
        assert!(lanes.join(&a, 6), "an empty lane is forgotten");
        assert_eq!(lanes.leave(&b, 3), None);
    }
}
