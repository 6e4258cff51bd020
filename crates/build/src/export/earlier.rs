//! An earlier ext4 image to make the next one of.
//!
//! Two images of the same lineage begin with the same blocks ([`firebuild_rootfs::ext4::Ledger`]). Where the file system
//! makes clones of files, a clone of the earlier one is the beginning of the new one. Elsewhere the earlier one itself is,
//! if nothing needs it any more: no name of an image, no process, no VM. The image that a name stands for stays until the
//! name stands for the new one, so in a row of builds under one name it is the one before it.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use firebuild_oci::Digest;
use firebuild_rootfs::ext4::Ledger;
use firebuild_store::Store;

/// What is not worth while: an image is written at a rate of gigabytes per second.
const LEAST_SHARED: u64 = 4 << 20;
/// How many of the latest images are looked at.
const MOST: usize = 64;
/// The first bytes of a ledger: room for the names of some hundred layers.
const HEAD: u64 = 64 << 10;

/// Which files of the store are used by something that the store knows nothing of, such as a machine that has stopped and
/// may be started again.
#[derive(Clone, Copy)]
pub struct InUse<'a>(&'a dyn Fn(&Path) -> bool);

impl<'a> InUse<'a> {
    /// Those of which `known` says so.
    pub fn of(known: &'a dyn Fn(&Path) -> bool) -> Self {
        Self(known)
    }

    /// All of them: for who does not know.
    #[must_use]
    pub fn all() -> Self {
        Self(&|_| true)
    }
}

impl fmt::Debug for InUse<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("InUse")
    }
}

/// A file that holds an image, and what lies where in it.
pub(super) struct Earlier {
    /// It is under `tmp/` and nobody else's.
    pub(super) path: PathBuf,
    pub(super) file: File,
    pub(super) ledger: Ledger,
}

/// A candidate.
struct Found {
    key: [u8; 32],
    layers: Vec<[u8; 32]>,
    common: usize,
}

/// Looks for an image that has the lowest layers with the new one in common. That there is none is no error, and neither is
/// anything that goes wrong here: the new image is then made from nothing.
pub(super) fn find(store: &Store, layers: &[[u8; 32]], in_use: InUse<'_>) -> Option<Earlier> {
    let mut found: Vec<Found> = store
        .noted("ext4")
        .into_iter()
        .take(MOST)
        .filter_map(|noted| {
            let its = Ledger::peek(&store.note("ext4", &noted.key, HEAD)?)?;
            let pairs = its.iter().zip(layers);
            let common = pairs.take_while(|(one, other)| one == other).count();
            (common > 0).then_some(Found {
                key: noted.key,
                layers: its,
                common,
            })
        })
        .collect();
    // Among equals the latest stays in front.
    found.sort_by_key(|one| std::cmp::Reverse(one.common));
    if let Some(clone) = found.first().and_then(|one| clone(store, one, layers)) {
        return Some(clone);
    }
    let needed = store.needed().ok()?;
    let is_needed = |layers: &[[u8; 32]]| {
        let mut digests = layers.iter().map(|layer| Digest::from_bytes(*layer));
        digests.all(|digest| needed.contains(&digest))
    };
    found.retain(|one| !is_needed(&one.layers));
    // Among equals the one that was used longest ago goes.
    found.reverse();
    found.sort_by_key(|one| std::cmp::Reverse(one.common));
    found
        .iter()
        .find_map(|one| take(store, one, layers, in_use))
}

fn ledger(store: &Store, one: &Found, layers: &[[u8; 32]]) -> Option<Ledger> {
    let ledger = Ledger::parse(&store.note("ext4", &one.key, u64::MAX)?)?;
    (ledger.shared(layers) >= LEAST_SHARED).then_some(ledger)
}

fn clone(store: &Store, one: &Found, layers: &[[u8; 32]]) -> Option<Earlier> {
    // Being open it is not taken, and may lose its name: it needs no lease, which would keep ourselves from taking it.
    let source = File::open(store.artifact_path("ext4", &one.key)).ok()?;
    let path = store.temporary().ok()?;
    let file = create(&path)?;
    if rustix::fs::ioctl_ficlone(&file, &source).is_ok()
        && let Some(ledger) = ledger(store, one, layers)
    {
        return Some(Earlier { path, file, ledger });
    }
    let _ = fs_err::remove_file(&path);
    None
}

fn create(path: &Path) -> Option<File> {
    let mut options = File::options();
    options.read(true).write(true).create_new(true);
    options.open(path).ok()
}

fn take(store: &Store, one: &Found, layers: &[[u8; 32]], in_use: InUse<'_>) -> Option<Earlier> {
    let ledger = ledger(store, one, layers)?;
    let (path, file) = store.take_artifact("ext4", &one.key, in_use.0).ok()??;
    Some(Earlier { path, file, ledger })
}
