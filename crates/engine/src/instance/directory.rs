//! The directory of instances: making, finding, listing and removing them.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use firebuild_guest_proto::metadata::Document;
use firebuild_vm::remainder::Remainder;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::{InstanceError, InstanceErrorKind, io};
use super::health::Health;
use super::name::{InstanceId, check_name, random_name};
use super::record::{Ended, FORMAT, MachineRecord, Record, Started};
use super::restart::Restarts;
use super::state::State;
use crate::error::{Cause, Error};
use crate::monitor::order::Order;
use crate::paths::{Paths, PathsError};

/// The name of a directory that is being made or removed starts with this.
const ASIDE: &str = ".tmp-";
/// The lock of an instance.
const LOCK: &str = "lock";
/// Records are a few kilobytes; labels of images may make them larger.
const LARGEST_RECORD: u64 = 16 << 20;
/// Somebody who only asks for the state holds a lock for a moment.
const ASKING: Duration = Duration::from_millis(500);

/// Names of the documents in the directory of an instance.
#[derive(Debug)]
pub(crate) struct Records {
    pub(crate) record: &'static str,
    pub(crate) order: &'static str,
    pub(crate) spec: &'static str,
    pub(crate) plan: &'static str,
    pub(crate) machine: &'static str,
    pub(crate) started: &'static str,
    pub(crate) health: &'static str,
    pub(crate) restarts: &'static str,
    pub(crate) metadata: &'static str,
    pub(crate) paused: &'static str,
    pub(crate) exit: &'static str,
    pub(crate) output: &'static str,
    pub(crate) console: &'static str,
    pub(crate) scratch: &'static str,
    pub(crate) copy: &'static str,
}

/// See the module's table.
pub(crate) const RECORDS: Records = Records {
    record: "record.json",
    order: "order.json",
    spec: "spec.json",
    plan: "plan.json",
    machine: "machine.json",
    started: "started.json",
    health: "health.json",
    restarts: "restarts.json",
    metadata: "mmds.json",
    paused: "paused.json",
    exit: "exit.json",
    output: "output.log",
    console: "console.log",
    scratch: "scratch.raw",
    copy: "root.raw",
};

/// All instances of this user.
#[derive(Debug, Clone)]
pub struct Instances {
    dir: PathBuf,
    runtime: PathBuf,
}

/// One instance, as read.
#[derive(Debug, Clone)]
pub struct Instance {
    record: Record,
    dir: PathBuf,
    runtime: PathBuf,
}

/// An instance together with the lock that makes its holder the owner.
#[derive(Debug)]
pub struct Owned {
    instance: Instance,
    lock: OwnedFd,
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

impl Instance {
    /// What was asked for.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The id.
    pub fn id(&self) -> &InstanceId {
        &self.record.id
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A document or file in its directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Where run dirs are.
    pub(crate) fn runtime(&self) -> &Path {
        &self.runtime
    }

    /// What it does now.
    ///
    /// # Errors
    /// `Corrupt`, `Io`; `NotFound` when it was removed meanwhile.
    pub fn state(&self) -> Result<State, InstanceError> {
        while let Some(ended) = self.ended()? {
            let pending = self.restarts()?.is_some_and(|restarts| restarts.pending);
            if pending && self.is_owned()? {
                return Ok(State::Restarting(ended));
            }
            // Unless it has begun again between the two looks.
            if self.ended()?.as_ref() == Some(&ended) {
                return Ok(State::Exited(ended));
            }
        }
        if self.is_owned()? {
            return Ok(match read_json(&self.dir, RECORDS.started)? {
                Some(started) => State::Running {
                    started,
                    machine: self.machine()?,
                    paused: self.path(RECORDS.paused).exists(),
                },
                None => State::Created,
            });
        }
        // It may have ended between the two looks.
        Ok(self.ended()?.map_or(State::Dead, State::Exited))
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub fn ended(&self) -> Result<Option<Ended>, InstanceError> {
        read_json(&self.dir, RECORDS.exit)
    }

    /// Since when its application runs or ran, if it ever did.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub fn started(&self) -> Result<Option<Started>, InstanceError> {
        read_json(&self.dir, RECORDS.started)
    }

    /// How often it was started again, if it was.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub fn restarts(&self) -> Result<Option<Restarts>, InstanceError> {
        read_json(&self.dir, RECORDS.restarts)
    }

    /// What its monitor was told, if that was kept.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub(crate) fn order(&self) -> Result<Option<Order>, InstanceError> {
        read_json(&self.dir, RECORDS.order)
    }

