//! COPY and ADD.

use super::*;

#[test]
fn copy_and_add() {
    match one(
        "COPY --from=b --chown=1:$G --chmod=0644 --link --parents --exclude=a --exclude=$b x 'y' /d/",
    ) {
        InstructionKind::Copy(copy) => {
            assert_eq!(copy.from.unwrap().text, "b");
            assert!(copy.parents && copy.transfer.link);
            assert_eq!(copy.transfer.chown.unwrap().text, "1:$G");
            assert_eq!(copy.transfer.chmod.unwrap().text, "0644");
            assert_eq!(texts(&copy.transfer.exclude), ["a", "$b"]);
            assert_eq!(texts(&copy.transfer.sources), ["x", "'y'"]);
            assert_eq!(copy.transfer.destination.text, "/d/");
        }
        other => panic!("{other:?}"),
    }
    match one("ADD --checksum=sha256:x --keep-git-dir=false --unpack https://x/y [\"z\"]") {
        InstructionKind::Add(add) => {
            assert_eq!(add.checksum.unwrap().text, "sha256:x");
            assert_eq!(add.keep_git_dir, Some(false));
            assert_eq!(add.unpack, Some(true));
        }
        other => panic!("{other:?}"),
    }
    match one("COPY -- --odd /x") {
        InstructionKind::Copy(copy) => assert_eq!(texts(&copy.transfer.sources), ["--odd"]),
        other => panic!("{other:?}"),
    }
    match one("COPY [\"a b\", \"<<EOF\", \"/d\"]") {
        InstructionKind::Copy(copy) => assert_eq!(texts(&copy.transfer.sources), ["a b", "<<EOF"]),
        other => panic!("{other:?}"),
    }
    for (source, message) in [
        (
            "COPY a",
            "COPY requires at least two arguments, but only one was provided. Destination could not be determined",
        ),
        (
            "ADD",
            "ADD requires at least two arguments, but only one was provided. Destination could not be determined",
        ),
        (
            "COPY []",
            "COPY requires at least two arguments, but only one was provided. Destination could not be determined",
        ),
        (
            "COPY --frob a b",
            "unknown flag: --frob (did you mean from?)",
        ),
        ("COPY --from a b", "missing a value on flag: --from"),
        (
            "COPY --chown=a --chown=b a b",
            "duplicate flag specified: --chown",
        ),
        ("ADD --from=a a b", "unknown flag: --from"),
        ("ADD --parents a b", "unknown flag: --parents"),
        (
            "COPY a <<EOF\nEOF",
            "COPY cannot accept a heredoc as a destination",
        ),
    ] {
        assert_eq!(body_error(source), message, "{source:?}");
    }
}

#[test]
fn copy_heredocs() {
    match one("COPY <<a.txt /etc/x <<-'b' /d/\n$A\na.txt\n\tx\n\tb") {
        InstructionKind::Copy(copy) => {
            assert_eq!(texts(&copy.transfer.sources), ["/etc/x"]);
            let files = &copy.transfer.files;
            assert_eq!((files[0].name.as_str(), files[0].expand), ("a.txt", true));
            assert_eq!(files[0].text(), "$A\n");
            assert_eq!((files[1].name.as_str(), files[1].expand), ("b", false));
            assert_eq!(files[1].text(), "x\n");
        }
        other => panic!("{other:?}"),
    }
    assert!(body_error("COPY it's <<EOF /x\nEOF").starts_with("the heredoc <<EOF cannot be read"));
}
