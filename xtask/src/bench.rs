//! `cargo xtask bench`: hands over to the bench package, which nobody else builds.

use anyhow::{Context, Result, bail};

use crate::step::cargo;

/// What is measured when nothing is named.
const ALL: [&str; 2] = ["embedded", "conformance"];

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Which benches; all when none is named.
    #[arg(default_values = ALL)]
    names: Vec<String>,
    /// Fewer rounds, all ids.
    #[arg(long)]
    quick: bool,
    /// Fail when a figure misses its bound.
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    for name in &arguments.names {
        let mut command = cargo(["run", "--release", "--quiet", "--locked"]);
        command.args(["--package", "annals-bench", "--", name]);
        if arguments.quick {
            command.arg("--quick");
        }
        if arguments.check {
            command.arg("--check");
        }
        let status = command.status().context("cannot start cargo")?;
        if !status.success() {
            bail!("bench {name}");
        }
    }
    Ok(())
}
