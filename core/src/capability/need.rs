//! What an application cannot do without, checked at open.

use std::time::Duration;

use super::{
    Batching, ByKey, Capabilities, Claim, Dedupe, Durability, GroupNames, History, Order, Replay,
    Retention,
};

/// What an application cannot do without. Checked when a topic is opened: all missing ones in one
/// error of kind `Unsupported`, before anything is sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Need {
    /// Records can be read again, from positions.
    Replay,
    /// Every record ever written can be read again.
    FullHistory,
    /// One key's records are found by an index.
    ReplayByKey,
    /// Records of one key keep their order, also under failure and retry.
    OrderPerKey,
    /// An append may depend on what was stored before.
    ConditionalAppend,
    /// A repeated id is recognised for at least this long.
    Dedupe(Duration),
    /// A batch is stored whole or not at all.
    AtomicBatch,
    /// Several groups, each seeing every record.
    FanOut,
    /// What a group has not settled is kept for it for at least this long.
    Kept(Duration),
    /// Records of at least this many bytes.
    RecordBytes(u32),
    /// Exactly this durability; `Memory` is met by every other too.
    Durability(Durability),
}

impl Need {
    /// Why it is not met; `None` when it is.
    pub(super) fn unmet_by(&self, has: &Capabilities) -> Option<String> {
        let met = match self {
            Self::Replay => {
                matches!(has.replay, Claim::Is(Replay::Retained(_) | Replay::Full))
            }
            Self::FullHistory => {
                let all = Claim::Is(Replay::Retained(Retention::Forever));
                (has.replay.is(&Replay::Full) || has.replay == all)
                    && has.history.is(&History::Every)
            }
            Self::ReplayByKey => has.by_key.is(&ByKey::Indexed),
            Self::OrderPerKey => {
                has.order.known().is_some_and(|order| *order >= Order::Key)
                    && has.keys_move.is(&false)
            }
            Self::ConditionalAppend => has.append.conditional.is(&true),
            Self::Dedupe(least) => match has.append.dedupe {
                Claim::Is(Dedupe::Forever) => true,
                Claim::Is(Dedupe::Window(window)) => window >= *least,
                Claim::Is(Dedupe::None) | Claim::Unverified => false,
            },
            Self::AtomicBatch => has.append.batch.is(&Batching::Atomic),
            Self::FanOut => {
                matches!(has.groups.names, Claim::Is(GroupNames::Any(most)) if most > 1)
            }
            Self::Kept(least) => match has.groups.kept {
                Claim::Is(Retention::Forever) => true,
                Claim::Is(Retention::Age(age)) => age >= *least,
                Claim::Is(Retention::Bytes(_)) | Claim::Unverified => false,
            },
            Self::RecordBytes(least) => match has.limits.record_bytes {
                Claim::Is(None) => true,
                Claim::Is(Some(most)) => most >= u64::from(*least),
                Claim::Unverified => false,
            },
            Self::Durability(Durability::Memory) => has.durability.known().is_some(),
            Self::Durability(wanted) => has.durability.is(wanted),
        };
        (!met).then(|| match self {
            Self::Replay => format!("replay is {}", has.replay),
            Self::FullHistory => format!("replay is {}, history {}", has.replay, has.history),
            Self::ReplayByKey => format!("by_key is {}", has.by_key),
            Self::OrderPerKey => format!("order is {}, keys_move {}", has.order, has.keys_move),
            Self::ConditionalAppend => format!("append.conditional is {}", has.append.conditional),
            Self::Dedupe(_) => format!("append.dedupe is {}", has.append.dedupe),
            Self::AtomicBatch => format!("append.batch is {}", has.append.batch),
            Self::FanOut => format!("groups.names is {}", has.groups.names),
            Self::Kept(_) => format!("groups.kept is {}", has.groups.kept),
            Self::RecordBytes(_) => format!("limits.record_bytes is {}", has.limits.record_bytes),
            Self::Durability(_) => format!("durability is {}", has.durability),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_meets_no_need_and_unverified_meets_none() {
        let all = [
            Need::Replay,
            Need::FullHistory,
            Need::ReplayByKey,
            Need::OrderPerKey,
            Need::ConditionalAppend,
            Need::Dedupe(Duration::from_secs(1)),
            Need::AtomicBatch,
            Need::FanOut,
            Need::Kept(Duration::ZERO),
            Need::Durability(Durability::Fsynced),
        ];
        assert_eq!(Capabilities::none().missing(&all).len(), all.len());
        let mut vague = Capabilities::none();
        vague.limits.record_bytes = Claim::Unverified;
        let needs = [Need::Durability(Durability::Memory), Need::RecordBytes(1)];
        assert_eq!(vague.missing(&needs).len(), 2);
    }

    #[test]
    fn what_is_promised_is_met() {
        let mut has = Capabilities::none();
        has.replay = Replay::Full.into();
        has.by_key = ByKey::Indexed.into();
        has.order = Order::Total.into();
        has.append.conditional = true.into();
        has.append.dedupe = Dedupe::Window(Duration::from_secs(60)).into();
        has.append.batch = Batching::Atomic.into();
        has.groups.names = GroupNames::Any(2).into();
        has.groups.kept = Retention::Age(Duration::from_secs(60)).into();
        has.durability = Durability::Fsynced.into();
        has.limits.record_bytes = Some(10).into();
        let needs = [
            Need::Replay,
            Need::FullHistory,
            Need::ReplayByKey,
            Need::OrderPerKey,
            Need::ConditionalAppend,
            Need::Dedupe(Duration::from_secs(60)),
            Need::AtomicBatch,
            Need::FanOut,
            Need::Kept(Duration::from_secs(60)),
            Need::RecordBytes(10),
            Need::Durability(Durability::Fsynced),
            Need::Durability(Durability::Memory),
        ];
        assert_eq!(has.missing(&needs), []);
        let over = [
            Need::RecordBytes(11),
            Need::Dedupe(Duration::from_secs(61)),
            Need::Kept(Duration::from_secs(61)),
        ];
        assert_eq!(has.missing(&over).len(), 3);
        has.keys_move = true.into();
        has.history = History::LatestPerKey.into();
        assert_eq!(
            has.missing(&[Need::OrderPerKey, Need::FullHistory]).len(),
            2
        );
    }
}
