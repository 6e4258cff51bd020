use std::io::Cursor;
use std::sync::Arc;

use super::*;
use crate::dump::{layer_to_text, parse_layer, parse_tree, tree_to_text};
use crate::tar::{ReadOptions, Whiteouts, read_layer};

/// For layers whose files are all in memory.
struct Memory;

impl Contents for Memory {
    fn open(&self, _: &Content) -> std::io::Result<Opened> {
        Err(std::io::Error::other("nothing is stored"))
    }
}

/// One blob.
struct Blob(Arc<File>);

impl Contents for Blob {
    fn open(&self, content: &Content) -> std::io::Result<Opened> {
        content
            .opened_in(&self.0)
            .ok_or_else(|| std::io::Error::other("not in the blob"))
    }
}

fn write(text: &str) -> (Vec<u8>, Written) {
    let mut out = Vec::new();
    let layer = parse_layer(text).unwrap();
    let written = write_layer(
        &layer,
        &Memory,
        Output::Stream(&mut out),
        &WriteOptions::default(),
    )
    .unwrap();
    (out, written)
}

fn refuse(text: &str) -> TarErrorKind {
    let layer = parse_layer(text).unwrap();
    write_layer(
        &layer,
        &Memory,
        Output::Stream(&mut Vec::new()),
        &WriteOptions::default(),
    )
    .unwrap_err()
    .kind()
}

#[test]
fn reading_gives_what_writing_said() {
    let long = "d/".repeat(60);
    let text = format!(
        "/ dir 0755 0:0 5\n/a\\x0a\\xff file 4755 4000000000:0 -1.500000000 3 data:abc xattr:user.\\x3d%=00ff0a xattr:user.e=\n\
         /{long}f file 0644 1:2 99999999999999 0 data:\n/l symlink 0777 0:0 7 -> {target}\n/m link /a\\x0a\\xff\n\
         /n char 0666 0:0 0 4095:1048575\n/o block 0600 0:0 0 16777216:4294967295\n/p fifo 0600 0:0 0\n\
         /q opaque\n/r whiteout\n/\\xc3\\xa9 dir 0755 0:0 0\n",
        target = "t/".repeat(2000),
    );
    let (bytes, written) = write(&text);
    assert_eq!(bytes.len() as u64, written.size);
    assert_eq!(
        <[u8; 32]>::from(<sha2::Sha256 as sha2::Digest>::digest(&bytes)),
        written.diff_id
    );
    let read = read_layer(
        Cursor::new(&bytes),
        written.diff_id,
        &ReadOptions::default(),
    )
    .unwrap();
    assert_eq!(layer_to_text(&read), layer_to_text(&written.layer));
    // Apart from where the content is now, it is the layer that was given.
    let strip = |layer: &Layer| {
        let mut layer = layer.clone();
        for entry in &mut layer.entries {
            if let Change::Node(Inode {
                kind: Kind::File(content),
                ..
            }) = &mut entry.change
            {
                content.source = Source::Blob {
                    id: [0; 32],
                    offset: 0,
                };
            }
        }
        layer_to_text(&layer)
    };
    let mut given = parse_layer(&text).unwrap();
    given.sort();
    assert_eq!(strip(&read), strip(&given));
}

#[test]
fn order_is_fixed_and_safe_for_readers_that_go_by_it() {
    // "-x" sorts before ".wh.-x": the whiteout has to come first all the same.
    let (bytes, _) = write(
        "/z link /-x\n/d/sub dir 0755 0:0 0\n/d opaque\n/d dir 0755 0:0 0\n/-x file 0644 0:0 0 0 data:\n/-x whiteout\n/0 link /1\n/1 link /z",
    );
    let names: Vec<String> = bytes
        .chunks(512)
        .filter(|b| b[0] != 0)
        .map(|b| {
            String::from_utf8_lossy(&b[..b.iter().position(|x| *x == 0).unwrap()]).into_owned()
        })
        .collect();
    assert_eq!(
        names,
        [
            ".wh.-x",
            "-x",
            "d/",
            "d/.wh..wh..opq",
            "d/sub/",
            "z",
            "1",
            "0"
        ]
    );
}

#[test]
fn what_cannot_be_in_a_layer() {
    assert_eq!(
        refuse("/.wh.a file 0644 0:0 0 0 data:"),
        TarErrorKind::Reserved
    );
    assert_eq!(refuse("/a link /b\n/b link /a"), TarErrorKind::Link);
    let many: String = (0..20)
        .map(|i| format!(" xattr:user.{i}={}", "00".repeat(60000)))
        .collect();
    assert_eq!(
        refuse(&format!("/a file 0644 0:0 0 0 data:{many}")),
        TarErrorKind::TooLarge
    );
    assert_eq!(refuse("/a file 0644 0:0 0 1 path:x"), TarErrorKind::Content);
    let (_, written) = write("/s socket 0644 0:0 0");
    assert!(written.layer.entries.is_empty());
}

