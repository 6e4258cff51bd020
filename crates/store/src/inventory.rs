//! What the store holds, and why.
//!
//! ```text
//!   references ──▶ manifests ──▶ configurations, layers
//!   cache records ──▶ every digest that stands in them
//!   leases ──▶ whatever a living process uses
//! ```
//!
//! A list is a picture of a moment: others add and remove meanwhile. Whoever removes looks again ([`crate::prune`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use firebuild_oci::document::MAX_MANIFEST_BYTES;
use firebuild_oci::{Digest, Document};
use serde_json::Value;

use crate::error::{StoreError, StoreErrorKind};
use crate::lease;
use crate::recover::held;
use crate::reuse::{is_note, note_of};
use crate::store::Store;

/// No record of ours is near this size.
const MAX_RECORD: u64 = 16 << 20;
/// Characters of a record's name that are kept.
const MAX_LABEL: usize = 200;
/// The file in the directory of a cache mount that holds its id.
pub const MOUNT_ID: &str = "id";

/// What is listed piece by piece, or is no content.
const KNOWN: [&str; 8] = [
    "blobs",
    "snapshots",
    "artifacts",
    "cache",
    "locks",
    "leases",
    "sessions",
    "tmp",
];

/// What something in the store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A manifest or a configuration.
    Image,
    /// A layer.
    Layer,
    /// A layer as a directory, for RUN.
    Snapshot,
    /// A result of a build step, by key.
    Record,
    /// An exported image or a compressed layer, made from layers.
    Artifact,
    /// The directory of a cache mount.
    Mount,
    /// What was fetched or learnt about sources.
    Source,
    /// What a killed process left.
    Temporary,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Image,
        Self::Layer,
        Self::Snapshot,
        Self::Record,
        Self::Artifact,
        Self::Mount,
        Self::Source,
        Self::Temporary,
    ];

    /// Its word, as users write it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Layer => "layer",
            Self::Snapshot => "snapshot",
            Self::Record => "record",
            Self::Artifact => "artifact",
            Self::Mount => "mount",
            Self::Source => "source",
            Self::Temporary => "temporary",
        }
    }
}

/// One thing in the store.
#[derive(Clone, Debug)]
pub struct Item {
    /// What it is.
    pub kind: Kind,
    /// Where it is.
    pub path: PathBuf,
    /// Its digest, or its path in the store.
    pub name: String,
    /// Bytes on the disk (allocated, not apparent). What belongs to sub-ids and cannot be looked into is not counted.
    pub bytes: u64,
    /// When it was made or used last, to some minutes.
    pub last_used: SystemTime,
    /// Names of the images that need it.
    pub images: Vec<String>,
    /// Keys of the records that name it.
    pub records: Vec<String>,
    /// What a person knows it by: the step that made it.
    pub label: Option<String>,
    /// Who uses it now.
    pub users: Vec<String>,
    /// A record whose content is gone.
    pub(crate) dangling: bool,
    pub(crate) identity: Identity,
}

/// What tells that something is still what was listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity(u64, u64, i64, i64);

impl Identity {
    pub(crate) fn of(meta: &Metadata) -> Self {
        Self(meta.dev(), meta.ino(), meta.mtime(), meta.mtime_nsec())
    }
}

impl Store {
    /// Everything that the store holds.
    ///
    /// # Errors
    /// When the references, or the manifest of one, cannot be read: what they need is not known then.
    pub fn inventory(&self) -> Result<Vec<Item>, StoreError> {
        let needed = self.needed_by_references()?;
        let users = lease::of_the_living(&self.root);
        let mut list = Lister {
            root: &self.root,
            users: &users,
            items: Vec::new(),
        };
        let records = list.records(&needed);
        list.blobs(&needed, &records);
        entries(
            &self.root.join("snapshots"),
            0,
            &mut |path| match file_name(path).strip_prefix("active-") {
                None => list.add(Kind::Snapshot, path, None),
                Some(name) => list.temporary(path, name),
            },
        );
        entries(&self.root.join("tmp"), 0, &mut |path| {
            list.temporary(path, file_name(path));
        });
        entries(&self.root.join("artifacts"), 1, &mut |path| {
            if !is_note(path) {
                list.add(Kind::Artifact, path, None);
                let note = fs_err::symlink_metadata(note_of(path));
                if let (Ok(note), Some(item)) = (note, list.items.last_mut())
                    && item.path == path
                {
                    item.bytes += note.blocks() * 512;
                }
            } else if !path.with_extension("").exists() {
                // Its artifact went while it was written, or its remover died.
                list.add(Kind::Temporary, path, None);
            }
        });
        entries(&self.root, 0, &mut |directory| {
            let name = file_name(directory);
            if !KNOWN.contains(&name) && is_directory(directory) {
                let kind = if name == "mounts" {
                    Kind::Mount
                } else {
                    Kind::Source
                };
                entries(directory, 0, &mut |path| {
                    // Others are no cache: `git/known_hosts` must outlive every prune.
                    if !is_named_by_digest(path) {
                        return;
                    }
                    list.add(kind, path, mount_id(path).filter(|_| kind == Kind::Mount));
                });
            }
        });
        Ok(list.items)
    }

