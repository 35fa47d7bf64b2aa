//! cargo-deny: bans, licences and sources always; advisories where their database can be had.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::step::{self, cargo, program};
use crate::workspace;

const VERSION: &str = "0.20.2";
/// How long the database of advisories may take to arrive.
const FETCH: Duration = Duration::from_secs(60);

pub(super) fn run() -> Result<()> {
    let deny = install()?;
    let check = |what: &[&str]| {
        let mut command = program(&deny);
        command.args([
            "--log-level",
            "warn",
            "--workspace",
            "--all-features",
            "check",
            "--hide-inclusion-graph",
        ]);
        command.args(what);
        command
    };
    step::run(
        "bans, licences, sources",
        &mut check(&["bans", "licenses", "sources"]),
    )?;
    if fetch(&deny)? {
        step::run("advisories", &mut check(&["--disable-fetch", "advisories"]))?;
    } else {
        println!("advisories ... NOT CHECKED: their database cannot be had from here");
    }
    Ok(())
}

/// The tool, built once and kept outside of the clone.
fn install() -> Result<PathBuf> {
    let root = workspace::cache()?.join("tools");
    let deny = root.join("bin/cargo-deny");
    let there = step::collect(program(&deny).arg("--version"))
        .is_ok_and(|said| said.success && said.output.trim().ends_with(VERSION));
    if !there {
        step::run(
            "install cargo-deny",
            cargo(["install", "cargo-deny", "--version", VERSION])
                .args(["--locked", "--no-default-features", "--force", "--root"])
                .arg(&root),
        )?;
    }
    Ok(deny)
}

/// Whether the database of advisories is there and current.
fn fetch(deny: &PathBuf) -> Result<bool> {
    let mut fetch: Command = program(deny);
    fetch
        .args(["fetch", "db"])
        .env("GIT_TERMINAL_PROMPT", "0")
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    let mut child = fetch.spawn()?;
    let since = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        if since.elapsed() > FETCH {
            child.kill()?;
            child.wait()?;
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
