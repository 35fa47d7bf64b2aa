//! `cargo xtask test`: every test and every example, counted.

use std::io::pipe;
use std::process::Stdio;

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::laws;
use crate::step::{attempt, cargo, check};
use crate::workspace;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only these.
    #[arg(long, value_name = "NAME", num_args = 1.., value_delimiter = ',')]
    only: Vec<Part>,
}

/// What can be tested alone.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Core,
    Embedded,
    Conformance,
    Annals,
    Cli,
    Xtask,
    Examples,
}

impl Part {
    /// The crate whose tests these are; the examples are run, besides.
    fn package(self) -> Option<&'static str> {
        match self {
            Self::Core => Some("annals-core"),
            Self::Embedded => Some("annals-embedded"),
            Self::Conformance => Some("annals-conformance"),
            Self::Annals => Some("annals"),
            Self::Cli => Some("annals-cli"),
            Self::Xtask => Some("xtask"),
            Self::Examples => None,
        }
    }
}

/// How many tests there were.
#[derive(Default)]
struct Count {
    passed: u64,
    failed: u64,
    ignored: u64,
    /// The steps that failed, a failed compilation too.
    broken: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let chosen = |part: &Part| arguments.only.is_empty() || arguments.only.contains(part);
    let parts: Vec<Part> = Part::value_variants()
        .iter()
        .copied()
        .filter(chosen)
        .collect();
    let mut count = Count::default();
    let members = workspace::members()?;
    let packages: Vec<&str> = parts.iter().filter_map(|part| part.package()).collect();
    if !packages.is_empty() {
        laws::forget()?;
        count.cargo_test("tests", &packages, "--tests")?;
        count.table_of_laws();
    }
    let libraries: Vec<&str> = packages
        .into_iter()
        .filter(|name| members.iter().any(|m| m.library && m.name == *name))
        .collect();
    if !libraries.is_empty() {
        count.cargo_test("doc tests", &libraries, "--doc")?;
    }
    if parts.contains(&Part::Examples) {
        let with = members.iter().filter(|m| !m.examples.is_empty());
        let packages: Vec<&str> = with.clone().map(|m| m.name.as_str()).collect();
        if !packages.is_empty() {
            count.cargo_test("tests of examples", &packages, "--examples")?;
        }
        for example in with.flat_map(|m| &m.examples) {
            count.example(example)?;
        }
        count.unread("flights");
    }
    count.close()
}

impl Count {
    fn cargo_test(&mut self, name: &str, packages: &[&str], which: &str) -> Result<()> {
        let mut command = cargo([
            "test",
            "--locked",
            "--all-features",
            "--no-fail-fast",
            which,
        ]);
        for package in packages {
            command.args(["--package", package]);
        }
        let ended = attempt(name, &mut command)?;
        let (passed, failed) = (self.passed, self.failed);
        self.add(&ended.output);
        let (passed, failed) = (self.passed - passed, self.failed - failed);
        println!("  {passed} passed, {failed} failed");
        if !ended.success {
            println!("{}", ended.output.trim_end());
            self.broken.push(name.to_owned());
        }
        Ok(())
    }

    /// The table in README.md is what the laws' tests found, where all of them were run.
    fn table_of_laws(&mut self) {
        let name = "the table of laws in README.md";
        let compared = check(name, || {
            let reports = laws::gather()?;
            if laws::complete(&reports) {
                laws::compare(&reports)?;
            }
            Ok(())
        });
        match compared {
            Ok(()) => self.passed += 1,
            Err(error) => {
                println!("{error:#}");
                self.failed += 1;
                self.broken.push(name.to_owned());
            }
        }
    }

    /// An example without arguments checks itself and ends. Started as its reader would, without
    /// naming its package, so that all examples share one build.
    fn example(&mut self, example: &str) -> Result<()> {
        let name = format!("example {example}");
        let mut command = cargo(["run", "--quiet", "--locked", "--all-features"]);
        command.args(["--example", example]);
        let ended = attempt(&name, &mut command)?;
        if ended.success {
            self.passed += 1;
        } else {
            println!("{}", ended.output.trim_end());
            self.failed += 1;
            self.broken.push(name);
        }
        Ok(())
    }

    /// An example that nobody reads on ends quietly.
    fn unread(&mut self, example: &str) {
        let name = format!("example {example}, unread");
        let quiet = check(&name, || {
            let (reader, writer) = pipe()?;
            drop(reader);
            let mut command = cargo(["run", "--quiet", "--locked", "--all-features"]);
            command.args(["--example", example]);
            let ended = command.stdout(writer).stderr(Stdio::piped()).output()?;
            let said = String::from_utf8_lossy(&ended.stderr);
            if !ended.status.success() || !said.is_empty() {
                bail!("it ended with {}: {}", ended.status, said.trim_end());
            }
            Ok(())
        });
        match quiet {
            Ok(()) => self.passed += 1,
            Err(error) => {
                println!("{error:#}");
                self.failed += 1;
                self.broken.push(name);
            }
        }
    }

    /// Adds up the closing lines of test binaries:
    /// `test result: ok. 5 passed; 0 failed; 0 ignored; …`.
    fn add(&mut self, output: &str) {
        for line in output.lines() {
            let Some((_, counts)) = line
                .strip_prefix("test result: ")
                .and_then(|rest| rest.split_once(". "))
            else {
                continue;
            };
            for part in counts.split(';') {
                let Some((number, what)) = part.trim().split_once(' ') else {
                    continue;
                };
                let Ok(number) = number.parse::<u64>() else {
                    continue;
                };
                match what {
                    "passed" => self.passed += number,
                    "failed" => self.failed += number,
                    "ignored" => self.ignored += number,
                    _ => {}
                }
            }
        }
    }

    fn close(self) -> Result<()> {
        println!("{} passed, {} failed", self.passed, self.failed);
        if !self.broken.is_empty() {
            bail!("{}", self.broken.join(", "));
        }
        if self.ignored > 0 {
            bail!(
                "{} tests are ignored; a test is run or deleted",
                self.ignored
            );
        }
        if self.passed == 0 {
            bail!("no test was run");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_up_what_test_binaries_say() {
        let mut count = Count::default();
        count.add(
            "running 2 tests\n\
             test result: ok. 24 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
             noise 7 passed\n\
             test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.5s\n",
        );
        assert_eq!((count.passed, count.failed, count.ignored), (27, 2, 1));
        assert!(count.close().is_err());
        assert!(Count::default().close().is_err());
    }
}
