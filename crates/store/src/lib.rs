//! Content, snapshots, cache records and references on a local disk, shared by many processes, with no daemon.
//!
//! ```text
//! <root>/
//! ├── lock                   held for moments: shared while a lease is written, exclusively while names are taken away
//! ├── meta.json              format version and features; a newer one is refused
//! ├── oci-layout index.json  references: the store is an OCI image layout whose layers are uncompressed
//! ├── blobs/sha256/<hex>     immutable content: layers (the digest is the diff ID), configurations, manifests
//! ├── snapshots/<hex>/       layers as directories, for RUN; `active-…` while one is being made
//! ├── artifacts/<kind>/<key> exported images, e.g. ext4/<key>; <key>.note says what is in one
//! ├── cache/<xx>/<key>.json  results of build steps by cache key
//! ├── locks/<name>           one per thing that only one process shall compute at a time
//! ├── leases/<id>            one per process that uses something, locked while it lives: what nobody else may remove
//! ├── sessions/<id>          one per writing process, locked while it lives: what it wrote may not be on the disk yet
//! └── tmp/<session>-…        being written; renamed into place when whole
//! ```
//!
//! Invariants:
//! - everything that has its final name is whole: it was written under `tmp/` (or `active-…`) and renamed;
//! - a process that is killed at any moment leaves only things under `tmp/`, `active-…` and `sessions/`, which the next
//!   process removes once it sees that their owner's lock is free;
//! - **power cuts**: nothing is fsynced while a build runs. A session file is durably marked before content gets its name,
//!   and the mark is taken away after all that the session wrote was fsynced ([`Store::settle`]). A marked session file of
//!   an earlier boot therefore says that younger content may be torn: it is verified (blobs) or dropped (what can be made
//!   again) when the store is next opened;
//! - whatever a function of this crate found or made stays as long as its [`Store`] is open, whoever prunes;
//! - cache records and references name blobs; a reader treats a missing blob as a miss.
//!
//! The store knows nothing of Dockerfiles, graphs, file system trees or VMs. The layout is described in
//! `docs/formats/store.md`.

mod artifact;
mod blob;
mod cache;
mod check;
mod error;
mod inventory;
mod lease;
mod lock;
mod prune;
mod recover;
mod refs;
mod reuse;
mod session;
mod snapshot;
mod store;

pub use blob::BlobWriter;
pub use check::{Checked, Fault};
pub use error::{StoreError, StoreErrorKind};
pub use inventory::{Item, Kind, MOUNT_ID, tree_bytes};
pub use lock::KeyLock;
pub use prune::{Policy, Pruned, RemoveTree};
pub use refs::RefRecord;
pub use reuse::Noted;
pub use snapshot::ActiveSnapshot;
pub use store::Store;
