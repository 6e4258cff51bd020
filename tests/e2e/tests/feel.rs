//! How a build feels: checks, progress in its forms, the picture of its time, hints.

use firebuild_e2e::{Home, with_base};
use serde_json::Value;

/// Needs no base: nothing is executed.
const LINTED: &[u8] = b"# the version\nARG VERSION=1\nFROM scratch AS Files\nENV a b\nCOPY f /\n# last is the end\nFROM files as last\nARG VERSION\nCMD run me\n";

fn context(home: &Home, dockerfile: &[u8]) -> String {
    let context = home.context("ctx", &[("Dockerfile", dockerfile), ("f", b"x")]);
    context.display().to_string()
}

#[test]
fn a_check_finds_places_and_fixes_and_writes_nothing() {
    let home = Home::new();
    let path = context(&home, LINTED);
    let done = home.fb(["build", "--check", &path]).exits(1);
    let text = done.out();
    assert!(
        text.starts_with("Check complete, 4 warnings have been found!"),
        "{text}"
    );
    for expected in [
        "WARNING: StageNameCasing - https://docs.docker.com/go/dockerfile/rule/stage-name-casing/",
        "Dockerfile:3:17",
        "fix: write files",
        "fix: write ENV a=b",
        "fix: write AS",
        "fix: write CMD [\"run\", \"me\"]",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let done = home
        .fb(["build", "--call=check,format=json", &path])
        .exits(1);
    let value: Value = serde_json::from_str(&done.out()).unwrap();
    let warnings = value["warnings"].as_array().unwrap();
    let legacy = warnings
        .iter()
        .find(|w| w["ruleName"] == "LegacyKeyValueFormat")
        .unwrap();
    assert_eq!(legacy["location"]["ranges"][0]["start"]["line"], 4);
    assert_eq!(legacy["fix"]["with"], "ENV a=b");
    // An argument replaces the directive, and what is clean ends with 0.
    let skip = "BUILDKIT_DOCKERFILE_CHECK=skip=all";
    let done = home
        .fb(["build", "--check", "--build-arg", skip, &path])
        .ok();
    assert_eq!(done.out(), "Check complete, no warnings found.\n");
    // A mistake is told with its place.
    let wrong = context(
        &home,
        b"FROM scratch AS one\nCOPY --from=oen /a /b\nEXPOSE x\n",
    );
    let done = home
        .fb(["build", "--check", "--target", "on", &wrong])
        .exits(1);
    assert!(done.err().contains("(did you mean one?)"), "{}", done.err());
    let wrong = context(&home, b"FROM scratch\nCPOY a /b\n");
    let done = home.fb(["build", "--call=lint", &wrong]).exits(1);
    assert!(done.err().contains("did you mean COPY?"), "{}", done.err());
    let images = home.fb(["image", "ls"]).ok();
    assert_eq!(images.out().lines().count(), 1, "{}", images.out());
}

#[test]
fn targets_and_the_outline() {
    let home = Home::new();
    let path = context(&home, LINTED);
    let done = home.fb(["build", "--call=targets", &path]).ok();
    assert_eq!(
        done.out(),
        "TARGET           DESCRIPTION\nfiles\nlast (default)   is the end\n"
    );
    let done = home
        .fb([
            "build",
            "--call=outline",
            "--format=json",
            "--build-arg",
            "VERSION=2",
            &path,
        ])
        .ok();
    let value: Value = serde_json::from_str(&done.out()).unwrap();
    assert_eq!(value["name"], "last");
    assert_eq!(value["args"][0]["name"], "VERSION");
    assert_eq!(value["args"][0]["value"], "2");
    let done = home.fb(["build", "--call=nonsense", &path]).exits(2);
    assert!(done.err().contains("outline"), "{}", done.err());
}

#[test]
fn progress_in_its_forms() {
    let Some(home) = with_base("progress_in_its_forms") else {
        return;
    };
    let path = context(
        &home,
        b"FROM base:1 AS one\nRUN echo out; echo err >&2\nFROM base:1\nCOPY --from=one /bin/sh /x\nENV a b\nRUN echo last; exit 3\n",
    );
    let done = home.fb(["build", "--progress=json", &path]).exits(1);
    let events: Vec<Value> = done
        .err()
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let of = |kind: &str| {
        events
            .iter()
            .filter(|event| event["event"] == kind)
            .collect::<Vec<_>>()
    };
    assert!(events.iter().all(|event| event["time"].is_number()));
    let planned = of("planned");
    let copy = planned
        .iter()
        .find(|e| e["name"].as_str().unwrap().contains("COPY"))
        .unwrap();
    assert_eq!(copy["inputs"].as_array().unwrap().len(), 2);
    assert!(planned.iter().any(|event| event["stage"] == "one"));
    let streams: Vec<&Value> = of("output").iter().map(|event| &event["stream"]).collect();
    assert!(streams.contains(&&Value::from("stderr")), "{streams:?}");
    assert_eq!(of("failed").len(), 1);
    assert_eq!(of("warning")[0]["line"], 5);

    let plain = home.fb(["build", "--progress=plain", &path]).exits(1).err();
    for expected in [
        "WARN: LegacyKeyValueFormat: \"ENV key=value\" should be used instead of legacy \"ENV key value\" format (line 5)",
        "[stage-1 3/3] RUN echo last; exit 3",
        "ERROR: process \"/bin/sh -c echo last; exit 3\" did not complete successfully: exit code: 3",
        "------\n > [stage-1 3/3] RUN echo last; exit 3:\n",
        "6 | RUN echo last; exit 3",
    ] {
        assert!(plain.contains(expected), "{expected}: {plain}");
    }
    assert_eq!(plain.matches("CACHED").count(), 3, "{plain}");

    // Not a terminal: the size is a guess, the drawing the same.
    let live = home.fb(["build", "--progress=tty", &path]).exits(1).err();
    let last = live.rsplit("\u{1b}[?2026h").next().unwrap();
    assert!(last.contains("[+] Building "), "{live}");
    assert!(last.contains(" FAILED"), "{live}");
    assert!(last.contains("ERROR [stage-1 3/3] RUN"), "{live}");
    assert!(live.matches("\u{1b}[?2026h").count() < 40, "{live}");

    let quiet = home.fb(["build", "--progress=quiet", &path]).exits(1).err();
    assert!(
        !quiet.contains("CACHED") && quiet.contains("exit code: 3"),
        "{quiet}"
    );
}

#[test]
fn the_timeline_is_one_page_also_of_a_build_that_failed() {
    let Some(home) = with_base("the_timeline_is_one_page_also_of_a_build_that_failed") else {
        return;
    };
    let path = context(
        &home,
        b"FROM base:1 AS a\nRUN echo '<script>'\nFROM base:1\nCOPY --from=a /bin/sh /x\nRUN false\n",
    );
    let file = home.path().join("time.html");
    let name = file.display().to_string();
    let _ = home.fb(["build", "--timeline", &name, &path]).exits(1);
    let page = fs_err::read_to_string(&file).unwrap();
    assert!(page.contains("class=\"outcome bad\">failed"));
    assert!(page.contains("RUN echo &#39;&lt;script&gt;&#39;"));
    assert!(page.contains("exit code: 1"));
    assert!(
        !page.contains("http")
            || page.matches("http").count() == page.matches("http-equiv").count()
    );
}

#[test]
fn commands_around_a_build_and_platforms() {
    let Some(home) = with_base("commands_around_a_build_and_platforms") else {
        return;
    };
    let path = context(
        &home,
        b"FROM base:1 AS x\nUSER 1000\nWORKDIR /w\nCMD [\"a\"]\n",
    );
    let out = home.path().join("out");
    let output = format!("type=local,dest={}", out.display());
    let root = home.path().join("catalogue");
    let catalogue = format!(
        "--storage-provider.directory.rootfs-storage-root={}",
        root.display()
    );
    let args = [
        "build",
        &catalogue,
        "--pre-build-command=id -u > /pre; pwd >> /pre",
        "--post-build-command=ls / > /post",
        "-t",
        "t/extra:1",
        "--output",
        &output,
        &path,
    ];
    let _ = home.fb(args).ok();
    assert_eq!(fs_err::read_to_string(out.join("pre")).unwrap(), "0\n/\n");
    let post = fs_err::read_to_string(out.join("post")).unwrap();
    assert!(post.contains("pre\n") && post.contains("w\n"), "{post}");
    let config: Value =
        serde_json::from_slice(&home.fb(["image", "config", "t/extra:1"]).ok().stdout).unwrap();
    assert_eq!(config["config"]["User"], "1000");
    // Another output takes nothing from the entry of the tag in a catalogue of the original.
    let entry = root.join("t/extra/1");
    assert!(entry.join("rootfs").is_file());
    let metadata = fs_err::read(entry.join("metadata.json")).unwrap();
    let metadata: Value = serde_json::from_slice(&metadata).unwrap();
    assert_eq!(
        metadata["BuildConfig"]["PostBuildCommands"],
        serde_json::json!(["ls / > /post"])
    );

    let run = context(&home, b"FROM scratch\nCOPY f /f\nRUN [\"/f\"]\n");
    // An architecture that no interpreter is registered for anywhere.
    let foreign = "linux/vax";
    let done = home.fb(["build", "--platform", foreign, &run]).exits(1);
    let text = done.err();
    assert!(
        text.contains("cannot execute RUN for") && text.contains("Dockerfile:3:1"),
        "{text}"
    );
    assert!(text.contains("binfmt_misc"), "{text}");
    let copy = context(&home, b"FROM scratch\nCOPY f /f\n");
    let _ = home
        .fb(["build", "--platform", foreign, "-t", "t/foreign:1", &copy])
        .ok();
    let config: Value =
        serde_json::from_slice(&home.fb(["image", "config", "t/foreign:1"]).ok().stdout).unwrap();
    assert_eq!(config["architecture"], foreign.trim_start_matches("linux/"));
}
