//! GNU's sparse files, in the four ways in which archives have them (GNU tar manual, "Storing Sparse Files"):
//!
//! | form | map | marked by |
//! |---|---|---|
//! | old GNU | in the header and in blocks after it | type `S` |
//! | 0.0 | repeated `GNU.sparse.offset` and `.numbytes` | `GNU.sparse.size` |
//! | 0.1 | `GNU.sparse.map`, one list | `GNU.sparse.map` |
//! | 1.0 | decimal lines before the data | `GNU.sparse.major=1` |

use super::header::{Header, number};
use super::pax::{Records, decimal};
use super::{BLOCK, TarErrorKind};
use crate::tree::{Content, Segment, Source};

/// Most parts that one sparse file may have.
pub(super) const MAX_SEGMENTS: usize = 1_000_000;

/// A map: (position, length) of each stored part.
pub(super) type Map = Vec<(u64, u64)>;

/// The parts of an old GNU header or one of its continuation blocks; `true` when another block follows.
pub(super) fn old_gnu(
    map: &mut Map,
    block: &[u8; BLOCK],
    first: bool,
) -> Result<bool, TarErrorKind> {
    let (start, count, flag) = if first { (386, 4, 482) } else { (0, 21, 504) };
    for i in 0..count {
        let at = start + i * 24;
        let (position, len) = (&block[at..at + 12], &block[at + 12..at + 24]);
        if position[0] == 0 && len[0] == 0 {
            break;
        }
        push(map, unsigned(position)?, unsigned(len)?)?;
    }
    Ok(block[flag] != 0)
}

/// The size of the whole file in an old GNU header.
pub(super) fn old_gnu_size(header: &Header) -> Result<u64, TarErrorKind> {
    unsigned(header.field(483..495))
}

/// Formats 0.0 and 0.1: the map is in the records. `None` when there is none.
pub(super) fn from_records(records: &Records) -> Result<Option<Map>, TarErrorKind> {
    let mut map = Map::new();
    if let Some(list) = records.get(b"GNU.sparse.map") {
        let mut numbers = list.split(|&b| b == b',').map(decimal);
        while let Some(position) = numbers.next() {
            let len = numbers.next().ok_or(TarErrorKind::Sparse)?;
            push(
                &mut map,
                position.ok_or(TarErrorKind::Sparse)?,
                len.ok_or(TarErrorKind::Sparse)?,
            )?;
        }
        return Ok(Some(map));
    }
    let mut position = None;
    for (key, value) in &records.0 {
        match key.as_slice() {
            b"GNU.sparse.offset" => position = Some(decimal(value).ok_or(TarErrorKind::Sparse)?),
            b"GNU.sparse.numbytes" => {
                let at = position.take().ok_or(TarErrorKind::Sparse)?;
                push(&mut map, at, decimal(value).ok_or(TarErrorKind::Sparse)?)?;
            }
            _ => {}
        }
    }
    let marked = records.get(b"GNU.sparse.size").is_some();
    Ok((marked || !map.is_empty()).then_some(map))
}

/// Format 1.0: decimal lines at the beginning of the data. `next` gives a byte; what it gave is padded to a block.
pub(super) fn from_lines<E>(
    mut next: impl FnMut() -> Result<u8, E>,
    bad: impl Fn(TarErrorKind) -> E,
) -> Result<Map, E> {
    let mut line = || -> Result<u64, E> {
        let mut digits = Vec::new();
        loop {
            match next()? {
                b'\n' => return decimal(&digits).ok_or_else(|| bad(TarErrorKind::Sparse)),
                byte if digits.len() < 20 => digits.push(byte),
                _ => return Err(bad(TarErrorKind::Sparse)),
            }
        }
    };
    let count = line()?;
    if count > MAX_SEGMENTS as u64 {
        return Err(bad(TarErrorKind::Sparse));
    }
    let mut map = Map::new();
    for _ in 0..count {
        let (position, len) = (line()?, line()?);
        push(&mut map, position, len).map_err(&bad)?;
    }
    Ok(map)
}

/// The content: parts that lie one after another from `offset` on and have `stored` bytes together.
pub(super) fn content(
    map: &Map,
    blob: [u8; 32],
    offset: u64,
    stored: u64,
    size: u64,
) -> Result<Content, TarErrorKind> {
    let mut segments: Vec<Segment> = Vec::new();
    let (mut end, mut taken) = (0u64, 0u64);
    for &(position, len) in map {
        let bad = TarErrorKind::Sparse;
        if position < end {
            return Err(bad);
        }
        end = position
            .checked_add(len)
            .filter(|e| *e <= size)
            .ok_or(bad)?;
        let from = offset.checked_add(taken).ok_or(bad)?;
        taken = taken.checked_add(len).filter(|t| *t <= stored).ok_or(bad)?;
        if len == 0 {
            continue;
        }
        match segments.last_mut() {
            Some(last) if last.position + last.len == position => last.len += len,
            _ => segments.push(Segment {
                position,
                offset: from,
                len,
            }),
        }
    }
    let source = match segments.as_slice() {
        [one] if one.position == 0 && one.len == size => Source::Blob {
            id: blob,
            offset: one.offset,
        },
        _ => Source::SparseBlob {
            id: blob,
            segments: segments.into(),
        },
    };
    Ok(Content { source, size })
}

fn push(map: &mut Map, position: u64, len: u64) -> Result<(), TarErrorKind> {
    if map.len() >= MAX_SEGMENTS {
        return Err(TarErrorKind::Sparse);
    }
    map.push((position, len));
    Ok(())
}

fn unsigned(field: &[u8]) -> Result<u64, TarErrorKind> {
    number(field)
        .and_then(|n| u64::try_from(n).ok())
        .ok_or(TarErrorKind::Sparse)
}
