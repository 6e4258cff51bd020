use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::{Policy, choose};
use crate::inventory::{Identity, Item, Kind};

const HOUR: Duration = Duration::from_secs(3600);

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + HOUR * 1000
}

fn item(kind: Kind, name: &str, hours: u32) -> Item {
    Item {
        kind,
        path: PathBuf::from(name),
        name: name.to_owned(),
        bytes: 100,
        last_used: now() - HOUR * hours,
        images: Vec::new(),
        records: Vec::new(),
        label: None,
        users: Vec::new(),
        dangling: false,
        identity: Identity::of(&fs_err::symlink_metadata("/").unwrap()),
    }
}

fn policy() -> Policy<'static> {
    Policy {
        all: false,
        unused_for: Duration::ZERO,
        kinds: Vec::new(),
        keep_bytes: None,
        dry_run: false,
        remove_tree: &|_| Ok(()),
    }
}

fn names<'i>(items: &'i [Item], policy: &Policy<'_>) -> Vec<&'i str> {
    choose(items, policy, now())
        .into_iter()
        .map(|index| items[index].name.as_str())
        .collect()
}

/// A layer of an image with its record, one that only a record names, and one of each other kind.
fn store() -> Vec<Item> {
    let image = vec!["app:1".to_owned()];
    let mut items = vec![
        item(Kind::Layer, "of-image", 9),
        item(Kind::Layer, "of-step", 8),
        item(Kind::Record, "k1", 9),
        item(Kind::Record, "k2", 8),
        item(Kind::Snapshot, "snapshot", 7),
        item(Kind::Artifact, "disk", 6),
        item(Kind::Artifact, "old-disk", 5),
        item(Kind::Mount, "mount", 4),
        item(Kind::Source, "source", 3),
    ];
    items[0].images.clone_from(&image);
    items[0].records.push("k1".into());
    items[1].records.push("k2".into());
    items[2].records.push("k1".into());
    items[2].images.clone_from(&image);
    items[3].records.push("k2".into());
    items[5].images = image;
    items
}

#[test]
fn what_images_and_builds_can_use_again_goes_with_all_only() {
    let items = store();
    assert_eq!(
        names(&items, &policy()),
        ["k2", "of-step", "snapshot", "old-disk", "source"]
    );
    let all = Policy {
        all: true,
        ..policy()
    };
    assert_eq!(
        names(&items, &all),
        [
            "k1", "k2", "of-step", "snapshot", "disk", "old-disk", "mount", "source"
        ]
    );
}

#[test]
fn by_age_kind_and_size() {
    let items = store();
    let old = Policy {
        unused_for: HOUR * 7,
        ..policy()
    };
    assert_eq!(names(&items, &old), ["k2", "of-step", "snapshot"]);
    let mounts = Policy {
        kinds: vec![Kind::Mount],
        ..policy()
    };
    assert_eq!(names(&items, &mounts), ["mount"]);
    // 900 bytes in all: the oldest unit brings it to 700.
    let small = Policy {
        keep_bytes: Some(700),
        ..policy()
    };
    assert_eq!(names(&items, &small), ["k2", "of-step"]);
    let enough = Policy {
        keep_bytes: Some(900),
        ..policy()
    };
    assert!(names(&items, &enough).is_empty());
}

#[test]
fn what_is_used_stays_and_what_is_of_no_use_goes() {
    let mut items = store();
    items[1].users.push("process 1".into());
    items[2].dangling = true;
    // The record of a layer that stays is of use.
    assert!(!names(&items, &policy()).contains(&"of-step"));
    assert!(names(&items, &policy()).contains(&"k1"));
}
