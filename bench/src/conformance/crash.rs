//! Distinct crash points of the embedded log, tried by its own test.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::report::Report;

const ID: &str = "crash_points";
const TEST: &str = "every_crash_point_keeps_every_promise";
/// What the test says before the number.
const SAID: &str = "crash_points: ";

pub(super) fn run(report: &mut Report) -> Result<()> {
    if !report.wants(&[ID]) {
        return Ok(());
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["test", "--release", "--locked", "--quiet"])
        .args(["--package", "annals-embedded", "--test", "crash_points"])
        .args(["--", "--exact", TEST, "--nocapture"])
        .env("ANNALS_DEPTH", "full")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    let ended = command.output().context("cannot start cargo")?;
    let said = String::from_utf8_lossy(&ended.stdout);
    if !ended.status.success() {
        bail!("a crash point broke a promise, or was not tried:\n{said}");
    }
    let points = counted(&said).with_context(|| format!("{TEST} told no number:\n{said}"))?;
    report.count(ID, points, "distinct, each recovered twice alike");
    Ok(())
}

fn counted(said: &str) -> Option<f64> {
    let number = said.lines().find_map(|line| line.strip_prefix(SAID))?;
    number.trim().parse().ok()
}
