//! Named contexts.

use firebuild_e2e::servers::{git_daemon, web};
use firebuild_e2e::{Home, missing, skip};

use crate::{builds, listed, project};

#[test]
fn named_contexts() {
    if let Some(tool) = missing(&["git", "python3", "tar"]) {
        return skip("named_contexts", "tool:git", tool);
    }
    let home = Home::new();
    let (dir, _) = project(&home);
    let (daemon, server) = (git_daemon(&dir), web(home.path()));
    let base = home.context(
        "base",
        &[
            (
                "Dockerfile",
                b"FROM scratch\nCOPY x /from-layout\nENV A=b\n",
            ),
            ("x", b"1"),
        ],
    );
    let layout = home.path().join("layout");
    let spec = format!("type=oci,tar=false,dest={}", layout.display());
    let _ = home
        .fb([
            "build",
            "-t",
            "l/base:v7",
            "--output",
            &spec,
            &base.display().to_string(),
        ])
        .ok();
    let index = fs_err::read_to_string(layout.join("index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_str(&index).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap();
    let dockerfile =
        "FROM os\nCOPY --from=repo . /r/\nCOPY --from=file / /f/\nCOPY --from=dir . /d/\n";
    let named = |os: &str| {
        let os = format!("os={os}");
        let repo = format!("repo=git://127.0.0.1:{}/app.git#v1", daemon.port);
        let file = format!("file=http://127.0.0.1:{}/base/x", server.port);
        let dir = format!("dir={}", base.display());
        let args = [
            "--build-context",
            &os,
            "--build-context",
            &repo,
            "--build-context",
            &file,
            "--build-context",
            &dir,
        ];
        let mut all = args.to_vec();
        all.extend([
            "--build-context",
            "unused=https://192.0.2.1/never.git",
            "--dockerfile-inline",
            dockerfile,
        ]);
        listed(&home, &all)
    };
    let expected = [
        "-rw------- f/x",
        "-rw-r--r-- d/Dockerfile",
        "-rw-r--r-- d/x",
        "-rw-r--r-- from-layout",
        "-rw-r--r-- r/a.txt",
    ];
    for os in [
        format!("oci-layout://{}", layout.display()),
        format!("oci-layout://{}:l/base:v7", layout.display()),
        format!("oci-layout://{}@{digest}", layout.display()),
    ] {
        let found = named(&os);
        if os.ends_with("l/base:v7") {
            // A slash is no part of a tag.
            assert!(found.is_err());
        } else {
            assert_eq!(
                found.unwrap_or_else(|done| panic!("{os}: {}", done.err())),
                expected,
                "{os}"
            );
        }
    }
    let wrong = named(&format!(
        "oci-layout://{}@sha256:{}",
        layout.display(),
        "0".repeat(64)
    ));
    assert!(wrong.unwrap_err().err().contains("has no image"));
    // The more exact name wins.
    let plain = home.context("plain", &[("p", b"")]);
    let text = "FROM scratch\nCOPY --from=n . /\n";
    let exact = format!("n::linux/amd64={}", plain.display());
    let other = format!("n={}", base.display());
    builds(
        &home,
        &[
            "--platform=linux/amd64",
            "--build-context",
            &other,
            "--build-context",
            &exact,
            "--dockerfile-inline",
            text,
        ],
        &["-rw-r--r-- p"],
    );
}
