use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::{Owner, Place, remainders};
use crate::plan::Access;
use crate::remainder::Remainder;

const OWNER: Owner = Owner {
    uid: 61_001,
    gid: 61_002,
};

fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIP {test}: needs root");
    }
    root
}

fn own(path: PathBuf) -> Place {
    Place::Directory {
        path,
        mode: 0o711,
        owner: None,
    }
}

fn make(places: &[Place]) {
    for place in places {
        place.make().unwrap();
    }
}

/// What the end of a machine does.
fn undo(places: &[Place], jail: &Path) {
    for remainder in remainders(places) {
        remainder.remove().unwrap();
    }
    let jail = Remainder::Directory {
        path: jail.to_owned(),
    };
    jail.remove().unwrap();
}

#[test]
fn directories_are_made_with_their_rights() {
    let base = tempfile::tempdir().unwrap();
    let places = [
        Place::Shared {
            path: base.path().join("a/b"),
        },
        own(base.path().join("a/b/c")),
        // The one above it has gone meanwhile, since it was empty: another machine's end did that.
        own(base.path().join("gone/d")),
    ];
    make(&places);
    for name in ["a/b/c", "gone/d"] {
        let found = fs::metadata(base.path().join(name)).unwrap();
        assert_eq!(found.permissions().mode() & 0o7777, 0o711);
    }
}

#[test]
fn a_directory_that_is_there_is_not_taken_over() {
    let base = tempfile::tempdir().unwrap();
    let error = own(base.path().to_owned()).make().unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("cannot make the directory {}", base.path().display())
    );
}

#[test]
fn files_are_seen_with_the_rights_of_their_user() {
    if !is_root("files_are_seen_with_the_rights_of_their_user") {
        return;
    }
    let base = tempfile::tempdir().unwrap();
    let file = |name: &str| {
        let path = base.path().join(name);
        fs::write(&path, name).unwrap();
        fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    };
    let (image, scratch) = (file("image"), file("scratch"));
    let jail = base.path().join("jail");
    let seen = |name: &str, source: &Path, access| Place::Seen {
        path: jail.join(name),
        source: source.to_owned(),
        owner: OWNER,
        access,
    };
    let places = [
        own(jail.clone()),
        seen("disk0", &image, Access::Read),
        seen("disk1", &scratch, Access::ReadWrite),
    ];
    make(&places);
    let found = fs::metadata(jail.join("disk0")).unwrap();
    assert_eq!(
        (found.uid(), found.mode() & 0o777, found.nlink()),
        (0, 0o644, 2)
    );
    let found = fs::metadata(jail.join("disk1")).unwrap();
    assert_eq!((found.uid(), found.gid()), (OWNER.uid, OWNER.gid));
    undo(&places, &jail);
    assert_eq!(fs::read(&image).unwrap(), b"image", "the file itself stays");
    assert_eq!(fs::metadata(&scratch).unwrap().nlink(), 1);
    assert!(!jail.exists());
}

#[test]
fn memory_and_other_file_systems_are_mounted_and_gone() {
    if !is_root("memory_and_other_file_systems_are_mounted_and_gone") {
        return;
    }
    let base = tempfile::tempdir().unwrap();
    let memory = base.path().join("memory");
    let places = [
        Place::Memory {
            path: memory.clone(),
        },
        // Out of memory into the directory beside it: no link can lead there.
        Place::Seen {
            path: base.path().join("seen"),
            source: memory.join("file"),
            owner: OWNER,
            access: Access::Read,
        },
    ];
    places[0].make().unwrap();
    assert_ne!(
        fs::metadata(&memory).unwrap().dev(),
        fs::metadata(base.path()).unwrap().dev()
    );
    fs::write(memory.join("file"), "text").unwrap();
    places[1].make().unwrap();
    let seen = base.path().join("seen");
    assert_eq!(fs::read(&seen).unwrap(), b"text");
    let refused = fs::write(&seen, "other").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    undo(&places, base.path());
    assert!(!base.path().exists());
}
