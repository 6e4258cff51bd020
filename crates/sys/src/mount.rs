//! The mount API of Linux 5.2 and later: `fsopen(2)`, `fsmount(2)`, `open_tree(2)`, `move_mount(2)`, `mount_setattr(2)`.
//!
//! A mount is made in two steps: first a descriptor of a mount that is nowhere, then [`attach`] shows it at a place.
//! That makes each step fail by itself and lets a place be a descriptor, so no path is resolved twice. When the kernel
//! explains a refusal, [`MountError`] carries its words.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_fd, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
    open_tree,
};

pub use rustix::mount::MountAttrFlags as Attributes;

/// Why a file system could not be mounted.
#[derive(Debug)]
pub struct MountError {
    filesystem: String,
    step: String,
    log: Vec<String>,
    source: io::Error,
}

impl MountError {
    /// The error of the call that failed.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        Errno::from_io_error(&self.source)
    }

    /// What the kernel said, oldest first; often empty.
    #[must_use]
    pub fn log(&self) -> &[String] {
        &self.log
    }
}

impl fmt::Display for MountError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "cannot mount {}: {}", self.filesystem, self.step)?;
        for line in &self.log {
            write!(out, "; kernel: {line}")?;
        }
        Ok(())
    }
}

impl std::error::Error for MountError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// A file system that is being described to the kernel.
#[derive(Debug)]
pub struct NewFilesystem {
    name: String,
    fd: OwnedFd,
}

impl NewFilesystem {
    /// Begins with a type (`overlay`, `tmpfs`, `proc`).
    ///
    /// # Errors
    /// `ENODEV` for a type that the kernel does not know, `EPERM`, `ENOSYS` before Linux 5.2.
    pub fn new(name: &str) -> Result<Self, MountError> {
        match fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC) {
            Ok(fd) => Ok(Self {
                name: name.into(),
                fd,
            }),
            Err(error) => Err(MountError {
                filesystem: name.into(),
                step: "the kernel does not offer it".into(),
                log: Vec::new(),
                source: error.into(),
            }),
        }
    }

    /// Sets `key=value`. The kernel takes at most 255 bytes here.
    ///
    /// # Errors
    /// `EINVAL` for an option that the file system does not know or a value that it does not take.
    pub fn set(&self, key: &str, value: &str) -> Result<(), MountError> {
        fsconfig_set_string(&self.fd, key, value)
            .map_err(|error| self.error(&format!("option {key}={value}"), error))
    }

    /// Sets an option without a value.
    ///
    /// # Errors
    /// As [`NewFilesystem::set`].
    pub fn set_flag(&self, key: &str) -> Result<(), MountError> {
        fsconfig_set_flag(&self.fd, key)
            .map_err(|error| self.error(&format!("option {key}"), error))
    }

    /// Sets an option to an open file or directory.
    ///
    /// # Errors
    /// As [`NewFilesystem::set`]; many options of many kernels do not take a descriptor.
    pub fn set_fd(&self, key: &str, value: impl AsFd) -> Result<(), MountError> {
        fsconfig_set_fd(&self.fd, key, value)
            .map_err(|error| self.error(&format!("option {key}"), error))
    }

    /// Makes the file system and a mount of it that is nowhere yet.
    ///
    /// # Errors
    /// What the file system says: `EPERM`, `EINVAL` for options that do not fit together, `EBUSY`.
    pub fn mount(&self, attributes: Attributes) -> Result<OwnedFd, MountError> {
        fsconfig_create(&self.fd)
            .map_err(|error| self.error("it cannot be made with these options", error))?;
        fsmount(&self.fd, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
            .map_err(|error| self.error("it cannot be made a mount", error))
    }

    fn error(&self, step: &str, errno: Errno) -> MountError {
        MountError {
            filesystem: self.name.clone(),
            step: step.into(),
            log: self.log(),
            source: errno.into(),
        }
    }

    /// The messages that wait in the descriptor: one `read` gives one, `e `, `w ` or `i ` before the text.
    fn log(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut buffer = [0u8; 1024];
        while lines.len() < 16 {
            match rustix::io::read(&self.fd, &mut buffer) {
                Ok(length) if length > 0 => {
                    let text = String::from_utf8_lossy(&buffer[..length]);
                    let text = text.trim_end();
                    lines.push(text.get(2..).unwrap_or(text).to_owned());
                }
                _ => break,
            }
        }
        lines
    }
}

