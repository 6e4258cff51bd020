//! `firebuild du` and `firebuild prune`: what the store holds and why, and making room.
//!
//! The store knows images, records and who uses what right now. What it cannot know is added here: which exported disks
//! belong to images, which of them a VM has attached, and the kernels beside the store.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use firebuild_build::cancel::Cancel;
use firebuild_build::export::{disk_key, image};
use firebuild_build::sandbox::IdSpace;
use firebuild_oci::Reference;
use firebuild_store::{Checked, Item, Policy, Store, tree_bytes};
use jiff::Timestamp;
use serde::Serialize;

pub use firebuild_store::Kind;

use crate::error::Error;
use crate::kernel::Catalogue;
use crate::ls::ls;
use crate::paths::Paths;

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RoomErrorKind {
    /// A filter is not understood.
    Filter,
    /// The store, or what else is looked at, cannot be read.
    Store,
    /// Some process uses the store without being able to say what.
    Busy,
}

/// A failed look or a failed prune.
pub type RoomError = Error<RoomErrorKind>;

/// What is known about one thing.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// `image`, `layer`, `snapshot`, `record`, `artifact`, `mount`, `source`, `temporary` or `kernel`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Its digest, or its path in the store.
    pub name: String,
    /// Bytes on the disk.
    pub size: u64,
    /// When it was made or used last, to some minutes.
    pub last_used: Timestamp,
    /// Whether a prune could remove it.
    pub state: State,
    /// Names of the images that need it.
    pub images: Vec<String>,
    /// Keys of the step records that name it.
    pub records: Vec<String>,
    /// Who uses it now: processes, VMs.
    pub used_by: Vec<String>,
    /// The step that made it, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// Whether something may be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// A process or a VM uses it, or only another command removes it.
    InUse,
    /// An image with a name needs it.
    Image,
    /// A prune may remove it.
    Reclaimable,
}

/// The store, for a look or a prune.
#[derive(Debug)]
pub struct Room {
    store: Store,
    items: Vec<Item>,
    kernels: Vec<Row>,
}

/// What to remove.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Also what named images could use again.
    pub all: bool,
    /// Only what was not used for this long.
    pub unused_for: Duration,
    /// Only these kinds; none means every kind.
    pub kinds: Vec<Kind>,
    /// Leave so many bytes.
    pub keep_bytes: Option<u64>,
    /// Only say what would go.
    pub dry_run: bool,
}

impl Wanted {
    /// Takes a `--filter KEY=VALUE` in: `until=24h`, `type=layer`, or BuildKit's words for them.
    ///
    /// # Errors
    /// When key or value are not understood.
    pub fn filter(&mut self, text: &str) -> Result<(), RoomError> {
        let wrong = |why: &str| {
            Error::new(
                RoomErrorKind::Filter,
                format!("--filter {text:?} is not understood: {why}"),
            )
        };
        let (key, value) = text.split_once('=').ok_or_else(|| {
            wrong("it is until=DURATION or type=KIND, for instance until=24h or type=mount")
        })?;
        match key {
            "until" | "unused-for" => {
                self.unused_for = age(value, Timestamp::now())
                    .ok_or_else(|| wrong("an age looks like 90m, 24h, 7d or 2026-01-31"))?;
            }
            "type" => {
                let kinds: &[Kind] = match value {
                    "exec.cachemount" => &[Kind::Mount],
                    "source.local" | "source.git.checkout" => &[Kind::Source],
                    "regular" => &[Kind::Layer, Kind::Record, Kind::Snapshot],
                    word => &Kind::ALL
                        .into_iter()
                        .filter(|kind| kind.word() == word)
                        .collect::<Vec<_>>(),
                };
                if kinds.is_empty() {
                    let words: Vec<&str> = Kind::ALL.iter().map(|kind| kind.word()).collect();
                    return Err(wrong(&format!("the types are {}", words.join(", "))));
                }
                self.kinds.extend(kinds);
            }
            _ => return Err(wrong("the filters are until and type")),
        }
        Ok(())
    }
}

