//! Verdicts as files.

mod html;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::runner::Settings;
use crate::verdict::Verdict;

/// What the laws say of one backend.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The backend's name.
    pub backend: String,
    /// The service behind it.
    pub service: String,
    /// Its version.
    pub version: String,
    /// `quick` or `full`.
    pub depth: String,
    /// One verdict a law.
    pub laws: Vec<Verdict>,
}

impl Report {
    /// Takes over what `other`, of the same backend, found worse: violated before refused before
    /// upheld, and the smaller reach.
    pub fn worsen(&mut self, other: &Self) {
        for theirs in &other.laws {
            match self.laws.iter_mut().find(|mine| mine.law == theirs.law) {
                None => self.laws.push(theirs.clone()),
                Some(mine) if (theirs.state, theirs.reach) > (mine.state, mine.reach) => {
                    *mine = theirs.clone();
                }
                Some(_) => {}
            }
        }
    }
}

/// Where verdicts are left: `target/laws` of the workspace, or what `ANNALS_LAWS_DIR` names.
pub fn directory() -> PathBuf {
    if let Some(set) = std::env::var_os("ANNALS_LAWS_DIR") {
        return set.into();
    }
    // Tests run in their package's folder; the workspace is the outermost one with a lock file.
    let here = std::env::current_dir().unwrap_or_default();
    let root = here
        .ancestors()
        .filter(|folder| folder.join("Cargo.lock").exists())
        .last();
    root.unwrap_or(&here).join("target").join("laws")
}

/// Leaves one verdict, for [`collect`].
///
/// # Errors
/// What the file system says.
pub(crate) fn leave(
    backend: &str,
    (service, version): &(String, String),
    settings: &Settings,
    verdict: &Verdict,
) -> io::Result<()> {
    let folder = directory()
        .join("parts")
        .join(format!("{backend}@{service}-{version}"));
    fs::create_dir_all(&folder)?;
    let report = Report {
        backend: backend.into(),
        service: service.clone(),
        version: version.clone(),
        depth: settings.depth.as_str().into(),
        laws: vec![verdict.clone()],
    };
    // Renamed into place: a reader sees a whole file or none.
    let whole = folder.join(format!("{}.json", verdict.law));
    let part = folder.join(format!(".{}.{}", verdict.law, std::process::id()));
    fs::write(&part, serde_json::to_vec_pretty(&report)?)?;
    fs::rename(&part, &whole)
}

/// Puts the verdicts that tests left together, one report for each backend and service.
///
/// # Errors
/// What the file system says; a file that is no report.
pub fn collect(directory: &Path) -> io::Result<Vec<Report>> {
    let mut reports = Vec::new();
    for folder in listed(&directory.join("parts"))? {
        let mut whole: Option<Report> = None;
        for file in listed(&folder)? {
            if file.extension().is_none_or(|end| end != "json") {
                continue;
            }
            let part: Report = serde_json::from_slice(&fs::read(&file)?)?;
            match &mut whole {
                None => whole = Some(part),
                Some(report) => report.laws.extend(part.laws),
            }
        }
        reports.extend(whole);
    }
    Ok(reports)
}

fn listed(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = match fs::read_dir(folder) {
        Ok(entries) => entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<io::Result<Vec<_>>>()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::{Case, Counts, Fate};

    fn report(fate: Fate) -> Report {
        let case = Case {
            case: "plain".into(),
            fate,
        };
        Report {
            backend: "b".into(),
            service: "s".into(),
            version: "1".into(),
            depth: "quick".into(),
            laws: vec![Verdict::of("range", false, vec![case], 0.5)],
        }
    }

    #[test]
    fn a_file_has_the_agreed_form() {
        let counts = Counts::new().of("reads", 3, 1);
        let json = serde_json::to_value(report(Fate::Held { counts })).unwrap();
        let agreed = serde_json::json!({
            "backend": "b", "service": "s", "version": "1", "depth": "quick",
            "laws": [{
                "law": "range", "state": "upheld", "reach": "full",
                "cases": [{
                    "case": "plain", "state": "held",
                    "counts": [{"of": "reads", "seen": 3, "least": 1}],
                }],
                "seconds": 0.5, "why": "",
            }],
        });
        assert_eq!(json, agreed);
    }

    #[test]
    fn of_two_runs_the_worse_counts() {
        let held = || {
            report(Fate::Held {
                counts: Counts::new().of("reads", 3, 1),
            })
        };
        let broken = report(Fate::Broken { why: "lost".into() });
        let mut whole = held();
        whole.worsen(&broken);
        whole.worsen(&held());
        assert_eq!(whole.laws, broken.laws);
    }
}
