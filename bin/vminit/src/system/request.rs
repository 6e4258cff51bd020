//! How an init is asked to end everything in order and to restart.
//!
//! | init | asked by |
//! |---|---|
//! | systemd | SIGRTMIN+5 (`systemd(1)`) |
//! | busybox | SIGTERM; SIGINT would be whatever its inittab has for Ctrl+Alt+Delete, often nothing |
//! | runit | its own `runit-init 6`, which knows where this build of it looks for the order |
//! | openrc-init | SIGINT (`openrc-init(8)`): a restart |
//! | sysvinit | its control pipe (`initctl`): runlevel 6, as `shutdown -r` does |
//! | any other | SIGINT: Ctrl+Alt+Delete |

use std::path::Path;
use std::process::Command;

use firebuild_sys::signal;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::process::Pid;

/// Where runit has the program that tells it.
const RUNIT_INITS: [&str; 4] = [
    "/sbin/runit-init",
    "/usr/bin/runit-init",
    "/lib/runit/runit-init",
    "/usr/lib/runit/runit-init",
];

const SYSTEMD_REBOOT: i32 = 34 + 5;
const SIGTERM: i32 = 15;
const SIGINT: i32 = 2;
/// Where sysvinit has its control pipe, the newer place first.
const CONTROL: [&str; 2] = ["/run/initctl", "/dev/initctl"];

/// Whose init it is, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Systemd,
    Busybox,
    Runit,
    OpenRc,
    Other,
}

impl Kind {
    /// That of a program.
    pub(super) fn of(program: &Path) -> Kind {
        let real = fs_err::canonicalize(program).unwrap_or_else(|_| program.to_owned());
        match real.file_name().and_then(|name| name.to_str()) {
            Some("systemd") => Kind::Systemd,
            Some("busybox" | "busybox.static") => Kind::Busybox,
            Some("runit" | "runit-init") => Kind::Runit,
            Some("openrc-init") => Kind::OpenRc,
            _ => Kind::Other,
        }
    }

    /// Asks process 1.
    pub(super) fn restart(self) -> std::io::Result<()> {
        match self {
            Kind::Systemd => signal::send(Pid::INIT, SYSTEMD_REBOOT),
            Kind::Busybox => signal::send(Pid::INIT, SIGTERM),
            Kind::Runit => runit_init_6(),
            Kind::OpenRc => signal::send(Pid::INIT, SIGINT),
            Kind::Other if CONTROL.into_iter().any(take_runlevel_6) => Ok(()),
            Kind::Other => signal::send(Pid::INIT, SIGINT),
        }
    }
}

/// Asks runit by its own program.
fn runit_init_6() -> std::io::Result<()> {
    let program = RUNIT_INITS.into_iter().find(|at| Path::new(at).exists());
    let Some(program) = program else {
        return signal::send(Pid::INIT, SIGINT);
    };
    // Who reaps everything reaps it.
    Command::new(program).arg("6").spawn().map(drop)
}

/// Asks sysvinit by its control pipe, where there is one that somebody reads.
fn take_runlevel_6(control: &str) -> bool {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let Ok(pipe) = rustix::fs::open(control, flags, Mode::empty()) else {
        return false;
    };
    let is_pipe = rustix::fs::fstat(&pipe)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo);
    is_pipe && rustix::io::write(&pipe, &order(b'6')).is_ok()
}

/// `struct init_request` of sysvinit's `initreq.h`: a magic number, the command, the runlevel, seconds between signals,
/// and room for what other commands need.
fn order(runlevel: u8) -> [u8; 384] {
    const MAGIC: i32 = 0x0309_1969;
    const CHANGE_RUNLEVEL: i32 = 1;
    const SECONDS: i32 = 3;
    let mut order = [0; 384];
    let fields = [MAGIC, CHANGE_RUNLEVEL, runlevel.into(), SECONDS];
    for (place, field) in order.chunks_exact_mut(4).zip(fields) {
        place.copy_from_slice(&field.to_ne_bytes());
    }
    order
}

#[cfg(test)]
mod tests {
    use super::{Kind, order};
    use std::path::Path;

    #[test]
    fn inits_are_told_apart_by_what_they_are() {
        for (program, kind) in [
            ("/no/systemd", Kind::Systemd),
            ("/no/busybox", Kind::Busybox),
            ("/no/runit-init", Kind::Runit),
            ("/no/openrc-init", Kind::OpenRc),
            ("/no/init", Kind::Other),
        ] {
            assert_eq!(Kind::of(Path::new(program)), kind);
        }
    }

    #[test]
    fn an_order_is_what_sysvinit_reads() {
        let order = order(b'6');
        assert_eq!(
            order[..16],
            [0x69, 0x19, 9, 3, 1, 0, 0, 0, b'6', 0, 0, 0, 3, 0, 0, 0]
        );
        assert!(order[16..].iter().all(|&byte| byte == 0));
    }
}
