//! Copies in and out, in the root that this process has: the application's.

use std::io::Write as _;

use firebuild_copy::{Limits, Source, Target};
use firebuild_guest_proto::session::{CopySource, head};

/// The disk is the limit, and the host is trusted.
const LIMITS: Limits = Limits {
    bytes: u64::MAX,
    entries: usize::MAX,
};

/// Relative paths begin at the root, where this process is.
pub(super) fn out(path: &str, follow: bool) -> Result<(), String> {
    let source = Source::find(path, follow).map_err(|error| error.chain())?;
    let mut stdout = std::io::stdout().lock();
    let head = head(source.what()).map_err(|error| error.to_string())?;
    stdout.write_all(&head).map_err(|error| error.to_string())?;
    source.pack(&mut stdout).map_err(|error| error.chain())
}

pub(super) fn into(
    path: &str,
    source: Option<&CopySource>,
    keep_owners: bool,
) -> Result<(), String> {
    let target = Target::find(path, source).map_err(|error| error.chain())?;
    let mut stdin = std::io::stdin().lock();
    let skipped = target
        .unpack(&mut stdin, keep_owners, LIMITS)
        .map_err(|error| error.chain())?;
    for entry in skipped.entries.iter().take(10) {
        let path = String::from_utf8_lossy(&entry.path);
        let _ = writeln!(std::io::stderr(), "{path}: not all of it could be made");
    }
    // What follows the end of an archive is padding.
    std::io::copy(&mut stdin, &mut std::io::sink())
        .map(drop)
        .map_err(|error| error.to_string())
}
