//! What an image holds where, so that the next image can keep it.
//!
//! ```text
//!  image:   │ head │ files of layer 0 │ files of layer 1 │ files of layer 2 │ directories, tables …
//!  ledger:          every file: which bytes of which layer, in which blocks
//!  the next image:  the same layers 0 and 1, another layer 2
//!           │ new  │ kept ─────────────────────────────▶│ cut off and written anew
//! ```
//!
//! Files lie in the order of their layers ([`super::Options::layers`]), so two images whose lowest layers are the same
//! begin with the same blocks, up to the first file that only one of them has. The ledger is kept beside the image by
//! whoever keeps images; it is no part of one.
//!
//! **Form.** The eight bytes of [`MAGIC`]; then numbers of seven bits to the byte, lowest first (LEB128), but for the
//! names of layers, 32 bytes each; at the end the CRC32C of all before, little-endian:
//!
//! ```text
//!  descriptor-blocks
//!  layers  name …
//!  files   (layer  place  size  end  runs (logical start blocks) …  tree-blocks (block) …) …
//! ```

use sha2::{Digest, Sha256};

use crate::tree::{Content, Source};

/// What a ledger begins with; another version has another number.
const MAGIC: &[u8; 8] = b"fbledgr1";

/// What [`super::write_noted()`] has put where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Blocks that each copy of the superblock keeps free for descriptors.
    pub(super) descriptor_blocks: u64,
    /// The layers, as [`super::Options::layers`] named them.
    pub(super) layers: Vec<[u8; 32]>,
    /// The files whose content is in a layer, in the order of their blocks.
    pub(super) files: Vec<Filed>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filed {
    pub(super) key: FileKey,
    /// Its blocks.
    pub(super) blocks: Placed,
    /// Where the cursor stood behind it.
    pub(super) end: u64,
}

/// Which bytes a file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileKey {
    /// The layer, by its place in the list.
    pub(super) layer: u32,
    /// Where in the layer; for a sparse file something made of where all of its parts are.
    pub(super) place: u64,
    /// How many bytes.
    pub(super) size: u64,
}

/// Where the blocks of a file are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Placed {
    /// Its data: block of the file, block of the image, how many.
    pub(super) runs: Vec<(u32, u64, u32)>,
    /// The blocks of its extent tree, in the order in which they are written.
    pub(super) tree: Vec<u64>,
}

impl FileKey {
    /// The key of a content whose layer has this place in the list.
    pub(super) fn new(layer: u32, content: &Content) -> Self {
        let place = match &content.source {
            Source::Blob { offset, .. } => *offset,
            Source::SparseBlob { segments, .. } => {
                let mut digest = Sha256::new();
                for segment in segments.iter() {
                    for number in [segment.position, segment.offset, segment.len] {
                        digest.update(number.to_le_bytes());
                    }
                }
                let digest: [u8; 32] = digest.finalize().into();
                let mut first = [0; 8];
                first.copy_from_slice(&digest[..8]);
                // No layer has that many bytes, so none of these is an offset.
                u64::from_le_bytes(first) | 1 << 63
            }
            Source::Path(_) | Source::Bytes(_) => 0,
        };
        Self {
            layer,
            place,
            size: content.size,
        }
    }
}

impl Ledger {
    /// About how many bytes of this image an image of these layers would begin with.
    #[must_use]
    pub fn shared(&self, layers: &[[u8; 32]]) -> u64 {
        let common = self.common_layers(layers);
        let files = self.files.iter();
        files
            .take_while(|file| (file.key.layer as usize) < common)
            .map(|file| file.key.size.next_multiple_of(super::format::BLOCK_SIZE))
            .fold(0, u64::saturating_add)
    }

    /// How many layers at the bottom are the same.
    pub(super) fn common_layers(&self, layers: &[[u8; 32]]) -> usize {
        let pairs = self.layers.iter().zip(layers);
        pairs.take_while(|(one, other)| one == other).count()
    }

    /// The layers that the first bytes of a ledger name, before it is known to be whole: enough to choose one of several.
    #[must_use]
    pub fn peek(bytes: &[u8]) -> Option<Vec<[u8; 32]>> {
        let mut rest = Rest(bytes.strip_prefix(MAGIC)?);
        rest.number()?;
        rest.layers()
    }

