//! What the oracle tests share: tools, skips, and trees on disk.

#![allow(clippy::print_stderr, reason = "a skipped test says so")]

use std::path::Path;
use std::process::{Command, Output};

/// Whether the test can run. Prints why not, or fails when `FIREBUILD_TEST_REQUIRE` asks for what is missing.
pub(crate) fn needs(test: &str, needs: &[&str]) -> bool {
    let required = std::env::var("FIREBUILD_TEST_REQUIRE").unwrap_or_default();
    for need in needs {
        let there = match need.strip_prefix("tool:") {
            Some(tool) => has_tool(tool),
            None if *need == "loop" => Path::new("/dev/loop-control").exists(),
            None => *need == "root" && rustix::process::geteuid().is_root(),
        };
        if !there {
            assert!(
                !required.split(',').any(|r| r == *need),
                "{test} needs {need} and is required to run"
            );
            eprintln!("SKIP {test}: needs {need}");
            return false;
        }
    }
    true
}

fn has_tool(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(tool).is_file())
}

/// Runs a shell command in a directory and expects it to succeed.
#[allow(dead_code, reason = "not every test file runs commands")]
pub(crate) fn sh(dir: &Path, command: &str) -> Output {
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", command])
        .current_dir(dir)
        .env("LC_ALL", "C")
        .output()
        .expect("bash runs");
    assert!(
        output.status.success(),
        "{command}\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// A tree with everything that a file system can hold and an archive should.
#[allow(dead_code, reason = "not every test file needs it")]
pub(crate) const TORTURE: &str = r#"
mkdir -p d/sub d/$(printf 'n%.0s' {1..100})/$(printf 'm%.0s' {1..120}) 'blank dir'
echo hello > d/f; ln d/f link; ln d/f d/sub/link2
: > empty; head -c 100000 /dev/urandom > random
ln -s d/f sym; ln -s /nowhere/$(printf 'x%.0s' {1..200}) dangling; ln -s é 'sym é'
ln d/f $'new\nline'; : > $'\xff\xfe raw'; : > é; : > "$(printf 'y%.0s' {1..255})"
mkdir -p deep/$(printf 'p/%.0s' {1..100}); echo x > deep/$(printf 'p/%.0s' {1..100})file
truncate -s 20M sparse; printf begin | dd of=sparse conv=notrunc status=none
printf middle | dd of=sparse bs=1 seek=10000000 conv=notrunc status=none
truncate -s 1M hole
mkfifo fifo; mknod char c 1 3; mknod block b 259 70000
chmod 4755 d/f; chmod 2711 d/sub; chmod 1777 'blank dir'; chmod 0 empty
chown 1000:2000 random; chown 3000000:4000000000 é; chown -h 5:6 sym
setfattr -n user.plain -v value d/f; setfattr -n user.bin -v 0x000a3d25ff d/sub
setfattr -n 'user.odd=%name' -v x empty; setfattr -h -n trusted.sym -v y sym
setfattr -n user.big -v 0x$(printf 'ab%.0s' {1..3000}) random
setfacl -m u:1000:r,g:2000:w random; setfacl -d -m u:1000:rwx d/sub
setcap cap_net_raw+ep d/f
touch -d '1965-03-01 01:02:03.123456789 UTC' empty; touch -d '2120-01-01 00:00:00.000000001 UTC' random
touch -h -d '2001-01-01 UTC' sym; touch -d '1970-01-01 00:00:00 UTC' hole d/sub d
"#;
