//! Capabilities as a table.

use std::fmt::Debug;

use super::{AppendCapabilities, Capabilities, Claim, GroupNames, Limits, Starts};

impl Capabilities {
    /// Every promise as a name and its value, in a fixed order: for tables.
    pub fn rows(&self) -> Vec<(&'static str, String)> {
        let Self {
            replay,
            source,
            history,
            order,
            keys_move,
            starts,
            group_starts,
            log_time,
            skew,
            tail,
            gap,
            incarnation,
            by_key,
            append,
            durability,
            groups,
            partitions,
            limits,
        } = self;
        let AppendCapabilities {
            batch,
            receipt,
            conditional,
            fenced,
            dedupe,
            resubmit,
            in_flight,
            parallel,
            no_group,
        } = append;
        let Limits {
            record_bytes,
            batch_records,
            batch_bytes,
            headers,
            key_bytes,
            slack_bytes,
        } = limits;
        vec![
            ("replay", replay.to_string()),
            ("source", source.to_string()),
            ("history", history.to_string()),
            ("order", order.to_string()),
            ("keys_move", keys_move.to_string()),
            ("starts", said(starts, starts_of)),
            ("group_starts", said(group_starts, starts_of)),
            ("log_time", log_time.to_string()),
            ("skew", skew.to_string()),
            ("tail", tail.to_string()),
            ("gap", gap.to_string()),
            ("incarnation", incarnation.to_string()),
            ("by_key", by_key.to_string()),
            ("append.batch", batch.to_string()),
            ("append.receipt", receipt.to_string()),
            ("append.conditional", conditional.to_string()),
            ("append.fenced", fenced.to_string()),
            ("append.dedupe", dedupe.to_string()),
            (
                "append.resubmit",
                said(resubmit, |time| or("none", time.as_ref())),
            ),
            ("append.in_flight", in_flight.to_string()),
            ("append.parallel", parallel.to_string()),
            ("append.no_group", no_group.to_string()),
            ("durability", durability.to_string()),
            ("groups.names", said(&groups.names, names_of)),
            ("groups.members", groups.members.to_string()),
            ("groups.settle", groups.settle.to_string()),
            (
                "groups.hold",
                said(&groups.hold, |hold| {
                    or("while its partition is held", hold.as_ref())
                }),
            ),
            ("groups.attempts", groups.attempts.to_string()),
            ("groups.fenced", groups.fenced.to_string()),
            (
                "groups.forgotten_after",
                said(&groups.forgotten_after, |time| or("never", time.as_ref())),
            ),
            ("groups.share_reads", groups.share_reads.to_string()),
            ("groups.kept", groups.kept.to_string()),
            (
                "groups.given_up_after",
                said(&groups.given_up_after, |times| or("never", times.as_ref())),
            ),
            ("partitions", partitions.to_string()),
            ("limits.record_bytes", limit(record_bytes)),
            ("limits.batch_records", limit(batch_records)),
            ("limits.batch_bytes", limit(batch_bytes)),
            ("limits.headers", limit(headers)),
            ("limits.key_bytes", limit(key_bytes)),
            ("limits.slack_bytes", slack_bytes.to_string()),
        ]
    }
}

fn said<T>(claim: &Claim<T>, say: impl FnOnce(&T) -> String) -> String {
    claim.known().map_or_else(|| "Unverified".to_owned(), say)
}

fn or<T: Debug>(none: &str, value: Option<&T>) -> String {
    value.map_or_else(|| none.to_owned(), |value| format!("{value:?}"))
}

fn limit<T: Debug>(claim: &Claim<Option<T>>) -> String {
    said(claim, |most| or("none", most.as_ref()))
}

fn starts_of(starts: &Starts) -> String {
    let mut all: Vec<String> = [
        (starts.beginning, "beginning"),
        (starts.earliest, "earliest"),
        (starts.latest, "latest"),
        (starts.after, "after"),
    ]
    .into_iter()
    .filter(|(offered, _)| *offered)
    .map(|(_, name)| name.to_owned())
    .collect();
    all.extend(starts.since.map(|step| format!("since (to {step:?})")));
    if all.is_empty() {
        "none".to_owned()
    } else {
        all.join(", ")
    }
}

fn names_of(names: &GroupNames) -> String {
    match names {
        GroupNames::None => "none".to_owned(),
        GroupNames::Any(u32::MAX) => "any".to_owned(),
        GroupNames::Any(most) => format!("any, up to {most}"),
        GroupNames::Only(name) => format!("only {name:?}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn rows_are_for_people() {
        let mut has = Capabilities::none();
        has.starts = Claim::Is(Starts::ALL);
        has.group_starts = Claim::Unverified;
        has.groups.names = Claim::Is(GroupNames::Any(u32::MAX));
        has.append.resubmit = Claim::Is(Some(Duration::from_secs(5)));
        has.limits.record_bytes = Claim::Is(Some(1 << 20));
        let rows = has.rows();
        let row = |name| {
            rows.iter()
                .find(|(n, _)| *n == name)
                .map(|(_, v)| v.as_str())
        };
        for (name, value) in [
            (
                "starts",
                "beginning, earliest, latest, after, since (to 1ms)",
            ),
            ("group_starts", "Unverified"),
            ("groups.names", "any"),
            ("groups.forgotten_after", "never"),
            ("append.resubmit", "5s"),
            ("limits.record_bytes", "1048576"),
            ("limits.headers", "none"),
        ] {
            assert_eq!(row(name), Some(value), "{name}");
        }
    }
}
