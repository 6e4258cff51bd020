//! Archives that are made to cost: an error that says why or the right result, in bounded memory.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Cursor;

use firebuild_rootfs::tar::{Limits, ReadOptions, TarErrorKind, read_layer};
use firebuild_rootfs::tree::Tree;

fn peak_mib() -> usize {
    let status = fs_err::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line
        .and_then(|line| line.split_whitespace().nth(1))
        .unwrap();
    kib.parse::<usize>().unwrap() / 1024
}

/// A ustar header without data.
fn header(name: &[u8], kind: u8, size: &str) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..name.len()].copy_from_slice(name);
    block[100..107].copy_from_slice(b"0000755");
    block[124..124 + size.len()].copy_from_slice(size.as_bytes());
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block
}

/// An extended header with this record, and the file it is for.
fn extended(record: &[u8]) -> Vec<u8> {
    let mut length = record.len() + 3;
    while format!("{length} ").len() + record.len() + 1 != length {
        length = format!("{length} ").len() + record.len() + 1;
    }
    let text = [format!("{length} ").as_bytes(), record, b"\n"].concat();
    let mut bytes = header(b"x", b'x', &format!("{:011o}", text.len()));
    bytes.extend(&text);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes.extend(header(b"f", b'0', "00000000000"));
    bytes
}

fn error(bytes: &[u8]) -> TarErrorKind {
    let error = read_layer(Cursor::new(bytes), [0; 32], &ReadOptions::default()).unwrap_err();
    assert!(!error.to_string().is_empty());
    assert!(peak_mib() < 64, "{} MiB", peak_mib());
    error.kind()
}

#[test]
fn sizes_that_are_only_claimed() {
    for kind in *b"xgLK" {
        // 8 GiB of extended header, and a file of one block.
        error(&header(b"x", kind, "77777777777"));
    }
    error(&header(b"f", b'0', "77777777777"));
    let mut huge = header(b"f", b'0', "");
    // Base-256: the largest number that fits.
    huge[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0x7f, 255, 255, 255, 255, 255, 255, 255]);
    huge[148..156].fill(b' ');
    let sum: u32 = huge.iter().map(|byte| u32::from(*byte)).sum();
    huge[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    error(&huge);
}

#[test]
fn paths_that_go_deep_or_out() {
    error(&extended(
        &[b"path=", "d/".repeat(5_000).as_bytes(), b"f"].concat(),
    ));
    error(&extended(b"path=a/../../etc/passwd"));
    error(&extended(&[b"path=", "n".repeat(300).as_bytes()].concat()));
    // Two megabytes are no extended header any more.
    error(&extended(
        &[&b"comment="[..], &vec![b'c'; 2 << 20]].concat(),
    ));
}

#[test]
fn more_entries_than_allowed() {
    let archive: Vec<u8> = (0..2_000)
        .flat_map(|number| header(format!("f{number}").as_bytes(), b'0', "00000000000"))
        .collect();
    let options = ReadOptions {
        limits: Limits {
            entries: 1_000,
            ..Limits::default()
        },
        ..ReadOptions::default()
    };
    let error = read_layer(Cursor::new(&archive), [0; 32], &options).unwrap_err();
    assert_eq!(error.kind(), TarErrorKind::TooManyEntries);
    read_layer(Cursor::new(&archive), [0; 32], &ReadOptions::default()).unwrap();
}

#[test]
fn many_entries_in_deep_directories() {
    // Each entry names forty levels.
    let path: String = (0..40).map(|_| "d/").collect();
    let archive: Vec<u8> = (0..30_000)
        .flat_map(|number| header(format!("{path}{number}").as_bytes(), b'0', "00000000000"))
        .collect();
    let before = peak_mib();
    let layer = read_layer(Cursor::new(&archive), [0; 32], &ReadOptions::default()).unwrap();
    let mut tree = Tree::new();
    tree.apply(&layer).unwrap();
    assert_eq!(tree.len(), 30_000 + 41);
    let used = peak_mib() - before;
    assert!(used < 100, "{used} MiB for 30,000 entries");
}
