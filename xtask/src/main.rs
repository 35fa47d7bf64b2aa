//! The development commands of annals.
#![expect(
    clippy::print_stdout,
    reason = "a command line tool talks on standard output"
)]

mod bench;
mod laws;
mod lint;
mod saboteurs;
mod step;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The development commands of annals")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Unit, integration and doc tests of every crate, then every example.
    Test(test::Arguments),
    /// Format, clippy, rustdoc, licences and bans, features, dependencies, packaging.
    Lint,
    /// The suite on every backend: the table of laws, and whether README.md has it.
    Laws(laws::Arguments),
    /// Every saboteur by every law: fails when one survives.
    Saboteurs(saboteurs::Arguments),
    /// annals beside the raw file and its peers; numbers to target/bench.
    Bench(bench::Arguments),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Test(arguments) => test::run(&arguments),
        Command::Lint => lint::run(),
        Command::Laws(arguments) => laws::run(&arguments),
        Command::Saboteurs(arguments) => saboteurs::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}
