//! Copying the content of regular files into the image.
//!
//! Bytes are read straight into the buffers that are written, and looked at once in between: blocks of zeros become
//! holes. Whether a source knows its holes changes nothing but the time it takes: the image depends on the bytes only.
//! A file is taken in windows that are cut by its own length and place, never by what came before it, so that it lies
//! alike whether the files before it were written now or earlier ([`super::ledger`]).

use std::io;

use super::error::Ext4Error;
use super::extent::{ExtentTree, Finished};
use super::format::{BLOCK, BLOCK_SIZE};
use super::stream::Stream;
use crate::tree::{Content, Contents, Extent, InodeId, Tree};

/// Blocks that are looked at together. No more than a buffer has.
const WINDOW: u64 = 128;

/// Blocks of the room that are kept: where in the file, where in the image, how many.
type Run = (u32, u64, u32);

/// Copies the content of the file `id`.
pub(super) fn copy(
    stream: &mut Stream,
    mut extents: ExtentTree,
    tree: &Tree,
    id: InodeId,
    content: &Content,
    contents: &dyn Contents,
) -> Result<Finished, Ext4Error> {
    if content.size > 0 {
        let cannot_read =
            |source| Ext4Error::content(tree, id, "cannot read the content", Some(source));
        let opened = contents.open(content).map_err(cannot_read)?;
        let sparse = opened
            .check_length(content)
            .map_err(cannot_read)?
            .map_err(|actual| {
                let what = format!(
                    "the content has {actual} bytes, not {}: it has changed since it was listed",
                    content.size
                );
                Ext4Error::content(tree, id, what, None)
            })?;
        let mut parts = if sparse {
            opened.extents(content.size).map_err(cannot_read)?
        } else {
            vec![Extent {
                position: 0,
                len: content.size,
            }]
        }
        .into_iter()
        .peekable();
        let mut runs = Vec::new();
        let mut position = 0;
        while position < content.size {
            contents.check().map_err(cannot_read)?;
            while parts.next_if(|p| p.position + p.len <= position).is_some() {}
            let data_from = parts.peek().map_or(content.size, |p| p.position);
            let at = position / BLOCK_SIZE;
            let wanted = (WINDOW - at % WINDOW).min(content.size.div_ceil(BLOCK_SIZE) - at);
            let (start, room) = stream.room(usize::try_from(wanted).unwrap_or(1))?;
            let window = room.len() as u64;
            if data_from >= position.saturating_add(window) {
                // Nothing but a hole. Steps as the loop would if it read the zeros, so that the image is the same.
                let aligned = data_from / (WINDOW * BLOCK_SIZE) * (WINDOW * BLOCK_SIZE);
                position = (position + window).max(aligned);
                stream.flush()?;
                continue;
            }
            let len = usize::try_from(window.min(content.size - position)).unwrap_or(BLOCK);
            opened
                .read_exact_at(&mut room[..len], position)
                .map_err(|source| match source.kind() {
                    io::ErrorKind::UnexpectedEof => {
                        let what = format!("the content ends before its {} bytes", content.size);
                        Ext4Error::content(tree, id, what, None)
                    }
                    _ => cannot_read(source),
                })?;
            let padded = len.next_multiple_of(BLOCK);
            room[len..padded].fill(0);
            let first =
                u32::try_from(position / BLOCK_SIZE).expect("the plan has checked the size");
            let kept = drop_zeros(&mut room[..padded], first, start, &mut runs);
            stream.commit(kept);
            for (logical, start, len) in runs.drain(..) {
                extents.add(stream, logical, start, len)?;
            }
            if kept == 0 {
                stream.flush()?;
            }
            position += padded as u64;
        }
    }
    extents.finish(stream)
}

/// Moves the blocks that are not zeros together at the front of `room` and notes where they belong. Gives their number.
fn drop_zeros(room: &mut [u8], first: u32, start: u64, runs: &mut Vec<Run>) -> usize {
    const ZEROS: [u8; BLOCK] = [0; BLOCK];
    let mut kept = 0;
    for (logical, index) in (first..).zip(0..room.len() / BLOCK) {
        let from = index * BLOCK;
        if room[from..from + BLOCK] == ZEROS {
            continue;
        }
        if index != kept {
            room.copy_within(from..from + BLOCK, kept * BLOCK);
        }
        match runs.last_mut() {
            Some((at, _, len)) if *at + *len == logical => *len += 1,
            _ => runs.push((logical, start + kept as u64, 1)),
        }
        kept += 1;
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_dropped_and_the_rest_moves_up() {
        let mut room = vec![0; 6 * BLOCK];
        for (block, byte) in [(1, 1), (2, 2), (4, 3)] {
            room[block * BLOCK + 4095] = byte;
        }
        let mut runs = Vec::new();
        assert_eq!(drop_zeros(&mut room, 10, 100, &mut runs), 3);
        assert_eq!(runs, [(11, 100, 2), (14, 102, 1)]);
        assert_eq!(room[4095], 1);
        assert_eq!(room[2 * BLOCK + 4095], 3);
    }
}
