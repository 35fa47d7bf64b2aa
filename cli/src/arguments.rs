//! What can be said on the command line.
#![allow(clippy::doc_markdown, reason = "these comments are the text of --help")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use annals::address::{parse_duration, parse_retention};
use annals::capability::Retention;
use annals::{Address, Cursor, Group, Start, TopicName, Until};
use annals_conformance::{Law, Settings, runner};
use base64::Engine as _;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::bounds::{cursor, start, until};
use crate::exit::Failure;
use crate::{append, format, input};

const AFTER_HELP: &str = "\
Records as JSON (--format ndjson), one a line, read and follow print them and append takes them back:
  {\"position\":\"0@42\",\"stored_at\":\"2001-01-01T00:47:00.000Z\",\"timestamp\":\"2001-01-01T00:46:59.000Z\",
   \"key\":\"order-17\",\"id\":\"n-1\",\"headers\":[[\"trace\",\"4bf9\"],[\"flag\",null]],\"value\":\"placed\"}
  Bytes that are not UTF-8 are written {\"base64\":\"AP8=\"}. A value of null is no value; \"\" is an empty one.
  What a record does not have is left out. append reads over position and stored_at: the log gives new ones.

Exit codes:
  0    done; also when the reader of a pipe has gone, and when Ctrl-C ends a follow that has no end
  1    failed
  2    wrong usage: an option, a URL, a name, a cursor of another topic
  3    there is no such topic or group
  4    stored history is not whole: records are gone, or bytes on disk are not what was written
  5    some records may or may not be stored; standard error names their lines
  6    a law is violated (conformance)
  130  ended by Ctrl-C before it was done (143: by SIGTERM)

Results go to standard output, everything else to standard error.";

/// Append, read and follow topics of an annals log, and look after them.
#[derive(Debug, Parser)]
#[command(name = "annals", version, about, after_help = AFTER_HELP, max_term_width = 100)]
#[command(disable_help_subcommand = true)]
pub(crate) struct Arguments {
    /// Which log, for example file:./data
    #[arg(
        long,
        value_name = "URL",
        env = "ANNALS_URL",
        hide_env_values = true,
        global = true,
        display_order = 1000
    )]
    pub(crate) url: Option<String>,
    /// Say on standard error what is being done, besides warnings
    #[arg(short, long, global = true, display_order = 1001)]
    pub(crate) verbose: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Append(Append),
    Read(Read),
    Follow(Follow),
    Topics(Topics),
    Groups(Groups),
    Lag(Lag),
    Verify(Verify),
    Conformance(Conformance),
}

impl Command {
    /// Whether it may be the first one on a new log.
    pub(crate) fn makes_a_log(&self) -> bool {
        match self {
            Self::Append(append) => append.create,
            Self::Topics(topics) => matches!(topics.command, TopicsCommand::Create { .. }),
            _ => false,
        }
    }
}

/// Append lines of a file or of standard input as records
///
/// Lines are appended in order, in batches that are durable before the next one is. When it ends
/// early it says which lines are stored and with which --from-line to go on.
#[derive(Debug, Args)]
pub(crate) struct Append {
    /// The topic
    pub(crate) topic: String,
    /// What to read; standard input when it is left out or -
    pub(crate) file: Option<PathBuf>,
    /// How lines become records [default: ndjson, or json with --key]
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<input::Format>,
    /// The field of each line's JSON object whose string or number is the key (--format json)
    #[arg(long, value_name = "FIELD")]
    pub(crate) key: Option<String>,
    /// A header for every record; may be given again
    #[arg(long, value_name = "NAME=VALUE", value_parser = append::header)]
    pub(crate) header: Vec<(String, String)>,
    /// Make the topic if it is not there
    #[arg(long)]
    pub(crate) create: bool,
    /// Begin with this line of the input, the first being 1
    #[arg(long, value_name = "N", default_value_t = 1, hide_default_value = true,
        value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) from_line: u64,
}

