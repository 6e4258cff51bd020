//! What is copied: a file or directory of this side, as an archive.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use firebuild_guest_proto::session::CopySource;
use firebuild_rootfs::tar::{Output, WriteOptions, write_tree};
use firebuild_rootfs::walk::{DirContents, Found, Verdict, WalkOptions, open_root, walk};
use rustix::fs::{AtFlags, CWD, FileType};

use crate::{CopyError, Ends};

/// A file or directory that was found.
#[derive(Debug)]
pub struct Source {
    what: CopySource,
    /// The directory that is walked: its parent, or itself when only what is in it was asked for.
    root: OwnedFd,
    /// The one entry of the parent that counts.
    entry: Option<Vec<u8>>,
    shown: String,
}

impl Source {
    /// Finds what a path names. The directories on the way are resolved as any program would; a link at the end is
    /// followed only with `follow`, or when the path says that it is a directory.
    ///
    /// # Errors
    /// When it is not there, or is no directory although the path says so.
    pub fn find(path: &str, follow: bool) -> Result<Source, CopyError> {
        let ends = Ends::of(path);
        if path.is_empty() {
            return Err(CopyError::new("the path of what to copy is empty"));
        }
        let must_be_dir = ends.slash || ends.dot || ends.name.is_none();
        let flags = if follow || must_be_dir {
            AtFlags::empty()
        } else {
            AtFlags::SYMLINK_NOFOLLOW
        };
        let stat = rustix::fs::statat(CWD, ends.path, flags)
            .map_err(|error| CopyError::at("find", path, error))?;
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if must_be_dir && !is_dir {
            return Err(CopyError::new(format!("{path} is no directory")));
        }
        // Where it really is, for paths that end in a link or in no name.
        let place = if flags.is_empty() {
            rustix_canonical(Path::new(ends.path)).map_err(|e| CopyError::at("find", path, e))?
        } else {
            PathBuf::from(ends.path)
        };
        let given = ends.name.map(|name| name.as_bytes().to_vec());
        let real = place.file_name().map(|name| name.as_bytes().to_vec());
        let name = given.or_else(|| real.clone()).unwrap_or_default();
        // A root has no parent to be an entry of.
        let contents_only = ends.dot || real.is_none();
        let (directory, entry) = match real {
            Some(real) if !contents_only => {
                let parent = place
                    .parent()
                    .filter(|parent| !parent.as_os_str().is_empty());
                (parent.unwrap_or(Path::new(".")).to_owned(), Some(real))
            }
            _ => (place, None),
        };
        let root = open_root(&directory).map_err(|error| CopyError::at("open", path, error))?;
        Ok(Source {
            what: CopySource {
                name,
                is_dir,
                contents_only,
            },
            root,
            entry,
            shown: path.to_owned(),
        })
    }

    /// What the other side needs to know.
    #[must_use]
    pub fn what(&self) -> &CopySource {
        &self.what
    }

    /// Writes the archive. A directory's entries begin with its name; with `contents_only` with nothing.
    ///
    /// # Errors
    /// When something cannot be read, vanishes or changes meanwhile; when `out` does not take it.
    pub fn pack(self, out: &mut dyn Write) -> Result<(), CopyError> {
        let cannot = |error| CopyError::caused(format!("cannot read {}", self.shown), error);
        let wanted = self.entry.clone();
        let mut only = |found: &Found<'_>| match &wanted {
            Some(name) if !found.path.contains(&b'/') && found.path != name => Verdict::Leave,
            _ => Verdict::Take,
        };
        let options = WalkOptions {
            owner: None,
            filter: Some(&mut only),
        };
        let tree = walk(self.root.as_fd(), options)
            .map_err(|error| cannot(Box::<dyn std::error::Error + Send + Sync>::from(error)))?;
        let options = WriteOptions {
            without_root: self.entry.is_some(),
            without_digest: true,
            ..WriteOptions::default()
        };
        let contents = DirContents::new(self.root);
        let shown = self.shown;
        write_tree(&tree, &contents, Output::Stream(out), &options)
            .map(drop)
            .map_err(|error| CopyError::caused(format!("cannot copy {shown}"), error))
    }
}

/// What another side says of the file at `path`, as far as it can be so: what it is called and whether only its contents
/// were asked for stands in the path, and a side that says otherwise would choose what is written here.
///
/// # Errors
/// A claim that does not fit the path.
pub fn agreed(path: &str, claimed: &CopySource) -> Result<CopySource, CopyError> {
    let ends = Ends::of(path);
    let fits = match ends.name {
        Some(name) => claimed.name == name.as_bytes() && claimed.contents_only == ends.dot,
        None => claimed.contents_only,
    };
    if fits && (claimed.is_dir || !claimed.contents_only) {
        Ok(claimed.clone())
    } else {
        Err(CopyError::new(format!(
            "what came is not what {path} names; give the path without '..' at its end"
        )))
    }
}

/// `realpath(3)` by the kernel: what an open descriptor is called.
fn rustix_canonical(path: &Path) -> rustix::io::Result<PathBuf> {
    use rustix::fs::{Mode, OFlags};
    use std::os::fd::AsRawFd;
    let fd = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let name = rustix::fs::readlink(link, Vec::new())?;
    Ok(PathBuf::from(std::ffi::OsString::from_vec(
        name.into_bytes(),
    )))
}
