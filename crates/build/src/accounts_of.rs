//! The accounts of a tree: its `/etc/passwd` and `/etc/group`.

use firebuild_accounts::{Accounts, AccountsError, Owner, resolve_chown};
use firebuild_rootfs::tree::{Contents as _, Follow, Kind, Tree};
use firebuild_store::Store;

use crate::content::StoreContents;

/// Files above this size are no account files.
const MAX_BYTES: u64 = 8 << 20;

/// Reads a small regular file of a tree; nothing if there is none or it cannot be read.
pub(crate) fn small_file(store: &Store, tree: &Tree, path: &[u8]) -> Option<Vec<u8>> {
    let id = tree.lookup(path, Follow::All).ok()?;
    let Kind::File(content) = &tree[id].kind else {
        return None;
    };
    if content.size > MAX_BYTES {
        return None;
    }
    let opened = StoreContents::new(store).open(content).ok()?;
    let mut bytes = vec![0; usize::try_from(content.size).ok()?];
    opened.read_exact_at(&mut bytes, 0).ok()?;
    Some(bytes)
}

/// The accounts of a tree; nothing if it has no `/etc/passwd`.
pub(crate) fn accounts(store: &Store, tree: &Tree) -> Option<Accounts> {
    let passwd = small_file(store, tree, b"etc/passwd");
    let group = small_file(store, tree, b"etc/group");
    (passwd.is_some() || group.is_some())
        .then(|| Accounts::parse(passwd.as_deref(), group.as_deref()))
}

/// Who a `user[:group]` is in a tree; the empty text is root.
pub(crate) fn owner(store: &Store, tree: &Tree, spec: &str) -> Result<Owner, AccountsError> {
    if spec.is_empty() {
        return Ok(Owner { uid: 0, gid: 0 });
    }
    resolve_chown(accounts(store, tree).as_ref(), spec)
}
