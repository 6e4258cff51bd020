//! Builds as users do them: outputs, caching, ordinary Dockerfiles on a busybox base. RUN needs no VM.

use firebuild_e2e::{missing, run, skip, with_base};
use std::process::Command;
use std::time::Duration;

#[test]
fn stages_users_and_configuration() {
    let Some(home) = with_base("stages_users_and_configuration") else {
        return;
    };
    let dockerfile = br#"ARG TAG=1
FROM base:${TAG} AS make
ARG WHO=nobody
RUN <<MAKE
set -e
mkdir -p /out
echo "made for $WHO by $(id -un)" > /out/result
ln /out/result /out/hard
MAKE
FROM base:$TAG
LABEL purpose="a test"
EXPOSE 80 53/udp
VOLUME /data
STOPSIGNAL SIGINT
HEALTHCHECK --interval=5s CMD true
WORKDIR /srv/app
RUN mkdir -m 1777 /tmp
USER app
COPY --from=make --chown=app:app /out/ .
RUN id -un > /tmp/who; test "$(pwd)" = /srv/app
SHELL ["/bin/sh", "-ec"]
ENTRYPOINT cat result
CMD ["unused"]
"#;
    let context = home.context("ctx", &[("Dockerfile", dockerfile)]);
    let path = context.display().to_string();
    let _ = home
        .fb([
            "build",
            "--progress=plain",
            "--build-arg",
            "WHO=you",
            "-t",
            "t/app:1",
            &path,
        ])
        .ok();
    let config: serde_json::Value =
        serde_json::from_slice(&home.fb(["image", "config", "t/app:1"]).ok().stdout).unwrap();
    let inner = &config["config"];
    assert_eq!(
        inner["Entrypoint"],
        serde_json::json!(["/bin/sh", "-ec", "cat result"])
    );
    assert_eq!(inner["User"], "app");
    assert_eq!(inner["WorkingDir"], "/srv/app");
    assert_eq!(inner["StopSignal"], "SIGINT");
    assert_eq!(inner["Labels"]["purpose"], "a test");
    assert!(inner["ExposedPorts"]["53/udp"].is_object() && inner["Volumes"]["/data"].is_object());
    assert_eq!(inner["Healthcheck"]["Interval"], 5_000_000_000_u64);
    let tree = home.fb(["image", "tree", "t/app:1"]).ok().out();
    let line = |name: &str| {
        tree.lines()
            .find(|line| line.contains(name))
            .unwrap_or_else(|| panic!("{name}\n{tree}"))
            .to_owned()
    };
    assert!(
        line("/srv/app/hard").contains("1000:1000"),
        "{}",
        line("/srv/app/hard")
    );
    assert!(
        line("/srv/app/result").ends_with("link /srv/app/hard"),
        "{}",
        line("/srv/app/result")
    );
    assert!(line("tmp/who").contains("1000:1000"), "{}", line("tmp/who"));
}

#[test]
fn an_unchanged_rebuild_executes_nothing_and_a_change_only_what_follows() {
    let Some(home) = with_base("an_unchanged_rebuild") else {
        return;
    };
    let dockerfile =
        b"FROM base:1\nRUN date +%N > /first\nCOPY file /file\nRUN date +%N > /second\n";
    let context = home.context("ctx", &[("Dockerfile", dockerfile), ("file", b"one")]);
    let digest = |done: firebuild_e2e::Done| done.out();
    let first = digest(home.build("t/x:1", &context).ok());
    let again = home.build("t/x:1", &context).ok();
    assert!(
        !again.err().contains("DONE 0") || again.err().contains("CACHED"),
        "{}",
        again.err()
    );
    assert_eq!(digest(again), first);
    fs_err::write(context.join("file"), "two").unwrap();
    let changed = home.build("t/x:1", &context).ok();
    let cached = changed.err().matches("CACHED").count();
    assert!(
        cached >= 2,
        "the step above the change is cached: {}",
        changed.err()
    );
    assert_ne!(digest(changed), first);
    // Touching a file changes nothing: times do not count.
    let before = digest(home.build("t/x:1", &context).ok());
    let later = std::time::SystemTime::now() + Duration::from_secs(5000);
    fs_err::File::options()
        .write(true)
        .open(context.join("file"))
        .unwrap()
        .file()
        .set_modified(later)
        .unwrap();
    assert_eq!(digest(home.build("t/x:1", &context).ok()), before);
    let fresh = home
        .fb([
            "build",
            "--no-cache",
            "--progress=plain",
            "-t",
            "t/x:1",
            &context.display().to_string(),
        ])
        .ok();
    assert_ne!(digest(fresh), before);
}

