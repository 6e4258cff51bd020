//! Which platforms' programs this machine can execute: its own, and those that binfmt_misc has an interpreter for.
//!
//! A step runs in the root file system of its image, where the interpreter is not. The kernel finds it all the same when
//! it was registered with the flag `F`, which opens it at that time (Documentation/admin-guide/binfmt-misc.rst). What is
//! registered without the flag does not count.

use std::path::Path;

use firebuild_oci::Platform;

const BINFMT: &str = "/proc/sys/fs/binfmt_misc";

/// Platforms that RUN can execute.
pub(super) fn executable() -> Vec<Platform> {
    let host = Platform::host();
    let mut platforms = registered(Path::new(BINFMT));
    // A 64-bit kernel for PCs executes 32-bit programs itself.
    if host.os == "linux" && host.architecture == "amd64" {
        platforms.push(Platform::linux("386"));
    }
    platforms.push(host);
    platforms
}

/// The platforms of the interpreters in a binfmt_misc directory.
fn registered(directory: &Path) -> Vec<Platform> {
    let Ok(entries) = fs_err::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| fs_err::read_to_string(entry.path()).ok())
        .filter_map(|text| architecture(&text))
        .map(Platform::linux)
        .collect()
}

/// The architecture that an entry stands for, if it is switched on and works in another root.
fn architecture(entry: &str) -> Option<&'static str> {
    let mut lines = entry.lines();
    if lines.next()? != "enabled" {
        return None;
    }
    let mut magic = None;
    let (mut fixed, mut at_start) = (false, true);
    for line in lines {
        match line.split_once(' ') {
            Some(("flags:", flags)) => fixed = flags.contains('F'),
            Some(("offset", offset)) => at_start = offset.trim() == "0",
            Some(("magic", text)) => magic = bytes(text.trim()),
            _ => {}
        }
    }
    let magic = magic.filter(|_| fixed && at_start)?;
    // ELF: class and byte order stand in e_ident, the machine at 18 (elf(5)).
    let is_elf = magic.get(..4)? == b"\x7fELF";
    let (class, order) = (*magic.get(4)?, *magic.get(5)?);
    let machine = [*magic.get(18)?, *magic.get(19)?];
    let (machine, little) = match order {
        1 => (u16::from_le_bytes(machine), true),
        2 => (u16::from_be_bytes(machine), false),
        _ => return None,
    };
    if !is_elf {
        return None;
    }
    Some(match (machine, class, little) {
        (3, 1, true) => "386",
        (62, 2, true) => "amd64",
        (40, 1, true) => "arm",
        (183, 2, true) => "arm64",
        (243, 2, true) => "riscv64",
        (21, 2, true) => "ppc64le",
        (21, 2, false) => "ppc64",
        (22, 2, false) => "s390x",
        (258, 2, true) => "loong64",
        (8, 2, true) => "mips64le",
        (8, 2, false) => "mips64",
        (8, 1, true) => "mipsle",
        (8, 1, false) => "mips",
        _ => return None,
    })
}

/// The bytes of a row of hexadecimal digits.
fn bytes(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    digits
        .chunks(2)
        .map(|pair| {
            let pair = std::str::from_utf8(pair).ok().filter(|p| p.len() == 2)?;
            u8::from_str_radix(pair, 16).ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::registered;

    #[test]
    fn entries() {
        let dir = tempfile::tempdir().unwrap();
        let entry = |state: &str, flags: &str, magic: &str| {
            format!(
                "{state}\ninterpreter /usr/libexec/qemu\nflags: {flags}\noffset 0\nmagic {magic}\nmask ff\n"
            )
        };
        let arm64 = "7f454c460201010000000000000000000200b700";
        let s390x = "7f454c4602020100000000000000000000020016";
        for (name, text) in [
            ("qemu-aarch64", entry("enabled", "OCF", arm64)),
            ("qemu-s390x", entry("enabled", "F", s390x)),
            ("off", entry("disabled", "F", &arm64.replace("b7", "f3"))),
            (
                "unfixed",
                entry("enabled", "OC", &arm64.replace("b7", "f3")),
            ),
            ("java", entry("enabled", "F", "cafebabe")),
            ("odd", entry("enabled", "F", "7f4")),
            ("status", "enabled\n".to_owned()),
        ] {
            fs_err::write(dir.path().join(name), text).unwrap();
        }
        let mut found: Vec<String> = registered(dir.path())
            .iter()
            .map(ToString::to_string)
            .collect();
        found.sort();
        assert_eq!(found, ["linux/arm64", "linux/s390x"]);
        assert!(registered(&dir.path().join("absent")).is_empty());
    }
}
