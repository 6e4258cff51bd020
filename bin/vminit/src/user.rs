//! Who the application is: USER, by the accounts that the image has.

use std::io::Read;

use firebuild_accounts::{Accounts, Identity, MAX_FILE};
use firebuild_guest_proto::FailureReason;
use rustix::fs::{Mode, OFlags};

use crate::error::InitError;

/// Resolves a user in the root that is entered.
pub(crate) fn resolve(spec: &str) -> Result<Identity, InitError> {
    accounts().resolve_user(spec).map_err(|error| {
        InitError::caused(
            FailureReason::UnknownUser,
            format!("cannot run as user '{spec}'"),
            error,
        )
    })
}

/// The accounts of the root that is entered.
pub(crate) fn accounts() -> Accounts {
    let (passwd, group) = (read("/etc/passwd"), read("/etc/group"));
    Accounts::parse(passwd.as_deref(), group.as_deref())
}

/// A regular file's first bytes; an image may have put anything there.
fn read(path: &str) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = std::fs::File::from(rustix::fs::open(path, flags, Mode::empty()).ok()?);
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(u64::try_from(MAX_FILE).unwrap_or(u64::MAX))
        .read_to_end(&mut bytes)
        .ok()?;
    Some(bytes)
}
