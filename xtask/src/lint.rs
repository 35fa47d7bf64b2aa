//! `cargo xtask lint`: what must hold besides the tests.

mod deny;
mod packages;
mod tree;

use anyhow::Result;

use crate::step::{cargo, check, run as step};
use crate::workspace::{Member, members};

pub(crate) fn run() -> Result<()> {
    step("format", &mut cargo(["fmt", "--all", "--check"]))?;
    let members = members()?;
    check("versions agree", || packages::versions(&members))?;
    // The benches too, with their peers: what of them is in C the examples build as well, and the
    // rest is only checked.
    step(
        "clippy",
        cargo(["clippy", "--workspace", "--all-targets", "--all-features"])
            .args(["--locked", "--", "--deny", "warnings"]),
    )?;
    step(
        "rustdoc",
        cargo(["doc", "--workspace", "--all-features", "--no-deps"])
            .arg("--locked")
            .env("RUSTDOCFLAGS", "--deny warnings"),
    )?;
    check("dependencies of annals", tree::check)?;
    features(&members)?;
    deny::run()?;
    packages::run(&members)?;
    println!("lint passed");
    Ok(())
}

/// Every set of at most two features compiles, of every published crate that has any.
fn features(members: &[Member]) -> Result<()> {
    for member in members
        .iter()
        .filter(|member| member.published && !member.features.is_empty())
    {
        for set in sets(&member.features) {
            step(
                &format!("features of {}: [{}]", member.name, set.join(" ")),
                cargo(["check", "--locked", "--no-default-features"])
                    .args(["--package", &member.name])
                    .args(["--features", &set.join(",")]),
            )?;
        }
    }
    Ok(())
}

/// The sets of none, one and two.
fn sets(all: &[String]) -> Vec<Vec<&str>> {
    let mut sets = vec![Vec::new()];
    for (i, one) in all.iter().enumerate() {
        sets.push(vec![one.as_str()]);
        for other in all.iter().skip(i + 1) {
            sets.push(vec![one, other]);
        }
    }
    sets
}

#[cfg(test)]
mod tests {
    use super::sets;

    #[test]
    fn every_pair_is_there_once() {
        let all = ["a", "b", "c"].map(str::to_owned);
        let sets: Vec<String> = sets(&all).iter().map(|set| set.concat()).collect();
        assert_eq!(sets, ["", "a", "ab", "ac", "b", "bc", "c"]);
    }
}
