//! One instance: its documents, its state, its owner.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use firebuild_guest_proto::metadata::Document;
use firebuild_vm::remainder::Remainder;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::directory::{ASIDE, not_found};
use super::documents::{RECORDS, note_json, read_json, write_json};
use super::error::{InstanceError, InstanceErrorKind, io};
use super::health::Health;
use super::lock::{ASKING, LOCK, lock, open_lock, try_own};
use super::name::InstanceId;
use super::record::{Ended, MachineRecord, Record, Started};
use super::restart::Restarts;
use super::state::State;
use crate::monitor::order::Order;

/// One instance, as read.
#[derive(Debug, Clone)]
pub struct Instance {
    pub(super) record: Record,
    pub(super) dir: PathBuf,
    pub(super) runtime: PathBuf,
}

/// An instance together with the lock that makes its holder the owner.
#[derive(Debug)]
pub struct Owned {
    pub(super) instance: Instance,
    pub(super) lock: OwnedFd,
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

    /// Writes a document that is of no use after a power cut, and may be damaged by one.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn note<T: Serialize>(&self, name: &str, value: &T) -> Result<(), InstanceError> {
        note_json(&self.instance.dir, name, value)
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
