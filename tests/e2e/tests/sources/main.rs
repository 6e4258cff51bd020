//! Where builds come from: archives, standard input, git and web servers on loopback, in every spelling that users know.

#![allow(clippy::unwrap_used, reason = "a test program")]

mod address;
mod archives;
mod named;
mod repositories;
mod ssh;
mod stop;
mod times;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use firebuild_e2e::servers::repository;
use firebuild_e2e::{Done, Home, run};

const LIMIT: Duration = Duration::from_secs(60);
/// Long enough for a process to start and to end on a busy machine, far less than any time-out.
const SOON: Duration = Duration::from_secs(8);

/// Builds, and lists the result: `MODE PATH` for each file, sorted.
fn listed(home: &Home, args: &[&str]) -> Result<Vec<String>, Done> {
    let out = home.path().join("out.tar");
    let spec = format!("type=tar,dest={}", out.display());
    let mut all = vec!["build", "--progress=plain", "--output", &spec];
    all.extend(args);
    let done = home.fb(all);
    if done.code != 0 {
        return Err(done);
    }
    Ok(entries(&out))
}

fn entries(tar: &Path) -> Vec<String> {
    let list = run(Command::new("tar").arg("-tvf").arg(tar), LIMIT)
        .ok()
        .out();
    let mut files: Vec<String> = list
        .lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (mode, owner, path) = (words[0], words[1], words[5]);
            assert_eq!(owner, "0/0", "{line}");
            (!mode.starts_with('d')).then(|| format!("{mode} {path}"))
        })
        .collect();
    files.sort();
    files
}

fn builds(home: &Home, args: &[&str], expected: &[&str]) {
    match listed(home, args) {
        Ok(files) => assert_eq!(files, expected, "{args:?}"),
        Err(done) => panic!("{args:?}: {}", done.err()),
    }
}

fn fails(home: &Home, args: &[&str], word: &str) {
    let done = listed(home, args).expect_err(word);
    assert_eq!(done.code, 1, "{args:?}: {}", done.err());
    assert!(
        done.err().contains(word),
        "{args:?} should say {word:?}: {}",
        done.err()
    );
}

/// A repository as the seeds' texts name it: Dockerfiles below, an ignore file, links that lead out.
fn project(home: &Home) -> (PathBuf, String) {
    let dir = home.path().join("srv");
    fs_err::create_dir_all(&dir).unwrap();
    let first = repository(
        &dir,
        "app",
        &[
            ("Dockerfile", "FROM scratch\nCOPY . /\n"),
            (".dockerignore", "*\n!a.txt\n!second.txt\n!other.txt\n"),
            ("a.txt", "a\n"),
            ("0.X/Dockerfile", "FROM scratch\nCOPY b.txt inner /x/\n"),
            ("0.X/b.txt", "b\n"),
            ("0.X/inner/c.txt", "c\n"),
        ],
    );
    (dir, first)
}
