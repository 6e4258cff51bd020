//! Overlays: snapshots below, a directory for writes above.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use firebuild_sys::mount::{Attributes, MountError, NewFilesystem};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::MountFlags;

use super::Result;
use crate::job::{Failure, FailureKind, Scope};

/// The half of an overlay that takes writes.
pub(super) struct Upper<'a> {
    pub(super) files: &'a Path,
    pub(super) work: &'a Path,
}

/// Opens a directory as a place, without reading it.
pub(super) fn open_directory(path: &Path, kind: FailureKind) -> Result<OwnedFd> {
    rustix::fs::openat(
        CWD,
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(Failure::because(
        kind,
        format!("cannot open {}", path.display()),
    ))
}

/// The options that keep an upper directory readable as a change set: no redirects, no files without data, no index.
fn options(scope: Scope) -> Vec<(&'static str, &'static str)> {
    match scope {
        Scope::Host => vec![
            ("redirect_dir", "off"),
            ("metacopy", "off"),
            ("index", "off"),
        ],
        // In a user namespace overlayfs may not use trusted attributes. Those of the user it does not trust, so it does
        // neither redirects nor files without data, and refuses to be told so.
        Scope::Mapped | Scope::Single => vec![("userxattr", ""), ("index", "off")],
    }
}

/// Mounts an overlay of `lowers` (lowest first, at least one) at `at`.
///
/// Directories are named to the kernel by descriptor (`/proc/self/fd/N`): short, whatever their path is, and free of
/// characters that an option list would take for its own.
///
/// With `devices` false no device node on it can be opened, whoever made it.
pub(super) fn mount(
    lowers: &[PathBuf],
    upper: Option<&Upper<'_>>,
    at: &Path,
    scope: Scope,
    devices: bool,
) -> Result<()> {
    let attributes = if devices {
        Attributes::empty()
    } else {
        Attributes::MOUNT_ATTR_NODEV
    };
    let lowers: Vec<OwnedFd> = lowers
        .iter()
        .map(|path| open_directory(path, FailureKind::Base))
        .collect::<Result<_>>()?;
    let upper = match upper {
        Some(upper) => Some((
            open_directory(upper.files, FailureKind::Host)?,
            open_directory(upper.work, FailureKind::Host)?,
        )),
        None => None,
    };
    let mut names: Vec<String> = lowers.iter().rev().map(name).collect();
    if upper.is_none() && names.len() == 1 {
        // An overlay wants two directories; the same one twice is the same.
        names.push(names[0].clone());
    }
    let upper = upper
        .as_ref()
        .map(|(files, work)| (name(files), name(work)));

    // What a step writes is worth nothing after a power cut, so nothing of it is synced to the disk meanwhile.
    let mut options = options(scope);
    let volatile = upper.is_some();
    if volatile {
        options.push(("volatile", ""));
    }
    let mut result = new_api(&names, upper.as_ref(), &options, attributes);
    if result.is_err() && volatile {
        // Kernels before 5.10 do not know it.
        options.pop();
        if let Ok(fd) = new_api(&names, upper.as_ref(), &options, attributes) {
            result = Ok(fd);
        }
    }
    match result {
        Ok(mount) => {
            let place = open_directory(at, FailureKind::Host)?;
            firebuild_sys::mount::attach(mount, place).map_err(Failure::because(
                FailureKind::Host,
                format!("cannot mount at {}", at.display()),
            ))
        }
        Err(error) => old_api(&names, upper.as_ref(), &options, at, devices).map_err(|_| {
            Failure::caused(
                FailureKind::NoOverlay,
                "cannot mount an overlay of snapshots",
                &error,
            )
        }),
    }
}

fn name(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

fn new_api(
    lowers: &[String],
    upper: Option<&(String, String)>,
    options: &[(&str, &str)],
    attributes: Attributes,
) -> std::result::Result<OwnedFd, MountError> {
    let overlay = NewFilesystem::new("overlay")?;
    overlay.set("source", "overlay")?;
    for (key, value) in options {
        if value.is_empty() {
            overlay.set_flag(key)?
        } else {
            overlay.set(key, value)?
        }
    }
    for lower in lowers {
        overlay.set("lowerdir+", lower)?;
    }
    if let Some((files, work)) = upper {
        overlay.set("upperdir", files)?;
        overlay.set("workdir", work)?;
    }
    overlay.mount(attributes)
}

/// `mount(2)`, for kernels whose overlayfs takes no layer by itself (before 6.7). Its options fit on one page.
fn old_api(
    lowers: &[String],
    upper: Option<&(String, String)>,
    options: &[(&str, &str)],
    at: &Path,
    devices: bool,
) -> rustix::io::Result<()> {
    let mut data = format!("lowerdir={}", lowers.join(":"));
    if let Some((files, work)) = upper {
        data.push_str(&format!(",upperdir={files},workdir={work}"));
    }
    for (key, value) in options {
        data.push(',');
        data.push_str(key);
        if !value.is_empty() {
            data.push('=');
            data.push_str(value);
        }
    }
    let data = std::ffi::CString::new(data).map_err(|_| rustix::io::Errno::INVAL)?;
    let flags = if devices {
        MountFlags::empty()
    } else {
        MountFlags::NODEV
    };
    rustix::mount::mount("overlay", at, "overlay", flags, data.as_c_str())
}
