//! A cursor kept in a file, so that the next run goes on where this one ended.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use annals::Cursor;

use crate::exit::Failure;

/// How much of a reading may be repeated after a crash: the time between two savings.
const EVERY: Duration = Duration::from_secs(1);

/// A file that holds a cursor. It is replaced whole, so it always holds one.
#[derive(Debug)]
pub(crate) struct CursorFile {
    path: PathBuf,
    saved: Option<Cursor>,
    at: Instant,
}

impl CursorFile {
    /// Reads it; a file that is not there holds none yet.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let saved = match fs::read_to_string(path) {
            Ok(text) => Some(text.trim().parse().map_err(|_| {
                Failure::usage(format!(
                    "the file {} holds no cursor; name one that annals wrote, or one that is not there yet",
                    path.display()
                ))
            })?),
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            Err(e) => {
                return Err(Failure::failed(format!(
                    "the cursor cannot be read from {}: {e}",
                    path.display()
                )));
            }
        };
        Ok(Self {
            path: path.to_owned(),
            saved,
            at: Instant::now(),
        })
    }

    /// What it holds.
    pub(crate) fn cursor(&self) -> Option<&Cursor> {
        self.saved.as_ref()
    }

    /// When a cursor that is not saved yet is due.
    pub(crate) fn due(&self) -> Instant {
        self.at + EVERY
    }

    /// Saves it durably, unless it is there already. Blocks.
    pub(crate) fn save(&mut self, cursor: &Cursor) -> Result<(), Failure> {
        self.at = Instant::now();
        if self.saved.as_ref() == Some(cursor) {
            return Ok(());
        }
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.new", std::process::id()));
        let new = self.path.with_file_name(name);
        let write = || {
            let mut file = File::create(&new)?;
            writeln!(file, "{cursor}")?;
            file.sync_all()?;
            fs::rename(&new, &self.path)?;
            let dir = match self.path.parent() {
                Some(dir) if !dir.as_os_str().is_empty() => dir,
                _ => Path::new("."),
            };
            File::open(dir)?.sync_all()
        };
        write().map_err(|e| {
            let _ = fs::remove_file(&new);
            Failure::failed(format!(
                "the cursor cannot be saved in {}: {e}",
                self.path.display()
            ))
        })?;
        self.saved = Some(cursor.clone());
        Ok(())
    }
}
