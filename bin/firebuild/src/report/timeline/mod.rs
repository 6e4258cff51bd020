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
use std::io::Write as _;
use std::path::Path;

use super::progress::Model;

/// Writes the picture of a build, complete or not at all.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn write(file: &Path, model: &Model, title: &str, failed: bool) -> io::Result<()> {
    let parent = file
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let chart = chart::Chart::new(model);
    let page = page::page(&chart, title, failed);
    let mut aside = tempfile::NamedTempFile::new_in(parent.unwrap_or(Path::new(".")))?;
    aside.write_all(page.as_bytes())?;
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    aside.as_file().set_permissions(permissions)?;
    aside.persist(file).map_err(|error| error.error)?;
    Ok(())
}
