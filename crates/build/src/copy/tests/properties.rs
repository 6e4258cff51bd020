//! Owners, modes and times.

use super::*;

#[test]
fn owner_and_mode_are_kept_or_overruled_everywhere() {
    let source =
        "/d/f file 6755 7:8 5 1 data:1\n/d/l symlink 0777 7:8 5 -> f\n/d/s dir 0700 7:8 5\n";
    let kept = Copy {
        source,
        patterns: &["d"],
        dest: "/d",
        ..Copy::default()
    }
    .text();
    assert_eq!(kept, format!("/d dir 0755 0:0 0\n{source}"));
    let owner = Some(Owner { uid: 3, gid: 4 });
    let owned = Copy {
        source,
        patterns: &["d"],
        dest: "/d",
        owner,
        ..Copy::default()
    }
    .text();
    assert_eq!(
        owned,
        format!("/d dir 0755 3:4 0\n{}", source.replace("7:8", "3:4"))
    );
    let octal = Copy {
        source,
        patterns: &["d"],
        dest: "/d",
        chmod: "1711",
        ..Copy::default()
    }
    .text();
    assert_eq!(
        octal,
        "/d dir 0711 0:0 0\n/d/f file 1711 7:8 5 1 data:1\n/d/l symlink 0777 7:8 5 -> f\n/d/s dir 1711 7:8 5\n"
    );
    let symbolic = Copy {
        source,
        patterns: &["d"],
        dest: "/d",
        chmod: "u-s,go=rX",
        ..Copy::default()
    }
    .text();
    assert_eq!(
        symbolic,
        "/d dir 0755 0:0 0\n/d/f file 0755 7:8 5 1 data:1\n/d/l symlink 0777 7:8 5 -> f\n/d/s dir 0755 7:8 5\n"
    );
}

#[test]
fn heredocs_are_files_of_now() {
    let inline: &[(&str, &[u8])] = &[("a", b"1"), ("b", b"2")];
    let text = Copy {
        inline,
        dest: "/x/",
        owner: Some(Owner { uid: 3, gid: 4 }),
        ..Copy::default()
    }
    .text();
    assert_eq!(
        text,
        format!(
            "/x dir 0755 3:4 {NOW}\n/x/a file 0644 3:4 {NOW} 1 data:1\n/x/b file 0644 3:4 {NOW} 1 data:2\n"
        )
    );
    let text = Copy {
        inline: &[("EOF", b"1")],
        dest: "/f",
        chmod: "755",
        ..Copy::default()
    }
    .text();
    assert_eq!(text, format!("/f file 0755 0:0 {NOW} 1 data:1\n"));
}
