//! What a build leaves: each form is read by the tools that it is for.

use firebuild_e2e::{Done, Home, missing, run, skip, static_program};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Runs a shell command in a directory.
fn sh(dir: &Path, command: &str) -> Done {
    let mut shell = Command::new("bash");
    shell
        .args(["-euo", "pipefail", "-c", command])
        .current_dir(dir)
        .env("LC_ALL", "C");
    run(&mut shell, Duration::from_secs(60)).ok()
}

fn lacks(test: &str, programs: &[&str]) -> bool {
    match missing(programs) {
        None => false,
        Some(program) => {
            let reason = format!("{program} is not installed");
            skip(test, &format!("tool:{program}"), &reason);
            true
        }
    }
}

/// A context with a few files.
fn context(home: &Home) -> String {
    let dockerfile = b"FROM scratch AS base\nCOPY sub /sub\nFROM base\nCOPY --chmod=0750 file /bin/file\nENV A=b\nLABEL l=m\n";
    let context = home.context(
        "ctx",
        &[
            ("Dockerfile", dockerfile),
            ("file", b"one\n"),
            ("sub/a", b"two\n"),
        ],
    );
    context.display().to_string()
}

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs_err::read(path).expect("the file is there")).expect("it is JSON")
}

#[test]
fn images_are_read_by_skopeo_and_umoci() {
    let name = "images_are_read_by_skopeo_and_umoci";
    if lacks(name, &["skopeo", "umoci", "tar"]) {
        return;
    }
    let home = Home::new();
    let context = context(&home);
    let here = home.path();
    let mut command = home.command([
        "build", "-q", "-t", "t/x:1",
        "-o", "type=docker,dest=docker.tar,compression=uncompressed,rewrite-timestamp=true",
        "-o", "type=oci,dest=oci.tar,annotation.note=yes,annotation-descriptor.where=there,rewrite-timestamp=true",
        "-o", "type=oci,tar=false,dest=layout,compression=zstd,compression-level=9,\"name=a/b:1,c/d:2\",rewrite-timestamp=true",
        "-o", "type=oci,dest=v2.tar,oci-mediatypes=false,rewrite-timestamp=true",
        "--metadata-file", "metadata.json", "--iidfile", "iid", &context,
    ]);
    command
        .current_dir(here)
        .env("SOURCE_DATE_EPOCH", "1000000000");
    let done = run(&mut command, Duration::from_secs(60)).ok();
    let id = fs_err::read_to_string(here.join("iid")).expect("the ID was written");
    assert_eq!(done.out().trim(), id);

    // What docker load reads, and skopeo as it does: the ID is that of the configuration.
    let entry = sh(here, "tar -xOf docker.tar manifest.json").out();
    assert!(entry.contains("\"RepoTags\":[\"t/x:1\"]"), "{entry}");
    let config = sh(
        here,
        "skopeo inspect --config docker-archive:docker.tar:t/x:1",
    )
    .out();
    assert!(
        config.contains("\"A=b\"") && config.contains("2001-09-09"),
        "{config}"
    );

    let raw = sh(here, "skopeo inspect --raw oci-archive:oci.tar").out();
    assert!(
        raw.contains("\"note\":\"yes\"") && raw.contains("layer.v1.tar+gzip"),
        "{raw}"
    );
    let index = sh(here, "tar -xOf oci.tar index.json").out();
    assert!(
        index.contains("\"where\":\"there\"") && index.contains("io.containerd.image.name"),
        "{index}"
    );
    let raw = sh(here, "skopeo inspect --raw oci:layout:docker.io/c/d:2").out();
    assert!(raw.contains("layer.v1.tar+zstd"), "{raw}");
    let raw = sh(here, "skopeo inspect --raw oci-archive:v2.tar").out();
    assert!(
        raw.contains("docker.distribution.manifest.v2") && raw.contains("diff.tar.gzip"),
        "{raw}"
    );
    let _ = sh(
        here,
        "mkdir x; tar -xf oci.tar -C x; umoci raw unpack --rootless --image x:docker.io/t/x:1 rootfs; \
         grep -q one rootfs/bin/file; grep -q two rootfs/sub/a; test $(stat -c %a%Y rootfs/bin/file) = 7501000000000",
    );

    let metadata = json(&here.join("metadata.json"));
    let digest = metadata["containerimage.digest"]
        .as_str()
        .expect("a digest");
    assert_eq!(metadata["containerimage.descriptor"]["digest"], digest);
    assert_eq!(metadata["containerimage.config.digest"], id.as_str());
    assert_eq!(metadata["image.name"], "docker.io/t/x:1");
    assert!(metadata["buildx.build.ref"].is_string());
    let outputs = metadata["firebuild.outputs"].as_array().expect("a list");
    assert_eq!(outputs.len(), 4);
    assert_eq!(outputs[2]["names"][1], "docker.io/c/d:2");
    assert_eq!(outputs[3]["digest"], digest);
}