    /// What the images of the store need: their manifests, configurations and layers.
    ///
    /// # Errors
    /// When the references, or the manifest of one, cannot be read.
    pub fn needed(&self) -> Result<BTreeSet<Digest>, StoreError> {
        Ok(self.needed_by_references()?.into_keys().collect())
    }

    /// What images need, and which.
    pub(crate) fn needed_by_references(
        &self,
    ) -> Result<BTreeMap<Digest, BTreeSet<String>>, StoreError> {
        let mut needed: BTreeMap<Digest, BTreeSet<String>> = BTreeMap::new();
        for record in self.list_refs()? {
            let mut need = |digest: Digest| {
                needed
                    .entry(digest)
                    .or_default()
                    .insert(record.name.clone());
            };
            need(record.manifest);
            let bytes = match self.peek_blob(&record.manifest, MAX_MANIFEST_BYTES) {
                Ok(bytes) => bytes,
                // The image is lost already, and needs nothing.
                Err(error) if error.kind() == StoreErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            match Document::parse(&bytes, "") {
                Ok(Document::Manifest(manifest)) => {
                    need(manifest.config.digest);
                    for layer in &manifest.layers {
                        need(layer.digest);
                    }
                }
                Ok(Document::Index(index)) => {
                    for entry in &index.manifests {
                        need(entry.digest);
                    }
                }
                Err(error) => {
                    return Err(StoreError::new(
                        StoreErrorKind::Corrupt,
                        format!("cannot tell what image {} needs: {error}", record.name),
                    ));
                }
            }
        }
        Ok(needed)
    }
}

/// Which records name a blob, and the first one's name.
#[derive(Default)]
struct NamedBy {
    keys: Vec<String>,
    label: Option<String>,
    last_used: Option<SystemTime>,
}

struct Lister<'a> {
    root: &'a Path,
    users: &'a BTreeMap<PathBuf, u32>,
    items: Vec<Item>,
}

impl Lister<'_> {
    fn add(&mut self, kind: Kind, path: &Path, label: Option<String>) {
        let Ok(meta) = fs_err::symlink_metadata(path) else {
            return;
        };
        let name = path.strip_prefix(self.root).unwrap_or(path);
        let users = self.users.get(name).map(|id| format!("process {id}"));
        self.items.push(Item {
            kind,
            path: path.to_owned(),
            name: name.display().to_string(),
            bytes: if meta.is_dir() {
                tree_bytes(path)
            } else {
                meta.blocks() * 512
            },
            last_used: meta.modified().unwrap_or(SystemTime::UNIX_EPOCH),
            images: Vec::new(),
            records: Vec::new(),
            label,
            users: users.into_iter().collect(),
            dangling: false,
            identity: Identity::of(&meta),
        });
    }

    /// Something with a temporary name, `<session>.<n>`; the session is a process's, or nobody's.
    fn temporary(&mut self, path: &Path, name: &str) {
        let session = name.rsplit_once('.').map_or(name, |(session, _)| session);
        let known = self.items.len();
        self.add(Kind::Temporary, path, None);
        if let Some(item) = self.items.get_mut(known)
            && held(&self.root.join("sessions").join(session))
        {
            let process = session.split('-').next().unwrap_or_default();
            item.users.push(format!("process {process}"));
        }
    }

    fn records(
        &mut self,
        needed: &BTreeMap<Digest, BTreeSet<String>>,
    ) -> BTreeMap<Digest, NamedBy> {
        let mut named: BTreeMap<Digest, NamedBy> = BTreeMap::new();
        let root = self.root;
        entries(&root.join("cache"), 1, &mut |path| {
            let (digests, label) = parse(path);
            let known = self.items.len();
            self.add(Kind::Record, path, label.clone());
            let Some(item) = self.items.get_mut(known) else {
                return;
            };
            let key = path
                .file_stem()
                .map(|stem| stem.to_string_lossy().into_owned())
                .unwrap_or_default();
            item.records.push(key.clone());
            let artifact = || {
                children(&root.join("artifacts"))
                    .iter()
                    .any(|kind| kind.join(&key).exists())
            };
            item.dangling = !digests.is_empty()
                && !digests.iter().any(|digest| blob(root, digest).exists())
                && !artifact();
            for digest in digests {
                if let Some(images) = needed.get(&digest) {
                    item.images.extend(images.iter().cloned());
                }
                let blob = Path::new("blobs/sha256").join(digest.to_hex());
                if let Some(id) = self.users.get(&blob) {
                    item.users.push(format!("process {id}"));
                }
                let named = named.entry(digest).or_default();
                named.keys.push(key.clone());
                if named.label.is_none() {
                    named.label.clone_from(&label);
                }
                named.last_used = named.last_used.max(Some(item.last_used));
            }
        });
        named
    }

    fn blobs(
        &mut self,
        needed: &BTreeMap<Digest, BTreeSet<String>>,
        records: &BTreeMap<Digest, NamedBy>,
    ) {
        entries(&self.root.join("blobs"), 1, &mut |path| {
            let digest = path
                .file_name()
                .and_then(|name| name.to_str())
                .and_then(|name| Digest::from_hex(name).ok());
            let Some(digest) = digest else { return };
            let kind = if is_document(path) {
                Kind::Image
            } else {
                Kind::Layer
            };
            let named = records.get(&digest);
            let known = self.items.len();
            self.add(kind, path, named.and_then(|named| named.label.clone()));
            let Some(item) = self.items.get_mut(known) else {
                return;
            };
            item.name = digest.to_string();
            if let Some(images) = needed.get(&digest) {
                item.images.extend(images.iter().cloned());
            }
            if let Some(named) = named {
                item.records.clone_from(&named.keys);
                item.last_used = item
                    .last_used
                    .max(named.last_used.unwrap_or(item.last_used));
            }
        });
    }
}