#[test]
fn outputs_agree_with_other_tools() {
    let name = "outputs_agree_with_other_tools";
    if let Some(program) = missing(&["skopeo", "tar", "e2fsck", "debugfs"]) {
        return skip(
            name,
            &format!("tool:{program}"),
            &format!("{program} is not installed"),
        );
    }
    let Some(home) = with_base(name) else { return };
    let context = home.context(
        "ctx",
        &[
            ("Dockerfile", b"FROM base:1\nCOPY . /data/\n"),
            ("a/b", b"deep\n"),
        ],
    );
    let at = |name: &str| home.path().join(name).display().to_string();
    let (oci, tar, dir, ext4) = (at("o.tar"), at("t.tar"), at("dir"), at("d.ext4"));
    let _ = home
        .fb([
            "build",
            "-t",
            "t/out:1",
            "--output",
            &format!("type=oci,dest={oci}"),
            "--output",
            &format!("type=tar,dest={tar}"),
            "--output",
            &format!("type=dir,dest={dir}"),
            "--output",
            &format!("type=ext4,dest={ext4}"),
            &context.display().to_string(),
        ])
        .ok();
    let tool = |program: &str, args: &[&str]| {
        run(Command::new(program).args(args), Duration::from_secs(60))
    };
    let inspected = tool("skopeo", &["inspect", &format!("oci-archive:{oci}")]).ok();
    assert!(
        inspected.out().contains("\"Layers\""),
        "{}",
        inspected.out()
    );
    assert!(tool("tar", &["-tf", &tar]).ok().out().contains("data/a/b"));
    assert_eq!(
        fs_err::read(home.path().join("dir/data/a/b")).unwrap(),
        b"deep\n"
    );
    let _ = tool("e2fsck", &["-fn", &ext4]).ok();
    assert_eq!(
        tool("debugfs", &["-R", "cat /data/a/b", &ext4]).ok().out(),
        "deep\n"
    );
    // The store itself is a layout that other tools read.
    let store = home.path().join("home/store").display().to_string();
    let inspected = tool(
        "skopeo",
        &[
            "inspect",
            "--raw",
            &format!("oci:{store}:docker.io/t/out:1"),
        ],
    )
    .ok();
    assert!(
        inspected
            .out()
            .contains("application/vnd.oci.image.layer.v1.tar"),
        "{}",
        inspected.out()
    );
}

#[test]
fn two_builds_at_once_share_their_steps() {
    let Some(home) = with_base("two_builds_at_once") else {
        return;
    };
    let context = home.context(
        "ctx",
        &[(
            "Dockerfile",
            b"FROM base:1\nRUN sleep 1; date +%N > /when\n",
        )],
    );
    let path = context.display().to_string();
    let start = |tag: &str| {
        let mut command = home.command(["build", "--progress=plain", "-t", tag, &path]);
        std::thread::spawn(move || run(&mut command, Duration::from_secs(60)))
    };
    let (one, two) = (start("t/a:1"), start("t/b:1"));
    let digest = |done: firebuild_e2e::Done| done.ok().out().split(' ').nth(1).unwrap().to_owned();
    assert_eq!(
        digest(one.join().unwrap()),
        digest(two.join().unwrap()),
        "the step ran once"
    );
}

#[test]
fn endless_output_is_clipped_and_its_end_shown() {
    let Some(home) = with_base("endless_output_is_clipped") else {
        return;
    };
    let dockerfile: &[u8] = b"FROM base:1\nRUN seq 1 900000; echo the reason >&2; exit 3\n";
    let context = home.context("ctx", &[("Dockerfile", dockerfile)]);
    let failed = home.build("t/x:1", &context).exits(1);
    let text = failed.err();
    assert!(text.len() < 6 << 20, "{}", text.len());
    assert!(text.contains("[output clipped, log limit 2MiB reached]"));
    assert!(text.contains("the reason") && text.contains("exit code: 3"));
}