#[test]
fn files_are_read_by_the_tools_they_are_for() {
    let name = "files_are_read_by_the_tools";
    if lacks(
        name,
        &[
            "tar",
            "cpio",
            "gzip",
            "zstd",
            "fsck.erofs",
            "e2fsck",
            "python3",
        ],
    ) {
        return;
    }
    let home = Home::new();
    let context = context(&home);
    let here = home.path();
    let mut command = home.command([
        "build",
        "--progress=json",
        "-t",
        "t/x:1",
        "-o",
        "type=erofs,dest=x.erofs",
        "-o",
        "type=initrd,dest=x.cpio",
        "-o",
        "type=initrd,dest=x.cpio.gz,compression=gzip",
        "-o",
        "type=initrd,dest=x.cpio.zst,compression=zstd",
        "-o",
        "type=tar,dest=x.tar",
        "-o",
        "out",
        "-o",
        "type=ext4,dest=x.ext4",
        "-o",
        "type=cacheonly",
        &context,
    ]);
    let done = run(command.current_dir(here), Duration::from_secs(60)).ok();
    let result: serde_json::Value =
        serde_json::from_str(done.out().trim()).expect("one line of JSON");
    assert_eq!(result["outputs"][6]["dest"], "x.ext4");
    assert!(
        done.err().contains("rdinit="),
        "there is no /init: {}",
        done.err()
    );
    let _ = sh(
        here,
        "e2fsck -fn x.ext4; fsck.erofs --extract=erofs x.erofs; diff -r erofs out; cat out/sub/a | grep two",
    );
    let _ = sh(
        here,
        "gzip -dc x.cpio.gz | cmp - x.cpio; zstd -qdc x.cpio.zst | cmp - x.cpio",
    );
    let _ = sh(
        here,
        "mkdir c t; (cd c; cpio -i --quiet < ../x.cpio); tar -xf x.tar -C t; diff -r c out; diff -r t out",
    );
    assert!(sh(here, "tar -tvf x.tar").out().contains("-rwxr-x--- 0/0"));
    let left = sh(here, "ls -A | grep tmp || true").out();
    assert_eq!(left, "", "nothing is left beside the outputs");
}

#[test]
fn mode_delete_leaves_what_the_build_made() {
    let home = Home::new();
    let context = context(&home);
    let here = home.path();
    let _ = sh(
        here,
        "mkdir -p out/sub out/old/deep elsewhere out/bin; echo x | tee out/sub/stale out/old/deep/f elsewhere/kept out/file; ln -s ../elsewhere out/link; mkdir out/bin/file",
    );
    let out = here.join("out").display().to_string();
    let copy = format!("type=local,dest={out}");
    let delete = format!("{copy},mode=delete");
    let _ = home.fb(["build", "-q", "-o", &delete, &context]).ok();
    assert_eq!(
        sh(here, "cd out; find . | sort").out(),
        ".\n./bin\n./bin/file\n./sub\n./sub/a\n"
    );
    assert!(
        here.join("elsewhere/kept").exists(),
        "links are not followed"
    );
    let _ = sh(here, "touch out/sub/mine");
    let _ = home.fb(["build", "-q", "-o", &copy, &context]).ok();
    assert!(here.join("out/sub/mine").exists());
    let refused = home
        .fb([
            "build",
            "-q",
            "-o",
            "type=local,dest=/,mode=delete",
            &context,
        ])
        .exits(1);
    assert!(refused.err().contains("would empty"), "{}", refused.err());
}