impl Append {
    pub(crate) fn format(&self) -> input::Format {
        match (self.format, &self.key) {
            (Some(format), _) => format,
            (None, Some(_)) => input::Format::Json,
            (None, None) => input::Format::Ndjson,
        }
    }

    fn check(&self) -> Result<(), Failure> {
        if self.key.is_some() && self.format() != input::Format::Json {
            return Err(Failure::usage(
                "--key takes a field of lines that are values, so it needs --format json; records in ndjson have keys of their own",
            ));
        }
        Ok(())
    }
}

#[derive(Debug, Args)]
pub(crate) struct Reading {
    /// Where to start: beginning (an error where its records are gone), earliest (what is still
    /// kept), latest, after:CURSOR, since:TIME
    #[arg(long, value_name = "START", value_parser = start)]
    pub(crate) from: Option<Start>,
    /// Only records of this key
    #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
    key: Option<String>,
    /// Only records of this key, given as base64
    #[arg(long, value_name = "BASE64", conflicts_with = "key")]
    key_base64: Option<String>,
    /// End after so many records
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// How to print records
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = format::Format::Ndjson)]
    pub(crate) format: format::Format,
    /// Go on from the cursor in this file, if it is there, and keep in it the cursor behind what
    /// was written: about every second, and at the end
    #[arg(long, value_name = "FILE")]
    pub(crate) cursor_file: Option<PathBuf>,
    /// Where records are gone, say so and go on behind them
    #[arg(long)]
    pub(crate) over_gaps: bool,
}

impl Reading {
    pub(crate) fn key(&self) -> Result<Option<Vec<u8>>, Failure> {
        if let Some(encoded) = &self.key_base64 {
            let key = base64::engine::general_purpose::STANDARD.decode(encoded);
            return key
                .map(Some)
                .map_err(|_| Failure::usage("--key-base64 is not base64 with its padding"));
        }
        Ok(self.key.as_ref().map(|key| key.as_bytes().to_vec()))
    }
}

/// Print records in order, and end
///
/// Prints on standard error, as its last line, the cursor behind what was written; go on with
/// --from after:CURSOR. A TIME is log time: 2001-01-01T00:47:00Z, milliseconds since 1970, or -15m.
#[derive(Debug, Args)]
pub(crate) struct Read {
    /// The topic
    pub(crate) topic: String,
    #[command(flatten)]
    pub(crate) reading: Reading,
    /// Where to stop: end (as it is at the start), through:CURSOR, before:TIME [default: end]
    #[arg(long, value_name = "STOP", value_parser = until)]
    pub(crate) until: Option<Until>,
}

/// Print records in order as they are appended, from the latest on unless told otherwise
///
/// Prints on standard error, as its last line, the cursor behind what was written; go on with
/// --from after:CURSOR. A TIME is log time: 2001-01-01T00:47:00Z, milliseconds since 1970, or -15m.
#[derive(Debug, Args)]
pub(crate) struct Follow {
    /// The topic
    pub(crate) topic: String,
    #[command(flatten)]
    pub(crate) reading: Reading,
    /// Where to stop: end (as it is at the start), through:CURSOR, before:TIME [default: never]
    #[arg(long, value_name = "STOP", value_parser = until)]
    pub(crate) until: Option<Until>,
}