/// A file system without options beyond `options`, mounted nowhere yet: [`NewFilesystem`] in one call. Of each option an
/// empty value means a flag.
///
/// # Errors
/// As [`NewFilesystem`].
pub fn filesystem(
    name: &str,
    options: &[(&str, &str)],
    attributes: Attributes,
) -> Result<OwnedFd, MountError> {
    let new = NewFilesystem::new(name)?;
    for (key, value) in options {
        if value.is_empty() {
            new.set_flag(key)?
        } else {
            new.set(key, value)?
        }
    }
    new.mount(attributes)
}

/// Shows a mount that is nowhere yet at a file or directory that `place` is open for (`O_PATH` is enough).
///
/// # Errors
/// `ENOTDIR` when one is a directory and the other is not, `EPERM`.
pub fn attach(mount: impl AsFd, place: impl AsFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount, c"", place, c"", flags)?)
}

/// A copy of the mount that `source` lies in, with that file or directory as its root, nowhere yet: what a bind mount is
/// made of. With `recursive` all mounts below come along.
///
/// # Errors
/// `EPERM` without the capability, `EINVAL` for a mount of another namespace or one that must not be uncovered.
pub fn copy_of(source: impl AsFd, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(open_tree(source, c"", flags)?)
}

/// How a mount passes new mounts on (`mount_namespaces(7)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// Not at all.
    Private,
    /// It gets what its origin gets, and gives nothing back.
    Slave,
}

/// `struct mount_attr` of `linux/mount.h`.
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Changes attributes of a mount and, with `recursive`, of all mounts below it: `mount_setattr(2)`.
///
/// # Errors
/// `EPERM` for an attribute that a user namespace has locked, `ENOSYS` before Linux 5.12.
pub fn set_attributes(
    mount: BorrowedFd<'_>,
    path: &CStr,
    recursive: bool,
    attributes: Attributes,
    propagation: Option<Propagation>,
) -> io::Result<()> {
    let attr = MountAttr {
        set: u64::from(attributes.bits()),
        clear: 0,
        propagation: match propagation {
            None => 0,
            Some(Propagation::Private) => libc::MS_PRIVATE,
            Some(Propagation::Slave) => libc::MS_SLAVE,
        },
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: `path` ends with NUL, `attr` is a struct mount_attr of the size given, both live through the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            path.as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// The usual restrictions for file systems that hold no programs: no set-id, no devices, no execution.
pub const RESTRICTED: Attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::{MountAttr, NewFilesystem};

    #[test]
    fn the_layout_of_mount_attr() {
        assert_eq!(size_of::<MountAttr>(), 32);
        assert_eq!(offset_of!(MountAttr, clear), 8);
        assert_eq!(offset_of!(MountAttr, propagation), 16);
        assert_eq!(offset_of!(MountAttr, userns_fd), 24);
    }

    #[test]
    fn what_the_kernel_refuses_is_said() {
        let error = NewFilesystem::new("nosuchfs").unwrap_err();
        assert!(
            error.to_string().starts_with("cannot mount nosuchfs: "),
            "{error}"
        );
        assert!(error.errno().is_some());
        if let Ok(tmpfs) = NewFilesystem::new("tmpfs") {
            let error = tmpfs.set("size", "many").unwrap_err();
            assert!(error.to_string().contains("size=many"), "{error}");
        }
    }
}