#[test]
fn access_control_lists_are_restored_by_gnu_tar() {
    let name = "access_control_lists_are_restored_by_gnu_tar";
    if lacks(name, &["tar", "setfacl", "getfacl"]) {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        return skip(name, "root", "owners of an archive need root");
    }
    let home = Home::new();
    let here = home.path();
    let _ = sh(
        here,
        "mkdir src; echo x > src/f; mkdir src/d; setfacl -m u:1234:rw,g:99:r src/f; setfacl -d -m u:1234:rwx src/d; tar --acls --xattrs -C src -cf root.tar .",
    );
    let archive = fs_err::read(here.join("root.tar")).expect("tar wrote it");
    let context = home.context(
        "acl",
        &[
            ("Dockerfile", b"FROM scratch\nADD root.tar /\n"),
            ("root.tar", &archive),
        ],
    );
    let spec = format!("type=tar,dest={}", here.join("out.tar").display());
    let _ = home
        .fb(["build", "-q", "-o", &spec, &context.display().to_string()])
        .ok();
    let lists = "(cd X; getfacl -n f d)";
    let wanted = sh(here, &lists.replace('X', "src")).out();
    assert!(wanted.contains("user:1234:rw-") && wanted.contains("default:user:1234:rwx"));
    let _ = sh(here, "mkdir x; tar --acls -xf out.tar -C x");
    assert_eq!(sh(here, &lists.replace('X', "x")).out(), wanted);
}

#[test]
fn a_full_disk_is_named() {
    if !rustix::process::geteuid().is_root() {
        return skip("a_full_disk_is_named", "root", "only root can mount");
    }
    let home = Home::new();
    let here = home.path();
    let context = home.context(
        "ctx",
        &[
            ("Dockerfile", b"FROM scratch\nCOPY data /\n"),
            ("data", &vec![7; 6 << 20]),
        ],
    );
    let context = context.display().to_string();
    let _ = sh(here, "mkdir small; mount -t tmpfs -o size=4m none small");
    let mut failures = Vec::new();
    for (kind, file) in [
        ("ext4", "a.ext4"),
        ("erofs", "a.erofs"),
        ("initrd", "a.cpio"),
        ("tar", "a.tar"),
        ("oci,compression=uncompressed", "a.oci"),
        ("local", "dir"),
    ] {
        let dest = here.join("small").join(file).display().to_string();
        let spec = format!("type={kind},dest={dest}");
        let done = home.fb(["build", "-q", "-o", &spec, &context]);
        let named = done.err().contains(&format!("the disk of {dest} is full"));
        let left = kind != "local" && here.join("small").join(file).exists();
        if done.code != 1 || !named || left {
            failures.push(format!("{kind}: {} {}", done.code, done.err()));
        }
        let _ = sh(here, "rm -rf small/*");
    }
    let _ = sh(here, "umount small");
    assert_eq!(failures, Vec::<String>::new());
}

/// SIGINT while a large ext4 image is written ends the build at once, and nothing is left.
#[test]
fn ctrl_c_ends_an_image_that_is_being_written() {
    let name = "ctrl_c_ends_an_image";
    if lacks(name, &["kill"]) {
        return;
    }
    let home = Home::new();
    let here = home.path();
    // Not sparse, so that writing takes a while; one file, so that the stop comes in its middle.
    let data = vec![7u8; 64 << 20];
    let context = home.context(
        "ctx",
        &[("Dockerfile", b"FROM scratch\nCOPY a* /\n"), ("a1", &data)],
    );
    for n in 2..9 {
        fs_err::copy(context.join("a1"), context.join(format!("a{n}"))).expect("the disk has room");
    }
    let context = context.display().to_string();
    let _ = home
        .fb(["build", "-q", "-o", "type=cacheonly", &context])
        .ok();
    for kind in ["ext4", "erofs"] {
        let dest = here.join(format!("x.{kind}"));
        let spec = format!("type={kind},dest={}", dest.display());
        let mut command = home.command(["build", "--progress=plain", "-o", &spec, &context]);
        let log = here.join("log");
        let file = fs_err::File::create(&log).expect("the disk is writable");
        let mut child = command
            .stderr(file.into_file())
            .spawn()
            .expect("the program starts");
        let begin = std::time::Instant::now();
        while !fs_err::read_to_string(&log)
            .is_ok_and(|text| text.contains(&format!("exporting {kind}")))
            && begin.elapsed() < Duration::from_secs(60)
        {
            std::thread::sleep(Duration::from_millis(2));
        }
        let stopped = std::time::Instant::now();
        let _ = sh(here, &format!("kill -INT {}", child.id()));
        let status = child.wait().expect("it ends");
        assert!(
            stopped.elapsed() < Duration::from_secs(3),
            "{:?}",
            stopped.elapsed()
        );
        // A machine may be so fast that it was over.
        if status.code() != Some(0) {
            assert_eq!(
                status.code(),
                Some(130),
                "{}",
                fs_err::read_to_string(&log).unwrap_or_default()
            );
            assert!(!dest.exists());
        }
        assert_eq!(sh(here, "ls | grep tmp || true").out(), "");
        let _ = fs_err::remove_file(&dest);
    }
}

