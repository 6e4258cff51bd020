//! A Dockerfile at an address.

use firebuild_e2e::servers::web;
use firebuild_e2e::{Home, missing, skip};

use crate::{builds, fails};

#[test]
fn a_dockerfile_at_an_address_and_the_files_beside_it() {
    if let Some(tool) = missing(&["python3", "tar"]) {
        return skip("a_dockerfile_at_an_address", "tool:python3", tool);
    }
    let home = Home::new();
    let site = home.context(
        "site",
        &[
            ("d/Dockerfile", b"FROM scratch\nCOPY a.txt sub/b.txt /x/\nCOPY [\"with space\", \"/y\"]\nADD ../up.txt /up\n"),
            ("d/a.txt", b"a"),
            ("d/sub/b.txt", b"b"),
            ("d/with space", b"s"),
            ("d/up.txt", b"inside"),
            ("d/Dir", b"FROM scratch\nCOPY sub /x/\n"),
            ("d/Slash", b"FROM scratch\nCOPY sub/ /x/\n"),
            ("d/Dot", b"FROM scratch\nCOPY . /x/\n"),
            ("d/Glob", b"FROM scratch\nCOPY *.txt /x/\n"),
            ("d/Gone", b"FROM scratch\nCOPY gone.txt /x/\n"),
            ("d/Mount", b"FROM scratch\nRUN --mount=type=bind,target=/m true\n"),
            ("up.txt", b"outside"),
        ],
    );
    let server = web(&site);
    let at = |name: &str| format!("http://127.0.0.1:{}/d/{name}", server.port);
    let all = [
        "-rw-r--r-- up",
        "-rw-r--r-- x/a.txt",
        "-rw-r--r-- x/b.txt",
        "-rw-r--r-- y",
    ];
    builds(&home, &["--dockerfile", &at("Dockerfile")], &all);
    builds(&home, &[&at("Dockerfile")], &all);
    for (name, word) in [
        ("Dir", "is a directory"),
        ("Slash", "it is a directory"),
        ("Dot", "it is a directory"),
        ("Glob", "wildcard"),
        ("Gone", "404"),
        ("Mount", "no build context"),
        ("None", "404"),
    ] {
        fails(&home, &["--dockerfile", &at(name)], word);
    }
    // With a context of its own, it is the Dockerfile only.
    let ctx = home.context("ctx", &[("sub/only.txt", b"1")]);
    builds(
        &home,
        &["-f", &at("Dir"), &ctx.display().to_string()],
        &["-rw-r--r-- x/only.txt"],
    );
}
