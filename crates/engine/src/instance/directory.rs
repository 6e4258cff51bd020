//! The directory of instances: making, finding and listing them.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FlockOperation;

use super::documents::{RECORDS, read_json, write_json};
use super::error::{InstanceError, InstanceErrorKind, io};
use super::lock::{LOCK, lock_file, try_own};
use super::name::{InstanceId, check_name, random_name};
use super::one::{Instance, Owned};
use super::record::{FORMAT, Record};
use crate::error::Error;
use crate::paths::{Paths, PathsError};

/// The name of a directory that is being made or removed starts with this.
pub(super) const ASIDE: &str = ".tmp-";

/// All instances of this user.
#[derive(Debug, Clone)]
pub struct Instances {
    dir: PathBuf,
    runtime: PathBuf,
}

impl Instances {
    /// The instances of these locations. Nothing is created.
    pub fn new(paths: &Paths) -> Self {
        Self {
            dir: paths.instances(),
            runtime: paths.runtime().to_owned(),
        }
    }

    /// The instances of a monitor, which is told where they are.
    pub(crate) fn in_directories(dir: PathBuf, runtime: PathBuf) -> Self {
        Self { dir, runtime }
    }

    /// Makes the directory, private to this user.
    ///
    /// # Errors
    /// `Io`.
    pub fn prepare(paths: &Paths) -> Result<Self, InstanceError> {
        paths.make_instances().map_err(|error: PathsError| {
            Error::caused(InstanceErrorKind::Io, "cannot keep instances", error)
        })?;
        Ok(Self::new(paths))
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where run dirs are.
    pub fn runtime(&self) -> &Path {
        &self.runtime
    }

    /// Makes an instance of `record` under a name of the user's choice or a random one, which is
    /// written into the record. It appears whole, with its lock held.
    ///
    /// # Errors
    /// `BadName`, `NameTaken`, `Io`.
    pub fn create(&self, name: Option<&str>, mut record: Record) -> Result<Owned, InstanceError> {
        if let Some(name) = name {
            check_name(name)?;
        }
        // One at a time, or two could take the same name.
        let choosing = self.dir.join(".lock");
        let _choosing = lock_file(&choosing, FlockOperation::LockExclusive)?;
        let taken: Vec<Record> = self
            .list()?
            .0
            .into_iter()
            .map(|instance| instance.record)
            .collect();
        record.name = match name {
            Some(name) => match taken.iter().find(|other| other.name == name) {
                None => name.to_owned(),
                Some(other) => {
                    return Err(Error::new(
                        InstanceErrorKind::NameTaken,
                        format!(
                            "the name {name} is in use by the VM {}: remove that with \
                             'firebuild rm {name}', or take another name",
                            other.id.short()
                        ),
                    ));
                }
            },
            None => {
                let mut attempt = 0;
                loop {
                    let name = random_name(attempt)?;
                    if !taken.iter().any(|other| other.name == name) {
                        break name;
                    }
                    attempt += 1;
                }
            }
        };
        let aside = self.dir.join(format!("{ASIDE}{}", record.id.short()));
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&aside)
            .map_err(|error| io("make", &aside, error))?;
        let made = self.fill(&aside, record);
        if made.is_err() {
            // Purge would find it too.
            let _ = fs_err::remove_dir_all(&aside);
        }
        made
    }

    fn fill(&self, aside: &Path, record: Record) -> Result<Owned, InstanceError> {
        let lock = lock_file(&aside.join(LOCK), FlockOperation::NonBlockingLockExclusive)?;
        write_json(aside, RECORDS.record, &record)?;
        let dir = self.dir.join(record.id.as_str());
        fs_err::rename(aside, &dir).map_err(|error| io("make", &dir, error))?;
        Ok(Owned {
            instance: Instance {
                record,
                dir,
                runtime: self.runtime.clone(),
            },
            lock: lock.into(),
        })
    }

    /// Takes over an instance whose lock was inherited.
    ///
    /// # Errors
    /// `NotFound`, `Corrupt`, `Io`.
    pub fn adopt(&self, id: &InstanceId, lock: OwnedFd) -> Result<Owned, InstanceError> {
        Ok(Owned {
            instance: self.read(id)?,
            lock,
        })
    }