#[test]
fn a_tree_may_have_any_name() {
    let tree = parse_tree("/.wh.a file 0644 0:0 0 2 data:hi\n/b link /.wh.a").unwrap();
    let mut out = Vec::new();
    let written = write_tree(
        &tree,
        &Memory,
        Output::Stream(&mut out),
        &WriteOptions::default(),
    )
    .unwrap();
    let options = ReadOptions {
        whiteouts: Whiteouts::Keep,
        ..ReadOptions::default()
    };
    let read = read_layer(Cursor::new(&out), written.diff_id, &options).unwrap();
    let mut back = Tree::new();
    back.apply(&read).unwrap();
    assert_eq!(
        tree_to_text(&back).replace(&format!("blob:{}@1024", hex(&written.diff_id)), "data:hi"),
        tree_to_text(&tree)
    );
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn times_are_clamped_downwards_only() {
    let layer = parse_layer("/a dir 0755 0:0 10\n/b dir 0755 0:0 30.000000001").unwrap();
    let options = WriteOptions {
        clamp_mtime: Some(Time { secs: 20, nanos: 0 }),
        ..WriteOptions::default()
    };
    let mut out = Vec::new();
    let written = write_layer(&layer, &Memory, Output::Stream(&mut out), &options).unwrap();
    assert_eq!(
        layer_to_text(&written.layer),
        "/a dir 0755 0:0 10\n/b dir 0755 0:0 20\n"
    );
    let read = read_layer(Cursor::new(&out), written.diff_id, &ReadOptions::default()).unwrap();
    assert_eq!(read, written.layer);
}

#[test]
fn holes_stay_holes_and_count() {
    use std::os::unix::fs::{FileExt, MetadataExt};
    let source = tempfile::tempfile().unwrap();
    source.write_all_at(b"begin", 0).unwrap();
    source.write_all_at(b"end", 64 << 20).unwrap();
    // Zeros that were written are no holes, and are left out all the same.
    source.write_all_at(&[0; 1 << 20], 4 << 20).unwrap();
    let size = (64 << 20) + 3;
    let layer = Layer {
        entries: vec![Entry {
            path: b"f".to_vec(),
            change: Change::Node(Inode::new(
                Default::default(),
                Kind::File(Content {
                    source: Source::Blob {
                        id: [1; 32],
                        offset: 0,
                    },
                    size,
                }),
            )),
        }],
    };
    let contents = Blob(Arc::new(source));
    let out = tempfile::tempfile().unwrap();
    out.write_all_at(b"left over", 100 << 20).unwrap();
    let to_file = write_layer(
        &layer,
        &contents,
        Output::File(&out),
        &WriteOptions::default(),
    )
    .unwrap();
    let mut bytes = Vec::new();
    let to_memory = write_layer(
        &layer,
        &contents,
        Output::Stream(&mut bytes),
        &WriteOptions::default(),
    )
    .unwrap();
    assert_eq!(to_file.diff_id, to_memory.diff_id);
    let meta = out.metadata().unwrap();
    assert_eq!(meta.len(), bytes.len() as u64);
    assert!(meta.blocks() * 512 < 4 << 20, "{} blocks", meta.blocks());
    let mut back = vec![1; bytes.len()];
    out.read_exact_at(&mut back, 0).unwrap();
    assert!(back == bytes);
}

#[test]
fn large_content_is_hashed_beside_and_right() {
    let mut state = 1u64;
    let bytes: Vec<u8> = (0..9 << 20)
        .map(|i| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            // A long run of zeros in the middle.
            if (3 << 20..5 << 20).contains(&i) {
                0
            } else {
                state.to_be_bytes()[0]
            }
        })
        .collect();
    let layer = Layer {
        entries: vec![Entry {
            path: b"f".to_vec(),
            change: Change::Node(Inode::new(
                Default::default(),
                Kind::File(Content::from_bytes(bytes)),
            )),
        }],
    };
    let mut out = Vec::new();
    let stream = write_layer(
        &layer,
        &Memory,
        Output::Stream(&mut out),
        &WriteOptions::default(),
    )
    .unwrap();
    assert_eq!(
        <[u8; 32]>::from(<sha2::Sha256 as sha2::Digest>::digest(&out)),
        stream.diff_id
    );
    let file = tempfile::tempfile().unwrap();
    let written = write_layer(
        &layer,
        &Memory,
        Output::File(&file),
        &WriteOptions::default(),
    )
    .unwrap();
    assert_eq!(written.diff_id, stream.diff_id);
    let mut back = vec![0; out.len()];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut back, 0).unwrap();
    assert!(back == out);
}

/// Docker and containerd apply the header of a hard link to the file: owner, attributes, mode, and at last the time.
#[test]
fn hard_links_have_the_properties_of_their_file() {
    let layer = parse_layer(
        "/a file 4750 7:8 64 3 data:abc xattr:security.capability=0102\n/b link /a\n/c link /b\n/d link /below\n",
    )
    .unwrap();
    for (clamp, time) in [(None, 64), (Some(Time { secs: 9, nanos: 0 }), 9)] {
        let mut out = Vec::new();
        let options = WriteOptions {
            clamp_mtime: clamp,
            ..WriteOptions::default()
        };
        write_layer(&layer, &Memory, Output::Stream(&mut out), &options).unwrap();
        let octal = |block: &[u8], at: std::ops::Range<usize>| {
            let text = std::str::from_utf8(&block[at]).unwrap();
            u64::from_str_radix(text.trim_matches(['\0', ' ']), 8).unwrap()
        };
        let blocks: Vec<&[u8]> = out.chunks(512).collect();
        let links: Vec<usize> = (0..blocks.len())
            .filter(|&at| blocks[at][156] == b'1' && blocks[at][257..].starts_with(b"ustar"))
            .collect();
        assert_eq!(links.len(), 3);
        for &at in &links[..2] {
            let fields = [100..108, 108..116, 116..124, 124..136, 136..148];
            assert_eq!(
                fields.map(|field| octal(blocks[at], field)),
                [0o4750, 7, 8, 0, time]
            );
            assert!(
                blocks[at - 1]
                    .windows(19)
                    .any(|part| part == b"security.capability")
            );
        }
        // Of a file in a layer below nothing is known here, but it shall stay readable.
        assert_eq!(octal(blocks[links[2]], 100..108), 0o644);
    }
}