    /// The metadata document, if it was changed.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub(crate) fn metadata(&self) -> Result<Option<Document>, InstanceError> {
        read_json(&self.dir, RECORDS.metadata)
    }

    /// How its application is or was, if it is looked at.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub fn health(&self) -> Result<Option<Health>, InstanceError> {
        read_json(&self.dir, RECORDS.health)
    }

    /// Which processes it is or was, if it was launched.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub fn machine(&self) -> Result<Option<MachineRecord>, InstanceError> {
        read_json(&self.dir, RECORDS.machine)
    }

    /// What its plan says that its machine makes outside of the run dir; nothing for one that was never planned.
    pub(crate) fn remainders(&self) -> Vec<Remainder> {
        #[derive(Deserialize)]
        struct Planned {
            #[serde(default)]
            remainders: Vec<Remainder>,
        }
        // A plan that cannot be read names nothing.
        let planned: Option<Planned> = read_json(&self.dir, RECORDS.plan).unwrap_or_default();
        planned.map_or_else(Vec::new, |planned| planned.remainders)
    }

    /// Waits until its owner has let go.
    ///
    /// # Errors
    /// `Io`. That it was removed is none.
    pub fn wait_for_owner(&self) -> Result<(), InstanceError> {
        match open_lock(&self.dir.join(LOCK)) {
            Ok(None) => Ok(()),
            Ok(Some(file)) => lock(&file, &self.dir, FlockOperation::LockShared),
            Err(error) => Err(error),
        }
    }

    /// Waits until its owner has let go, for at most so long; whether it has.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn wait_for_owner_within(&self, limit: Duration) -> Result<bool, InstanceError> {
        const STEP: Duration = Duration::from_millis(5);
        let begin = Instant::now();
        loop {
            match self.is_owned() {
                Ok(false) => return Ok(true),
                // It was removed at its end.
                Err(error) if error.kind() == InstanceErrorKind::NotFound => return Ok(true),
                Ok(true) if begin.elapsed() < limit => std::thread::sleep(STEP),
                Ok(true) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    /// Becomes the owner of an instance that nobody owns; `None` when somebody does.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn try_own(&self) -> Result<Option<Owned>, InstanceError> {
        Ok(try_own(&self.dir, ASKING)?.map(|lock| Owned {
            instance: self.clone(),
            lock: lock.into(),
        }))
    }

    fn is_owned(&self) -> Result<bool, InstanceError> {
        let Some(file) = open_lock(&self.dir.join(LOCK))? else {
            return Err(not_found(self.record.id.short()));
        };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(Errno::WOULDBLOCK) => Ok(true),
            Err(error) => Err(io("lock", &self.dir, error)),
        }
    }
}

impl Owned {
    /// The instance.
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// The lock, to be handed to another process; the ownership goes with it.
    pub fn into_lock(self) -> (Instance, OwnedFd) {
        (self.instance, self.lock)
    }

    /// Writes a document of the instance.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<(), InstanceError> {
        write_json(&self.instance.dir, name, value)
    }

    /// Removes a document of the instance; one that is not there is no error.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn forget(&self, name: &str) -> Result<(), InstanceError> {
        let path = self.instance.path(name);
        match fs_err::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(io("remove", &path, error)),
            _ => Ok(()),
        }
    }

    /// Removes the instance with everything in it. It vanishes in one step.
    ///
    /// # Errors
    /// `Io`.
    pub fn remove(self) -> Result<(), InstanceError> {
        let dir = &self.instance.dir;
        let aside = dir.with_file_name(format!("{ASIDE}rm-{}", self.instance.record.id.short()));
        match fs_err::rename(dir, &aside) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            renamed => renamed.map_err(|error| io("remove", dir, error))?,
        }
        fs_err::remove_dir_all(&aside).map_err(|error| io("remove", &aside, error))
    }
}

/// Writes a document 0600, at once or not at all.
pub(crate) fn write_json<T: Serialize>(
    dir: &Path,
    name: &str,
    value: &T,
) -> Result<(), InstanceError> {
    let path = dir.join(name);
    let failed = |error: Cause| io("write", &path, error);
    let mut text = serde_json::to_vec_pretty(value).map_err(|error| failed(error.into()))?;
    text.push(b'\n');
    let aside = dir.join(format!(".{name}.new"));
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&aside)
        .map_err(|error| failed(error.into()))?;
    file.write_all(&text)
        .and_then(|()| file.sync_all())
        .map_err(|error| failed(error.into()))?;
    fs_err::rename(&aside, &path).map_err(|error| failed(error.into()))
}

/// Reads a document; `None` when it is not there.
fn read_json<T: DeserializeOwned>(dir: &Path, name: &str) -> Result<Option<T>, InstanceError> {
    use std::io::Read;
    let path = dir.join(name);
    let file = match fs_err::File::open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file.map_err(|error| io("read", &path, error))?,
    };
    let mut text = Vec::new();
    file.take(LARGEST_RECORD)
        .read_to_end(&mut text)
        .map_err(|error| io("read", &path, error))?;
    serde_json::from_slice(&text).map(Some).map_err(|error| {
        Error::caused(
            InstanceErrorKind::Corrupt,
            format!("{} is damaged", path.display()),
            error,
        )
    })
}

fn not_found(wanted: &str) -> InstanceError {
    Error::new(
        InstanceErrorKind::NotFound,
        format!("there is no VM called {wanted}; 'firebuild ls -a' shows all"),
    )
}

fn lock_file(path: &Path, operation: FlockOperation) -> Result<File, InstanceError> {
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|error| io("open", path, error))?;
    lock(&file, path, operation)?;
    Ok(file)
}

fn open_lock(path: &Path) -> Result<Option<File>, InstanceError> {
    match fs_err::File::open(path) {
        Ok(file) => Ok(Some(file.into_file())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io("open", path, error)),
    }
}

fn lock(file: &File, path: &Path, operation: FlockOperation) -> Result<(), InstanceError> {
    loop {
        match flock(file, operation) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(io("lock", path, error)),
        }
    }
}

/// The lock of a directory that nobody owns. Whoever asks for a state holds the lock for a moment and
/// is waited for.
fn try_own(dir: &Path, patience: Duration) -> Result<Option<File>, InstanceError> {
    const STEP: Duration = Duration::from_millis(10);
    let path = dir.join(LOCK);
    let file = match open_lock(&path)? {
        Some(file) => file,
        None => lock_file(&path, FlockOperation::NonBlockingLockExclusive)?,
    };
    let mut waited = Duration::ZERO;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(file)),
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) if waited < patience => {
                std::thread::sleep(STEP);
                waited += STEP;
            }
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(io("lock", &path, error)),
        }
    }
}
