//! Bad input: a clear error with its place, a hint where one helps, a non-zero exit, nothing half-written.

use firebuild_e2e::{Home, run, static_program};
use std::time::Duration;

/// Builds a Dockerfile that must fail, and gives what was said.
fn fails(home: &Home, dockerfile: &str) -> String {
    let context = home.context(
        "bad",
        &[("Dockerfile", dockerfile.as_bytes()), ("there", b"x")],
    );
    let done = home.build("t/bad:1", &context);
    assert_eq!(done.code, 1, "{dockerfile}\n{}", done.err());
    assert_eq!(
        home.fb(["image", "config", "t/bad:1"]).code,
        1,
        "nothing is named after a failed build"
    );
    done.err()
}

#[test]
fn dockerfile_errors_point_into_the_file() {
    let home = Home::new();
    for (dockerfile, expected) in [
        (
            "FROM scratch\nCPOY a /a\n",
            vec![
                "unknown instruction",
                "CPOY",
                "Dockerfile:2:1",
                "2 | CPOY a /a",
                "^",
                "COPY",
            ],
        ),
        (
            "FROM scratch\nCOPY --from=nowhere-stage-0 /a /a\n",
            vec!["Dockerfile:2"],
        ),
        (
            "FROM scratch AS a\nCOPY --from=9 /a /a\n",
            vec!["Dockerfile:2", "9"],
        ),
        (
            "FROM scratch\nCOPY absent /x\n",
            vec!["absent", "not found", "Dockerfile:2"],
        ),
        (
            "FROM scratch\nCOPY ../../etc/passwd /x\n",
            vec!["passwd", "not found", "Dockerfile:2"],
        ),
        ("RUN true\n", vec!["no build stage", "Dockerfile:1"]),
        (
            "FROM scratch\nRUN [\"/absent\"]\n",
            vec!["/absent", "Dockerfile:2"],
        ),
        (
            "FROM scratch\nENV A=${B:?need it}\n",
            vec!["need it", "Dockerfile:2"],
        ),
        (
            "FROM scratch\nEXPOSE 99999\n",
            vec!["99999", "Dockerfile:2"],
        ),
        (
            "FROM scratch\nCOPY --chmod=9z there /x\n",
            vec!["9z", "Dockerfile:2"],
        ),
        (
            "FROM scratch\nRUN <<EOF\nnever ends\n",
            vec!["unterminated heredoc"],
        ),
        ("", vec!["Dockerfile"]),
    ] {
        let text = fails(&home, dockerfile);
        for word in expected {
            assert!(
                text.contains(word),
                "{dockerfile:?} should say {word:?}:\n{text}"
            );
        }
    }
}

#[test]
fn a_failed_step_shows_its_output_and_its_code() {
    let Some(busybox) = static_program() else {
        return firebuild_e2e::skip("a_failed_step", "tool:busybox", "no static busybox");
    };
    let home = Home::new();
    let dockerfile =
        b"FROM scratch\nCOPY --chmod=0755 busybox /bin/sh\nRUN echo the last words; exit 42\n";
    let context = home.context("ctx", &[("Dockerfile", dockerfile), ("busybox", &busybox)]);
    for mode in ["plain", "quiet"] {
        let done = home
            .fb([
                "build",
                "--progress",
                mode,
                "-t",
                "t/x:1",
                &context.display().to_string(),
            ])
            .exits(1);
        for word in [
            "the last words",
            "exit code: 42",
            "Dockerfile:3",
            "RUN echo",
        ] {
            assert!(done.err().contains(word), "{mode}: {word}\n{}", done.err());
        }
    }
}

#[test]
fn wrong_arguments() {
    let home = Home::new();
    for (args, code, expected) in [
        (vec!["build", "-t", "Org/Name:1", "."], 2, "Org/Name"),
        (
            vec!["build", "-t", "a/b:1", "/does/not/exist"],
            1,
            "/does/not/exist",
        ),
        (
            vec!["build", "-t", "a/b:1", "-f", "/does/not/exist", "/tmp"],
            1,
            "/does/not/exist",
        ),
        (
            vec!["build", "-t", "a/b:1", "--output", "type=qcow9,dest=x", "."],
            1,
            "qcow9",
        ),
        (vec!["build", "--size", "12Q", "."], 2, "12Q"),
        (vec!["build", "--ssh", "a=/etc/passwd", "."], 1, "ssh-add"),
        (vec!["build", "--ssh", "a=/absent", "."], 1, "/absent"),
        (
            vec!["build", "--secret", "id=a,type=env,src=ABSENT", "."],
            1,
            "ABSENT is not set",
        ),
        (vec!["build", "--no-such-flag"], 2, "--no-such-flag"),
        (vec!["build"], 2, "context"),
        (vec!["kernel", "import", "/etc/passwd"], 1, "/etc/passwd"),
        (vec!["kernel", "rm", "absent"], 1, "absent"),
        (vec!["image", "config", "absent:1"], 1, "absent:1"),
        (vec!["run", "absent.invalid/x:1"], 125, "absent.invalid"),
        (vec!["logs", "absent"], 1, "absent"),
    ] {
        let done = run(
            &mut home.command(args.iter().copied()),
            Duration::from_secs(60),
        );
        assert_eq!(done.code, code, "{args:?}\n{}", done.err());
        assert!(
            done.err().contains(expected),
            "{args:?} should say {expected:?}:\n{}",
            done.err()
        );
    }
}

#[test]
fn a_build_that_is_killed_loses_nothing_that_was_finished() {
    let Some(busybox) = static_program() else {
        return firebuild_e2e::skip(
            "a_build_that_is_killed",
            "tool:busybox",
            "no static busybox",
        );
    };
    let home = Home::new();
    let dockerfile = b"FROM scratch\nCOPY --chmod=0755 busybox /bin/sh\nRUN echo done > /one\nRUN echo slow; sleep 30\n";
    let context = home.context("ctx", &[("Dockerfile", dockerfile), ("busybox", &busybox)]);
    let path = context.display().to_string();
    let mut child = home
        .command(["build", "--progress=plain", "-t", "t/x:1", &path])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // Until the slow step speaks.
    let mut said = Vec::new();
    let mut stderr = child.stderr.take().unwrap();
    while !String::from_utf8_lossy(&said).contains(" slow\n") {
        let mut byte = [0];
        assert_eq!(
            std::io::Read::read(&mut stderr, &mut byte).unwrap(),
            1,
            "{}",
            String::from_utf8_lossy(&said)
        );
        said.push(byte[0]);
    }
    child.kill().unwrap();
    let _ = child.wait().unwrap();
    fs_err::write(
        context.join("Dockerfile"),
        String::from_utf8_lossy(dockerfile).replace("sleep 30", "true"),
    )
    .unwrap();
    let done = home.build("t/x:1", &context).ok();
    assert!(done.err().matches("CACHED").count() >= 2, "{}", done.err());
    let left = firebuild_e2e::left_in_store(&home.path().join("home/store"));
    assert!(left.is_empty(), "{left:?}");
}
