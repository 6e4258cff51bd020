//! Archives as contexts, and what comes on standard input.

use std::fs::File;
use std::process::Command;

use firebuild_e2e::servers::web;
use firebuild_e2e::{Home, missing, run, skip};

use crate::{LIMIT, builds, entries};

#[test]
fn archives_and_standard_input() {
    if let Some(tool) = missing(&["tar", "gzip", "bzip2", "xz", "zstd", "python3"]) {
        return skip("archives_and_standard_input", "tool:tar", tool);
    }
    let home = Home::new();
    let files: &[(&str, &[u8])] = &[
        ("Dockerfile", b"FROM scratch\nCOPY . /\n"),
        ("other/D", b"FROM scratch\nCOPY keep /k\n"),
        ("other/D.dockerignore", b"gone\n"),
        (
            ".dockerignore",
            b"Dockerfile\nother\n.dockerignore\ngone\n!gone/but\n",
        ),
        ("keep", b"k"),
        ("gone/x", b"x"),
        ("gone/but", b"b"),
    ];
    let ctx = home.context("ctx", files);
    let expected = ["-rw-r--r-- gone/but", "-rw-r--r-- keep"];
    builds(&home, &[&ctx.display().to_string()], &expected);
    for (flag, name) in [
        ("--no-auto-compress", "c.tar"),
        ("-z", "c.tgz"),
        ("-j", "c.tbz"),
        ("-J", "c.txz"),
        ("--zstd", "c.zst"),
    ] {
        let archive = home.path().join(name);
        let mut tar = Command::new("tar");
        if flag != "--no-auto-compress" {
            tar.arg(flag);
        }
        // Owners of the archive are not those of the context's files.
        tar.args(["--owner=77", "--group=78", "-cf"])
            .arg(&archive)
            .arg("-C")
            .arg(&ctx)
            .arg(".");
        let _ = run(&mut tar, LIMIT).ok();
        builds(&home, &[&archive.display().to_string()], &expected);
        assert_eq!(
            piped(&home, &["-"], File::open(&archive).unwrap()),
            Ok(expected.map(str::to_owned).to_vec())
        );
    }
    let archive = home.path().join("c.tgz");
    builds(
        &home,
        &["-f", "other/D", &archive.display().to_string()],
        &["-rw-r--r-- k"],
    );
    let server = web(home.path());
    let url = format!("http://127.0.0.1:{}/c.tgz", server.port);
    builds(&home, &[&url], &expected);
    builds(&home, &["-f", "other/D", &url], &["-rw-r--r-- k"]);
    // A file of this machine wins for an absolute path.
    let own = home.context("own", &[("Own", b"FROM scratch\nCOPY keep /own\n")]);
    builds(
        &home,
        &["-f", &own.join("Own").display().to_string(), &url],
        &["-rw-r--r-- own"],
    );

    let text = |text: &str| {
        let path = home
            .path()
            .join(format!("stdin-{}-{:x}", text.len(), text.as_ptr() as usize));
        fs_err::write(&path, text).unwrap();
        File::open(&path).unwrap()
    };
    let shown = ctx.display().to_string();
    let inline = text("FROM scratch\nCOPY keep /q\n");
    assert_eq!(
        piped(&home, &["-f", "-", &shown], inline),
        Ok(vec!["-rw-r--r-- q".to_owned()])
    );
    assert_eq!(piped(&home, &["-"], text("FROM scratch\n")), Ok(vec![]));
    for (args, input, word) in [
        (
            &["-"][..],
            text("FROM scratch\nCOPY keep /q\n"),
            "not found",
        ),
        (&["-f", "-", "-"], text("FROM scratch\n"), "cannot be both"),
        (
            &["-f", "-", &shown],
            File::open(&archive).unwrap(),
            "is an archive",
        ),
        (
            &["-f", "x", "-"],
            text("FROM scratch\n"),
            "another Dockerfile",
        ),
        (&["-"], text("\u{1f}"), ""),
    ] {
        let error = piped(&home, args, input).unwrap_err();
        assert!(
            error.contains(word),
            "{args:?} should say {word:?}: {error}"
        );
    }
    // A misspelt path is no text, and a text has a flag of its own.
    let done = home
        .fb(["build", "--dockerfile", "FROM scratch\nCOPY a /\n"])
        .exits(2);
    assert!(done.err().contains("--dockerfile-inline"), "{}", done.err());
    builds(
        &home,
        &["--dockerfile-inline", "FROM scratch\nCOPY keep /i", &shown],
        &["-rw-r--r-- i"],
    );
}

fn piped(home: &Home, args: &[&str], input: File) -> Result<Vec<String>, String> {
    let out = home.path().join("out.tar");
    let spec = format!("type=tar,dest={}", out.display());
    let mut all = vec!["build", "--progress=plain", "--output", &spec];
    all.extend(args);
    let mut command = home.command(all);
    command.stdin(input);
    let output = command.output().unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(entries(&out))
}
