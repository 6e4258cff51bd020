//! Capability sets of the calling thread: `capabilities(7)`.

use std::io;

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySets, capability_is_in_bounding_set, remove_capability_from_bounding_set,
};

pub use rustix::thread::CapabilitySet;

/// Takes everything but `keep` out of the bounding set, so that no program which the caller executes can have it, and
/// empties the ambient set.
///
/// # Errors
/// `EPERM` without `CAP_SETPCAP`.
pub fn limit_bounding(keep: CapabilitySet) -> io::Result<()> {
    for number in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match capability_is_in_bounding_set(capability) {
            // The kernel numbers capabilities without gaps and refuses what lies beyond its last.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
            Ok(true) if !keep.contains(capability) => {
                remove_capability_from_bounding_set(capability)?
            }
            Ok(_) => {}
        }
    }
    Ok(rustix::thread::clear_ambient_capability_set()?)
}

/// Makes `keep`, as far as the caller has it, its permitted and effective set, and empties the inheritable one.
///
/// # Errors
/// Those of `capset(2)`.
pub fn limit_own(keep: CapabilitySet) -> io::Result<()> {
    let own = rustix::thread::capabilities(None)?;
    let keep = own.permitted & keep;
    let sets = CapabilitySets {
        effective: keep,
        permitted: keep,
        inheritable: CapabilitySet::empty(),
    };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

/// Whether the caller has these capabilities in effect.
///
/// # Errors
/// Those of `capget(2)`.
pub fn has(wanted: CapabilitySet) -> io::Result<bool> {
    Ok(rustix::thread::capabilities(None)?
        .effective
        .contains(wanted))
}

#[cfg(test)]
mod tests {
    use super::{CapabilitySet, has, limit_own};

    #[test]
    fn a_thread_gives_capabilities_away() {
        std::thread::spawn(|| {
            limit_own(CapabilitySet::CHOWN).unwrap();
            assert!(!has(CapabilitySet::SYS_ADMIN).unwrap());
            limit_own(CapabilitySet::all()).unwrap();
            assert!(
                !has(CapabilitySet::SYS_ADMIN).unwrap(),
                "what is given away cannot be taken back"
            );
        })
        .join()
        .unwrap();
    }
}
