use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{MAX_SOCKET_PATH_BYTES, RunDir, RunDirErrorKind, is_alive, reclaim};

#[test]
fn a_run_dir_is_private_locked_and_gone_in_the_end() {
    let base = tempfile::tempdir().unwrap();
    let base = base.path().join("run");
    let dir = RunDir::create(&base, "0123456789abcdef").unwrap();
    assert_eq!(dir.path(), base.join("0123456789ab"));
    let mode = fs_err::metadata(dir.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    assert_eq!(dir.user().is_some(), rustix::process::geteuid().is_root());
    assert!(is_alive(dir.path()).unwrap());
    assert_eq!(
        reclaim(dir.path()).unwrap_err().kind(),
        RunDirErrorKind::InUse
    );
    assert_eq!(
        RunDir::create(&base, "0123456789abXX").unwrap_err().kind(),
        RunDirErrorKind::InUse
    );
    let path = dir.path().to_owned();
    dir.remove().unwrap();
    assert!(!path.exists());
    assert!(!is_alive(&path).unwrap());
}

#[test]
fn what_a_dead_machine_left_is_taken_over() {
    let base = tempfile::tempdir().unwrap();
    let dir = RunDir::create(base.path(), "dead").unwrap();
    fs_err::write(dir.path().join("control.sock"), "").unwrap();
    let path = dir.path().to_owned();
    // As a killed owner: the lock goes, the directory stays.
    drop(dir);
    assert!(path.exists() && !is_alive(&path).unwrap());
    let next = RunDir::create(base.path(), "dead").unwrap();
    assert!(!path.join("control.sock").exists());
    drop(next);
    reclaim(&path).unwrap();
    assert!(!path.exists());
    reclaim(&path).unwrap();
}

#[test]
fn long_paths_are_refused_with_number_and_remedy() {
    let base = format!(
        "/{}",
        "r".repeat(MAX_SOCKET_PATH_BYTES - "//id/control.sock".len())
    );
    let dir = RunDir::dry(Path::new(&base), "id", None).unwrap();
    assert_eq!(
        dir.socket("control.sock").unwrap().as_os_str().len(),
        MAX_SOCKET_PATH_BYTES
    );
    let error = RunDir::dry(Path::new(&format!("{base}x")), "id", None).unwrap_err();
    assert_eq!(error.kind(), RunDirErrorKind::PathTooLong { bytes: 108 });
    let text = error.to_string();
    assert!(
        text.contains("has 108 bytes")
            && text.contains("at most 107")
            && text.contains("XDG_RUNTIME_DIR"),
        "{text}"
    );
}

#[test]
fn a_base_that_others_write_to_is_refused() {
    let base = tempfile::tempdir().unwrap();
    fs_err::set_permissions(base.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(
        RunDir::create(base.path(), "x").unwrap_err().kind(),
        RunDirErrorKind::Unsafe
    );
    let link = base.path().join("link");
    std::os::unix::fs::symlink("/tmp", &link).unwrap();
    assert_eq!(
        RunDir::create(&link, "x").unwrap_err().kind(),
        RunDirErrorKind::Unsafe
    );
}

#[test]
fn names_stay_inside_the_base() {
    for name in ["", "..", "a/b", "\u{e4}", "."] {
        assert_eq!(
            RunDir::place(Path::new("/run"), name).unwrap_err().kind(),
            RunDirErrorKind::Name,
            "{name:?}"
        );
    }
}
