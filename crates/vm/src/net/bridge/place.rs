//! Who has what of the network: files that are written before anything is made.
//!
//! ```text
//! /run/firebuild-net/          0700, root's
//! └── 4026531833/              the network namespace, by the number of its inode
//!     ├── lock                 held (flock) by whoever changes something
//!     ├── network.json         the network, if there is one
//!     └── 10.251.0.2           an address, held (flock) by the owner of the machine that has it; in it, what that made
//! ```
//!
//! A file whose lock is free is that of a dead machine. Files and directories go with the last machine.

use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use firebuild_guest_proto::Cidr;
use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt;
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::{NetworkError, NetworkErrorKind, io_error};
use super::subnet::Subnet;

/// Where all of it is.
pub(super) const BASE: &str = "/run/firebuild-net";
/// Version of the files.
const FORMAT: u32 = 1;
const LOCK: &str = "lock";
const NETWORK: &str = "network.json";
/// Records are a few hundred bytes.
const LARGEST: u64 = 64 << 10;

/// The records of the network namespace of the calling thread, locked.
#[derive(Debug)]
pub(super) struct Place {
    dir: PathBuf,
    _lock: OwnedFd,
}

/// The network, as it was made or is about to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NetworkRecord {
    format: u32,
    /// Its bridge.
    pub(super) bridge: String,
    /// Its table of nftables.
    pub(super) table: String,
    /// Its addresses.
    pub(super) subnet: Cidr,
    /// Whether this host forwarded nothing before.
    pub(super) forwarding_was_off: bool,
    /// The path by which the namespace was entered, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) netns: Option<PathBuf>,
}

/// What a machine has made, or is about to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LeaseRecord {
    format: u32,
    /// Name of the machine.
    pub(super) machine: String,
    /// Its tap.
    pub(super) tap: String,
    /// Its tables of nftables.
    pub(super) table: String,
}

/// An address that no other machine has as long as this value lives.
#[derive(Debug)]
pub(super) struct Lease {
    address: Ipv4Addr,
    path: PathBuf,
    _lock: OwnedFd,
}

/// A file whose owner is dead.
#[derive(Debug)]
pub(super) struct DeadLease {
    pub(super) lease: Lease,
    /// `None` when it was killed before it had written it, and so before it had made anything.
    pub(super) record: Option<LeaseRecord>,
}

impl NetworkRecord {
    pub(super) fn new(
        bridge: &str,
        table: &str,
        subnet: &Subnet,
        forwarding_was_off: bool,
        netns: Option<&Path>,
    ) -> Self {
        Self {
            format: FORMAT,
            bridge: bridge.to_owned(),
            table: table.to_owned(),
            subnet: subnet.cidr(),
            forwarding_was_off,
            netns: netns.map(Path::to_owned),
        }
    }
}

impl LeaseRecord {
    pub(super) fn new(machine: &str, tap: &str, table: &str) -> Self {
        Self {
            format: FORMAT,
            machine: machine.to_owned(),
            tap: tap.to_owned(),
            table: table.to_owned(),
        }
    }
}

impl Lease {
    pub(super) fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Gives the address back, with its file unless that is still needed. Only under the lock of the place.
    pub(super) fn give_back(self, with_file: bool) -> io::Result<()> {
        if with_file {
            remove(&self.path)?;
        }
        Ok(())
    }
}

/// The directory of the calling thread's network namespace.
pub(super) fn dir_here() -> io::Result<PathBuf> {
    let namespace = rustix::fs::stat("/proc/thread-self/ns/net")?;
    Ok(Path::new(BASE).join(namespace.st_ino.to_string()))
}

/// By which path the namespace of a directory was entered, if it was.
pub(super) fn netns_of(dir: &Path) -> Option<PathBuf> {
    let record: NetworkRecord = read(&dir.join(NETWORK)).ok().flatten()?;
    record.netns
}

