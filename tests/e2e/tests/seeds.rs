//! The command lines of the original's README and of the text that introduced it, as they were typed: with a small image
//! in place of PostgreSQL and Consul, and directories of the test in place of `/fc` and `/var/lib`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use firebuild_e2e::servers::{git_output, repository, web};
use firebuild_e2e::{Done, Home, firebuild, kernel_deb, missing, run, skip, static_program};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(120);

/// What a reader of the texts has: directories, a profile, and the command line in a shell.
struct Reader {
    home: Home,
}

impl Reader {
    fn new() -> Self {
        let home = Home::new();
        let reader = Self { home };
        for dir in ["jail", "rootfs", "vmlinux", "gopath/bin"] {
            fs_err::create_dir_all(reader.at(dir)).expect("the directory of the test is writable");
        }
        std::os::unix::fs::symlink(firebuild(), reader.at("gopath/bin/firebuild"))
            .expect("the directory of the test is writable");
        reader
    }

    fn at(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Types a command line. `/fc` stands for the directories of the test; `sudo` is not there, tests may have no need of it.
    fn types(&self, line: &str) -> Done {
        let line = line
            .replace("sudo ", "")
            .replace("/fc/", &format!("{}/", self.home.path().display()));
        let mut command = Command::new("bash");
        command
            .args(["-c", &format!("set -o pipefail\n{line}")])
            .current_dir(self.home.path())
            .env("GOPATH", self.at("gopath"))
            // The data only, so that the run cache of the profile is in force.
            .env_remove("FIREBUILD_HOME")
            .env("FIREBUILD_DATA_DIR", self.at("home"))
            .env("FIREBUILD_RUNTIME_DIR", self.at("home/run"))
            .env("FIREBUILD_PROFILE_DIR_OF_TEST", self.at("profiles"));
        run(&mut command, LIMIT)
    }

    fn profile(&self) -> Done {
        self.types(&with_profiles(
            "sudo $GOPATH/bin/firebuild profile-create \\
	--profile=standard \\
	--binary-firecracker=$(readlink /usr/bin/firecracker) \\
	--binary-jailer=$(readlink /usr/bin/jailer) \\
	--chroot-base=/tmp \\
	--run-cache=/fc/cache \\
	--storage-provider=directory \\
	--storage-provider-property-string=\"rootfs-storage-root=/fc/rootfs\" \\
	--storage-provider-property-string=\"kernel-storage-root=/fc/vmlinux\" \\
	--tracing-enable",
        ))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // Whatever a failed test left running is in the run cache of the profile.
        let _ = self.types(&with_profiles(
            "for vm in $($GOPATH/bin/firebuild ls -q --profile=standard); do $GOPATH/bin/firebuild kill --profile=standard $vm; done",
        ));
    }
}

/// The texts let root keep profiles in `/etc`, which a test leaves alone.
fn with_profiles(line: &str) -> String {
    line.replace(
        "--profile",
        "--profile-conf-dir=$FIREBUILD_PROFILE_DIR_OF_TEST --profile",
    )
    .replace(
        "--profile-conf-dir=$FIREBUILD_PROFILE_DIR_OF_TEST --profile-conf-dir",
        "--profile-conf-dir",
    )
}

#[test]
fn profiles() {
    let reader = Reader::new();
    assert_eq!(reader.profile().ok().out(), "standard created\n");
    assert_eq!(reader.profile().ok().out(), "standard unchanged\n");
    let file: Value =
        serde_json::from_slice(&fs_err::read(reader.at("profiles/standard")).unwrap()).unwrap();
    let root = reader.home.path().display().to_string();
    assert_eq!(
        file["storage-profile-config-strings"]["rootfs-storage-root"],
        format!("{root}/rootfs")
    );
    assert_eq!(file["tracing-enable"], true);
    let dir = "--profile-conf-dir=$FIREBUILD_PROFILE_DIR_OF_TEST";
    let ls = reader
        .types(&format!("sudo $GOPATH/bin/firebuild profile-ls {dir}"))
        .ok();
    assert_eq!(ls.out(), "standard\n");
    let shown = reader.types(&with_profiles(
        "sudo $GOPATH/bin/firebuild profile-inspect --profile=standard | jq '.\"run-cache\"' -r",
    ));
    if missing(&["jq"]).is_none() {
        assert_eq!(shown.ok().out(), format!("{root}/cache\n"));
    }
    for (line, code, word) in [
        (
            "$GOPATH/bin/firebuild ls --profile=absent",
            1,
            "there are: standard",
        ),
        (
            "$GOPATH/bin/firebuild run --profile=absent x:1",
            125,
            "there are: standard",
        ),
        (
            "$GOPATH/bin/firebuild profile-create --profile=../x",
            1,
            "cannot name a profile",
        ),
        (
            "$GOPATH/bin/firebuild profile-create --profile=x --storage-provider=s3",
            1,
            "s3",
        ),
        (
            "$GOPATH/bin/firebuild profile-create --profile=x --chroot-base=/does/not/exist",
            1,
            "/does/not/exist",
        ),
        (
            "FIREBUILD_PROFILE=standard $GOPATH/bin/firebuild profile-rm --profile-conf-dir=$FIREBUILD_PROFILE_DIR_OF_TEST",
            2,
            "named",
        ),
        ("$GOPATH/bin/firebuild profile-rm --profile=standard", 0, ""),
        (
            "$GOPATH/bin/firebuild profile-inspect --profile=standard",
            1,
            "profile-create",
        ),
    ] {
        let line = if line.contains("--profile-conf-dir") {
            line.to_owned()
        } else {
            with_profiles(line)
        };
        let done = reader.types(&line).exits(code);
        assert!(done.err().contains(word), "{line}: {}", done.err());
    }
}

/// The Dockerfile of an application that stays, like Consul.
fn application(reader: &Reader) -> Option<PathBuf> {
    let busybox = static_program()?;
    let dockerfile =
        b"FROM scratch\nCOPY --chmod=0755 busybox /bin/busybox\nLABEL kind=test\nEXPOSE 8500\n\
        ENTRYPOINT [\"/bin/busybox\"]\nCMD [\"sleep\", \"600\"]\n";
    Some(
        reader
            .home
            .context("app", &[("Dockerfile", dockerfile), ("busybox", &busybox)])
            .join("Dockerfile"),
    )
}

fn builds(reader: &Reader) -> bool {
    let Some(dockerfile) = application(reader) else {
        return false;
    };
    let _ = reader.profile().ok();
    let built = reader
        .types(&with_profiles(&format!(
            "sudo $GOPATH/bin/firebuild rootfs \\
    --profile=standard \\
    --dockerfile={} \\
    --cni-network-name=machine-builds \\
    --ssh-user=alpine \\
    --vmlinux-id=vmlinux-v5.8 \\
    --mem=512 \\
    --tag=combust-labs/consul:1.9.4",
            dockerfile.display()
        )))
        .ok();
    assert_eq!(built.err().matches("note: ").count(), 1, "{}", built.err());
    true
}

#[test]
fn builds_are_published_as_files() {
    let reader = Reader::new();
    if !builds(&reader) {
        return skip(
            "builds_are_published_as_files",
            "tool:busybox",
            "no static busybox",
        );
    }
    let dir = reader.at("rootfs/combust-labs/consul/1.9.4");
    let metadata: Value =
        serde_json::from_slice(&fs_err::read(dir.join("metadata.json")).unwrap()).unwrap();
    for (pointer, expected) in [
        ("/Type", "\"rootfs\""),
        ("/Tag", "\"combust-labs/consul:1.9.4\""),
        (
            "/Image",
            r#"{"Image":"consul","Org":"combust-labs","Version":"1.9.4"}"#,
        ),
        ("/EntrypointInfo/EntryPoint", r#"["/bin/busybox"]"#),
        ("/EntrypointInfo/Cmd", r#"["sleep","600"]"#),
        ("/Ports", r#"["8500/tcp"]"#),
        ("/Labels/kind", "\"test\""),
    ] {
        assert_eq!(
            metadata.pointer(pointer).map(Value::to_string).as_deref(),
            Some(expected),
            "{pointer}"
        );
    }
    let mut names: Vec<_> = fs_err::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["metadata.json", "rootfs"]);
    if missing(&["e2fsck"]).is_none() {
        let mut check = Command::new("e2fsck");
        let _ = run(
            check
                .args(["-f", "-n"])
                .arg(dir.join("rootfs"))
                .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin"),
            LIMIT,
        )
        .ok();
    }

    // A base from a Dockerfile, under the name that it says; then something FROM it.
    let base = reader.home.context(
        "baseos/_/test/1",
        &[(
            "Dockerfile",
            b"FROM combust-labs/consul:1.9.4\nLABEL base=yes\n",
        )],
    );
    let _ = reader
        .types(&with_profiles("sudo $GOPATH/bin/firebuild baseos --profile=standard --dockerfile $(pwd)/baseos/_/test/1/Dockerfile --tag=custom/os:latest"))
        .ok();
    let metadata: Value = serde_json::from_slice(
        &fs_err::read(reader.at("rootfs/custom/os/latest/metadata.json")).unwrap(),
    )
    .unwrap();
    assert_eq!(metadata["Type"], "baseos");
    fs_err::write(base.join("Dockerfile"), "FROM custom/os:latest\nENV A=1\n").unwrap();
    let _ = reader
        .types(&with_profiles("$GOPATH/bin/firebuild rootfs --profile=standard --dockerfile baseos/_/test/1/Dockerfile --tag=custom/app:1"))
        .ok();
    let metadata: Value = serde_json::from_slice(
        &fs_err::read(reader.at("rootfs/custom/app/1/metadata.json")).unwrap(),
    )
    .unwrap();
    assert_eq!(metadata["Parent"]["Image"]["Image"], "os");

    // An image in place of a Dockerfile.
    let _ = reader
        .types(&with_profiles(
            "sudo $GOPATH/bin/firebuild rootfs \\
    --profile=standard \\
    --docker-image=combust-labs/consul:1.9.4 \\
    --docker-image-base=alpine:3.13 \\
    --cni-network-name=machine-builds \\
    --vmlinux-id=vmlinux-v5.8 \\
    --mem=512 \\
    --tag=combust-labs/jaeger-all-in-one:1.22",
        ))
        .ok();
    let file = reader.at("rootfs/combust-labs/jaeger-all-in-one/1.22/metadata.json");
    let metadata: Value = serde_json::from_slice(&fs_err::read(file).unwrap()).unwrap();
    assert_eq!(
        metadata["BuildConfig"]["DockerImage"],
        "combust-labs/consul:1.9.4"
    );

    // A disk is no base: the error says so where the store does not have the image any more.
    let _ = reader
        .types("$GOPATH/bin/firebuild image rm custom/os:latest")
        .ok();
    let failed = reader
        .types(&with_profiles("$GOPATH/bin/firebuild rootfs --profile=standard --dockerfile baseos/_/test/1/Dockerfile --tag=custom/app:2"))
        .exits(1);
    assert!(
        failed.err().contains("custom/os/latest/rootfs is a disk"),
        "{}",
        failed.err()
    );
}

#[test]
fn sources_elsewhere_are_built() {
    if let Some(tool) = missing(&["git", "python3"]) {
        return skip("sources_elsewhere_are_built", "tool:git", tool);
    }
    let reader = Reader::new();
    let _ = reader.profile().ok();
    let site = reader.at("site");
    let file = "FROM scratch\nCOPY config /etc/\n";
    for (name, directory) in [
        ("hashicorp/docker-consul", "0.X/"),
        ("docker-library/postgres", "13/"),
        ("grepplabs/kafka-proxy", ""),
    ] {
        let _ = repository(
            &site,
            name,
            &[
                (&format!("{directory}Dockerfile"), file),
                (&format!("{directory}config"), "x"),
            ],
        );
        let bare = site.join(format!("{name}.git"));
        for args in [["branch", "master", "main"], ["tag", "v0.2.8", "v1"]] {
            let _ = git_output(&bare, &args);
        }
        let _ = git_output(&bare, &["update-server-info"]);
    }
    let raw = site.join("hashicorp/docker-consul/master/0.X");
    fs_err::create_dir_all(&raw).unwrap();
    fs_err::write(raw.join("Dockerfile"), file).unwrap();
    fs_err::write(raw.join("config"), "x").unwrap();
    let server = web(&site);
    let host = format!("http://127.0.0.1:{}", server.port);
    for (number, source) in [
        "git+https://github.com/docker-library/postgres.git:/13/Dockerfile",
        "git+https://github.com/hashicorp/docker-consul.git:/0.X/Dockerfile#master",
        "git+https://github.com/grepplabs/kafka-proxy.git:/Dockerfile#v0.2.8",
        "https://raw.githubusercontent.com/hashicorp/docker-consul/master/0.X/Dockerfile",
    ]
    .into_iter()
    .enumerate()
    {
        // The servers of the texts are not reached by tests; one on loopback stands for them.
        let source = source
            .replace("https://github.com", &host)
            .replace("https://raw.githubusercontent.com", &host);
        let _ = reader
            .types(&with_profiles(&format!(
                "sudo $GOPATH/bin/firebuild rootfs \\
    --profile=standard \\
    --dockerfile={source} \\
    --cni-network-name=machine-builds \\
    --vmlinux-id=vmlinux-v5.8 \\
    --tag=combust-labs/source:{number}"
            )))
            .ok();
        let tree = reader
            .types(&format!(
                "$GOPATH/bin/firebuild image tree combust-labs/source:{number}"
            ))
            .ok()
            .out();
        assert!(tree.contains("/etc/config"), "{source}: {tree}");
    }
}

/// Puts a kernel under the name that the texts use.
fn with_kernel(reader: &Reader) -> bool {
    let Some(deb) = kernel_deb() else {
        return false;
    };
    let _ = reader
        .types(&format!(
            "$GOPATH/bin/firebuild kernel import {} --id vmlinux-v5.8",
            deb.display()
        ))
        .ok();
    true
}

#[test]
fn machines_are_planned_from_profiles_and_directories() {
    let reader = Reader::new();
    if missing(&["qemu-system-x86_64", "jq"]).is_some() || !with_kernel(&reader) || !builds(&reader)
    {
        return skip(
            "machines_are_planned_from_profiles_and_directories",
            "vm",
            "no QEMU, jq, kernel package or static busybox",
        );
    }
    let line = with_profiles(
        "sudo $GOPATH/bin/firebuild run \\
    --profile=standard \\
    --from=combust-labs/consul:1.9.4 \\
    --cni-network-name=machines \\
    --vmlinux-id=vmlinux-v5.8 \\
    --mem=512 \\
    --env=\"POSTGRES_PASSWORD=some,password\" \\
    --ssh-user=debian \\
    --identity-file=path/to/the/identity.pub --print=spec",
    );
    let key =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl a@b\n";
    fs_err::create_dir_all(reader.at("path/to/the")).unwrap();
    fs_err::write(reader.at("path/to/the/identity.pub"), key).unwrap();
    let kernel = |reader: &Reader| {
        let spec: Value = serde_json::from_slice(&reader.types(&line).ok().stdout).unwrap();
        PathBuf::from(spec["kernel"]["path"].as_str().unwrap())
    };
    let of_catalogue = kernel(&reader);
    assert!(
        of_catalogue.starts_with(reader.at("home/kernels")),
        "{of_catalogue:?}"
    );
    // More of the machine stands in a file, in Firecracker's words, and flags win over it.
    let file = reader.at("machine.json");
    let text = r#"{"machine-config": {"smt": true, "vcpu_count": 2, "mem_size_mib": 64},
                   "drives": [{"drive_id": "scratch", "io_engine": "Async"}]}"#;
    fs_err::write(&file, text).unwrap();
    let more = format!("{line} --machine-config={}", file.display());
    let spec: Value = serde_json::from_slice(&reader.types(&more).ok().stdout).unwrap();
    assert_eq!(
        (&spec["cpus"], &spec["memory_mib"], &spec["hardware"]["smt"]),
        (&2.into(), &512.into(), &true.into()),
        "{spec}"
    );
    assert_eq!(spec["disks"][1]["settings"]["io_engine"], "Async", "{spec}");
    fs_err::write(&file, r#"{"machine-config": {"vcpus": 2}}"#).unwrap();
    let failed = reader.types(&more).exits(125);
    assert!(failed.err().contains("vcpus"), "{}", failed.err());
    // Whoever asks for Firecracker gets it or is told why not.
    let asked = format!("{line} --backend=firecracker --binary-firecracker=/absent");
    let failed = reader.types(&asked).exits(125);
    assert!(
        failed.err().contains("--binary-firecracker /absent"),
        "{}",
        failed.err()
    );
    // A file of that name in the kernel root comes first.
    let of_root = reader.at("vmlinux/vmlinux-v5.8");
    let _ = fs_err::copy(&of_catalogue, &of_root).unwrap();
    assert_eq!(kernel(&reader), of_root);
    fs_err::write(&of_root, "no kernel").unwrap();
    let failed = reader.types(&line).exits(125);
    assert!(failed.err().contains("vmlinux-v5.8"), "{}", failed.err());
}

#[test]
fn a_machine_from_ls_to_purge() {
    let reader = Reader::new();
    if missing(&["qemu-system-x86_64", "jq"]).is_some() || !with_kernel(&reader) || !builds(&reader)
    {
        return skip(
            "a_machine_from_ls_to_purge",
            "vm",
            "no QEMU, jq, kernel package or static busybox",
        );
    }
    let started = reader
        .types(&with_profiles(
            "sudo $GOPATH/bin/firebuild run \\
    --profile=standard \\
    --from=combust-labs/consul:1.9.4 \\
    --cni-network-name=machines \\
    --vmlinux-id=vmlinux-v5.8 --daemonize --log-as-json 2>&1 >/dev/null | jq -r 'select(.\"vmm-id\") | .\"vmm-id\"'",
        ))
        .ok();
    let listed = reader
        .types(&with_profiles(
            "sudo $GOPATH/bin/firebuild ls \\
    --profile=standard \\
    --log-as-json 2>&1 | jq '.id' -r",
        ))
        .ok();
    let id = listed.out().trim().to_owned();
    assert_eq!(id.len(), 64, "{}", listed.out());
    assert_eq!(started.out().trim(), id);
    // The records are where the profile says.
    assert!(Path::new(&reader.at("cache/instances")).join(&id).is_dir());
    let address = reader
        .types(&with_profiles(&format!(
            "sudo $GOPATH/bin/firebuild inspect \\
    --profile=standard \\
    --vmm-id={id} | jq '.NetworkInterfaces[0].StaticConfiguration.IPConfiguration.IP' -r"
        )))
        .ok();
    assert!(
        address.out().trim().parse::<std::net::Ipv4Addr>().is_ok(),
        "{}",
        address.out()
    );
    // Another run cache knows nothing of it, and a flag beats the profile.
    let other = reader
        .types(&with_profiles(
            "$GOPATH/bin/firebuild ls -a -q --profile=standard --run-cache=/fc/other",
        ))
        .ok();
    assert_eq!(other.out(), "");
    let _ = reader
        .types(&with_profiles(&format!(
            "sudo $GOPATH/bin/firebuild kill --profile=standard --vmm-id={id}"
        )))
        .ok();
    let purged = reader
        .types(&with_profiles(
            "sudo $GOPATH/bin/firebuild purge --profile=standard",
        ))
        .ok();
    assert!(purged.out().contains(&id[..12]), "{}", purged.out());
    assert!(!reader.at("cache/instances").join(&id).exists());
}

/// Every flag of every command of the original, in its spelling. The commands end with an error of their own, since what
/// they name does not exist; they do not end with code 2, wrong usage.
#[test]
fn every_flag_is_taken() {
    let reader = Reader::new();
    let log = "--log-level=debug --log-as-json=false --log-color=true --log-force-color --profile-conf-dir=/fc/profiles";
    let tracing = "--tracing-enable=1 --tracing-collector-host-port=127.0.0.1:6831 --tracing-log-enable=false";
    let storage = "--storage-provider=directory --storage-provider.directory.kernel-storage-root=/fc/vmlinux \
        --storage-provider.directory.rootfs-storage-root=/fc/rootfs";
    let cache = "--run-cache=/fc/cache";
    let machine = "--cni-bin-dir=/opt/cni/bin --cni-conf-dir=/etc/cni/conf.d --cni-cache-dir=/var/lib/cni --binary-firecracker=/f \
        --binary-jailer=/j --chroot-base=/srv/jailer --jailer-gid=0 --jailer-uid=0 --jailer-numa-node=0 --netns=/var/lib/netns \
        --cni-network-name=n --cpu=1 --cpu-template=T3 --ht-enabled=false --ip-address=192.168.127.100 \
        --kernel-args='console=ttyS0 noapic reboot=k panic=1 pci=off nomodules rw' --mem=128 --no-mmds=false \
        --root-drive-partuuid=x --ssh-user=alpine --vmlinux-id=vmlinux-v5.8 --log-firecracker-http-calls \
        --shutdown-graceful-timeout-seconds=30";
    for (line, code) in [
        (format!("baseos {log} {tracing} {storage} --dockerfile=/absent --filesystem-size-mbs=500 --tag=a/b:1"), 1),
        (
            format!(
                "rootfs {log} {tracing} {storage} {cache} {machine} --bootstrap-certs-key-size=2048 --bootstrap-certs-validity=5m \
                 --bootstrap-initial-communication-timeout=30s --bootstrap-server-bind-interface=eth0 --build-arg=A=b \
                 --dockerfile=/absent --dockerfile-stage=s --tag=a/b:1"
            ),
            1,
        ),
        ("rootfs --docker-image=absent.invalid/a:1 --docker-image-base=alpine:3.13 --tag=a/b:1".to_owned(), 1),
        ("rootfs --dockerfile=/absent --pre-build-command=true --post-build-command=true --tag=a/b:1".to_owned(), 1),
        (
            format!(
                "run {log} {tracing} {storage} {cache} {machine} --daemonize=true --env=A=b,c=d --env=E= --env-file=/dev/null \
                 --from=absent.invalid/a:1 --hostname=box --identity-file=/dev/null --name=x --port=1:2 -- cmd --flag"
            ),
            125,
        ),
        (format!("ls {log} {cache} {tracing}"), 0),
        (format!("purge {log} {cache} {tracing}"), 0),
        (format!("inspect {log} {cache} {tracing} --vmm-id=absent"), 1),
        (format!("kill {log} {cache} {tracing} --vmm-id=absent --shutdown-timeout=15s"), 1),
    ] {
        let done = reader.types(&format!("$GOPATH/bin/firebuild {line}"));
        assert_eq!(done.code, code, "{line}\n{}", done.err());
        assert!(!done.err().contains("Usage:"), "{line}\n{}", done.err());
    }
}
