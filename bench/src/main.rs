//! annals beside raw files and its peers; `cargo xtask bench` runs it.
//!
//! Ours and the other are measured in turn, round by round in one run, and compared round by
//! round: what slows the machine slows both. Every side is as durable as the other.
#![expect(
    clippy::print_stdout,
    reason = "a command line tool talks on standard output"
)]
#![expect(
    clippy::cast_precision_loss,
    reason = "figures are floats, and none of them comes near 2^53"
)]

mod allocations;
mod conformance;
mod data;
mod embedded;
mod peers;
mod raw;
mod report;
mod rounds;

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser;

use report::Report;
use rounds::Effort;

#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;

#[derive(Parser)]
#[command(about = "annals beside raw files and its peers")]
struct Arguments {
    /// What to measure: embedded or conformance.
    name: String,
    /// Fewer rounds, all ids.
    #[arg(long)]
    quick: bool,
    /// Only ids that begin with this; the file is not written.
    #[arg(long, value_name = "PREFIX")]
    only: Option<String>,
    /// Fail when a figure misses its bound.
    #[arg(long)]
    check: bool,
}

fn run(arguments: &Arguments) -> Result<()> {
    let effort = Effort::new(arguments.quick);
    let only = arguments.only.clone();
    let (report, measured) = match arguments.name.as_str() {
        "embedded" => {
            let mut report = Report::new("embedded", only)?;
            let measured = embedded::run(effort, &mut report);
            (report, measured)
        }
        "conformance" => {
            let mut report = Report::new("conformance", only)?;
            let measured = conformance::run(effort, &mut report);
            (report, measured)
        }
        name => bail!("there is no bench {name:?}; there are: embedded, conformance"),
    };
    if measured.is_ok() && arguments.only.is_none() {
        println!("figures in {}", report.write()?.display());
    }
    measured?;
    let missed = report.missed();
    if missed.is_empty() {
        println!("every bound is met");
    } else {
        println!("missed: {}", missed.join(", "));
        if arguments.check {
            bail!("{} bounds are missed", missed.len());
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}
