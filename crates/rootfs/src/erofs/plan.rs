//! The first pass: an order for all inodes, what EROFS cannot hold, and a digest of everything but the content.
//!
//! Nothing has been written when this pass refuses a tree. Inodes are ordered directory by directory, so that what is
//! listed together lies together; the content of the files is written in the same order.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::error::{ErofsError, ErofsErrorKind};
use super::{Options, xattr};
use crate::path::Text;
use crate::tree::{Device, InodeId, Kind, Tree};

/// Largest numbers of a device (`new_encode_dev` of `linux/kdev_t.h`).
const MAX_MAJOR: u32 = 0xFFF;
const MAX_MINOR: u32 = 0xF_FFFF;
/// The largest file: 2^31 blocks in each of the chunks that its list may have.
const MAX_FILE: u64 = 1 << 57;
/// Longest target of a symbolic link: with a NUL it fills a page.
const MAX_SYMLINK: usize = 4095;

/// What follows from the tree alone.
pub(super) struct Plan {
    /// All inodes, the root first.
    pub(super) order: Vec<InodeId>,
    /// The directories: their place in `order` and the directory that they are in.
    pub(super) dirs: Vec<(usize, InodeId)>,
    /// SHA-256 of all names and metadata.
    pub(super) digest: Sha256,
    /// Seconds for the superblock.
    pub(super) epoch: i64,
}

impl Plan {
    /// Orders and checks a tree.
    pub(super) fn new(tree: &Tree, options: &Options) -> Result<Self, ErofsError> {
        if options.label.len() > 15 || options.label.contains(&0) {
            let what = format!(
                "the label {} is not at most 15 bytes without NUL",
                Text(&options.label)
            );
            return Err(ErofsError::new(ErofsErrorKind::Option, what));
        }
        let mut plan = Self {
            order: vec![InodeId::ROOT],
            dirs: Vec::new(),
            digest: Sha256::new(),
            epoch: 0,
        };
        plan.list(tree);
        let mut newest = i64::MIN;
        for id in &plan.order {
            check(tree, *id).map_err(|error| error.of(tree, *id))?;
            newest = newest.max(options.clamped(tree[*id].meta.mtime).secs);
        }
        plan.epoch = options.epoch.unwrap_or(newest);
        plan.digest_all(tree, options);
        Ok(plan)
    }

    fn list(&mut self, tree: &Tree) {
        let mut known = vec![false; tree.id_bound()];
        let mut todo = vec![(0, InodeId::ROOT)];
        while let Some((place, parent)) = todo.pop() {
            let id = self.order[place];
            self.dirs.push((place, parent));
            let found = todo.len();
            for child in tree[id].children().into_iter().flat_map(BTreeMap::values) {
                if !std::mem::replace(&mut known[child.0 as usize], true) {
                    if tree[*child].is_dir() {
                        todo.push((self.order.len(), id));
                    }
                    self.order.push(*child);
                }
            }
            todo[found..].reverse();
        }
    }

    /// Names and metadata in the order of the plan. Lengths stand before everything, so that nothing reads as something
    /// else.
    fn digest_all(&mut self, tree: &Tree, options: &Options) {
        let mut numbers = vec![0u64; tree.id_bound()];
        for (place, id) in self.order.iter().enumerate() {
            numbers[id.0 as usize] = place as u64;
        }
        let mut digest = Sha256::new();
        let mut text = |bytes: &[u8]| {
            digest.update((bytes.len() as u64).to_le_bytes());
            digest.update(bytes);
        };
        text(&options.label);
        text(&self.epoch.to_le_bytes());
        for id in &self.order {
            let node = &tree[*id];
            let mtime = options.clamped(node.meta.mtime);
            text(node.kind.word().as_bytes());
            text(&node.meta.mode.to_le_bytes());
            text(&node.meta.uid.to_le_bytes());
            text(&node.meta.gid.to_le_bytes());
            text(&mtime.secs.to_le_bytes());
            text(&mtime.nanos.to_le_bytes());
            text(&(node.meta.xattrs.len() as u64).to_le_bytes());
            for (name, value) in &node.meta.xattrs {
                text(name);
                text(value);
            }
            match &node.kind {
                Kind::Dir(children) => {
                    text(&(children.len() as u64).to_le_bytes());
                    for (name, child) in children {
                        text(name);
                        text(&numbers[child.0 as usize].to_le_bytes());
                    }
                }
                Kind::File(content) => text(&content.size.to_le_bytes()),
                Kind::Symlink(target) => text(target),
                Kind::CharDevice(device) | Kind::BlockDevice(device) => {
                    text(&device.major.to_le_bytes());
                    text(&device.minor.to_le_bytes());
                }
                Kind::Fifo | Kind::Socket => {}
            }
        }
        self.digest = digest;
    }
}

/// What EROFS has no room for.
fn check(tree: &Tree, id: InodeId) -> Result<(), ErofsError> {
    let refuse = |what: String| Err(ErofsError::new(ErofsErrorKind::Unrepresentable, what));
    let node = &tree[id];
    xattr::encode(&node.meta.xattrs)?;
    if node.meta.mtime.nanos >= 1_000_000_000 {
        return refuse("its time has nanoseconds that are no fraction of a second".to_owned());
    }
    match &node.kind {
        Kind::CharDevice(device) | Kind::BlockDevice(device) => match device_number(*device) {
            Some(_) => Ok(()),
            None => refuse(format!(
                "the device number {}:{} is larger than {MAX_MAJOR}:{MAX_MINOR}",
                device.major, device.minor
            )),
        },
        Kind::File(content) if content.size > MAX_FILE => {
            refuse(format!("it has {} bytes, more than 2^57", content.size))
        }
        Kind::Symlink(target) if target.is_empty() || target.len() > MAX_SYMLINK => {
            refuse(format!(
                "its target has {} bytes, not 1 to {MAX_SYMLINK}",
                target.len()
            ))
        }
        _ => Ok(()),
    }
}

/// A device number in the kernel's form of 32 bits.
pub(super) fn device_number(device: Device) -> Option<u32> {
    let Device { major, minor } = device;
    (major <= MAX_MAJOR && minor <= MAX_MINOR)
        .then_some((minor & 0xFF) | (major << 8) | ((minor & !0xFF) << 12))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_are_split_as_the_kernel_does() {
        let number = |major, minor| device_number(Device { major, minor });
        assert_eq!(number(1, 3), Some(0x103));
        assert_eq!(
            number(259, 70_000),
            Some(0x1111_0370 & 0xFFF0_0000 | 0x1_0370)
        );
        assert_eq!(number(4095, (1 << 20) - 1), Some(u32::MAX));
        assert_eq!(number(4096, 0), None);
        assert_eq!(number(1, 1 << 20), None);
    }
}
