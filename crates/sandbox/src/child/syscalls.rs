//! The system calls that a step may not make.
//!
//! What Docker's default profile refuses to a container with the default capabilities (moby/profiles
//! `seccomp/default_linux.go`), turned round: that one lists what is allowed, this one what is not, so that a call which
//! a later kernel brings works or fails as the kernel thinks. Most of these need a capability that a step does not have;
//! they are here because a hole in the kernel behind them should not matter.

use firebuild_sys::seccomp::{Filter, Rule, When};

/// `CLONE_NEW*` of `linux/sched.h`, without the time namespace, whose bit is part of the exit signal here.
const NEW_NAMESPACES: u32 = 0x7E02_0000;
/// `AF_VSOCK` reaches past the network namespace, to the host or to its guests.
const AF_VSOCK: u32 = 40;

/// Builds the filter.
pub(super) fn filter() -> Filter {
    Filter::new(
        &rules(
            &NATIVE,
            libc::SYS_clone,
            libc::SYS_clone3,
            Some(libc::SYS_socket),
        ),
        &sibling(),
    )
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn rules(
    refused: &[libc::c_long],
    clone: libc::c_long,
    clone3: libc::c_long,
    socket: Option<libc::c_long>,
) -> Vec<Rule> {
    // Call numbers are small and positive.
    let rule = |call: libc::c_long, when, errno: i32| Rule {
        call: call as u32,
        when,
        errno: errno as u16,
    };
    let mut rules: Vec<Rule> = refused
        .iter()
        .map(|call| rule(*call, When::Always, libc::EPERM))
        .collect();
    rules.push(rule(clone, When::AnyBit(0, NEW_NAMESPACES), libc::EPERM));
    // Its flags are in memory, which a filter cannot read; C libraries fall back to clone.
    rules.push(rule(clone3, When::Always, libc::ENOSYS));
    if let Some(socket) = socket {
        rules.push(rule(socket, When::Equal(0, AF_VSOCK), libc::EPERM));
    }
    rules
}

const NATIVE: [libc::c_long; 52] = [
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_get_mempolicy,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kcmp,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_mbind,
    libc::SYS_migrate_pages,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_move_pages,
    libc::SYS_nfsservctl,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_set_mempolicy,
    libc::SYS_set_mempolicy_home_node,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
    // Of x86 only, and otherwise the first one again.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(not(target_arch = "x86_64"))]
    libc::SYS_acct,
];

/// The same for programs of 32 bits.
#[cfg(target_arch = "x86_64")]
fn sibling() -> Vec<Rule> {
    /// `arch/x86/entry/syscalls/syscall_32.tbl`, in its order: mount, umount, stime, acct, umount2, sethostname,
    /// settimeofday, uselib, swapon, reboot, ioperm, syslog, iopl, vhangup, vm86old, swapoff, setdomainname,
    /// create_module, init_module, delete_module, get_kernel_syms, quotactl, sysfs, _sysctl, vm86, query_module,
    /// nfsservctl, pivot_root, lookup_dcookie, clock_settime, mbind, get_mempolicy, set_mempolicy, kexec_load, add_key,
    /// request_key, keyctl, migrate_pages, unshare, move_pages, perf_event_open, fanotify_init, open_by_handle_at,
    /// clock_adjtime, setns, kcmp, finit_module, bpf, userfaultfd, clock_settime64, clock_adjtime64, io_uring_setup,
    /// io_uring_enter, io_uring_register, open_tree, move_mount, fsopen, fsconfig, fsmount, fspick, pidfd_getfd,
    /// mount_setattr, quotactl_fd, set_mempolicy_home_node.
    const I386: [libc::c_long; 64] = [
        21, 22, 25, 51, 52, 74, 79, 86, 87, 88, 101, 103, 110, 111, 113, 115, 121, 127, 128, 129,
        130, 131, 135, 149, 166, 167, 169, 217, 253, 264, 274, 275, 276, 283, 286, 287, 288, 294,
        310, 317, 336, 338, 342, 343, 346, 349, 350, 357, 374, 404, 405, 425, 426, 427, 428, 429,
        430, 431, 432, 433, 438, 442, 443, 450,
    ];
    rules(&I386, 120, 435, Some(359))
}

/// The same for programs of 32 bits: their numbers are not listed here, so they may only do what needs no name space.
#[cfg(not(target_arch = "x86_64"))]
fn sibling() -> Vec<Rule> {
    // `arch/arm/tools/syscall.tbl`: mount, umount2, reboot, pivot_root, unshare, setns, bpf.
    rules(&[21, 52, 88, 218, 337, 375, 386], 120, 435, Some(281))
}