/// An age: numbers with units (`1h30m`, `7d`), or the time since which it counts.
fn age(text: &str, now: Timestamp) -> Option<Duration> {
    if text.contains('-') {
        let since = text.parse::<Timestamp>().ok().or_else(|| {
            let date: jiff::civil::Date = text.parse().ok()?;
            Some(date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
        })?;
        return Some(Duration::try_from(now.duration_since(since)).unwrap_or_default());
    }
    let mut seconds = 0_u64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let unit = rest[digits..]
            .find(|letter: char| letter.is_ascii_digit())
            .map_or(rest.len(), |end| digits + end);
        let factor = match &rest[digits..unit] {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            "w" => 604_800,
            _ => return None,
        };
        seconds = seconds.checked_add(number.checked_mul(factor)?)?;
        rest = &rest[unit..];
    }
    (!text.is_empty()).then_some(Duration::from_secs(seconds))
}

/// What a prune removed, or would.
#[derive(Debug)]
pub struct Freed {
    /// What went.
    pub rows: Vec<Row>,
    /// Bytes on the disk that went.
    pub bytes: u64,
    /// What could not be removed, and why.
    pub failed: Vec<(PathBuf, io::Error)>,
}

impl Room {
    /// Looks at everything.
    ///
    /// # Errors
    /// When the store cannot be read: what its images need is not known then.
    pub fn look(paths: &Paths) -> Result<Self, RoomError> {
        let failed = |error: firebuild_store::StoreError| {
            Error::caused(
                RoomErrorKind::Store,
                "cannot look into the image store",
                error,
            )
        };
        let store = Store::open(paths.store()).map_err(failed)?;
        let mut items = store.inventory().map_err(failed)?;
        let mut note = |path: &Path, what: &dyn Fn(&mut Item)| {
            for item in items.iter_mut().filter(|item| item.path == path) {
                what(item);
            }
        };
        for record in store.list_refs().map_err(failed)? {
            if let Ok(found) = image(&store, &record) {
                let key = disk_key(&found.chain, None);
                let disk = store.artifact_path("ext4", &key.0);
                note(&disk, &|item| item.images.push(record.name.clone()));
            }
        }
        let listing = ls(paths, false).map_err(|error| {
            Error::caused(RoomErrorKind::Store, "cannot tell what VMs use", error)
        })?;
        for vm in &listing.instances {
            let user = format!("VM {}", vm.record.name);
            note(Path::new(&vm.record.image_disk), &|item| {
                item.users.push(user.clone());
            });
        }
        // The looks above are leases of this very process; they must not count.
        let own = format!("process {}", std::process::id());
        for item in &mut items {
            item.users.retain(|user| *user != own);
        }
        Ok(Self {
            kernels: kernels(paths),
            store,
            items,
        })
    }

    /// One row for each thing, kernels included.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        let rows = self.items.iter().map(row);
        rows.chain(self.kernels.iter().cloned()).collect()
    }

    /// Removes what is wanted and nobody needs. Builds and VMs may work beside it.
    ///
    /// # Errors
    /// When the store cannot be read, or a process uses it that cannot say what. What could not be removed is in the
    /// answer.
    pub fn prune(&self, wanted: &Wanted, cancel: &Cancel) -> Result<Freed, RoomError> {
        let ids = IdSpace::new();
        let remove_tree = |path: &Path| match fs_err::remove_dir_all(path) {
            Ok(()) => Ok(()),
            // Files of sub-ids are removed by a process that has these ids.
            Err(_) => ids.remove(&[path.to_owned()]).map_err(io::Error::other),
        };
        let policy = Policy {
            all: wanted.all,
            unused_for: wanted.unused_for,
            kinds: wanted.kinds.clone(),
            keep_bytes: wanted.keep_bytes,
            dry_run: wanted.dry_run,
            remove_tree: &remove_tree,
        };
        let gone = self
            .store
            .prune(&self.items, &policy, &|| cancel.is_raised())
            .map_err(|error| {
                let kind = match error.kind() {
                    firebuild_store::StoreErrorKind::Busy => RoomErrorKind::Busy,
                    _ => RoomErrorKind::Store,
                };
                Error::caused(kind, "cannot prune the image store", error)
            })?;
        Ok(Freed {
            bytes: gone.bytes(),
            rows: gone.items.iter().map(row).collect(),
            failed: gone.failed,
        })
    }

    /// Reads every blob and follows every reference.
    ///
    /// # Errors
    /// When the references cannot be read.
    pub fn check(&self, cancel: &Cancel) -> Result<Checked, RoomError> {
        self.store
            .check(&|| cancel.is_raised())
            .map_err(|error| Error::caused(RoomErrorKind::Store, "cannot check the store", error))
    }
}

