//! The bytes of the KVM probe's guest are those that its source gives.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests: what fails here fails the test, and skips are loud"
)]

use std::path::Path;
use std::process::Command;

#[test]
fn the_probes_guest_is_built_from_its_source() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/accel/probe.S");
    let dir = tempfile::tempdir().unwrap();
    let steps: [&[&str]; 3] = [
        &["as", source.to_str().unwrap(), "-o", "probe.o"],
        &[
            "ld",
            "-Ttext=0xf0000",
            "-e",
            "0xf0000",
            "probe.o",
            "-o",
            "probe.elf",
        ],
        &[
            "objcopy",
            "-O",
            "binary",
            "-j",
            ".text",
            "probe.elf",
            "probe.bin",
        ],
    ];
    for step in steps {
        match Command::new(step[0])
            .args(&step[1..])
            .current_dir(dir.path())
            .status()
        {
            Ok(status) if status.success() => {}
            other => {
                eprintln!(
                    "SKIP the_probes_guest_is_built_from_its_source: {} does not run here: {other:?}",
                    step[0]
                );
                return;
            }
        }
    }
    let built = fs_err::read(dir.path().join("probe.bin")).unwrap();
    assert_eq!(built, fs_err::read(source.with_extension("bin")).unwrap());
}
