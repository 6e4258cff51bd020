//! Standard output and standard error.
//!
//! A reader that goes away (`firebuild ls | head -1`) is no error: the text is dropped and the command goes on to its end.

use std::io::Write as _;

/// One line of results on standard output.
pub(crate) fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}");
}

/// Text or bytes on standard output as they are.
pub(crate) fn raw(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(bytes);
    let _ = out.flush();
}

/// One line for the person on standard error.
pub(crate) fn note(text: &str) {
    let mut out = std::io::stderr().lock();
    let _ = writeln!(out, "{text}");
}