    /// All instances, the youngest first, and those whose record cannot be read.
    ///
    /// # Errors
    /// `Io` when the directory cannot be read; that it is not there is none.
    pub fn list(&self) -> Result<(Vec<Instance>, Vec<InstanceError>), InstanceError> {
        let entries = match fs_err::read_dir(&self.dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok((Vec::new(), Vec::new()));
            }
            entries => entries.map_err(|error| io("list", &self.dir, error))?,
        };
        let (mut instances, mut broken) = (Vec::new(), Vec::new());
        for entry in entries {
            let entry = entry.map_err(|error| io("list", &self.dir, error))?;
            let Some(id) = entry.file_name().to_str().and_then(InstanceId::parse) else {
                continue;
            };
            match self.read(&id) {
                Ok(instance) => instances.push(instance),
                // Removed since the directory was read.
                Err(error) if error.kind() == InstanceErrorKind::NotFound => {}
                Err(error) => broken.push(error),
            }
        }
        instances.sort_by(|left, right| {
            (right.record.created_at, &right.record.id)
                .cmp(&(left.record.created_at, &left.record.id))
        });
        Ok((instances, broken))
    }

    /// The instance of a name, an id, or a unique beginning of an id.
    ///
    /// # Errors
    /// `NotFound`, `Ambiguous`, `Corrupt`, `Io`.
    pub fn find(&self, wanted: &str) -> Result<Instance, InstanceError> {
        if let Some(id) = InstanceId::parse(wanted) {
            return self.read(&id);
        }
        let (instances, _) = self.list()?;
        if let Some(named) = instances.iter().find(|other| other.record.name == wanted) {
            return Ok(named.clone());
        }
        let mut matching = instances
            .into_iter()
            .filter(|other| !wanted.is_empty() && other.record.id.as_str().starts_with(wanted));
        match (matching.next(), matching.next()) {
            (Some(one), None) => Ok(one),
            (Some(one), Some(other)) => Err(Error::new(
                InstanceErrorKind::Ambiguous,
                format!(
                    "several VMs have ids that begin with {wanted}: {}, {}",
                    one.record.id.short(),
                    other.record.id.short()
                ),
            )),
            (None, _) => Err(not_found(wanted)),
        }
    }

    fn read(&self, id: &InstanceId) -> Result<Instance, InstanceError> {
        let dir = self.dir.join(id.as_str());
        let record: Record =
            read_json(&dir, RECORDS.record)?.ok_or_else(|| not_found(id.short()))?;
        if record.id != *id || record.format != FORMAT {
            return Err(Error::new(
                InstanceErrorKind::Corrupt,
                format!(
                    "{} is not a record of this VM",
                    dir.join(RECORDS.record).display()
                ),
            ));
        }
        Ok(Instance {
            record,
            dir,
            runtime: self.runtime.clone(),
        })
    }

    /// Directories that a crash left half-made or half-removed. Nobody is waited for.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn leftovers(&self) -> Result<Vec<PathBuf>, InstanceError> {
        if !self.dir.exists() {
            return Ok(Vec::new());
        }
        // Nobody is between making a directory and locking it.
        let _choosing = lock_file(&self.dir.join(".lock"), FlockOperation::LockExclusive)?;
        let entries = match fs_err::read_dir(&self.dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|error| io("list", &self.dir, error))?,
        };
        let mut leftovers = Vec::new();
        for entry in entries {
            let path = entry.map_err(|error| io("list", &self.dir, error))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            // A directory without its lock was cut off before it had one.
            if !name.starts_with(ASIDE) {
                continue;
            }
            match try_own(&path, Duration::ZERO) {
                Ok(Some(_free)) => leftovers.push(path),
                Ok(None) => {}
                // It was on its way out.
                Err(_) if !path.exists() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(leftovers)
    }
}

pub(super) fn not_found(wanted: &str) -> InstanceError {
    Error::new(
        InstanceErrorKind::NotFound,
        format!("there is no VM called {wanted}; 'firebuild ls -a' shows all"),
    )
}
