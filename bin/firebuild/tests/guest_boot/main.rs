//! The guest init in real machines: bare QEMU under TCG, the distribution's kernel, busybox as the application.
//!
//! Needs `qemu-system-x86_64`, `busybox` (static), `mke2fs` and a kernel package (`FIREBUILD_TEST_KERNEL_DEB`).

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests are tests to us, though not to clippy"
)]
#![expect(
    clippy::print_stderr,
    reason = "a skip must be seen; CI counts these lines"
)]

mod application;
mod disks;
mod early;
mod guest;

use std::sync::OnceLock;

use firebuild_guest_proto::{Channel, LogLevel, RootLayout, RunConfig};

use guest::initrd::Archive;
use guest::kernel::Kernel;
use guest::machine::{Machine, Parts};

/// The kernel, unpacked once for all tests; or why there is none.
fn kernel() -> Result<&'static Kernel, &'static str> {
    static KERNEL: OnceLock<Result<Kernel, String>> = OnceLock::new();
    let kernel = KERNEL.get_or_init(|| missing_tool().map_or_else(Kernel::of_package, Err));
    kernel.as_ref().map_err(String::as_str)
}

fn missing_tool() -> Option<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |tool: &&str| {
        std::env::split_paths(&path)
            .chain(["/usr/sbin".into()])
            .any(|directory| directory.join(tool).is_file())
    };
    let tools = ["qemu-system-x86_64", "busybox", "mke2fs", "dpkg-deb"];
    tools
        .iter()
        .find(|tool| !is_there(tool))
        .map(|tool| format!("{tool} is not installed"))
}

/// The kernel, or a skip that is seen.
fn kernel_or_skip(test: &str) -> Option<&'static Kernel> {
    match kernel() {
        Ok(kernel) => Some(kernel),
        Err(reason) => {
            let required = std::env::var("FIREBUILD_TEST_REQUIRE").unwrap_or_default();
            assert!(
                !required.split(',').any(|word| word == "vm"),
                "{test} needs a machine: {reason}"
            );
            eprintln!("SKIP {test}: {reason}");
            None
        }
    }
}

fn busybox() -> Vec<u8> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|directory| directory.join("busybox"))
        .find(|path| path.is_file());
    fs_err::read(found.unwrap()).unwrap()
}

/// An initrd whose root is the application's.
fn busybox_initrd() -> Archive {
    let mut archive = Archive::default();
    for directory in ["/bin", "/etc", "/tmp"] {
        archive.directory(directory);
    }
    archive.file("/bin/busybox", 0o755, &busybox());
    archive.symlink("/bin/sh", "busybox");
    archive
}

fn config(script: &str, root: RootLayout) -> RunConfig {
    let argv = ["/bin/busybox", "sh", "-c", script]
        .map(str::to_owned)
        .to_vec();
    let mut config = RunConfig::new(argv, "guest".to_owned(), root, Channel::virtio_serial());
    config.log_level = LogLevel::Debug;
    config
}

fn boot_initrd(kernel: &Kernel, config: RunConfig) -> Machine {
    Machine::start(
        kernel,
        config,
        Parts {
            extra: Some(busybox_initrd()),
            ..Parts::default()
        },
    )
}
