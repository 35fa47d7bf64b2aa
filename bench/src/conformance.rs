//! The suite itself.

mod check;
mod crash;

use anyhow::Result;

use crate::report::Report;
use crate::rounds::Effort;

/// Everything that is asked for.
pub(crate) fn run(effort: Effort, report: &mut Report) -> Result<()> {
    check::run(effort, report)?;
    crash::run(report)
}