fn blob(root: &Path, digest: &Digest) -> PathBuf {
    root.join("blobs/sha256").join(digest.to_hex())
}

/// Every `sha256:…` that stands in a record names a blob that it needs; its member `name` is for people. The store knows
/// no more about records.
pub(crate) fn parse(path: &Path) -> (BTreeSet<Digest>, Option<String>) {
    let mut digests = BTreeSet::new();
    let small = fs_err::symlink_metadata(path).is_ok_and(|meta| meta.len() <= MAX_RECORD);
    let value = small
        .then(|| fs_err::read(path).ok())
        .flatten()
        .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    let Some(value) = value else {
        return (digests, None);
    };
    let label = value.get("name").and_then(Value::as_str).map(|text| {
        text.chars()
            .map(|letter| if letter.is_control() { ' ' } else { letter })
            .take(MAX_LABEL)
            .collect()
    });
    let mut todo = vec![&value];
    while let Some(value) = todo.pop() {
        match value {
            Value::String(text) => digests.extend(text.parse::<Digest>()),
            Value::Array(values) => todo.extend(values),
            Value::Object(values) => todo.extend(values.values()),
            _ => {}
        }
    }
    (digests, label)
}

/// Manifests and configurations are JSON, layers are not.
fn is_document(path: &Path) -> bool {
    let mut first = [0];
    std::fs::File::open(path)
        .is_ok_and(|mut file| file.read(&mut first).is_ok_and(|count| count == 1) && first == *b"{")
}

fn is_directory(path: &Path) -> bool {
    fs_err::symlink_metadata(path).is_ok_and(|meta| meta.is_dir())
}

/// Whether a name begins with a digest, as those of all that can be made or fetched again do.
fn is_named_by_digest(path: &Path) -> bool {
    let hex = file_name(path).get(..64);
    hex.is_some_and(|hex| Digest::from_hex(hex).is_ok())
}

/// What people call a cache mount, where it is written down.
fn mount_id(directory: &Path) -> Option<String> {
    let mut text = String::new();
    let file = std::fs::File::open(directory.join(MOUNT_ID)).ok()?;
    file.take(MAX_LABEL as u64).read_to_string(&mut text).ok()?;
    let text: String = text.chars().filter(|letter| !letter.is_control()).collect();
    // Without an id it is `/` and the target.
    let shown = text.strip_prefix("//").map(|target| format!("/{target}"));
    (!text.is_empty()).then(|| format!("cache mount {}", shown.unwrap_or(text)))
}

fn file_name(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
}

fn children(directory: &Path) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    entries(directory, 0, &mut |path| paths.push(path.to_owned()));
    paths
}

/// Calls back for everything `depth` levels below `directory`.
pub(crate) fn entries(directory: &Path, depth: usize, each: &mut dyn FnMut(&Path)) {
    let Ok(list) = fs_err::read_dir(directory) else {
        return;
    };
    for path in list.flatten().map(|entry| entry.path()) {
        if depth == 0 {
            each(&path);
        } else {
            entries(&path, depth - 1, each);
        }
    }
}

/// Bytes on the disk of a file or of everything below a directory. What cannot be looked into is not counted.
#[must_use]
pub fn tree_bytes(path: &Path) -> u64 {
    let mut bytes = 0;
    // A list instead of recursion: others made these directories.
    let mut todo = vec![path.to_owned()];
    while let Some(path) = todo.pop() {
        let Ok(meta) = fs_err::symlink_metadata(&path) else {
            continue;
        };
        bytes += meta.blocks() * 512;
        if meta.is_dir() {
            entries(&path, 0, &mut |path| todo.push(path.to_owned()));
        }
    }
    bytes
}
