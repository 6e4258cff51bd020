use super::*;
use crate::dump::parse_tree;

#[test]
fn an_archive_is_bytes_that_the_format_says() {
    let mut writer = Writer::new(Vec::new());
    writer.dir(b"", 0o755).unwrap();
    writer.file(b"init", 0o700, b"hello").unwrap();
    let (bytes, skipped) = writer.finish().unwrap();
    assert_eq!(skipped, Skipped::default());
    assert_eq!(bytes.len() % 512, 0);
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.starts_with(
        "07070100000002000041ed00000000000000000000000200000000000000000000000000000000000000000000000000000002\
         00000000.\0"
    ));
    let second = &text[112..];
    assert!(
        second
            .starts_with("07070100000003000081c0000000000000000000000001000000000000000500000000"),
        "{second}"
    );
    assert_eq!(&second[110..124], "init\0\0hello\0\0\0");
    assert!(second[124..].starts_with("070701"));
    assert!(second.trim_end_matches('\0').ends_with("TRAILER!!!"));
}

#[test]
fn what_does_not_fit_is_refused_or_told() {
    let kind = |text: &str| {
        write_tree(&parse_tree(text).unwrap(), &NoContents, Vec::new())
            .unwrap_err()
            .kind()
    };
    assert_eq!(kind("/TRAILER!!! dir 0755 0:0 0"), CpioErrorKind::Name);
    assert_eq!(
        kind(&format!(
            "/{} dir 0755 0:0 0",
            "d/".repeat(1020).replace('d', "dddd")
        )),
        CpioErrorKind::Name
    );
    assert_eq!(
        kind("/f file 0644 0:0 0 4294967296 path:f"),
        CpioErrorKind::TooLarge
    );
    assert_eq!(kind("/f file 0644 0:0 0 4 path:f"), CpioErrorKind::Content);
    let skipped = write_tree(
        &parse_tree("/f file 0644 0:0 -5 0 data: xattr:user.a=00").unwrap(),
        &NoContents,
        Vec::new(),
    );
    assert_eq!(
        skipped.unwrap().entries[0].what,
        What::Xattr(b"user.a".to_vec())
    );
}
