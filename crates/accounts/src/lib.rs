//! Users and groups of a root file system, by the rules that Docker applies to them.
//!
//! Three callers ask the same two questions of the same two files: who runs (`USER`, for a build step and for the guest's
//! workload) and who owns (`--chown`). The rules differ, and both differ from what a login would do, so they stand here once:
//!
//! ```text
//!  /etc/passwd ─┐                 ┌─ resolve_user("app:www")   who runs : uid, gid, all groups, home
//!               ├─▶  Accounts  ───┤
//!  /etc/group  ─┘                 └─ resolve_chown("app:www")  who owns : uid, gid
//! ```
//!
//! The files come out of images and are hostile input. [`Accounts::parse`] never fails: a line that is not an entry is
//! skipped, names may hold any bytes but `:`, newline and NUL, and what lies beyond [`MAX_FILE`] is ignored.
//!
//! This crate does no I/O: who calls it finds the files *inside* the root and hands over their bytes.

mod chown;
mod error;
mod parse;
mod user;

pub use chown::{Owner, resolve_chown};
pub use error::{AccountsError, ErrorKind, Id};
pub use parse::{Accounts, Group, MAX_FILE, User};
pub use user::Identity;

/// The largest id that a user may write in `USER` or `--chown`: 2³¹ − 1, as in moby/sys `user` (`minID`, `maxID`).
pub const MAX_ID: u32 = i32::MAX as u32;

/// How a part of `user[:group]` reads.
#[derive(Debug, PartialEq, Eq)]
enum Part<'a> {
    Number(u32),
    Name(&'a str),
}

/// Reads one part of `user[:group]`. What looks like a decimal number is an id and never a name.
fn part<'a>(text: &'a str, id: Id) -> Result<Part<'a>, AccountsError> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(Part::Name(text));
    }
    match text.parse::<u32>() {
        Ok(number) if number <= MAX_ID => Ok(Part::Number(number)),
        _ => Err(AccountsError::new(ErrorKind::OutOfRange, id, text)),
    }
}

#[cfg(test)]
mod tests;
