//! The figures: a table as they come, a file at the end.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::data;
use crate::rounds::{Pairs, median, quantile};

/// What a figure should be.
#[derive(Clone, Copy)]
enum Bound {
    /// At least this.
    Least(f64),
    /// At most this.
    Most(f64),
}

use Bound::{Least, Most};

/// The bounds of all figures that have one; what is not here is shown as it comes.
const BOUNDS: [(&str, Bound); 19] = [
    ("append_batch_raw", Least(0.88)),
    ("append_batch_grow", Least(1.0)),
    ("append_batch_fjall", Least(1.8)),
    ("append_batch_redb", Least(2.3)),
    ("append_batch_sqlite", Least(2.0)),
    ("append_1_writer", Least(1.15)),
    ("append_64_writers", Least(20.0)),
    ("append_256_writers", Least(60.0)),
    ("replay_raw", Least(0.75)),
    ("replay_batch_raw", Least(0.8)),
    ("alloc_append", Most(0.01)),
    ("alloc_replay", Most(0.03)),
    ("replay_peak_mib", Most(8.0)),
    ("open_ms_4gib", Most(40.0)),
    ("open_ms_4gib_cold", Most(100.0)),
    ("fds_1000_topics", Most(1050.0)),
    ("check_million_s", Most(10.0)),
    ("check_million_mib", Most(1024.0)),
    ("crash_points", Least(10_000.0)),
];

impl Bound {
    fn of(id: &str) -> Option<Self> {
        let found = BOUNDS.iter().find(|(of, _)| *of == id);
        found.map(|(_, bound)| *bound)
    }

    fn holds(self, value: f64) -> bool {
        match self {
            Least(bound) => value >= bound,
            Most(bound) => value <= bound,
        }
    }

    fn verdict(self, value: f64) -> String {
        let met = if self.holds(value) { "met" } else { "MISSED" };
        match self {
            Least(bound) => format!(">= {bound} {met}"),
            Most(bound) => format!("<= {bound} {met}"),
        }
    }
}

#[derive(Serialize)]
struct Row {
    id: &'static str,
    ours: f64,
    peer: &'static str,
    theirs: f64,
    ratio: f64,
    p10: f64,
    p90: f64,
    unit: &'static str,
    fsync: &'static str,
    rounds: usize,
}

#[derive(Serialize)]
struct Count {
    id: &'static str,
    value: f64,
    unit: String,
}

/// Everything that was measured.
#[derive(Serialize)]
pub(crate) struct Report {
    bench: &'static str,
    cores: usize,
    rows: Vec<Row>,
    counts: Vec<Count>,
    #[serde(skip)]
    only: Option<String>,
}

impl Report {
    pub(crate) fn new(bench: &'static str, only: Option<String>) -> Result<Self> {
        Ok(Self {
            bench,
            cores: std::thread::available_parallelism()
                .context("counting cores")?
                .get(),
            rows: Vec::new(),
            counts: Vec::new(),
            only,
        })
    }

    /// Whether any of these is to be measured.
    pub(crate) fn wants(&self, ids: &[&str]) -> bool {
        let wanted = |only: &String| ids.iter().any(|id| id.starts_with(only.as_str()));
        self.only.as_ref().is_none_or(wanted)
    }

    /// Takes in a comparison.
    pub(crate) fn row(
        &mut self,
        id: &'static str,
        peer: &'static str,
        fsync: &'static str,
        pairs: &Pairs,
    ) {
        let ratios = pairs.ratios();
        let row = Row {
            id,
            ours: median(&pairs.ours()),
            peer,
            theirs: median(&pairs.theirs()),
            ratio: median(&ratios),
            p10: quantile(&ratios, 0.1),
            p90: quantile(&ratios, 0.9),
            unit: "records/s",
            fsync,
            rounds: pairs.rounds(),
        };
        let bound = Bound::of(id).map_or_else(String::new, |bound| bound.verdict(row.ratio));
        println!(
            "{:<20} {:>7.2} x  [{:.2} .. {:.2}]  {:<15} {:>10.0} : {:>10.0} {}  {peer}; {fsync}",
            id, row.ratio, row.p10, row.p90, bound, row.ours, row.theirs, row.unit
        );
        self.rows.push(row);
    }

    /// Takes in a figure that has no other side.
    pub(crate) fn count(&mut self, id: &'static str, value: f64, unit: impl Into<String>) {
        let unit = unit.into();
        let bound = Bound::of(id).map_or_else(String::new, |bound| bound.verdict(value));
        println!("{id:<20} {value:>9.4}  {bound:<15} {unit}");
        self.counts.push(Count { id, value, unit });
    }

    /// The figures that miss their bound.
    pub(crate) fn missed(&self) -> Vec<&'static str> {
        let rows = self.rows.iter().map(|row| (row.id, row.ratio));
        let counts = self.counts.iter().map(|count| (count.id, count.value));
        rows.chain(counts)
            .filter(|(id, value)| Bound::of(id).is_some_and(|bound| !bound.holds(*value)))
            .map(|(id, _)| id)
            .collect()
    }

    /// Writes `target/bench/<bench>.json`; where that is.
    pub(crate) fn write(&self) -> Result<PathBuf> {
        let dir = data::target().join("bench");
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        let path = dir.join(self.bench).with_extension("json");
        let json = serde_json::to_string_pretty(self)?;
        fs::write(&path, json).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_misses_its_bound_is_named() {
        let mut report = Report::new("test", None).unwrap();
        report.count("fds_1000_topics", 1050.0, "descriptors");
        report.count("core_overhead_ns", 1e9, "ns");
        assert!(report.missed().is_empty());
        report.count("alloc_append", 0.011, "a record");
        assert_eq!(report.missed(), ["alloc_append"]);
    }
}
