use super::*;

const TEXT: &str = "\
/ dir 0755 0:0 0
/a\\x20b dir 1777 1000:4294967295 -1.500000000 xattr:system.posix_acl_default=0200
/a\\x20b/big file 0644 0:0 0 10 blob:0101010101010101010101010101010101010101010101010101010101010101@512
/a\\x20b/disk file 0644 0:0 0 99 path:x/y\\x20z
/a\\x20b/holes file 0644 0:0 0 99 sparse:0202020202020202020202020202020202020202020202020202020202020202[0+1@512,8+2@513]
/a\\x20b/\\xff file 4755 0:0 12 5 data:hel\\x00o xattr:security.capability=01000002 xattr:user.e=
/b link /a\\x20b/\\xff
/c char 0666 0:0 0 1:3
/d block 0660 0:6 0 259:70000
/f fifo 0600 0:0 0
/l symlink 0777 0:0 0 -> ../a\\x20b
/s socket 0755 0:0 0
";

#[test]
fn text_and_tree_are_one() {
    let tree = parse_tree(TEXT).unwrap();
    assert_eq!(tree_to_text(&tree), TEXT);
}

#[test]
fn layers_have_marks() {
    let text = "/a opaque\n/b whiteout\n/c link /d\n";
    let layer = parse_layer(text).unwrap();
    assert_eq!(layer_to_text(&layer), text);
    assert!(parse_tree(text).is_err());
}

#[test]
fn comments_and_blanks_are_skipped_and_parents_made() {
    let tree = parse_tree("# x\n\n  /a/b   file 0644  0:0 0 2 data:hi\n").unwrap();
    assert_eq!(
        tree_to_text(&tree),
        "/ dir 0755 0:0 0\n/a dir 0755 0:0 0\n/a/b file 0644 0:0 0 2 data:hi\n"
    );
}

#[test]
fn mistakes_name_the_line() {
    for (text, want) in [
        ("a dir 0755 0:0 0", "begin with /"),
        ("/a", "kind is missing"),
        ("/a blob 0755 0:0 0", "kind is unknown"),
        ("/a dir 0999 0:0 0", "octal"),
        ("/a dir 17777 0:0 0", "octal"),
        ("/a dir 0755 0 0", "UID:GID"),
        ("/a dir 0755 0:0 x", "time"),
        ("/a dir 0755 0:0 0.5", "time"),
        ("/a file 0755 0:0 0 3 data:hi", "size"),
        ("/a file 0755 0:0 0 3 blob:00@1", "source"),
        ("/a symlink 0777 0:0 0 x", "->"),
        ("/a char 0777 0:0 0 x", "MAJOR"),
        ("/a dir 0755 0:0 0 xattr:a=0", "hexadecimal"),
        ("/a dir 0755 0:0 0 more", "more on the line"),
        ("/../a dir 0755 0:0 0", "climbs out"),
    ] {
        let error = parse_tree(&format!("\n{text}")).unwrap_err().to_string();
        assert!(
            error.starts_with("line 2 ") && error.contains(want),
            "{text}: {error}"
        );
    }
}
