#![doc = include_str!("../README.md")]

mod append;
mod arguments;
mod bounds;
mod bus;
mod conformance;
mod cursor_file;
mod diagnostics;
mod exit;
mod format;
mod groups;
mod input;
mod lag;
mod ndjson;
mod output;
mod read;
mod stop;
mod table;
mod topics;
mod verify;

use std::process::ExitCode;

use arguments::{Arguments, Command};
use exit::{Failure, tell};
use stop::Stop;

fn main() -> ExitCode {
    let arguments = match arguments::parse() {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    diagnostics::show(arguments.verbose);
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(e) => return Failure::failed(format!("no runtime can be started: {e}")).exit(),
    };
    let done = runtime.block_on(run(arguments));
    // A thread that waits for input or output that never comes is not waited for.
    runtime.shutdown_background();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.exit(),
    }
}

async fn run(Arguments { url, command, .. }: Arguments) -> Result<(), Failure> {
    let stop = Stop::install()?;
    if let Command::Conformance(arguments) = &command {
        return conformance::run(url.as_deref(), arguments, &stop).await;
    }
    let url = bus::url(url.as_deref())?;
    if let Command::Verify(arguments) = &command {
        return verify::run(url, arguments, &stop).await;
    }
    let bus = stop.or(bus::connect(url)).await?;
    if !command.makes_a_log() {
        bus::is_there(url)?;
    }
    let done = match &command {
        Command::Append(arguments) => append::run(&bus, arguments, &stop).await,
        Command::Read(arguments) => read::read(&bus, arguments, &stop).await,
        Command::Follow(arguments) => read::follow(&bus, arguments, &stop).await,
        Command::Topics(arguments) => stop.or(topics::run(&bus, arguments, &stop)).await,
        Command::Groups(arguments) => stop.or(groups::run(&bus, arguments, &stop)).await,
        Command::Lag(arguments) => stop.or(lag::run(&bus, arguments, &stop)).await,
        Command::Verify(_) | Command::Conformance(_) => Ok(()),
    };
    let closed = bus.close(annals::defaults::GRACE).await;
    match (done, closed) {
        (Ok(()), Err(error)) => Err(error.into()),
        (Err(failure), Err(error)) => {
            tell(&failure);
            Err(failure.after(&error))
        }
        (done, Ok(())) => done,
    }
}
