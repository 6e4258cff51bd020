//! A network namespace of the test's own, with a tap in it.

use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use firebuild_sys::namespace;
use firebuild_sys::net::tap;
use fs_err as fs;
use rustix::mount::{UnmountFlags, mount_bind, unmount};

const TAP: &str = "fbtest0";

/// A namespace that has a name in the file system, until it is dropped.
pub(crate) struct Namespace {
    path: PathBuf,
}

impl Namespace {
    /// Makes it, or skips where this host has none.
    pub(crate) fn open(test: &str, dir: &Path) -> Option<Self> {
        let path = dir.join("netns");
        fs::write(&path, "").unwrap();
        let at = path.clone();
        let made = std::thread::spawn(move || {
            namespace::unshare(namespace::Namespaces::NET)?;
            mount_bind("/proc/thread-self/ns/net", &at)?;
            tap::add(TAP, None)
        });
        match made.join().unwrap() {
            Ok(()) => Some(Self { path }),
            Err(error) => {
                let _ = unmount(&path, UnmountFlags::DETACH);
                eprintln!("SKIP {test}: no network namespace with a tap: {error}");
                None
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn tap(&self) -> &str {
        TAP
    }

    pub(crate) fn inode(&self) -> u64 {
        fs::metadata(&self.path).unwrap().ino()
    }

    /// Makes the tap anew, for this user.
    pub(crate) fn give_tap_to(&self, uid: u32) {
        let namespace = fs::File::open(&self.path).unwrap();
        std::thread::spawn(move || {
            namespace::join(namespace.as_fd()).unwrap();
            let old = tap::open(TAP).unwrap();
            tap::set_persistent(old.as_fd(), false).unwrap();
            drop(old);
            tap::add(TAP, Some(uid)).unwrap();
        })
        .join()
        .unwrap();
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = unmount(&self.path, UnmountFlags::DETACH);
    }
}
