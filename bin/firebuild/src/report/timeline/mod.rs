//! `--timeline FILE.html`: a picture of where the time of a build went, in one file that needs nothing else.
//!
//! ```text
//!   model ─▶ chart: bars with lanes, critical path ─▶ page: HTML with an SVG, a table and a few lines of script
//! ```
//!
//! Names of steps come from a Dockerfile that may be anybody's, so every text is escaped, and the page forbids itself to
//! load anything (Content-Security-Policy).

mod chart;
mod page;

use std::io;
use std::path::Path;

use super::progress::Model;

/// Writes the picture of a build, complete or not at all.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn write(file: &Path, model: &Model, title: &str, failed: bool) -> io::Result<()> {
    let chart = chart::Chart::new(model);
    let page = page::page(&chart, title, failed);
    firebuild_engine::build::write_file(file, page.as_bytes())
}
