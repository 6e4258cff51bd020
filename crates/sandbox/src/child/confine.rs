//! What a step's program may do: its user, its capabilities, its system calls.

use firebuild_accounts::Identity;
use firebuild_sys::caps::{self, CapabilitySet};
use rustix::fs::{Gid, Uid};

use super::{Result, syscalls};
use crate::job::{Failure, FailureKind, Scope};

/// Docker's default capabilities (moby `oci/caps/defaults.go`).
const CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::AUDIT_WRITE);

/// What an ordinary user reads who has no range of ids.
pub(super) const NO_RANGE: &str = "this user may map no further ids";

/// Makes the calling process the user that the step runs as, with what a step may do and no more.
///
/// The order matters: the filter needs a privilege that the change of user takes away, and `no_new_privs` would break
/// programs like sudo.
pub(super) fn become_user(identity: &Identity, insecure: bool, scope: Scope) -> Result<()> {
    let host = |message: &str| Failure::because(FailureKind::Host, message.to_owned());
    // Whoever opens /dev/stdout must own it; pipes belong to who made them. A file that is none of ours stays as it is.
    for stream in [rustix::stdio::stdout(), rustix::stdio::stderr()] {
        let _ = rustix::fs::fchown(stream, Some(Uid::from_raw(identity.uid)), None);
    }
    if !insecure {
        caps::limit_bounding(CAPABILITIES)
            .map_err(host("cannot limit the capabilities of the step"))?;
    }
    let ids = |what: String| Failure::because(FailureKind::Ids, what);
    if scope == Scope::Single {
        // Groups cannot be set with one id; the caller's own are what there is.
        if identity.uid != 0 || identity.gid != 0 {
            let message = format!(
                "the step runs as {}:{}, and {NO_RANGE}",
                identity.uid, identity.gid
            );
            return Err(Failure::new(FailureKind::Ids, message));
        }
    } else {
        let groups: Vec<Gid> = identity
            .groups
            .iter()
            .map(|group| Gid::from_raw(*group))
            .collect();
        rustix::thread::set_thread_groups(&groups).map_err(ids(format!(
            "the groups {:?} cannot be mapped",
            identity.groups
        )))?;
    }
    let gid = Gid::from_raw(identity.gid);
    rustix::thread::set_thread_res_gid(gid, gid, gid)
        .map_err(ids(format!("the group {} cannot be mapped", identity.gid)))?;
    if !insecure {
        syscalls::filter()
            .apply()
            .map_err(host("cannot install the filter of system calls"))?;
    }
    let uid = Uid::from_raw(identity.uid);
    rustix::thread::set_thread_res_uid(uid, uid, uid)
        .map_err(ids(format!("the user {} cannot be mapped", identity.uid)))?;
    // Root keeps what the bounding set has; leaving uid 0 left everything.
    let keep = if insecure {
        CapabilitySet::all()
    } else {
        CAPABILITIES
    };
    caps::limit_own(keep).map_err(host("cannot limit the capabilities of the step"))
}
