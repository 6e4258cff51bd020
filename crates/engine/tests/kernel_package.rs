//! A real distribution kernel goes through `kernel import`.
//!
//! The package is taken from `FIREBUILD_TEST_KERNEL_DEB`, from an earlier download in
//! `target/test-cache`, or is fetched by `apt-get download`.

use std::path::{Path, PathBuf};
use std::process::Command;

use firebuild_engine::kernel::{Catalogue, Presence, Purpose, Request, Source, import};
use firebuild_engine::paths::Paths;

#[expect(clippy::print_stderr, reason = "a skip must be seen")]
fn skip(test: &str, need: &str, reason: &str) {
    let required = std::env::var("FIREBUILD_TEST_REQUIRE").unwrap_or_default();
    assert!(
        !required.split(',').any(|name| name.trim() == need),
        "{test} was skipped, but FIREBUILD_TEST_REQUIRE names {need}: {reason}"
    );
    eprintln!("SKIP {test}: {reason}");
}

fn kernel_package() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("FIREBUILD_TEST_KERNEL_DEB") {
        return Ok(PathBuf::from(path));
    }
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/test-cache");
    fs_err::create_dir_all(&cache).map_err(|error| error.to_string())?;
    let cached = || {
        let entries = fs_err::read_dir(&cache).ok()?;
        entries
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .find(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                name.starts_with("linux-image-") && name.ends_with("_amd64.deb")
            })
    };
    if let Some(path) = cached() {
        return Ok(path);
    }
    let depends = run(Command::new("apt-cache").args(["depends", "linux-image-cloud-amd64"]))?;
    let package = depends
        .split_ascii_whitespace()
        .find(|word| word.starts_with("linux-image-") && *word != "linux-image-cloud-amd64")
        .ok_or("apt knows no linux-image-cloud-amd64")?
        .to_owned();
    // Into a directory of its own first: a download that breaks off must not look like a package.
    let aside = tempfile::tempdir_in(&cache).map_err(|error| error.to_string())?;
    run(Command::new("apt-get")
        .args(["download", "-q", &package])
        .current_dir(aside.path()))?;
    for entry in fs_err::read_dir(aside.path()).map_err(|error| error.to_string())? {
        let entry = entry.map_err(|error| error.to_string())?;
        fs_err::rename(entry.path(), cache.join(entry.file_name()))
            .map_err(|error| error.to_string())?;
    }
    cached().ok_or_else(|| format!("apt-get download {package} gave no package"))
}

fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_debian_kernel_package_is_imported() {
    let package = match kernel_package() {
        Ok(package) => package,
        Err(reason) => {
            skip(
                "a_debian_kernel_package_is_imported",
                "tool:apt-get",
                &reason,
            );
            return;
        }
    };
    let dir = tempfile::tempdir().unwrap();
    let paths = Paths::under(dir.path());
    let request = Request {
        source: Source::Files(vec![package]),
        id: None,
    };
    let mut events = Vec::new();
    let kernel = import(&paths, &request, &mut |event| events.push(event))
        .unwrap()
        .kernel;

    assert_eq!(kernel.unfit(), None, "{events:?}");
    assert!(kernel.pvh);
    assert!(kernel.banner.contains("debian"), "{}", kernel.banner);
    assert!(kernel.release.ends_with("amd64"), "{}", kernel.release);
    for purpose in [
        Purpose::Pci,
        Purpose::Mmio,
        Purpose::Disk,
        Purpose::Filesystem,
        Purpose::Overlay,
        Purpose::Network,
        Purpose::Console,
        Purpose::Channel,
        Purpose::Vsock,
        Purpose::Random,
        Purpose::Extra,
    ] {
        let presence = kernel.presence(purpose);
        assert!(
            matches!(presence, Presence::Builtin | Presence::Module),
            "{purpose:?} is {presence:?}"
        );
    }

    // Each module comes after everything it depends on, as the kernel itself will demand.
    let place = |name: &str| kernel.modules.iter().position(|m| m.name == name);
    for (first, second) in [
        ("virtio_ring", "virtio_blk"),
        ("virtio", "virtio_blk"),
        ("virtio_pci_modern_dev", "virtio_pci"),
        ("failover", "net_failover"),
        ("net_failover", "virtio_net"),
        ("vsock", "vmw_vsock_virtio_transport"),
    ] {
        if let (Some(first_at), Some(second_at)) = (place(first), place(second)) {
            assert!(first_at < second_at, "{first} comes after {second}");
        }
    }
    for (module, path) in kernel.modules_for(&[Purpose::Disk, Purpose::Overlay]) {
        let content = fs_err::read(&path).unwrap();
        assert!(content.starts_with(b"\x7fELF"), "{}", module.file);
    }

    let vmlinux = fs_err::read(kernel.vmlinux()).unwrap();
    assert_eq!(vmlinux.len() as u64, kernel.size);
    assert_eq!(Catalogue::new(&paths).find(None).unwrap(), kernel);
}