fn row(item: &Item) -> Row {
    let state = if !item.users.is_empty() {
        State::InUse
    } else if matches!(item.kind, Kind::Image | Kind::Layer) && !item.images.is_empty() {
        State::Image
    } else {
        State::Reclaimable
    };
    Row {
        kind: item.kind.word(),
        name: item.name.clone(),
        size: item.bytes,
        last_used: time(item.last_used),
        state,
        images: item.images.iter().map(|name| familiar(name)).collect(),
        records: item.records.clone(),
        used_by: item.users.clone(),
        description: item.label.clone(),
    }
}

fn kernels(paths: &Paths) -> Vec<Row> {
    // A catalogue that cannot be read says so where kernels are used.
    let listing = Catalogue::new(paths).list().unwrap_or_default();
    let kernels = listing.kernels.iter().map(|kernel| Row {
        kind: "kernel",
        name: kernel.id.clone(),
        size: tree_bytes(kernel.dir()),
        last_used: fs_err::metadata(kernel.dir())
            .and_then(|meta| meta.modified())
            .map_or(Timestamp::UNIX_EPOCH, time),
        state: State::InUse,
        images: Vec::new(),
        records: Vec::new(),
        used_by: Vec::new(),
        description: Some("kernel rm removes it".to_owned()),
    });
    kernels.collect()
}

fn time(time: SystemTime) -> Timestamp {
    let time = Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

fn familiar(name: &str) -> String {
    name.parse::<Reference>()
        .map_or_else(|_| name.to_owned(), |name| name.familiar())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use firebuild_store::Store;
    use jiff::Timestamp;

    use super::{Cancel, Kind, Room, State, Wanted, age};
    use crate::instance::Instances;
    use crate::paths::Paths;

    #[test]
    fn what_a_vm_has_attached_stays_until_it_has_ended() {
        let home = tempfile::tempdir().unwrap();
        let paths = Paths::under(home.path());
        let store = Store::open(paths.store()).unwrap();
        let file = store.temporary().unwrap();
        fs_err::write(&file, b"disk").unwrap();
        let disk = store.adopt_artifact("ext4", &[1; 32], &file).unwrap();
        drop(store);
        let mut record = crate::instance::testing::record();
        record.image_disk = disk.display().to_string();
        let owned = Instances::prepare(&paths)
            .and_then(|instances| instances.create(Some("web"), record))
            .unwrap();
        let wanted = Wanted {
            all: true,
            ..Wanted::default()
        };
        let cancel = Cancel::new().unwrap();
        let room = Room::look(&paths).unwrap();
        let rows = room.rows();
        let row = rows.iter().find(|row| row.kind == "artifact").unwrap();
        assert_eq!(
            (row.state, row.used_by[0].as_str()),
            (State::InUse, "VM web")
        );
        assert!(room.prune(&wanted, &cancel).unwrap().rows.is_empty());
        drop(owned);
        let room = Room::look(&paths).unwrap();
        assert_eq!(room.prune(&wanted, &cancel).unwrap().rows.len(), 1);
        assert!(!disk.exists());
    }

    #[test]
    fn ages() {
        let now: Timestamp = "2026-03-02T00:00:00Z".parse().unwrap();
        let hours = |count: u64| Some(Duration::from_secs(count * 3600));
        for (text, expected) in [
            ("24h", hours(24)),
            ("1h120m", hours(3)),
            ("7d", hours(168)),
            ("2026-03-01", hours(24)),
            ("2026-03-01T12:00:00Z", hours(12)),
            ("2027-01-01", hours(0)),
            ("", None),
            ("24", None),
            ("h", None),
            ("3y", None),
            ("99999999999999999999h", None),
        ] {
            assert_eq!(age(text, now), expected, "{text}");
        }
    }

    #[test]
    fn filters() {
        let mut wanted = Wanted::default();
        wanted.filter("until=24h").unwrap();
        wanted.filter("type=layer").unwrap();
        wanted.filter("type=exec.cachemount").unwrap();
        assert_eq!(wanted.unused_for, Duration::from_secs(86_400));
        assert_eq!(wanted.kinds, [Kind::Layer, Kind::Mount]);
        for text in ["until", "until=x", "type=x", "id=1"] {
            let error = Wanted::default().filter(text).unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        }
    }
}
