//! This test binary once more, as another process that plays a role.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// What a line of a role begins with; the test runner's own lines have none, but the first one
/// may stand behind what the runner says.
pub(crate) const MARK: &str = "@@ ";
pub(crate) const ROLE: &str = "ANNALS_TEST_ROLE";
pub(crate) const ROOT: &str = "ANNALS_TEST_ROOT";
pub(crate) const WORD: &str = "ANNALS_TEST_WORD";

/// Longer than anything takes that is not stuck.
const STUCK: Duration = Duration::from_secs(30);

/// A process that plays a role. Dropped, it is killed.
pub(crate) struct Child {
    process: std::process::Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
}

impl Child {
    /// Starts `role` on the log in `root`; `word` is the role's own.
    pub(crate) fn start(role: &str, root: &Path, word: &str) -> Self {
        // A file that grows over the limit is an error to the process, no signal that ends it.
        let mut process = Command::new("sh")
            .args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"])
            .arg(std::env::current_exe().unwrap())
            .args(["plays_a_role", "--exact", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(ROOT, root)
            .env(WORD, word)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = process.stdin.take().unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if let Some((_, line)) = line.split_once(MARK)
                    && sender.send(line.to_owned()).is_err()
                {
                    return;
                }
            }
        });
        Self {
            process,
            stdin,
            lines,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn say(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").unwrap();
    }

    /// Its next line; `None` once it has ended.
    pub(crate) fn line(&mut self) -> Option<String> {
        match self.lines.recv_timeout(STUCK) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("the other process says nothing"),
        }
    }

    /// Its next line, which it must have.
    pub(crate) fn hear(&mut self) -> String {
        self.line()
            .unwrap_or_else(|| panic!("the other process ended"))
    }

    pub(crate) fn ask(&mut self, line: &str) -> String {
        self.say(line);
        self.hear()
    }

    /// Whether it says nothing for so long.
    pub(crate) fn is_silent(&mut self, long: Duration) -> bool {
        matches!(
            self.lines.recv_timeout(long),
            Err(RecvTimeoutError::Timeout)
        )
    }

    /// `kill -9`; what it had said can still be heard.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
