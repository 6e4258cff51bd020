//! In which order files lie, and what of an earlier image can stay where it is.

use std::collections::HashMap;
use std::fs::File;
use std::io;

use rustix::fs::{FallocateFlags, fallocate};

use super::format::BLOCK_SIZE;
use super::ledger::{FileKey, Filed, Ledger};
use super::plan::Plan;
use super::space::Space;
use crate::sink;
use crate::tree::{Kind, Tree};

/// The regular files in the order of their blocks.
pub(super) struct Order {
    /// The place of each in the plan, and which bytes it has if they are in a layer.
    pub(super) files: Vec<(usize, Option<FileKey>)>,
}

impl Order {
    /// Layer by layer as they lie there, the rest behind them in the order of their numbers. What a new layer on top brings
    /// then moves nothing of those below.
    pub(super) fn new(tree: &Tree, plan: &Plan, layers: &[[u8; 32]]) -> Self {
        let mut ranks: HashMap<[u8; 32], u32> = HashMap::with_capacity(layers.len());
        for (rank, layer) in (0..).zip(layers) {
            ranks.entry(*layer).or_insert(rank);
        }
        let mut files = Vec::new();
        for (place, id) in plan.order.iter().enumerate() {
            if let Kind::File(content) = &tree[*id].kind {
                let rank = content.blob().and_then(|blob| ranks.get(&blob));
                files.push((place, rank.map(|rank| FileKey::new(*rank, content))));
            }
        }
        // Stable: what has no key, or by chance the same, stays in the order of the plan.
        files.sort_by_key(|(_, key)| key.map_or((u32::MAX, 0), |key| (key.layer, key.place)));
        Self { files }
    }
}

/// The files that stay.
#[derive(Default)]
pub(super) struct Keep<'a> {
    pub(super) files: &'a [Filed],
}

impl<'a> Keep<'a> {
    /// Finds with how many files both images begin.
    pub(super) fn find(
        before: &'a Ledger,
        order: &Order,
        plan: &Plan,
        layers: &[[u8; 32]],
    ) -> Self {
        if before.descriptor_blocks != plan.descriptor_blocks {
            return Self::default();
        }
        let common = before.common_layers(layers);
        let pairs = before.files.iter().zip(&order.files);
        let same = pairs
            .take_while(|(old, (_, key))| {
                (old.key.layer as usize) < common && Some(old.key) == *key
            })
            .count();
        Self {
            files: &before.files[..same],
        }
    }

    /// Makes a file hold the blocks that stay, and zeros where nothing will be written. Where holes cannot be made, nothing
    /// stays.
    pub(super) fn begin(self, out: &File, space: &Space) -> io::Result<Self> {
        let Some(last) = self.files.last() else {
            sink::empty(out)?;
            return Ok(self);
        };
        // One that is shorter than its ledger says is no image of ours.
        let whole = out.metadata()?.len() >= last.end * BLOCK_SIZE;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let cleared = |range: std::ops::Range<u64>| {
            let (from, len) = (range.start, range.end - range.start);
            fallocate(out, flags, from * BLOCK_SIZE, len * BLOCK_SIZE).is_ok()
        };
        if whole && space.reserves(last.end).all(cleared) {
            out.set_len(last.end * BLOCK_SIZE)?;
            return Ok(self);
        }
        sink::empty(out)?;
        Ok(Self::default())
    }
}
