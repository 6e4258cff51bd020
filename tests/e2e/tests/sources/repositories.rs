//! Git repositories as contexts and in ADD.

use firebuild_e2e::servers::{git_daemon, git_output, repository, web};
use firebuild_e2e::{Home, missing, skip};

use crate::{builds, fails, listed, project};

#[test]
fn repositories_in_every_spelling() {
    if let Some(tool) = missing(&["git", "python3", "tar"]) {
        return skip("repositories_in_every_spelling", "tool:git", tool);
    }
    let home = Home::new();
    let (dir, first) = project(&home);
    let (daemon, files) = (git_daemon(&dir), web(&dir));
    let smart = format!("git://127.0.0.1:{}/app.git", daemon.port);
    // Plain files over HTTP: git's dumb protocol, without shallow histories.
    let dumb = format!("http://127.0.0.1:{}/app.git", files.port);
    let (main, v1) = (
        &["-rw-r--r-- a.txt", "-rw-r--r-- second.txt"][..],
        &["-rw-r--r-- a.txt"][..],
    );
    let inner = &["-rw-r--r-- x/b.txt", "-rw-r--r-- x/c.txt"];
    for url in [&smart, &dumb] {
        builds(&home, &[url], main);
        builds(&home, &[&format!("{url}#main")], main);
        builds(&home, &[&format!("{url}#v1")], v1);
        builds(&home, &[&format!("{url}?tag=v1")], v1);
        builds(
            &home,
            &[&format!("{url}#other/main")],
            &["-rw-r--r-- a.txt", "-rw-r--r-- other.txt"],
        );
        builds(&home, &[&format!("{url}#main:0.X")], inner);
        builds(&home, &[&format!("{url}#{first}")], v1);
        builds(&home, &[&format!("{url}#{}", &first[..8])], v1);
        let original = |reference: &str| {
            let git = if url.starts_with("http") { "git+" } else { "" };
            format!("{git}{url}:/0.X/Dockerfile{reference}")
        };
        builds(&home, &["--dockerfile", &original("")], inner);
        builds(&home, &["--dockerfile", &original("#v1")], inner);
        builds(
            &home,
            &["--dockerfile", &original(&format!("#{}", &first[..10]))],
            inner,
        );
        builds(&home, &[&original(&format!("#{first}"))], inner);
        // The context is the repository here, and its ignore file counts.
        fails(
            &home,
            &["-f", "0.X/Dockerfile", &format!("{url}#v1")],
            "excluded by the ignore file",
        );
        for reference in ["nope", "deadbeef", &"1".repeat(40), "ain", "main^", "heads"] {
            fails(&home, &[&format!("{url}#{reference}")], reference);
        }
        fails(&home, &[&format!("{url}#main:none")], "none");
        fails(&home, &["-f", "Nope", url], "Nope");
    }
    drop((daemon, files));
    // A whole commit that is known needs no server.
    builds(&home, &[&format!("{smart}#{first}")], v1);
    fails(&home, &[&format!("{smart}#main")], "127.0.0.1");
}

#[test]
fn repositories_in_add() {
    if let Some(tool) = missing(&["git", "tar"]) {
        return skip("repositories_in_add", "tool:git", tool);
    }
    let home = Home::new();
    let (dir, first) = project(&home);
    let lib = repository(&dir, "lib", &[("lib.txt", "lib\n")]);
    let daemon = git_daemon(&dir);
    let host = format!("git://127.0.0.1:{}", daemon.port);
    // A submodule at an address beside the repository's.
    let work = dir.join("app-work");
    let _ = git_output(
        &work,
        &[
            "submodule",
            "--quiet",
            "add",
            &format!("{host}/lib.git"),
            "mod",
        ],
    );
    let _ = git_output(
        &work,
        &[
            "config",
            "-f",
            ".gitmodules",
            "submodule.mod.url",
            "../lib.git",
        ],
    );
    let _ = git_output(&work, &["commit", "-qam", "submodule"]);
    std::os::unix::fs::symlink("/etc", work.join("out")).unwrap();
    let _ = git_output(&work, &["add", "out"]);
    let _ = git_output(&work, &["commit", "-qm", "a link out"]);
    let _ = git_output(
        &work,
        &[
            "push",
            "-q",
            &dir.join("app.git").display().to_string(),
            "main",
        ],
    );
    let url = format!("{host}/app.git");
    let built = |text: &str| {
        let text = format!("FROM scratch\n{text}");
        listed(&home, &["--dockerfile-inline", &text])
    };
    let has = |text: &str, file: &str| {
        let files = built(text).unwrap_or_else(|done| panic!("{text}: {}", done.err()));
        files.iter().any(|line| line.ends_with(file))
    };
    assert!(has(&format!("ADD {url} /s/"), "s/mod/lib.txt"));
    assert!(!has(&format!("ADD {url} /s/"), ".git"));
    assert!(!has(&format!("ADD {url}?submodules=false /s/"), "lib.txt"));
    assert!(has(
        &format!("ADD --keep-git-dir=true {url}#main /s/"),
        "s/.git/HEAD"
    ));
    assert!(has(
        &format!("ADD --checksum={} {url}#v1 /s/", &first[..12]),
        "s/a.txt"
    ));
    assert!(has(
        &format!("ADD {url}?commit={first}&fetch-by-commit=true /s/"),
        "s/a.txt"
    ));
    let wrong = built(&format!("ADD --checksum={lib}0 {url}#v1 /s/")).unwrap_err();
    assert!(wrong.err().contains("checksum mismatch"), "{}", wrong.err());
    // A directory of the repository is one in git; a link leads nowhere.
    let out = built(&format!("ADD {url}#main:out /s/")).unwrap_err();
    assert!(out.err().contains("no directory out"), "{}", out.err());
    // What stays is a repository that git can use.
    let kept = home.path().join("kept");
    let spec = format!("type=dir,dest={}", kept.display());
    let text = format!("FROM scratch\nADD --keep-git-dir=true {url}#v1 /\n");
    let _ = home
        .fb(["build", "--dockerfile-inline", &text, "--output", &spec])
        .ok();
    assert_eq!(git_output(&kept, &["rev-parse", "HEAD"]), first);
    assert_eq!(git_output(&kept, &["describe", "--tags"]), "v1");
    assert_eq!(git_output(&kept, &["config", "remote.origin.url"]), url);
    assert_eq!(git_output(&kept, &["status", "--porcelain"]), "");
}