#[test]
fn short_forms_say_what_they_need() {
    let home = Home::new();
    let context = context(&home);
    for (arguments, why) in [
        (&["-o", "type=ext4"][..], "type=ext4 has no name"),
        (&["--push"], "type=image has no name"),
        (&["--load"], "no name to load"),
        (&["-o", "type=tar,dset=x"], "did you mean"),
        (&["-o", "a", "-o", "type=local,dest=a"], "same dest"),
    ] {
        let mut all = vec!["build", "-q"];
        all.extend(arguments);
        all.push(&context);
        let done = home.fb(all);
        assert!(
            done.code != 0 && done.err().contains(why),
            "{arguments:?}: {}",
            done.err()
        );
    }
    let _ = home
        .fb([
            "build",
            "-q",
            "-t",
            "t/x:1",
            "-o",
            "type=cacheonly",
            &context,
        ])
        .ok();
    let _ = home.fb(["image", "config", "t/x:1"]).exits(1);
    let _ = home
        .fb(["build", "-q", "--load", "-t", "t/x:1", &context])
        .ok();
    let _ = home.fb(["image", "config", "t/x:1"]).ok();
}

/// A destination that is a device, a pipe or a link stays what it is.
#[test]
fn devices_pipes_and_links_are_written_through() {
    let name = "devices_pipes_and_links_are_written_through";
    if lacks(name, &["tar", "mkfifo", "timeout"]) {
        return;
    }
    let home = Home::new();
    let context = context(&home);
    let here = home.path();
    let fb = firebuild_e2e::firebuild().display().to_string();
    let build = format!("{fb} build -q {context}");
    let run = |script: &str| {
        let mut shell = Command::new("bash");
        shell
            .args(["-euo", "pipefail", "-c", script])
            .current_dir(here)
            .env("FIREBUILD_HOME", here.join("home"));
        run(&mut shell, Duration::from_secs(60))
    };
    // Devices of our own, so that a failure harms nobody.
    let root = rustix::process::geteuid().is_root();
    if root {
        let _ = sh(here, "mknod -m 666 null c 1 3; mknod -m 666 full c 1 7");
        for kind in ["tar", "oci", "docker", "initrd"] {
            let _ = run(&format!("{build} -o type={kind},dest=null; test -c null")).ok();
            let full = run(&format!("{build} -o type={kind},dest=full")).exits(1);
            assert!(full.err().contains("No space left"), "{}", full.err());
        }
        for kind in ["ext4", "erofs"] {
            let refused = run(&format!("{build} -o type={kind},dest=null")).exits(1);
            assert!(refused.err().contains("is a device"), "{}", refused.err());
        }
        let _ = run(&format!("{build} --iidfile null --metadata-file null --timeline null; test -c null; test -c full")).ok();
    }
    let _ = run(&format!(
        "mkfifo pipe; (timeout 50 tar -tf pipe > list) & {build} -o type=tar,dest=pipe; wait; test -p pipe; grep -x sub/a list"
    ))
    .ok();
    let _ = run(&format!(
        "{build} -o type=tar,dest=>(tar -t > list2); sleep 1; grep -x sub/a list2; \
         {build} -o type=tar,dest=/dev/stdout | tar -t | grep -x sub/a; \
         {build} --metadata-file /dev/stderr 2>&1 | grep -q containerimage.digest; \
         {build} --metadata-file /dev/stdout > redirected; grep -q containerimage.digest redirected; test -L /dev/stdout"
    ))
    .ok();
    // A link to a file leads to it, and is still a link then.
    let _ = run(&format!(
        "mkdir far; echo old > far/x.tar; ln -s far/x.tar link; {build} -o type=tar,dest=link; test -L link; tar -tf far/x.tar | grep -x sub/a; \
         {build} -o type=ext4,dest=link; test -L link; test $(stat -c %s far/x.tar) -gt 100000"
    ))
    .ok();
}

