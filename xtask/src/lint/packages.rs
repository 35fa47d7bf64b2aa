//! What goes to the registry.

use anyhow::{Result, bail};

use crate::step::{cargo, check, output_of, run as step};
use crate::workspace::{self, Member};

/// What every published crate carries.
const EXPECTED: [&str; 5] = [
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "src",
];

/// All members have one version, and ask each other for it.
pub(super) fn versions(members: &[Member]) -> Result<()> {
    let Some(first) = members.first() else {
        bail!("the workspace is empty");
    };
    for member in members {
        if member.version != first.version {
            bail!(
                "{} is {}, {} is {}",
                first.name,
                first.version,
                member.name,
                member.version
            );
        }
        for (name, requirement) in &member.within {
            if *requirement != format!("^{}", member.version) {
                bail!(
                    "{} asks for {name} {requirement}, which is {}",
                    member.name,
                    member.version
                );
            }
        }
    }
    Ok(())
}

/// Every published crate packs whole, and builds from what was packed.
pub(super) fn run(members: &[Member]) -> Result<()> {
    for member in members.iter().filter(|member| member.published) {
        let list = output_of(
            cargo(["package", "--list", "--allow-dirty", "--locked"])
                .args(["--package", &member.name]),
        )?;
        check(&format!("contents of {}", member.name), || contents(&list))?;
    }
    // In a folder of a new name, because cargo keeps what it unpacks by that name and the version:
    // in an old one it would build the sources of the last time.
    let cache = workspace::cache()?;
    std::fs::create_dir_all(&cache)?;
    let target = tempfile::Builder::new()
        .prefix("package-")
        .tempdir_in(cache)?;
    let mut command = cargo(["package", "--workspace", "--allow-dirty", "--locked"]);
    command.arg("--target-dir").arg(target.path());
    for member in members.iter().filter(|member| !member.published) {
        command.args(["--exclude", &member.name]);
    }
    step("packages", &mut command)?;
    Ok(())
}

fn contents(list: &str) -> Result<()> {
    for expected in EXPECTED {
        let there = list
            .lines()
            .any(|line| line.split('/').next() == Some(expected));
        if !there {
            bail!("{expected} is missing");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(version: &str, requirement: &str) -> Member {
        Member {
            name: "a".to_owned(),
            version: version.to_owned(),
            published: true,
            library: true,
            examples: Vec::new(),
            features: Vec::new(),
            within: vec![("b".to_owned(), requirement.to_owned())],
        }
    }

    #[test]
    fn versions_that_differ_are_found() {
        versions(&[member("0.1.0", "^0.1.0"), member("0.1.0", "^0.1.0")]).unwrap();
        assert!(versions(&[member("0.1.0", "^0.1.0"), member("0.2.0", "^0.2.0")]).is_err());
        assert!(versions(&[member("0.2.0", "^0.1.0")]).is_err());
        assert!(versions(&[member("0.2.0", "*")]).is_err());
    }

    #[test]
    fn a_missing_licence_is_found() {
        let whole = "Cargo.toml\nLICENSE-APACHE\nLICENSE-MIT\nREADME.md\nsrc/lib.rs\n";
        contents(whole).unwrap();
        assert!(contents(&whole.replace("LICENSE-MIT\n", "")).is_err());
    }
}