    /// The bytes of the ledger.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        put(&mut out, self.descriptor_blocks);
        put(&mut out, self.layers.len() as u64);
        for layer in &self.layers {
            out.extend_from_slice(layer);
        }
        put(&mut out, self.files.len() as u64);
        for file in &self.files {
            let FileKey { layer, place, size } = file.key;
            for number in [u64::from(layer), place, size, file.end] {
                put(&mut out, number);
            }
            put(&mut out, file.blocks.runs.len() as u64);
            for (logical, start, blocks) in &file.blocks.runs {
                for number in [u64::from(*logical), *start, u64::from(*blocks)] {
                    put(&mut out, number);
                }
            }
            put(&mut out, file.blocks.tree.len() as u64);
            for block in &file.blocks.tree {
                put(&mut out, *block);
            }
        }
        let sum = crc32c::crc32c(&out);
        out.extend_from_slice(&sum.to_le_bytes());
        out
    }

    /// Reads a ledger. `None` when the bytes are none, or are damaged.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (body, sum) = bytes.split_last_chunk::<4>()?;
        if crc32c::crc32c(body) != u32::from_le_bytes(*sum) {
            return None;
        }
        let mut rest = Rest(body.strip_prefix(MAGIC)?);
        let mut ledger = Self {
            descriptor_blocks: rest.number()?,
            ..Self::default()
        };
        ledger.layers = rest.layers()?;
        for _ in 0..rest.number()? {
            ledger.files.push(rest.file()?);
        }
        rest.0.is_empty().then_some(ledger)
    }
}

fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7F) as u8 | 0x80);
        number >>= 7;
    }
    out.push((number & 0x7F) as u8);
}

/// What is left to be read. Counts are not believed: every element takes a byte at least, so what they make grow is no
/// larger than the bytes are.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (byte, after) = self.0.split_first()?;
            self.0 = after;
            let bits = u64::from(byte & 0x7F);
            if shift == 63 && bits > 1 {
                return None;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn short(&mut self) -> Option<u32> {
        u32::try_from(self.number()?).ok()
    }

    fn layers(&mut self) -> Option<Vec<[u8; 32]>> {
        let mut layers = Vec::new();
        for _ in 0..self.number()? {
            let (layer, after) = self.0.split_first_chunk::<32>()?;
            layers.push(*layer);
            self.0 = after;
        }
        Some(layers)
    }

    fn file(&mut self) -> Option<Filed> {
        let key = FileKey {
            layer: self.short()?,
            place: self.number()?,
            size: self.number()?,
        };
        let end = self.number()?;
        let mut blocks = Placed::default();
        for _ in 0..self.number()? {
            let run = (self.short()?, self.number()?, self.short()?);
            blocks.runs.push(run);
        }
        for _ in 0..self.number()? {
            blocks.tree.push(self.number()?);
        }
        Some(Filed { key, blocks, end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Ledger {
        let file = |layer, place, end| Filed {
            key: FileKey {
                layer,
                place,
                size: 5000,
            },
            blocks: Placed {
                runs: vec![(0, end - 3, 1), (7, u64::MAX, u32::MAX)],
                tree: vec![end - 1],
            },
            end,
        };
        Ledger {
            descriptor_blocks: 130,
            layers: vec![[1; 32], [2; 32]],
            files: vec![file(0, 512, 200), file(1, u64::MAX, 300)],
        }
    }

    #[test]
    fn bytes_give_the_ledger_back_and_no_other_bytes_do() {
        let bytes = ledger().to_bytes();
        assert_eq!(Ledger::parse(&bytes), Some(ledger()));
        assert_eq!(Ledger::peek(&bytes[..75]), Some(ledger().layers));
        assert_eq!(Ledger::peek(&bytes[..70]), None);
        for cut in 0..bytes.len() {
            assert_eq!(Ledger::parse(&bytes[..cut]), None);
            let mut torn = bytes.clone();
            torn[cut] ^= 0x10;
            assert_eq!(Ledger::parse(&torn), None);
        }
    }

    #[test]
    fn counts_beyond_the_end_are_refused() {
        // One layer is announced as many, with a valid sum.
        let mut bytes = MAGIC.to_vec();
        put(&mut bytes, 1);
        put(&mut bytes, u64::MAX);
        let sum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        assert_eq!(Ledger::parse(&bytes), None);
    }

    #[test]
    fn what_is_shared_ends_with_the_first_other_layer() {
        let ledger = ledger();
        assert_eq!(ledger.shared(&[[1; 32], [2; 32], [3; 32]]), 16384);
        assert_eq!(ledger.shared(&[[1; 32], [3; 32]]), 8192);
        assert_eq!(ledger.shared(&[[2; 32], [1; 32]]), 0);
    }
}