/// The disk fits its content; a size asks for more, in both spellings, and never for less than the content needs.
#[test]
fn a_disk_is_as_large_as_it_was_asked_to_be() {
    let name = "a_disk_is_as_large_as_it_was_asked_to_be";
    if lacks(name, &["e2fsck"]) {
        return;
    }
    let home = Home::new();
    let context = home.context(
        "ctx",
        &[
            ("Dockerfile", b"FROM scratch\nCOPY data /\n"),
            ("data", &vec![7; 9 << 20]),
        ],
    );
    let context = context.display().to_string();
    let dest = home.path().join("x.ext4");
    let spec = format!("type=ext4,dest={}", dest.display());
    let size = |more: &[&str]| {
        let args = [&["build", "-q", "-o", &spec], more, &[&context]].concat();
        let _ = home.fb(args).ok();
        let _ = sh(home.path(), "e2fsck -fn x.ext4");
        fs_err::metadata(&dest).expect("it was written").len() >> 20
    };
    let fitting = size(&[]);
    assert!((9..40).contains(&fitting), "{fitting} MiB for 9");
    assert_eq!(size(&["--size", "96M"]), 96);
    assert_eq!(size(&["--filesystem-size-mbs=500"]), 500);
    assert_eq!(size(&["--size", "1M"]), fitting);
}

/// What is built with an epoch is the same on another day, elsewhere, in a store that never saw it.
#[test]
fn the_same_input_gives_the_same_bytes() {
    let name = "the_same_input_gives_the_same_bytes";
    if lacks(name, &["faketime", "cmp"]) {
        return;
    }
    let Some(busybox) = static_program() else {
        return skip(name, "tool:busybox", "no static busybox");
    };
    let dockerfile = b"FROM scratch\nCOPY --chmod=0755 busybox /bin/busybox\nCOPY sub /sub\nWORKDIR /made/here\n\
        RUN [\"/bin/busybox\", \"sh\", \"-c\", \"mkdir -p /a/b; echo x > /a/b/c; /bin/busybox ln /a/b/c /a/link; /bin/busybox ln -s c /a/sym; /bin/busybox rm /sub/gone\"]\n";
    let builds: Vec<(Home, Vec<String>)> = ["one", "another/place"]
        .iter()
        .map(|place| {
            let home = Home::new();
            let context = home.context(
                place,
                &[
                    ("Dockerfile", dockerfile),
                    ("busybox", &busybox),
                    ("sub/kept", b"k"),
                    ("sub/gone", b"g"),
                ],
            );
            let firebuild = firebuild_e2e::firebuild();
            let firebuild = firebuild.display().to_string();
            let later = *place != "one";
            let mut command = Command::new(if later { "faketime" } else { "env" });
            if later {
                let _ = sh(&context, "find . -exec touch -d 2033-03-03 {} +");
                command.args(["-f", "@2031-05-05 10:00:00"]);
            }
            command.arg(firebuild).args([
                "build",
                "-q",
                "-t",
                "t/x:1",
                "-o",
                "type=ext4,dest=x.ext4",
                "-o",
                "type=erofs,dest=x.erofs",
                "-o",
                "type=initrd,dest=x.cpio,compression=gzip",
                "-o",
                "type=tar,dest=x.tar",
                "-o",
                "type=oci,dest=x.oci,rewrite-timestamp=true",
                "-o",
                "type=docker,dest=x.docker,rewrite-timestamp=true",
            ]);
            command
                .arg(&context)
                .current_dir(home.path())
                .env("FIREBUILD_HOME", home.path().join("home"))
                .env("SOURCE_DATE_EPOCH", "1000000000");
            let built = run(&mut command, Duration::from_secs(120)).ok();
            let listed = home.fb(["image", "ls"]).ok().out();
            (home, vec![built.out(), listed])
        })
        .collect();
    let [(one, told), (other, told_later)] = &builds[..] else {
        unreachable!("two were built");
    };
    assert_eq!(
        told, told_later,
        "the image's ID and the digest in the store"
    );
    for file in ["x.ext4", "x.erofs", "x.cpio", "x.tar", "x.oci", "x.docker"] {
        let (a, b) = (one.path().join(file), other.path().join(file));
        let _ = sh(
            Path::new("/"),
            &format!("cmp {} {}", a.display(), b.display()),
        );
    }
}
