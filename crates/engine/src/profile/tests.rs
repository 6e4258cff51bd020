use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Created, Profile, ProfileDir, ProfileErrorKind, create, inspect, ls, rm};
use crate::config::Environment;

fn place(dir: &Path) -> ProfileDir {
    ProfileDir::resolve(Some(&dir.join("etc/profiles")), &Environment::default()).unwrap()
}

#[test]
fn the_file_has_the_keys_of_the_original() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path());
    let profile = Profile {
        run_cache: "/fc/cache".to_owned(),
        storage_provider: "directory".to_owned(),
        storage_strings: BTreeMap::from([
            ("rootfs-storage-root".to_owned(), "/fc/rootfs".to_owned()),
            ("kernel-storage-root".to_owned(), "/fc/vmlinux".to_owned()),
        ]),
        tracing_enable: true,
        ..Profile::default()
    };
    assert_eq!(
        create(&place, "Standard", profile.clone(), false).unwrap(),
        Created::New
    );
    let file = dir.path().join("etc/profiles/standard");
    assert_eq!(
        fs_err::read_to_string(&file).unwrap(),
        "{\"run-cache\":\"/fc/cache\",\"storage-provider\":\"directory\",\
         \"storage-profile-config-strings\":{\"kernel-storage-root\":\"/fc/vmlinux\",\
         \"rootfs-storage-root\":\"/fc/rootfs\"},\"tracing-enable\":true}"
    );
    assert_eq!(fs_err::metadata(&file).unwrap().mode() & 0o777, 0o644);
    let loaded = place.load("STANDARD").unwrap();
    assert_eq!(loaded, profile);
    assert_eq!(loaded.kernel_root(), Some(PathBuf::from("/fc/vmlinux")));
    assert!(
        inspect(&place, "standard")
            .unwrap()
            .contains("\n  \"run-cache\": \"/fc/cache\",")
    );
}

#[test]
fn a_second_create_updates_and_says_what_it_did() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path());
    let first = Profile {
        run_cache: "/a".to_owned(),
        ..Profile::default()
    };
    let second = Profile {
        tracing_enable: true,
        ..Profile::default()
    };
    assert_eq!(
        create(&place, "p", first.clone(), false).unwrap(),
        Created::New
    );
    assert_eq!(
        create(&place, "p", first, false).unwrap(),
        Created::Unchanged
    );
    assert_eq!(
        create(&place, "p", second.clone(), false).unwrap(),
        Created::Updated
    );
    assert_eq!(place.load("p").unwrap(), second);

    fs_err::write(place.path().join("p"), "not JSON").unwrap();
    let error = create(&place, "p", second.clone(), false).unwrap_err();
    assert_eq!(error.kind(), ProfileErrorKind::Corrupt);
    assert_eq!(create(&place, "p", second, true).unwrap(), Created::Updated);
}

#[test]
fn values_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path());
    let absent = dir.path().join("absent").display().to_string();
    let short = PathBuf::from("/tmp").display().to_string();
    let good = [
        Profile::default(),
        // The records' directory may be made later.
        Profile {
            run_cache: absent.clone(),
            ..Profile::default()
        },
        Profile {
            chroot_base: short,
            ..Profile::default()
        },
    ];
    for profile in good {
        create(&place, "good", profile, false).unwrap();
    }
    let bad = [
        Profile {
            binary_firecracker: absent.clone(),
            ..Profile::default()
        },
        Profile {
            binary_jailer: "/tmp".to_owned(),
            ..Profile::default()
        },
        Profile {
            chroot_base: "/does/not/exist".to_owned(),
            ..Profile::default()
        },
        Profile {
            chroot_base: format!("/{}", "c".repeat(65)),
            ..Profile::default()
        },
        Profile {
            run_cache: "/".to_owned(),
            ..Profile::default()
        },
        Profile {
            run_cache: "/etc/passwd".to_owned(),
            ..Profile::default()
        },
        Profile {
            storage_provider: "s3".to_owned(),
            ..Profile::default()
        },
    ];
    for profile in bad {
        let error = create(&place, "bad", profile, false).unwrap_err();
        assert_eq!(error.kind(), ProfileErrorKind::Value, "{error}");
    }
    assert_eq!(ls(&place).unwrap().names, ["good"]);
}

#[test]
fn names_stay_in_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path());
    for name in ["", ".", "..", "../x", "a/b", ".hidden", "a b", "ä"] {
        let error = create(&place, name, Profile::default(), false).unwrap_err();
        assert_eq!(error.kind(), ProfileErrorKind::Name, "{name:?}");
        assert_eq!(rm(&place, name).unwrap_err().kind(), ProfileErrorKind::Name);
    }
}

#[test]
fn listing_and_removing() {
    let dir = tempfile::tempdir().unwrap();
    let place = place(dir.path());
    assert!(ls(&place).unwrap().names.is_empty());
    assert_eq!(
        place.load("a").unwrap_err().kind(),
        ProfileErrorKind::NotFound
    );
    for name in ["b", "a"] {
        create(&place, name, Profile::default(), false).unwrap();
    }
    fs_err::write(place.path().join("broken"), "{").unwrap();
    fs_err::write(place.path().join(".tmp-x"), "{}").unwrap();
    let listing = ls(&place).unwrap();
    assert_eq!(listing.names, ["a", "b"]);
    assert_eq!(listing.broken.len(), 1);
    rm(&place, "A").unwrap();
    let error = rm(&place, "a").unwrap_err();
    assert_eq!(error.kind(), ProfileErrorKind::NotFound);
    assert!(error.to_string().contains("there are: b"), "{error}");
}

#[test]
fn directories_by_user() {
    let mut environment = Environment {
        uid: 0,
        ..Environment::default()
    };
    let dir =
        |environment: &Environment| ProfileDir::resolve(None, environment).map(|place| place.dir);
    assert_eq!(
        dir(&environment).unwrap(),
        PathBuf::from("/etc/firebuild/profiles")
    );
    environment.uid = 1000;
    assert_eq!(dir(&environment).unwrap_err().kind(), ProfileErrorKind::Io);
    environment.user_home = Some("/home/ann".into());
    assert_eq!(
        dir(&environment).unwrap(),
        PathBuf::from("/home/ann/.config/firebuild/profiles")
    );
    environment.xdg_config = Some("/xdg".into());
    assert_eq!(
        dir(&environment).unwrap(),
        PathBuf::from("/xdg/firebuild/profiles")
    );
}
