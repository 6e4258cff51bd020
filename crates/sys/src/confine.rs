//! What a child gives up between fork and exec: ids, capabilities, foreign descriptors, life after its parent.
#![allow(unsafe_code)]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Number of `CAP_NET_BIND_SERVICE` (`linux/capability.h`).
const CAP_NET_BIND_SERVICE: u32 = 10;
/// `_LINUX_CAPABILITY_VERSION_3` (`linux/capability.h`).
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// A user to become: ids and the whole list of supplementary groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// User, real, effective and saved.
    pub uid: u32,
    /// Group, real, effective and saved.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// What a child shall be held to. Nothing of it can be undone by the program that it executes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confinement {
    /// The user to become; none keeps that of the parent. Leaving uid 0 leaves every capability.
    pub credentials: Option<Credentials>,
    /// Whether `CAP_NET_BIND_SERVICE` outlives the change of user (it becomes ambient).
    pub bind_low_ports: bool,
    /// Descriptors from this number on are closed on exec, whoever opened them.
    pub close_from: u32,
}

/// `struct __user_cap_header_struct` of `linux/capability.h`.
#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

/// `struct __user_cap_data_struct` of `linux/capability.h`; version 3 takes two of them.
#[repr(C)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Confines the child that `command` starts: user, capabilities, no new privileges (`PR_SET_NO_NEW_PRIVS`), no core dump,
/// `SIGKILL` when the thread that spawned it ends (`PR_SET_PDEATHSIG`), foreign descriptors closed.
///
/// Call it after [`crate::spawn::pass_fds`]. The thread that spawns must live as long as the child shall.
pub fn confine(command: &mut Command, confinement: Confinement) {
    let parent = rustix::process::getpid().as_raw_nonzero().get();
    let apply = move || {
        close_foreign(confinement.close_from)?;
        if let Some(credentials) = &confinement.credentials {
            become_user(credentials, confinement.bind_low_ports)?;
        }
        prctl(libc::PR_SET_NO_NEW_PRIVS, 1)?;
        no_core_dump()?;
        // The kernel forgets this at a change of ids, so it comes after it.
        prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL.cast_unsigned().into())?;
        // SAFETY: getppid has no effects and cannot fail.
        if unsafe { libc::getppid() } == parent {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(libc::ESRCH))
        }
    };
    // SAFETY: between fork and exec `apply` makes system calls only, on memory that was allocated before;
    // `from_raw_os_error` and `last_os_error` do not allocate.
    unsafe { command.pre_exec(apply) };
}

fn become_user(credentials: &Credentials, bind_low_ports: bool) -> io::Result<()> {
    if bind_low_ports {
        prctl(libc::PR_SET_KEEPCAPS, 1)?;
    }
    let groups = &credentials.groups;
    // The raw calls: those of the C library want to change every thread of the process, and there is only this one.
    // SAFETY: the pointer and the length are those of one slice.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })?;
    let gid = credentials.gid;
    // SAFETY: takes numbers only.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })?;
    let uid = credentials.uid;
    // SAFETY: takes numbers only.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) })?;
    if bind_low_ports {
        let one = 1 << CAP_NET_BIND_SERVICE;
        let header = CapHeader {
            version: CAPABILITY_VERSION_3,
            pid: 0,
        };
        let data = [
            CapData {
                effective: one,
                permitted: one,
                inheritable: one,
            },
            CapData {
                effective: 0,
                permitted: 0,
                inheritable: 0,
            },
        ];
        // SAFETY: both structures are laid out as capset(2) reads them, and it only reads.
        check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) })?;
        // SAFETY: takes numbers only.
        let raised = unsafe {
            libc::prctl(
                libc::PR_CAP_AMBIENT,
                libc::PR_CAP_AMBIENT_RAISE,
                libc::c_ulong::from(CAP_NET_BIND_SERVICE),
                0,
                0,
            )
        };
        check(raised.into())?;
    }
    Ok(())
}

fn close_foreign(from: u32) -> io::Result<()> {
    // SAFETY: sets a flag on descriptors; those of the standard library have it already.
    check(unsafe {
        libc::syscall(
            libc::SYS_close_range,
            from,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    })
}

fn no_core_dump() -> io::Result<()> {
    let none = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the structure lives across the call, which only reads it.
    check(unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) }.into())
}

fn prctl(option: libc::c_int, value: libc::c_ulong) -> io::Result<()> {
    // SAFETY: the options used here take one number and touch no memory of ours.
    check(unsafe { libc::prctl(option, value, 0, 0, 0) }.into())
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::mem::{offset_of, size_of};
    use std::process::{Command, Stdio};

    use super::{CapData, CapHeader, Confinement, Credentials, confine};

    fn status_of(confinement: Confinement) -> String {
        let mut command = Command::new("cat");
        command.arg("/proc/self/status").stdout(Stdio::piped());
        confine(&mut command, confinement);
        let output = command.spawn().unwrap().wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    }

    fn field<'a>(status: &'a str, name: &str) -> Vec<&'a str> {
        let line = status
            .lines()
            .find(|line| line.starts_with(&format!("{name}:")))
            .unwrap();
        line.split_whitespace().skip(1).collect()
    }

    #[test]
    fn layouts_are_those_of_the_kernel() {
        assert_eq!(size_of::<CapHeader>(), 8);
        assert_eq!(offset_of!(CapHeader, pid), 4);
        assert_eq!(size_of::<[CapData; 2]>(), 24);
        assert_eq!(offset_of!(CapData, inheritable), 8);
    }

    #[test]
    fn a_child_gains_nothing() {
        let status = status_of(Confinement {
            close_from: 3,
            ..Confinement::default()
        });
        assert_eq!(field(&status, "NoNewPrivs"), ["1"]);
    }

    #[test]
    fn root_becomes_somebody_else() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIP root_becomes_somebody_else: needs root");
            return;
        }
        let credentials = Credentials {
            uid: 61_001,
            gid: 61_002,
            groups: vec![61_003],
        };
        for bind_low_ports in [false, true] {
            let status = status_of(Confinement {
                credentials: Some(credentials.clone()),
                bind_low_ports,
                close_from: 3,
            });
            assert_eq!(field(&status, "Uid"), ["61001"; 4]);
            assert_eq!(field(&status, "Gid"), ["61002"; 4]);
            assert_eq!(field(&status, "Groups"), ["61003"]);
            let expected = if bind_low_ports { 1 << 10 } else { 0 };
            for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
                assert_eq!(
                    u64::from_str_radix(field(&status, set)[0], 16).unwrap(),
                    expected,
                    "{set}"
                );
            }
        }
    }
}
