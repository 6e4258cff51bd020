use std::io::Cursor;

use super::*;
use crate::dump::layer_to_text;
use crate::path::PathError;

const BLOB: [u8; 32] = [0; 32];

/// A ustar header; `edit` changes it before it is sealed.
fn header(name: &[u8], kind: u8, size: u64, edit: impl FnOnce(&mut Header)) -> Vec<u8> {
    let mut header = Header([0; BLOCK]);
    assert!(header.set_text(header::NAME, name));
    header.0[header::MAGIC].copy_from_slice(header::USTAR);
    for (field, value) in [
        (header::MODE, 0o644),
        (header::UID, 1),
        (header::GID, 2),
        (header::SIZE, size),
        (header::MTIME, 3),
    ] {
        assert!(header.set_octal(field, value));
    }
    header.0[header::TYPE] = kind;
    edit(&mut header);
    header.seal();
    header.0.to_vec()
}

fn with_data(name: &[u8], kind: u8, data: &[u8]) -> Vec<u8> {
    let mut out = header(name, kind, data.len() as u64, |_| {});
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(BLOCK), 0);
    out
}

fn pax(records: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut data = Vec::new();
    for (key, value) in records {
        pax::append(&mut data, key, value);
    }
    with_data(b"PaxHeaders/x", b'x', &data)
}

fn archive(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut out = parts.concat();
    out.extend_from_slice(&[0; 1024]);
    out
}

fn read(bytes: &[u8]) -> Result<Layer, TarError> {
    read_layer(Cursor::new(bytes), BLOB, &ReadOptions::default())
}

/// The text without the zeros of the blob's name.
fn text(parts: &[Vec<u8>]) -> String {
    layer_to_text(&read(&archive(parts)).unwrap()).replace(&"00".repeat(32), "B")
}

fn fails(parts: &[Vec<u8>]) -> TarErrorKind {
    read(&archive(parts)).unwrap_err().kind()
}

#[test]
fn plain_headers() {
    assert_eq!(
        text(&[with_data(b"./f", b'0', b"abc")]),
        "/f file 0644 1:2 3 3 blob:B@512\n"
    );
    assert_eq!(
        text(&[with_data(b"/abs", b'7', b"")]),
        "/abs file 0644 1:2 3 0 blob:B@512\n"
    );
    assert_eq!(
        text(&[header(b"d/", b'5', 99, |_| {})]),
        "/d dir 0644 1:2 3\n"
    );
    assert_eq!(
        text(&[header(b"p", b'6', 0, |_| {})]),
        "/p fifo 0644 1:2 3\n"
    );
    let link = |h: &mut Header| assert!(h.set_text(header::LINK, b"../x"));
    assert_eq!(
        text(&[header(b"l", b'2', 5, link)]),
        "/l symlink 0644 1:2 3 -> ../x\n"
    );
    let link = |h: &mut Header| assert!(h.set_text(header::LINK, b"./x"));
    assert_eq!(text(&[header(b"l", b'1', 5, link)]), "/l link /x\n");
    let device = |h: &mut Header| {
        h.set_octal(header::MAJOR, 259);
        h.set_octal(header::MINOR, 70000);
    };
    assert_eq!(
        text(&[header(b"b", b'4', 0, device)]),
        "/b block 0644 1:2 3 259:70000\n"
    );
    let prefix = |h: &mut Header| assert!(h.set_text(header::PREFIX, b"a/b"));
    assert_eq!(
        text(&[header(b"c", b'0', 0, prefix)]),
        "/a/b/c file 0644 1:2 3 0 blob:B@512\n"
    );
}

