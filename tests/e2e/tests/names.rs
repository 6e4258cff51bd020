//! What a name may stand for: an image that is whole, has a disk, and whose outputs were written.

use firebuild_e2e::{Home, missing, run, skip};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

fn tool(program: &str, args: &[&str], dir: &Path) -> firebuild_e2e::Done {
    run(
        Command::new(program).args(args).current_dir(dir),
        Duration::from_secs(60),
    )
    .ok()
}

#[test]
fn an_archive_on_standard_output_is_nothing_else() {
    let name = "an_archive_on_standard_output";
    if let Some(program) = missing(&["tar"]) {
        return skip(
            name,
            &format!("tool:{program}"),
            &format!("{program} is not installed"),
        );
    }
    let home = Home::new();
    let context = home.context(
        "ctx",
        &[
            ("Dockerfile", b"FROM scratch\nCOPY file /file\n"),
            ("file", b"one\n"),
        ],
    );
    let path = context.display().to_string();
    let streamed = home
        .fb(["build", "-t", "t/x:1", "--output", "type=tar", &path])
        .ok();
    let file = home.path().join("file.tar");
    let spec = format!("type=tar,dest={}", file.display());
    let _ = home
        .fb(["build", "-t", "t/x:1", "--output", &spec, &path])
        .ok();
    assert_eq!(streamed.stdout, fs_err::read(&file).unwrap());
    assert!(
        tool("tar", &["-tf", "file.tar"], home.path())
            .out()
            .contains("file")
    );
    let both = home
        .fb(["build", "--output", "-", "--output", "type=oci", &path])
        .exits(2);
    assert!(both.err().contains("standard output"), "{}", both.err());
    assert_eq!(both.stdout, b"");
}

#[test]
fn a_failed_output_names_nothing_and_leaves_nothing() {
    let home = Home::new();
    let context = home.context(
        "ctx",
        &[
            ("Dockerfile", b"FROM scratch\nCOPY file /file\n"),
            ("file", b"one\n"),
        ],
    );
    // A directory stands where the archive should go.
    let taken = home.path().join("out/taken");
    fs_err::create_dir_all(taken.join("by")).unwrap();
    let spec = format!("type=tar,dest={}", taken.display());
    let done = home
        .fb([
            "build",
            "-t",
            "t/x:1",
            "--output",
            &spec,
            &context.display().to_string(),
        ])
        .exits(1);
    assert!(done.err().contains("out/taken"), "{}", done.err());
    let _ = home.fb(["image", "config", "t/x:1"]).exits(1);
    let names: Vec<_> = fs_err::read_dir(home.path().join("out"))
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(names, ["taken"]);
}

#[test]
fn an_image_whose_layer_climbs_out_gets_no_name() {
    let name = "an_image_whose_layer_climbs_out";
    if let Some(program) = missing(&["tar", "sha256sum"]) {
        return skip(
            name,
            &format!("tool:{program}"),
            &format!("{program} is not installed"),
        );
    }
    let home = Home::new();
    let dir = home.context("layers", &[("file", b"x"), ("inner/file", b"x")]);
    for (number, args) in [
        ["--transform=s,^file,../evil,", "-P", "file", "inner"],
        ["--transform=s,^file,a/../../evil,", "-P", "file", "inner"],
        [
            "--transform=s,^inner/file,inner/.wh...,",
            "-P",
            "file",
            "inner",
        ],
    ]
    .into_iter()
    .enumerate()
    {
        let layout = home.path().join(format!("layout{number}"));
        fs_err::create_dir_all(layout.join("blobs/sha256")).unwrap();
        let blob = |file: &str| {
            let digest = tool("sha256sum", &[file], &layout).out()[..64].to_owned();
            fs_err::rename(layout.join(file), layout.join("blobs/sha256").join(&digest)).unwrap();
            format!("sha256:{digest}")
        };
        let target = layout.join("layer").display().to_string();
        let _ = tool("tar", &[&["-cf", &target], &args[..]].concat(), &dir);
        let layer_size = fs_err::metadata(layout.join("layer")).unwrap().len();
        let layer = blob("layer");
        let config = serde_json::json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }, "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [layer]},
        });
        let config = config.to_string();
        fs_err::write(layout.join("config"), &config).unwrap();
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": blob("config"), "size": config.len()},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": layer_size}],
        });
        let manifest = manifest.to_string();
        fs_err::write(layout.join("manifest"), &manifest).unwrap();
        let index = serde_json::json!({
            "schemaVersion": 2,
            "manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": blob("manifest"), "size": manifest.len()}],
        });
        fs_err::write(layout.join("index.json"), index.to_string()).unwrap();
        fs_err::write(
            layout.join("oci-layout"),
            "{\"imageLayoutVersion\":\"1.0.0\"}",
        )
        .unwrap();
        let done = home
            .fb([
                "image",
                "load",
                &layout.display().to_string(),
                "--tag",
                "t/evil:1",
            ])
            .exits(1);
        let text = done.err();
        assert!(
            text.contains("climbs out") || text.contains("whiteout"),
            "{args:?}: {text}"
        );
        assert!(text.contains(&layer), "the layer is named: {text}");
        let _ = home.fb(["image", "config", "t/evil:1"]).exits(1);
    }
}

#[test]
fn a_build_that_is_stopped_in_an_output_leaves_no_piece_of_it() {
    let home = Home::new();
    let context = home.context(
        "ctx",
        &[
            ("Dockerfile", b"FROM scratch\nCOPY file /file\n"),
            ("file", b"one\n"),
        ],
    );
    // Large in an archive and small on the disk, so that the output takes its time.
    let large = fs_err::File::options()
        .write(true)
        .open(context.join("file"))
        .unwrap();
    large.file().set_len(1 << 30).unwrap();
    let out = home.path().join("out");
    fs_err::create_dir(&out).unwrap();
    let spec = format!("type=tar,dest={}", out.join("x.tar").display());
    let path = context.display().to_string();
    let mut child = home
        .command([
            "build",
            "--progress=plain",
            "-t",
            "t/x:1",
            "--output",
            &spec,
            &path,
        ])
        .stderr(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let begun = || fs_err::read_dir(&out).unwrap().next().is_some();
    while !begun() {
        assert!(
            child.try_wait().unwrap().is_none(),
            "it ended before its output began"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    let begin = std::time::Instant::now();
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(
        begin.elapsed() < Duration::from_secs(10),
        "{:?}",
        begin.elapsed()
    );
    assert!(!begun(), "a piece of the output is left");
    let _ = home.fb(["image", "config", "t/x:1"]).exits(1);
}
