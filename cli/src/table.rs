//! Columns for people, and one way to put text on standard output.

use std::fmt::Write as _;

use crate::exit::Failure;
use crate::output::{Chunk, Ending};
use crate::stop::Stop;

/// Rows with columns as wide as they must be; the last one is not padded.
pub(crate) fn columns(rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        for (i, cell) in row.iter().enumerate() {
            let width = cell.chars().count();
            match widths.get_mut(i) {
                Some(widest) => *widest = (*widest).max(width),
                None => widths.push(width),
            }
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// Prints text; a reader who has gone is no failure.
pub(crate) async fn print(text: String, stop: &Stop) -> Result<(), Failure> {
    let (_, written) = Chunk::of(text).write(stop).await?;
    match written.ending {
        Ending::All | Ending::Closed => Ok(()),
        Ending::Asked => Err(Failure::silent(stop.code())),
        Ending::Failed(e) => Err(Failure::failed(format!(
            "standard output cannot be written to: {e}"
        ))),
    }
}

/// Prints a value as one line of JSON.
pub(crate) async fn print_json(value: &serde_json::Value, stop: &Stop) -> Result<(), Failure> {
    print(format!("{value}\n"), stop).await
}

/// A span of time as people say it.
pub(crate) fn span(time: std::time::Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{}ms", time.as_millis()),
        1..60 => format!("{seconds}.{}s", time.subsec_millis() / 100),
        60..3_600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h {}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        assert_eq!(
            columns(&[row(["a", "bc"]), row(["long", ""])]),
            "a     bc\nlong\n"
        );
    }

    #[test]
    fn spans_read_well() {
        let of = |millis| span(std::time::Duration::from_millis(millis));
        assert_eq!(
            [5, 1_500, 61_000, 3_660_000, 90_000_000].map(of),
            ["5ms", "1.5s", "1m 1s", "1h 1m", "1d 1h"]
        );
    }
}