#[test]
fn old_headers() {
    let v7 = |h: &mut Header| {
        h.0[header::MAGIC].fill(0);
        // What stands where ustar has its prefix means nothing.
        h.0[header::PREFIX].fill(b'x');
    };
    assert_eq!(text(&[header(b"d/", 0, 0, v7)]), "/d dir 0644 1:2 3\n");
    assert_eq!(
        text(&[header(b"f", 0, 0, v7)]),
        "/f file 0644 1:2 3 0 blob:B@512\n"
    );
    let device = |h: &mut Header| {
        h.0[header::MAGIC].fill(0);
        h.0[header::MAJOR].fill(b'9');
    };
    assert_eq!(
        text(&[header(b"c", b'3', 0, device)]),
        "/c char 0644 1:2 3 0:0\n"
    );
    // Old archivers summed signed bytes.
    let mut block = header(b"\xff\xff", b'0', 0, |_| {});
    let sum: i32 = block
        .iter()
        .enumerate()
        .map(|(i, b)| {
            if header::CHECKSUM.contains(&i) {
                32
            } else {
                i32::from(b.cast_signed())
            }
        })
        .sum();
    block[header::CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    assert_eq!(text(&[block]), "/\\xff\\xff file 0644 1:2 3 0 blob:B@512\n");
}

#[test]
fn gnu_long_names_and_big_numbers() {
    let long = [b"d/".repeat(80), b"n\0".to_vec()].concat();
    let gnu = |h: &mut Header| {
        h.0[header::UID].copy_from_slice(b"\x80\0\0\0\xff\xff\xff\xfe");
        h.0[header::MTIME].copy_from_slice(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe");
    };
    let out = text(&[
        with_data(b"././@LongLink", b'L', &long),
        with_data(b"././@LongLink", b'K', b"target\0"),
        header(b"short", b'2', 0, gnu),
    ]);
    assert_eq!(
        out,
        format!(
            "/{}n symlink 0644 4294967294:2 -2 -> target\n",
            "d/".repeat(80)
        )
    );
}

#[test]
fn extended_headers_win() {
    let out = text(&[
        pax(&[
            (b"path", b"a/\xff\nb"),
            (b"uid", b"4294967295"),
            (b"gid", b"7"),
            (b"mtime", b"-1.25"),
            (b"size", b"3"),
            (b"SCHILY.xattr.user.a%3Db", b"x\0y"),
            (b"SCHILY.xattr.user.empty", b""),
            (b"comment", b"whatever"),
        ]),
        header(b"short", b'0', 0, |_| {}),
        vec![b'x'; 512],
        with_data(b"next", b'0', b""),
    ]);
    assert_eq!(
        out,
        "/a/\\xff\\x0ab file 4294967295:7".replace("file ", "file 0644 ")
            + " -2.750000000 3 blob:B@1536 xattr:user.a\\x3db=780079 xattr:user.empty=\n/next file 0644 1:2 3 0 blob:B@2560\n"
    );
}

#[test]
fn global_headers_count_for_all_that_follow() {
    let global = |records: &[(&[u8], &[u8])]| {
        let mut part = pax(records);
        let mut header = Header(part[..BLOCK].try_into().unwrap());
        header.0[header::TYPE] = b'g';
        header.seal();
        part[..BLOCK].copy_from_slice(&header.0);
        part
    };
    let out = text(&[
        global(&[
            (b"comment", b"0123"),
            (b"uid", b"9"),
            (b"path", b"nonsense"),
            (b"mtime", b"4"),
        ]),
        with_data(b"a", b'0', b""),
        global(&[(b"uid", b"8")]),
        pax(&[(b"gid", b"5")]),
        with_data(b"b", b'0', b""),
    ]);
    assert_eq!(
        out,
        "/a file 0644 9:2 4 0 blob:B@1536\n/b file 0644 8:5 4 0 blob:B@4096\n"
    );
    let many: Vec<(Vec<u8>, &[u8])> = (0..300)
        .map(|i| (format!("k{i}").into_bytes(), &b"v"[..]))
        .collect();
    let many: Vec<(&[u8], &[u8])> = many.iter().map(|(k, v)| (k.as_slice(), *v)).collect();
    assert_eq!(fails(&[global(&many)]), TarErrorKind::PaxTooLarge);
}

#[test]
fn whiteouts_and_what_looks_like_them() {
    let long = [&b"d/.wh."[..], &[b'n'; 255]].concat();
    let parts = [
        with_data(b"a/.wh.b", b'0', b""),
        with_data(b"a/.wh..wh..opq", b'0', b""),
        with_data(b".wh..wh.plnk", b'0', b""),
        pax(&[(b"path", &long)]),
        with_data(b"x", b'0', b""),
    ];
    assert_eq!(
        text(&parts),
        format!(
            "/a/b whiteout\n/a opaque\n/d/{} whiteout\n",
            "n".repeat(255)
        )
    );
    let options = ReadOptions {
        whiteouts: Whiteouts::Keep,
        ..ReadOptions::default()
    };
    let kept = read_layer(Cursor::new(archive(&parts[..3])), BLOB, &options).unwrap();
    assert_eq!(kept.entries[1].path, b"a/.wh..wh..opq");
    for bad in [&b".wh."[..], b"a/.wh..", b"a/.wh..."] {
        assert_eq!(fails(&[with_data(bad, b'0', b"")]), TarErrorKind::Whiteout);
    }
}

#[test]
fn entries_that_climb_out_are_named() {
    let error = read(&archive(&[
        with_data(b"ok", b'0', b"12"),
        with_data(b"a/../../etc/passwd", b'0', b""),
    ]))
    .unwrap_err();
    assert_eq!(error.kind(), TarErrorKind::Path(PathError::Escapes));
    assert_eq!(
        error.to_string(),
        "tar entry \"a/../../etc/passwd\" at byte 1024: the path climbs out of the root with .."
    );
    let link = |h: &mut Header| assert!(h.set_text(header::LINK, b"../../etc/passwd"));
    assert_eq!(
        fails(&[header(b"a", b'1', 0, link)]),
        TarErrorKind::Path(PathError::Escapes)
    );
    assert_eq!(
        fails(&[with_data(b"../.wh.x", b'0', b"")]),
        TarErrorKind::Path(PathError::Escapes)
    );
}

#[test]
fn damage_is_found() {
    let whole = archive(&[with_data(b"f", b'0', &[b'x'; 1000])]);
    let mut flipped = whole.clone();
    flipped[0] ^= 1;
    assert_eq!(read(&flipped).unwrap_err().kind(), TarErrorKind::Checksum);
    for cut in [100, 600, 1511] {
        assert_eq!(
            read(&whole[..cut]).unwrap_err().kind(),
            TarErrorKind::Truncated,
            "{cut}"
        );
    }
    // Only padding or the end marks are missing.
    for cut in [512 + 1000, 512 + 1024, 512 + 1024 + 512] {
        assert_eq!(read(&whole[..cut]).unwrap().entries.len(), 1, "{cut}");
    }
    let trailing = [whole.clone(), b"garbage".to_vec()].concat();
    assert_eq!(read(&trailing).unwrap().entries.len(), 1);
    let lone = [vec![0; 512], with_data(b"f", b'0', b"")].concat();
    assert_eq!(read(&lone).unwrap_err().kind(), TarErrorKind::Checksum);
    assert!(read(b"").unwrap().entries.is_empty());
    assert_eq!(read(b"short").unwrap_err().kind(), TarErrorKind::Truncated);
    assert_eq!(
        read(&pax(&[(b"path", b"x")])).unwrap_err().kind(),
        TarErrorKind::Truncated
    );
}

#[test]
fn numbers_and_links_are_checked() {
    let bad = |field: header::Field, bytes: &'static [u8]| {
        move |h: &mut Header| h.0[field.start..field.start + bytes.len()].copy_from_slice(bytes)
    };
    assert_eq!(
        fails(&[header(
            b"f",
            b'0',
            0,
            bad(
                header::SIZE,
                b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"
            )
        )]),
        TarErrorKind::Number("size")
    );
    assert_eq!(
        fails(&[header(
            b"f",
            b'0',
            0,
            bad(header::UID, b"\x80\0\0\x01\0\0\0\0")
        )]),
        TarErrorKind::Number("uid")
    );
    assert_eq!(
        fails(&[header(b"f", b'0', 0, bad(header::MODE, b"xyz"))]),
        TarErrorKind::Number("mode")
    );
    assert_eq!(
        fails(&[
            pax(&[(b"size", b"18446744073709551615")]),
            header(b"f", b'0', 0, |_| {})
        ]),
        TarErrorKind::Number("size")
    );
    assert_eq!(
        fails(&[pax(&[(b"size", b"-1")]), header(b"f", b'0', 0, |_| {})]),
        TarErrorKind::Number("size")
    );
    assert_eq!(
        fails(&[
            pax(&[(b"size", b"99999999")]),
            header(b"f", b'0', 0, |_| {})
        ]),
        TarErrorKind::Truncated
    );
    assert_eq!(
        fails(&[pax(&[(b"mtime", b"soon")]), header(b"f", b'0', 0, |_| {})]),
        TarErrorKind::Number("mtime")
    );
    assert_eq!(fails(&[header(b"l", b'2', 0, |_| {})]), TarErrorKind::Link);
    assert_eq!(fails(&[header(b"l", b'1', 0, |_| {})]), TarErrorKind::Link);
    assert_eq!(
        fails(&[
            pax(&[(b"linkpath", &[b'x'; 4096])]),
            header(b"l", b'2', 0, |_| {})
        ]),
        TarErrorKind::Link
    );
    assert_eq!(
        fails(&[header(b"m", b'M', 0, |_| {})]),
        TarErrorKind::Type(b'M')
    );
    assert_eq!(
        fails(&[with_data(b"x", b'x', b"nonsense")]),
        TarErrorKind::Pax
    );
    assert_eq!(
        fails(&[
            pax(&[(b"SCHILY.xattr.", b"x")]),
            header(b"f", b'0', 0, |_| {})
        ]),
        TarErrorKind::Xattr
    );
    assert_eq!(
        fails(&[
            pax(&[(b"SCHILY.acl.access", b"user:joe:rwx")]),
            header(b"f", b'0', 0, |_| {})
        ]),
        TarErrorKind::Acl
    );
}

#[test]
fn limits_hold() {
    let limits = Limits {
        entries: 2,
        extended: 100,
    };
    let options = ReadOptions {
        limits,
        whiteouts: Whiteouts::Apply,
    };
    let read = |parts: &[Vec<u8>]| read_layer(Cursor::new(archive(parts)), BLOB, &options);
    let file = with_data(b"f", b'0', b"");
    assert!(read(&[file.clone(), file.clone()]).is_ok());
    assert_eq!(
        read(&[file.clone(), file.clone(), file.clone()])
            .unwrap_err()
            .kind(),
        TarErrorKind::TooManyEntries
    );
    assert_eq!(
        read(&[with_data(b"L", b'L', &[b'x'; 101]), file])
            .unwrap_err()
            .kind(),
        TarErrorKind::PaxTooLarge
    );
}

#[test]
fn sparse_files_of_all_kinds() {
    let data = [[b'A'; 512], [b'B'; 512]].concat();
    let want = |offset: u64| {
        format!(
            "/s file 0644 1:2 3 10000 sparse:B[1000+512@{offset},5000+512@{}]\n",
            offset + 512
        )
    };
    let file = |name: &[u8]| with_data(name, b'0', &data);
    // 0.0
    let map = pax(&[
        (b"GNU.sparse.size", b"10000"),
        (b"GNU.sparse.numblocks", b"3"),
        (b"GNU.sparse.offset", b"1000"),
        (b"GNU.sparse.numbytes", b"512"),
        (b"GNU.sparse.offset", b"5000"),
        (b"GNU.sparse.numbytes", b"512"),
        (b"GNU.sparse.offset", b"10000"),
        (b"GNU.sparse.numbytes", b"0"),
    ]);
    assert_eq!(text(&[map, file(b"s")]), want(1536));
    // 0.1
    let map = pax(&[
        (b"GNU.sparse.size", b"10000"),
        (b"GNU.sparse.map", b"1000,512,5000,512,10000,0"),
        (b"GNU.sparse.name", b"s"),
    ]);
    assert_eq!(text(&[map, file(b"GNUSparseFile.1/s")]), want(1536));
    // 1.0
    let map = pax(&[
        (b"GNU.sparse.major", b"1"),
        (b"GNU.sparse.minor", b"0"),
        (b"GNU.sparse.realsize", b"10000"),
        (b"GNU.sparse.name", b"s"),
    ]);
    let mut lines = b"3\n1000\n512\n5000\n512\n10000\n0\n".to_vec();
    lines.resize(512, 0);
    lines.extend_from_slice(&data);
    assert_eq!(
        text(&[map.clone(), with_data(b"GNUSparseFile.1/s", b'0', &lines)]),
        want(2048)
    );
    assert_eq!(
        fails(&[map.clone(), with_data(b"s", b'0', b"2\n1\n")]),
        TarErrorKind::Sparse
    );
    assert_eq!(
        fails(&[map, with_data(b"s", b'0', b"1\n0\n999999\n")]),
        TarErrorKind::Sparse
    );
    // Old GNU, with a continuation.
    let gnu = |h: &mut Header| {
        h.0[386..398].copy_from_slice(b"00000001750\0");
        h.0[398..410].copy_from_slice(b"00000001000\0");
        h.0[482] = 1;
        h.0[483..495].copy_from_slice(b"00000023420\0");
    };
    let mut more = vec![0; 512];
    more[..12].copy_from_slice(b"00000011610\0");
    more[12..24].copy_from_slice(b"00000001000\0");
    let entry = header(b"s", b'S', 1024, gnu);
    let next = with_data(b"n", b'0', b"");
    assert_eq!(
        text(&[entry, more, data.clone(), next]),
        want(1024) + "/n file 0644 1:2 3 0 blob:B@2560\n"
    );
    // A map that covers the file is no map.
    let full = pax(&[
        (b"GNU.sparse.size", b"1024"),
        (b"GNU.sparse.map", b"0,512,512,512"),
    ]);
    assert_eq!(
        text(&[full, file(b"s")]),
        "/s file 0644 1:2 3 1024 blob:B@1536\n"
    );
    // Overlapping, beyond the end, more than is stored.
    for bad in [
        &b"1000,512,1200,10"[..],
        b"9999,2",
        b"0,1025",
        b"1,2,3",
        b"x,1",
    ] {
        let map = pax(&[(b"GNU.sparse.size", b"10000"), (b"GNU.sparse.map", bad)]);
        assert_eq!(fails(&[map, file(b"s")]), TarErrorKind::Sparse);
    }
}
