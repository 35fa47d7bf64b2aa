//! One command that is run quietly: its output is shown only when it fails.

use std::ffi::OsStr;
use std::io::{Read, Write, pipe, stdout};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::workspace;

/// What a command said and how it ended.
pub(crate) struct Ended {
    pub(crate) success: bool,
    pub(crate) output: String,
}

/// `cargo` with these arguments, at the root of the workspace.
pub(crate) fn cargo<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = program(cargo);
    command.args(arguments);
    command
}

/// A program, at the root of the workspace, without standard input.
pub(crate) fn program(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(workspace::root()).stdin(Stdio::null());
    command
}

/// Runs `command` as a step called `name`; an error when it fails, after its output.
pub(crate) fn run(name: &str, command: &mut Command) -> Result<String> {
    let ended = attempt(name, command)?;
    if !ended.success {
        println!("{}", ended.output.trim_end());
        bail!("{name}");
    }
    Ok(ended.output)
}

/// Runs `command` as a step called `name` and says how it ended.
pub(crate) fn attempt(name: &str, command: &mut Command) -> Result<Ended> {
    begin(name);
    let since = Instant::now();
    let ended = collect(command)?;
    end(if ended.success { "ok" } else { "FAILED" }, since.elapsed());
    Ok(ended)
}

/// Runs a check that is no command.
pub(crate) fn check(name: &str, check: impl FnOnce() -> Result<()>) -> Result<()> {
    begin(name);
    let since = Instant::now();
    let checked = check();
    end(
        if checked.is_ok() { "ok" } else { "FAILED" },
        since.elapsed(),
    );
    checked.with_context(|| name.to_owned())
}

fn begin(name: &str) {
    print!("{name} ... ");
    // A closed standard output is no reason to stop.
    stdout().flush().ok();
}

fn end(how: &str, took: Duration) {
    println!("{how} ({:.1} s)", took.as_secs_f64());
}

/// Runs `command` without a word; both its outputs in the order in which they were written.
pub(crate) fn collect(command: &mut Command) -> Result<Ended> {
    let shown = format!("{command:?}");
    let (mut reader, writer) = pipe()?;
    command.stdout(writer.try_clone()?).stderr(writer);
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start {shown}"))?;
    // The command holds the pipe's ends for as long as it lives; the reading below ends when the
    // last writer is gone.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut output = Vec::new();
    reader.read_to_end(&mut output)?;
    Ok(Ended {
        success: child.wait()?.success(),
        output: String::from_utf8_lossy(&output).into_owned(),
    })
}

/// What `command` writes to standard output; an error with all it said when it fails.
pub(crate) fn output_of(command: &mut Command) -> Result<String> {
    let output = command
        .stderr(Stdio::piped())
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?} failed:\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8(output.stdout)?)
}
