//! The application beside an init with an inittab (sysvinit, busybox, OpenRC under either): it starts when the init says that
//! the system is up.
//!
//! A line of the inittab is the cue: inits run `once` lines when all `sysinit` and `wait` lines, the boot, are over. It runs
//! this program, found by the agent's `/proc/PID/exe` since the image does not have it, which sends the agent a signal.
//! The line is written anew at each start; whatever else stands in the file is left as it is.

use std::ffi::OsStr;
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::ExitCode;

use firebuild_sys::signal;
use rustix::process::Pid;

use crate::files;

/// What the cue is: SIGUSR1, which nothing else sends to the agent.
pub(super) const CUE: i32 = 10;
/// The first argument that makes this program give it; the agent's process is the second.
const NAME: &str = "cue";
const INITTAB: &str = "/etc/inittab";
/// Larger ones are no inittabs.
const LARGEST: u64 = 1 << 20;

/// Whether there is an inittab to put the line into.
pub(super) fn is_there() -> bool {
    fs_err::metadata(INITTAB).is_ok_and(|meta| meta.is_file() && meta.len() <= LARGEST)
}

/// Puts the line in place.
pub(super) fn install(agent: Pid, is_busybox: bool) -> std::io::Result<()> {
    let path = Path::new(INITTAB);
    let mode = fs_err::metadata(path)?.mode() & 0o7777;
    let agent = agent.as_raw_nonzero().get();
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
    let line = format!("{id}:{levels}:once:/proc/{agent}/exe {NAME} {agent} # firebuild\n");
    new.extend_from_slice(line.as_bytes());
    new
}

/// When this process was started to give the cue, gives it, and the code to leave with.
pub(crate) fn cue_main() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    if args.next().as_deref() != Some(OsStr::new(NAME)) || rustix::process::getpid().is_init() {
        return None;
    }
    let agent = args.next().and_then(|agent| agent.to_str()?.parse().ok());
    let sent = agent
        .and_then(Pid::from_raw)
        .map(|agent| signal::send(agent, CUE));
    Some(match sent {
        Some(Ok(())) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
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