/// List, create, describe and delete topics
#[derive(Debug, Args)]
pub(crate) struct Topics {
    #[command(subcommand)]
    pub(crate) command: TopicsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TopicsCommand {
    /// Print the names of all topics
    List {
        /// As one line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a topic; one that is there and is as asked stays as it is
    Create {
        /// The topic
        #[arg(value_parser = topic_name)]
        topic: TopicName,
        /// How many partitions
        #[arg(long, value_name = "N")]
        partitions: Option<u32>,
        /// What is kept: forever, a time like 30d or a size like 10GiB
        #[arg(long, value_name = "SPAN", value_parser = retention)]
        retention: Option<Retention>,
        /// For how long a repeated id is recognised, like 10m
        #[arg(long, value_name = "TIME", value_parser = duration)]
        dedupe: Option<Duration>,
        /// A group to make with it; may be given again
        #[arg(long, value_name = "GROUP", value_parser = group_name)]
        group: Vec<Group>,
        /// Which kind of topic, where the backend has several
        #[arg(long, value_name = "KIND")]
        kind: Option<String>,
    },
    /// Print what a topic is and what it promises
    Describe {
        /// The topic
        #[arg(value_parser = topic_name)]
        topic: TopicName,
        /// As one line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Delete a topic with all its records and groups
    Delete {
        /// The topic
        #[arg(value_parser = topic_name)]
        topic: TopicName,
    },
}

/// List, create and delete the groups of a topic
#[derive(Debug, Args)]
pub(crate) struct Groups {
    #[command(subcommand)]
    pub(crate) command: GroupsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum GroupsCommand {
    /// Print a topic's groups, how far each has come and who is in it
    List {
        /// The topic
        #[arg(value_parser = topic_name)]
        topic: TopicName,
        /// As one line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a group; one that is there stays where it is
    Create {
        /// The topic
        #[arg(value_parser = topic_name)]
        topic: TopicName,
        /// The group
        #[arg(value_parser = group_name)]
        group: Group,
        /// Where it starts: beginning, earliest, latest, after:CURSOR, since:TIME; unless told
        /// otherwise at the beginning of a log, and on a queue at what comes from now on
        #[arg(long, value_name = "START", value_parser = start)]
        from: Option<Start>,
    },
    /// Delete a group with its place in the topic
    Delete {
        /// The topic
        #[arg(value_parser = topic_name)]
        topic: TopicName,
        /// The group
        #[arg(value_parser = group_name)]
        group: Group,
    },
}

/// Print how far a group, or a cursor, is behind the end of a topic
#[derive(Debug, Args)]
#[command(override_usage = "annals lag [OPTIONS] <TOPIC> <GROUP|--cursor <CURSOR>>")]
#[command(group = clap::ArgGroup::new("place").required(true).args(["group", "cursor"]))]
pub(crate) struct Lag {
    /// The topic
    #[arg(value_parser = topic_name)]
    pub(crate) topic: TopicName,
    /// The group
    #[arg(value_parser = group_name)]
    pub(crate) group: Option<Group>,
    /// A cursor, instead of a group
    #[arg(long, value_parser = cursor)]
    pub(crate) cursor: Option<Cursor>,
    /// As one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Check every checksum of an embedded log (file:PATH)
///
/// Reads all records that are stored when it starts; writes nothing and takes no lock, so it works
/// beside a process that writes. Exits with 4 when something is broken, and names where. A topic is
/// "whole", "damaged" (all records can be read, a small file beside them is broken) or "BROKEN". An
/// index that is stale or broken is told and changes nothing: it is made anew when it is needed.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Only these topics
    #[arg(value_parser = topic_name)]
    pub(crate) topics: Vec<TopicName>,
}

/// Find out what a log really promises: try the laws on it
///
/// Makes topics of its own, whose names it tells, and removes them at the end and on Ctrl-C. On a
/// service that is not on this machine it asks first. The service is not killed, restarted or
/// trimmed: what that would show is listed as not exercised. Exits with 6 when a law is violated.
#[derive(Debug, Args)]
pub(crate) struct Conformance {
    /// Which log [default: what --url says]
    #[arg(value_name = "URL")]
    pub(crate) log: Option<String>,
    /// Only these laws
    #[arg(long, value_name = "NAME", num_args = 1.., value_parser = law)]
    law: Vec<Law>,
    /// Write a report: all the evidence as JSON (.json), or as one page (.html)
    #[arg(long, value_name = "FILE", value_parser = report)]
    pub(crate) report: Option<PathBuf>,
    /// How much is tried
    #[arg(long, value_enum, value_name = "DEPTH", default_value_t = Depth::Quick)]
    depth: Depth,
    /// Where all dice come from: the same seed throws the same
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Depth {
    /// Every law, with a fault
    Quick,
    /// Everything
    Full,
}

impl Conformance {
    /// Those that were asked for, in the order in which laws are shown.
    pub(crate) fn laws(&self) -> Vec<Law> {
        let mut laws = annals_conformance::law::all();
        if !self.law.is_empty() {
            laws.retain(|law| self.law.iter().any(|asked| asked.name() == law.name()));
        }
        laws
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings {
            depth: match self.depth {
                Depth::Quick => runner::Depth::Quick,
                Depth::Full => runner::Depth::Full,
            },
            seed: self.seed,
            ..Settings::default()
        }
    }
}

fn law(text: &str) -> Result<Law, String> {
    let name = text.replace([' ', '-'], "_");
    annals_conformance::law::by_name(&name).ok_or_else(|| {
        let all = annals_conformance::law::all();
        let names: Vec<&str> = all.iter().map(Law::name).collect();
        format!("there are {}", names.join(", "))
    })
}

fn report(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.extension().and_then(std::ffi::OsStr::to_str) {
        Some("json" | "html") => Ok(path),
        _ => Err("name it FILE.json or FILE.html".to_owned()),
    }
}

fn topic_name(text: &str) -> Result<TopicName, String> {
    TopicName::new(text).map_err(|e| e.message().to_owned())
}

fn group_name(text: &str) -> Result<Group, String> {
    Group::new(text).map_err(|e| e.message().to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "write it as 250ms, 10s, 5m, 12h or 7d".to_owned())
}

fn retention(text: &str) -> Result<Retention, String> {
    parse_retention(text).ok_or_else(|| "write it as forever, 30d or 10GiB".to_owned())
}

/// Reads the command line; what is wrong with it, or help, has been printed when this fails.
pub(crate) fn parse() -> Result<Arguments, ExitCode> {
    let error = match Arguments::try_parse() {
        Ok(arguments) => {
            if let Command::Append(append) = &arguments.command {
                append.check().map_err(|failure| failure.exit())?;
            }
            return Ok(arguments);
        }
        Err(error) => error,
    };
    let code = error.exit_code();
    if !error.use_stderr() {
        let _ = error.print();
        return Err(ExitCode::SUCCESS);
    }
    // A URL in the wrong place is repeated by the parser, its password too.
    let mut text = error.render().to_string();
    for argument in std::env::args() {
        for word in [argument.as_str()].into_iter().chain(argument.split('=')) {
            if word.contains("://") && word.contains('@') {
                let shown = word
                    .parse::<Address>()
                    .map_or_else(|_| "URL".to_owned(), |address| address.to_string());
                text = text.replace(word, &shown);
            }
        }
    }
    let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
    Err(ExitCode::from(u8::try_from(code).unwrap_or(2)))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::bounds::{FROM, UNTIL};

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
        // The two places that say what a start and a stop may be say the same.
        let mut read = Arguments::command();
        let help = read
            .find_subcommand_mut("read")
            .unwrap()
            .render_long_help()
            .to_string();
        for word in FROM.split('|').chain(UNTIL.split('|')) {
            assert!(help.contains(word), "{word}");
        }
    }

    #[test]
    fn spans_and_sizes_are_told_apart() {
        assert_eq!(retention("forever"), Ok(Retention::Forever));
        assert_eq!(
            retention("30d"),
            Ok(Retention::Age(Duration::from_secs(30 * 86_400)))
        );
        assert_eq!(retention("10GiB"), Ok(Retention::Bytes(10 << 30)));
        assert!(retention("much").is_err() && retention("30").is_err() && duration("10").is_err());
    }
}
