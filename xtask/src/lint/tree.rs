//! What a user who only writes `annals = "…"` has to build.

use std::collections::BTreeSet;

use anyhow::{Result, bail};

use crate::step::{cargo, output_of};

/// The most crates that a default build may have, `annals` itself included.
const MOST: usize = 60;
/// Clients of services: they come only with their feature.
const SERVICES: [&str; 3] = ["aws", "rdkafka", "lapin"];

pub(super) fn check() -> Result<()> {
    let tree = output_of(&mut cargo([
        "tree",
        "--package=annals",
        "--edges=normal",
        "--prefix=none",
        "--format={p}",
        "--locked",
    ]))?;
    judge(&tree)
}

/// One `name version` a line, repeated ones with a mark behind.
fn judge(tree: &str) -> Result<()> {
    let crates: BTreeSet<(&str, &str)> = tree
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?, words.next()?))
        })
        .collect();
    if let Some((name, _)) = crates
        .iter()
        .find(|(name, _)| SERVICES.iter().any(|service| name.starts_with(service)))
    {
        bail!("a default build contains {name}; it belongs behind its backend's feature");
    }
    if crates.len() > MOST {
        bail!(
            "a default build has {} crates, at most {MOST} are allowed",
            crates.len()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn services_and_too_many_crates_are_found() {
        judge("annals v0.1.0 (/x)\nbytes v1.0.0\nbytes v1.0.0 (*)\n").unwrap();
        for service in ["aws-sdk-sqs v1.0.0", "rdkafka-sys v4.0.0", "lapin v4.0.0"] {
            assert!(judge(service).is_err());
        }
        let mut tree = String::new();
        for i in 0..MOST {
            writeln!(tree, "crate{i} v1.0.0").unwrap();
        }
        judge(&tree).unwrap();
        tree.push_str("crate0 v2.0.0\n");
        assert!(judge(&tree).is_err());
    }
}
