//! The bytes of the KVM probe's guest are those that its source gives.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests: what fails here fails the test, and skips are loud"
)]

use std::path::Path;
use std::process::Command;

/// Runs tools in a directory; says loudly when one is missing.
fn ran(test: &str, dir: &Path, steps: &[&[&str]]) -> bool {
    for step in steps {
        match Command::new(step[0])
            .args(&step[1..])
            .current_dir(dir)
            .status()
        {
            Ok(status) if status.success() => {}
            other => {
                eprintln!("SKIP {test}: {} does not run here: {other:?}", step[0]);
                return false;
            }
        }
    }
    true
}

#[test]
fn the_probes_guest_is_built_from_its_source() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/accel");
    let dir = tempfile::tempdir().unwrap();
    let (include, source) = (sources.to_str().unwrap(), sources.join("probe.S"));
    let steps: [&[&str]; 3] = [
        &[
            "as",
            "-I",
            include,
            source.to_str().unwrap(),
            "-o",
            "probe.o",
        ],
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
    if !ran(
        "the_probes_guest_is_built_from_its_source",
        dir.path(),
        &steps,
    ) {
        return;
    }
    let built = fs_err::read(dir.path().join("probe.bin")).unwrap();
    assert_eq!(built, fs_err::read(sources.join("probe.bin")).unwrap());
}

/// The layout of an ELF is the linker's business; what counts is the code and where it is entered.
#[test]
fn the_probes_kernel_is_built_from_its_source() {
    let test = "the_probes_kernel_is_built_from_its_source";
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/accel");
    let dir = tempfile::tempdir().unwrap();
    let (include, source) = (sources.to_str().unwrap(), sources.join("pvh.S"));
    let kept = sources.join("pvh.elf");
    let mut steps: Vec<Vec<&str>> = vec![
        vec!["as", "-I", include, source.to_str().unwrap(), "-o", "pvh.o"],
        vec![
            "ld",
            "-n",
            "-Ttext=0x100000",
            "-e",
            "start64",
            "--build-id=none",
            "pvh.o",
            "-o",
            "pvh.elf",
        ],
    ];
    for (elf, to) in [("pvh.elf", "built"), (kept.to_str().unwrap(), "kept")] {
        for section in [".text", ".note.pvh"] {
            let name: &str = Box::leak(format!("{to}{section}").into_boxed_str());
            steps.push(vec!["objcopy", "-O", "binary", "-j", section, elf, name]);
        }
    }
    let steps: Vec<&[&str]> = steps.iter().map(Vec::as_slice).collect();
    if !ran(test, dir.path(), &steps) {
        return;
    }
    for section in [".text", ".note.pvh"] {
        let read = |to: &str| fs_err::read(dir.path().join(format!("{to}{section}"))).unwrap();
        assert_eq!(read("built"), read("kept"), "{section}");
        assert!(!read("built").is_empty());
    }
}