impl Place {
    /// Makes the directory and locks it.
    pub(super) fn enter() -> io::Result<Self> {
        let dir = dir_here()?;
        loop {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&dir)?;
            if let Some(place) = Self::lock(&dir)? {
                return Ok(place);
            }
        }
    }

    /// Locks the directory, if there is one.
    pub(super) fn enter_if_there() -> io::Result<Option<Self>> {
        let dir = dir_here()?;
        while dir.symlink_metadata().is_ok() {
            if let Some(place) = Self::lock(&dir)? {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    /// `None` when it vanished meanwhile.
    fn lock(dir: &Path) -> io::Result<Option<Self>> {
        let path = dir.join(LOCK);
        let file = match open(&path, true) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        loop {
            match flock(&file, FlockOperation::LockExclusive) {
                Err(Errno::INTR) => {}
                locked => break locked?,
            }
        }
        // Its last holder may have removed it between the two calls: then it guards nothing.
        Ok(is_at(&file, &path).then(|| Self {
            dir: dir.to_owned(),
            _lock: file.into_file().into(),
        }))
    }

    /// The network, if there is one.
    pub(super) fn network(&self) -> io::Result<Option<NetworkRecord>> {
        let record: Option<NetworkRecord> = read(&self.dir.join(NETWORK))?;
        Ok(record.filter(|record| record.format == FORMAT))
    }

    pub(super) fn write_network(&self, record: &NetworkRecord) -> io::Result<()> {
        let aside = self.dir.join(format!("{NETWORK}.new"));
        let mut file = open(&aside, true)?;
        file.set_len(0)?;
        file.write_all(&serde_json::to_vec_pretty(record)?)?;
        fs::rename(aside, self.dir.join(NETWORK))
    }

    /// Takes the address that is `wanted`, else the first free one, and writes down what it is for.
    pub(super) fn take(
        &self,
        subnet: &Subnet,
        record: &LeaseRecord,
        wanted: Option<Ipv4Addr>,
    ) -> Result<Lease, NetworkError> {
        let failed = io_error("cannot record the address of the machine");
        let taken = self.addresses().map_err(&failed)?;
        let address = match wanted {
            Some(address) => self.only(address, subnet, &taken)?,
            None => subnet
                .guests()
                .find(|address| !taken.contains(address))
                .ok_or_else(|| {
                    NetworkError::new(
                        NetworkErrorKind::Full,
                        format!(
                            "every address of the network {} is taken: end a VM, or use --network=user",
                            subnet.cidr()
                        ),
                    )
                })?,
        };
        let path = self.dir.join(address.to_string());
        let written = || -> io::Result<Lease> {
            let mut file = open(&path, true)?;
            flock(&file, FlockOperation::NonBlockingLockExclusive)?;
            file.write_all(&serde_json::to_vec_pretty(record)?)?;
            Ok(Lease {
                address,
                path: path.clone(),
                _lock: file.into_file().into(),
            })
        };
        written().map_err(|error| {
            let _ = remove(&path);
            failed(error)
        })
    }

    /// This address, if a machine may have it.
    fn only(
        &self,
        address: Ipv4Addr,
        subnet: &Subnet,
        taken: &[Ipv4Addr],
    ) -> Result<Ipv4Addr, NetworkError> {
        let refused = |why: String| {
            let text = format!("the address {address} cannot be had: {why}");
            Err(NetworkError::new(NetworkErrorKind::Address, text))
        };
        if taken.contains(&address) {
            let record: Option<LeaseRecord> =
                read(&self.dir.join(address.to_string())).ok().flatten();
            let owner = record.map_or_else(|| "another VM".to_owned(), |it| it.machine);
            return refused(format!("{owner} has it"));
        }
        if !subnet.guests().any(|one| one == address) {
            return refused(format!(
                "it is none of the guests' of the network {}, whose first two and last are not theirs",
                subnet.cidr()
            ));
        }
        Ok(address)
    }

    /// Addresses that have a file.
    pub(super) fn addresses(&self) -> io::Result<Vec<Ipv4Addr>> {
        let mut addresses = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            addresses.extend(
                entry?
                    .file_name()
                    .to_str()
                    .and_then(|name| name.parse::<Ipv4Addr>().ok()),
            );
        }
        Ok(addresses)
    }

    /// Files whose owners are dead. Nobody takes an address meanwhile.
    pub(super) fn dead(&self) -> io::Result<Vec<DeadLease>> {
        let mut dead = Vec::new();
        for address in self.addresses()? {
            let path = self.dir.join(address.to_string());
            let file = open(&path, false)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) => continue,
                locked => locked?,
            }
            // One that cannot be read was not finished.
            let record = read(&path).ok().flatten();
            let lease = Lease {
                address,
                path,
                _lock: file.into_file().into(),
            };
            dead.push(DeadLease { lease, record });
        }
        Ok(dead)
    }

    /// Removes the directory, in which nothing is left to record.
    pub(super) fn dissolve(self) -> io::Result<()> {
        for name in [NETWORK, &format!("{NETWORK}.new"), LOCK] {
            remove(&self.dir.join(name))?;
        }
        match fs::remove_dir(&self.dir) {
            // Somebody has made a lock anew already, and waits for nothing.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            removed => removed,
        }?;
        // The base goes when no namespace has anything in it.
        let _ = fs::remove_dir(BASE);
        Ok(())
    }
}

fn open(path: &Path, create: bool) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).create(create).mode(0o600);
    options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    options.open(path)
}

fn is_at(file: &fs::File, path: &Path) -> bool {
    let Ok(named) = rustix::fs::lstat(path) else {
        return false;
    };
    rustix::fs::fstat(file)
        .is_ok_and(|held| (held.st_dev, held.st_ino) == (named.st_dev, named.st_ino))
}

fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Ok(found) if found.len() > LARGEST => {
            return Err(io::Error::other(format!(
                "{} is no record of ours",
                path.display()
            )));
        }
        found => found.map(drop)?,
    }
    Ok(Some(serde_json::from_slice(&fs::read(path)?)?))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
