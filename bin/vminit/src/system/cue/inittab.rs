//! The cue of an init with an inittab (sysvinit, busybox, OpenRC under either): a line of it.
//!
//! Inits run `once` lines when all `sysinit` and `wait` lines, the boot, are over. Whatever else stands in the file is left as
//! it is.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::command;
use crate::files;

const INITTAB: &str = "/etc/inittab";
/// Larger ones are no inittabs.
const LARGEST: u64 = 1 << 20;

/// Whether there is an inittab to put the line into.
pub(super) fn is_there() -> bool {
    fs_err::metadata(INITTAB).is_ok_and(|meta| meta.is_file() && meta.len() <= LARGEST)
}

/// Puts the line in place.
pub(super) fn install(agent: i32, is_busybox: bool) -> std::io::Result<()> {
    let path = Path::new(INITTAB);
    let mode = fs_err::metadata(path)?.mode() & 0o7777;
    files::replace(path, &with_line(&fs_err::read(path)?, agent, is_busybox))?;
    fs_err::set_permissions(path, Permissions::from_mode(mode))
}

/// An inittab with the line, once.
fn with_line(text: &[u8], agent: i32, is_busybox: bool) -> Vec<u8> {
    let is_ours = |line: &[u8]| {
        line.split(|&byte| byte == b':')
            .nth(3)
            .is_some_and(|process| {
                process.starts_with(b"/proc/") && process.ends_with(b" # firebuild")
            })
    };
    let mut new: Vec<u8> = text
        .split_inclusive(|&byte| byte == b'\n')
        .filter(|line| !is_ours(line.trim_ascii_end()))
        .flatten()
        .copied()
        .collect();
    if new.last().is_some_and(|&last| last != b'\n') {
        new.push(b'\n');
    }
    // For busybox the first field is a terminal, and the second is nothing; sysvinit has names and runlevels there.
    let (id, levels) = if is_busybox { ("", "") } else { ("fb", "2345") };
    let line = format!("{id}:{levels}:once:{} # firebuild\n", command(agent));
    new.extend_from_slice(line.as_bytes());
    new
}

#[cfg(test)]
mod tests {
    use super::with_line;

    #[test]
    fn the_line_is_there_once_and_the_rest_stays() {
        let mine = b"# mine\nid:2:initdefault:\nl2:2:wait:/etc/init.d/rc 2";
        let once = with_line(mine, 82, false);
        let text = String::from_utf8(once.clone()).unwrap();
        assert_eq!(
            text,
            "# mine\nid:2:initdefault:\nl2:2:wait:/etc/init.d/rc 2\n\
             fb:2345:once:/proc/82/exe cue 82 # firebuild\n"
        );
        let again = with_line(&once, 7, false);
        assert_eq!(again, text.replace("82", "7").into_bytes());
        let busybox = with_line(b"::sysinit:/etc/rc\n\xff\n", 82, true);
        assert!(busybox.starts_with(b"::sysinit:/etc/rc\n\xff\n::once:/proc/82/exe cue 82"));
        assert_eq!(with_line(&busybox, 82, true), busybox);
    }
}
