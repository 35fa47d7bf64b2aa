//! Runs the real binary on a log of its own.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "each test file uses a part; helpers of tests fail their test"
)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A test that waits longer than this has failed.
const LONGEST: Duration = Duration::from_secs(120);

pub(crate) struct Log {
    pub(crate) dir: TempDir,
    options: &'static str,
}

/// What a run has left.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
}

impl Done {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.out).unwrap()
    }

    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    /// The cursor that it printed.
    pub(crate) fn cursor(&self) -> String {
        let mut cursors = self
            .err
            .lines()
            .filter_map(|line| line.strip_prefix("annals: cursor: "));
        let cursor = cursors.next().unwrap_or_else(|| panic!("{self:?}"));
        assert_eq!(cursors.next(), None);
        cursor.to_owned()
    }

    /// Fails with this code and one line on standard error that holds all of these.
    pub(crate) fn fails(&self, code: i32, says: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        assert_eq!(self.err.lines().count(), 1, "{self:?}");
        for word in says {
            assert!(self.err.contains(word), "{word}: {self:?}");
        }
    }
}

impl Log {
    pub(crate) fn new() -> Self {
        Self::with("")
    }

    /// With options in its URL.
    pub(crate) fn with(options: &'static str) -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            options,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_annals"));
        let url = format!("file:{}/log{}", self.path().display(), self.options);
        command
            .args(arguments)
            .env("ANNALS_URL", url)
            .current_dir(self.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        Running::of(&mut self.command(arguments))
    }

    /// Runs it to its end with this on standard input.
    pub(crate) fn run_with(&self, arguments: &[&str], input: &[u8]) -> Done {
        let mut running = self.start(arguments);
        let mut to = running.input.take().unwrap();
        let input = input.to_vec();
        // It may end before it has read all.
        let feeding = std::thread::spawn(move || drop(to.write_all(&input)));
        let done = running.finish();
        feeding.join().unwrap();
        done
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Done {
        self.run_with(arguments, b"")
    }

    /// So many lines, `line 0` and so on, as values of a new topic.
    pub(crate) fn fill(&self, topic: &str, lines: usize) {
        let lines: Vec<String> = (0..lines).map(|n| format!("line {n}\n")).collect();
        let arguments = ["append", topic, "--create", "--format", "lines"];
        self.run_with(&arguments, lines.concat().as_bytes()).ok();
    }

    /// The values of a topic.
    pub(crate) fn values(&self, topic: &str) -> String {
        let read = self.run(&["read", topic, "--format", "value"]).ok();
        read.text().to_owned()
    }
}

/// A command that goes on.
pub(crate) struct Running {
    child: Child,
    pub(crate) input: Option<ChildStdin>,
    pub(crate) output: Option<BufReader<ChildStdout>>,
    errors: Option<BufReader<ChildStderr>>,
    /// Kills it when it takes too long, and says so.
    watch: (mpsc::Sender<()>, JoinHandle<bool>),
}

fn reading(from: Option<impl std::io::Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut from) = from {
            from.read_to_end(&mut bytes).unwrap();
        }
        bytes
    })
}

impl Running {
    pub(crate) fn of(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        let (ended, waiting) = mpsc::channel::<()>();
        let watch = std::thread::spawn(move || {
            let late = waiting.recv_timeout(LONGEST) == Err(mpsc::RecvTimeoutError::Timeout);
            if late {
                let _ = kill_process(pid, Signal::KILL);
            }
            late
        });
        Self {
            input: child.stdin.take(),
            output: child.stdout.take().map(BufReader::new),
            errors: child.stderr.take().map(BufReader::new),
            child,
            watch: (ended, watch),
        }
    }

    /// Waits for the next line of what it says on standard error.
    pub(crate) fn told(&mut self) -> String {
        let mut line = String::new();
        self.errors.as_mut().unwrap().read_line(&mut line).unwrap();
        line
    }

    /// Waits for the next line of its output.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        let output = self.output.as_mut().unwrap();
        assert_ne!(
            output.read_line(&mut line).unwrap(),
            0,
            "its output has ended"
        );
        line
    }

    pub(crate) fn type_in(&mut self, text: &str) {
        let input = self.input.as_mut().unwrap();
        input.write_all(text.as_bytes()).unwrap();
        input.flush().unwrap();
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// Waits for its end; what it still has to say is read.
    pub(crate) fn finish(mut self) -> Done {
        let (out, err) = (reading(self.output.take()), reading(self.errors.take()));
        let status = self.child.wait().unwrap();
        let (ended, watch) = self.watch;
        drop(ended);
        assert!(!watch.join().unwrap(), "it did not end");
        Done {
            code: status.code().expect("it exits by itself"),
            out: out.join().unwrap(),
            err: String::from_utf8(err.join().unwrap()).unwrap(),
        }
    }
}

/// The number of a position in a printed record.
pub(crate) fn number(line: &str) -> u64 {
    let record: serde_json::Value = serde_json::from_str(line).unwrap();
    let position = record["position"].as_str().unwrap();
    position.strip_prefix("0@").unwrap().parse().unwrap()
}

/// The number of the position that a cursor is behind.
pub(crate) fn behind(cursor: &str) -> u64 {
    cursor.rsplit_once("0=a").unwrap().1.parse().unwrap()
}
