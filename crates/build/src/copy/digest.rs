//! The content of a selection, for the cache key.
//!
//! What counts: paths below what was selected, kinds, modes, owners, sizes, link targets, device numbers,
//! `security.capability` and user attributes, and the bytes. Times never count, so a fresh checkout of the same files hits.

use std::io;

use firebuild_dockerfile::IgnorePatterns;
use firebuild_rootfs::path;
use firebuild_rootfs::tree::{Content, Follow, Inode, InodeId, Kind, Tree};

use super::{CopyError, Selected};
use crate::key::KeyWriter;

/// Attributes below these prefixes depend on the machine and not on the files.
const MACHINE_XATTRS: [&[u8]; 2] = [b"security.", b"system."];
/// The one of them that is part of a program.
const CAPABILITY: &[u8] = b"security.capability";

/// Adds a selection to a key. `hash` gives the SHA-256 of a file's content.
///
/// # Errors
/// When a file cannot be read.
pub fn digest(
    key: &mut KeyWriter,
    trees: &[&Tree],
    selected: &[Selected],
    parents: bool,
    exclude: &IgnorePatterns,
    hash: &dyn Fn(usize, &Content) -> io::Result<[u8; 32]>,
) -> Result<(), CopyError> {
    key.number(selected.len() as u64);
    for one in selected {
        let tree = trees[one.tree];
        key.bytes(&one.path)
            .number(one.pivot as u64)
            .flag(one.remote);
        // With `--parents`, `--exclude` is relative to the pivot, and the directories on the way come along.
        let start = if parents {
            one.path[one.pivot..].to_vec()
        } else {
            Vec::new()
        };
        if parents {
            for end in one
                .path
                .iter()
                .enumerate()
                .filter(|(at, byte)| **byte == b'/' && *at >= one.pivot)
                .map(|(at, _)| at)
            {
                if let Ok(id) = tree.lookup(&one.path[..end], Follow::All) {
                    properties(key, &tree[id]);
                }
            }
        }
        let mut todo: Vec<(Vec<u8>, InodeId)> = vec![(start.clone(), one.id)];
        while let Some((below, id)) = todo.pop() {
            let inode = &tree[id];
            let is_root = below == start;
            let ignored = !is_root && exclude.is_ignored(&below);
            if !ignored {
                key.bytes(&below);
                add(key, inode, is_root && !parents, &|content| {
                    hash(one.tree, content)
                })
                .map_err(|error| {
                    CopyError::content(
                        &path::join(
                            &one.path[..if parents { one.pivot } else { one.path.len() }],
                            &below,
                        ),
                        error,
                    )
                })?;
            }
            if let Kind::Dir(children) = &inode.kind
                && !(ignored && exclude.skips_below(&below))
            {
                // Backwards, so that they are taken in order.
                todo.extend(
                    children
                        .iter()
                        .rev()
                        .map(|(name, child)| (path::join(&below, name), *child)),
                );
            }
        }
        key.text("end");
    }
    Ok(())
}

fn add(
    key: &mut KeyWriter,
    inode: &Inode,
    is_root: bool,
    hash: &dyn Fn(&Content) -> io::Result<[u8; 32]>,
) -> io::Result<()> {
    key.text(inode.kind.word());
    // The root of a copied directory gives its contents, not itself.
    if !(is_root && inode.is_dir()) {
        properties(key, inode);
    }
    match &inode.kind {
        Kind::File(content) => {
            key.number(content.size).bytes(&hash(content)?);
        }
        Kind::Symlink(target) => {
            key.bytes(target);
        }
        Kind::CharDevice(device) | Kind::BlockDevice(device) => {
            key.number(u64::from(device.major))
                .number(u64::from(device.minor));
        }
        Kind::Dir(_) | Kind::Fifo | Kind::Socket => {}
    }
    Ok(())
}

fn properties(key: &mut KeyWriter, inode: &Inode) {
    key.number(u64::from(inode.meta.mode))
        .number(u64::from(inode.meta.uid))
        .number(u64::from(inode.meta.gid));
    for (name, value) in &inode.meta.xattrs {
        if **name == *CAPABILITY || !MACHINE_XATTRS.iter().any(|prefix| name.starts_with(prefix)) {
            key.bytes(name).bytes(value);
        }
    }
}
