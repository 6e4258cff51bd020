//! The kernels of this host, and the locks around them.

use std::cmp::Reverse;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::error::{KernelError, KernelErrorKind, io};
use super::record::{FORMAT, Kernel, compare_releases};
use crate::error::Error;
use crate::paths::Paths;

/// The name of a directory that is being made or removed starts with this.
pub(crate) const ASIDE: &str = ".tmp-";
/// An id is a file name and stays well under the limit of filesystems.
const LONGEST_ID: usize = 128;
/// `kernel.json` is a few kilobytes.
const LARGEST_RECORD: u64 = 1 << 20;

/// The directory of kernels.
#[derive(Debug, Clone)]
pub struct Catalogue {
    dir: PathBuf,
}

/// A lock on the catalogue, given back when dropped. While a shared one is held, no kernel disappears.
#[derive(Debug)]
pub struct Hold {
    _file: File,
}

/// What the catalogue holds.
#[derive(Debug, Default)]
pub struct Listing {
    /// The kernels, newest release first.
    pub kernels: Vec<Kernel>,
    /// Entries that cannot be read.
    pub broken: Vec<KernelError>,
}

impl Catalogue {
    /// The catalogue of these locations. Nothing is created.
    pub fn new(paths: &Paths) -> Self {
        Self {
            dir: paths.kernels(),
        }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// All kernels. A catalogue that does not exist yet is empty.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn list(&self) -> Result<Listing, KernelError> {
        let entries = match fs_err::read_dir(&self.dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Listing::default()),
            entries => entries.map_err(|error| io("list", &self.dir, error))?,
        };
        let mut listing = Listing::default();
        for entry in entries {
            let entry = entry.map_err(|error| io("list", &self.dir, error))?;
            let Ok(id) = entry.file_name().into_string() else {
                continue;
            };
            if check_id(&id).is_err() || !entry.path().is_dir() {
                continue;
            }
            match self.read(&id) {
                Ok(kernel) => listing.kernels.push(kernel),
                Err(error) => listing.broken.push(error),
            }
        }
        listing.kernels.sort_by(|left, right| {
            compare_releases(&right.release, &left.release)
                .then_with(|| Reverse(left.imported_at).cmp(&Reverse(right.imported_at)))
                .then_with(|| left.id.cmp(&right.id))
        });
        Ok(listing)
    }

    /// The kernel called `id`, or the newest one that can run a VM.
    ///
    /// # Errors
    /// `NotFound`, with what is there and what to do; `Unsupported` when the one named cannot run a VM.
    pub fn find(&self, id: Option<&str>) -> Result<Kernel, KernelError> {
        if let Some(id) = id {
            check_id(id)?;
            if !self.dir.join(id).is_dir() {
                return Err(self.not_found(id));
            }
            let kernel = self.read(id)?;
            return match kernel.unfit() {
                None => Ok(kernel),
                Some(why) => Err(Error::new(
                    KernelErrorKind::Unsupported,
                    format!("the kernel {id} cannot run a VM: {why}"),
                )),
            };
        }
        let listing = self.list()?;
        let mut unfit = Vec::new();
        for kernel in listing.kernels {
            match kernel.unfit() {
                None => return Ok(kernel),
                Some(why) => unfit.push(format!("{}: {why}", kernel.id)),
            }
        }
        let mut message = "there is no kernel to boot: import one with \
                           'firebuild kernel import FILE.deb' or 'firebuild kernel import --host'"
            .to_owned();
        if !unfit.is_empty() {
            message.push_str(&format!(" (not usable: {})", unfit.join("; ")));
        }
        Err(Error::new(KernelErrorKind::NotFound, message))
    }

    /// Waits until nobody changes the catalogue, and keeps everybody from it. It is enough to be allowed to read it.
    ///
    /// # Errors
    /// When the lock cannot be opened.
    pub fn hold(&self) -> Result<Hold, KernelError> {
        let path = self.dir.join("lock");
        match fs_err::File::open(&path) {
            Ok(file) => lock(file.into_file(), &path, FlockOperation::LockShared),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.lock(FlockOperation::LockShared)
            }
            Err(error) => Err(io("open", &path, error)),
        }
    }

    /// The exclusive lock. What earlier holders left half-made is removed.
    pub(crate) fn hold_exclusive(&self) -> Result<Hold, KernelError> {
        let hold = self.lock(FlockOperation::LockExclusive)?;
        for entry in fs_err::read_dir(&self.dir).map_err(|error| io("list", &self.dir, error))? {
            let entry = entry.map_err(|error| io("list", &self.dir, error))?;
            if entry.file_name().to_string_lossy().starts_with(ASIDE) {
                fs_err::remove_dir_all(entry.path())
                    .map_err(|error| io("remove", &entry.path(), error))?;
            }
        }
        Ok(hold)
    }

    fn lock(&self, operation: FlockOperation) -> Result<Hold, KernelError> {
        fs_err::create_dir_all(&self.dir).map_err(|error| io("make", &self.dir, error))?;
        let path = self.dir.join("lock");
        let file = fs_err::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|error| io("open", &path, error))?
            .into_file();
        lock(file, &path, operation)
    }

    /// Reads one entry.
    pub(crate) fn read(&self, id: &str) -> Result<Kernel, KernelError> {
        let dir = self.dir.join(id);
        let path = dir.join("kernel.json");
        let corrupt = |cause: Box<dyn std::error::Error + Send + Sync>| {
            Error::caused(
                KernelErrorKind::Corrupt,
                format!(
                    "the kernel {id} is damaged: remove it with 'firebuild kernel rm {id}' \
                     and import it again"
                ),
                cause,
            )
        };
        let size = fs_err::metadata(&path)
            .map_err(|error| corrupt(error.into()))?
            .len();
        if size > LARGEST_RECORD {
            return Err(corrupt("kernel.json is too large".into()));
        }
        let text = fs_err::read(&path).map_err(|error| corrupt(error.into()))?;
        let format = serde_json::from_slice::<serde_json::Value>(&text)
            .map_err(|error| corrupt(error.into()))?
            .get("format")
            .and_then(serde_json::Value::as_u64);
        if format != Some(u64::from(FORMAT)) {
            return Err(Error::new(
                KernelErrorKind::Unsupported,
                format!("the kernel {id} was imported by another version of firebuild"),
            ));
        }
        let mut kernel: Kernel =
            serde_json::from_slice(&text).map_err(|error| corrupt(error.into()))?;
        let plain = kernel
            .modules
            .iter()
            .all(|module| !module.file.contains('/'));
        if kernel.id != id || !plain {
            return Err(corrupt("kernel.json does not belong to it".into()));
        }
        kernel.dir = dir;
        Ok(kernel)
    }

    /// The error for an id that is not there.
    pub(crate) fn not_found(&self, id: &str) -> KernelError {
        let known = self.list().map(|listing| listing.kernels);
        let known: Vec<String> = known
            .unwrap_or_default()
            .into_iter()
            .map(|kernel| kernel.id)
            .collect();
        let known = if known.is_empty() {
            "none is imported".to_owned()
        } else {
            format!("there are: {}", known.join(", "))
        };
        Error::new(
            KernelErrorKind::NotFound,
            format!("there is no kernel called {id}; {known}"),
        )
    }
}

fn lock(file: File, path: &Path, operation: FlockOperation) -> Result<Hold, KernelError> {
    loop {
        match flock(&file, operation) {
            Ok(()) => return Ok(Hold { _file: file }),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(io("lock", path, error)),
        }
    }
}

/// Checks that `id` can be a directory name: letters, digits and `.-_+~`, at most 128 bytes, not
/// starting with a dot.
pub(crate) fn check_id(id: &str) -> Result<(), KernelError> {
    let good = !id.is_empty()
        && id.len() <= LONGEST_ID
        && id.starts_with(|c: char| c.is_ascii_alphanumeric())
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-_+~".contains(&byte));
    if good && id != "lock" {
        return Ok(());
    }
    Err(Error::new(
        KernelErrorKind::BadId,
        format!(
            "'{id}' cannot name a kernel: letters, digits and '.', '-', '_', '+', '~' can, \
             at most {LONGEST_ID}"
        ),
    ))
}
