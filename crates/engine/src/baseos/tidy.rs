//! What bootstrap tools leave behind and official images do not have, and what those have beside it.
//!
//! The small apt and dpkg settings are what images from registries carry and what Dockerfiles count
//! on: `rm -f /etc/apt/apt.conf.d/docker-clean` stands in many of them.

use firebuild_rootfs::tree::{Content, Follow, Inode, InodeId, Kind, Meta, Time, Tree, TreeError};

/// Directories of which nothing stays.
const EMPTIED: &[&str] = &[
    "dev",
    "proc",
    "sys",
    "tmp",
    "var/tmp",
    "var/lib/apt/lists",
    "var/cache/ldconfig",
];

/// Directories of which only the directories stay.
const WITHOUT_FILES: &[&str] = &["run", "var/cache/apt", "var/log/apt"];

/// Files of this build or of the host it ran on.
const REMOVED: &[&str] = &[
    "etc/.pwd.lock",
    "etc/apt/apt.conf.d/99mmdebstrap",
    "etc/group-",
    "etc/gshadow-",
    "etc/hostname",
    "etc/passwd-",
    "etc/resolv.conf",
    "etc/shadow-",
    "etc/subgid-",
    "etc/subuid-",
    "var/cache/debconf/config.dat-old",
    "var/cache/debconf/templates.dat-old",
    "var/lib/dbus/machine-id",
    "var/lib/dpkg/diversions-old",
    "var/lib/dpkg/statoverride-old",
    "var/lib/dpkg/status-old",
    "var/lib/systemd/random-seed",
    "var/log/alternatives.log",
    "var/log/bootstrap.log",
    "var/log/dpkg.log",
];

/// Takes away what belongs to the build and not to the system.
pub(crate) fn tidy(tree: &mut Tree) -> Result<(), TreeError> {
    for path in EMPTIED {
        if let Some(dir) = find(tree, path) {
            tree.clear(dir)?;
        }
    }
    for path in WITHOUT_FILES {
        if let Some(dir) = find(tree, path) {
            remove_files(tree, dir)?;
        }
    }
    for path in REMOVED {
        remove(tree, path)?;
    }
    // An empty file: the system takes a machine id of its own when it first boots.
    if find(tree, "etc/machine-id").is_some() {
        put(tree, "etc/machine-id", 0o444, "", Time::default())?;
    }
    Ok(())
}

/// Gives an image the habits that Dockerfiles expect of a base.
pub(crate) fn docker_habits(tree: &mut Tree, now: Time) -> Result<(), TreeError> {
    const CLEAN: &str = "rm -f /var/cache/apt/archives/*.deb \
                         /var/cache/apt/archives/partial/*.deb /var/cache/apt/*.bin || true";
    let clean = format!(
        "DPkg::Post-Invoke {{ \"{CLEAN}\"; }};\nAPT::Update::Post-Invoke {{ \"{CLEAN}\"; }};\n\
         Dir::Cache::pkgcache \"\";\nDir::Cache::srcpkgcache \"\";\n"
    );
    let files: [(&str, u16, &str); 6] = [
        // Nobody starts a service while an image is built.
        ("usr/sbin/policy-rc.d", 0o755, "#!/bin/sh\nexit 101\n"),
        ("etc/apt/apt.conf.d/docker-clean", 0o644, &clean),
        (
            "etc/apt/apt.conf.d/docker-no-languages",
            0o644,
            "Acquire::Languages \"none\";\n",
        ),
        (
            "etc/apt/apt.conf.d/docker-gzip-indexes",
            0o644,
            "Acquire::GzipIndexes \"true\";\n",
        ),
        (
            "etc/apt/apt.conf.d/docker-autoremove-suggests",
            0o644,
            "Apt::AutoRemove::SuggestsImportant \"false\";\n",
        ),
        (
            "etc/dpkg/dpkg.cfg.d/docker-apt-speedup",
            0o644,
            "force-unsafe-io\n",
        ),
    ];
    for (path, mode, content) in files {
        put(tree, path, mode, content, now)?;
    }
    Ok(())
}

/// What is at a path, if anything is; links on the way are followed.
pub(crate) fn find(tree: &Tree, path: &str) -> Option<InodeId> {
    tree.lookup(path.as_bytes(), Follow::ButLast).ok()
}

/// Removes what is at a path, if anything is.
pub(crate) fn remove(tree: &mut Tree, path: &str) -> Result<(), TreeError> {
    if find(tree, path).is_none() {
        return Ok(());
    }
    let (dir, name) = tree.lookup_parent(path.as_bytes())?;
    tree.remove(dir, &name)
}

/// Writes a small file of root's; directories on the way are made.
pub(crate) fn put(
    tree: &mut Tree,
    path: &str,
    mode: u16,
    content: &str,
    now: Time,
) -> Result<(), TreeError> {
    let kind = Kind::File(Content::from_bytes(content.as_bytes()));
    place(tree, path, mode, kind, now)
}

/// Puts a node of root's at a path, in place of what is there.
pub(crate) fn place(
    tree: &mut Tree,
    path: &str,
    mode: u16,
    kind: Kind,
    now: Time,
) -> Result<(), TreeError> {
    let meta = |mode| Meta {
        mode,
        mtime: now,
        ..Meta::default()
    };
    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    let template = Inode::new(meta(0o755), Inode::dir(0o755).kind);
    let dir = tree.make_dirs(parent.as_bytes(), &template)?;
    let name = path.rsplit('/').next().unwrap_or_default();
    tree.replace(dir, name.as_bytes(), Inode::new(meta(mode), kind))?;
    Ok(())
}

/// Removes everything but directories below a directory.
fn remove_files(tree: &mut Tree, dir: InodeId) -> Result<(), TreeError> {
    let mut pending = vec![dir];
    while let Some(dir) = pending.pop() {
        let Some(children) = tree[dir].children().cloned() else {
            continue;
        };
        for (name, id) in children {
            if tree[id].is_dir() {
                pending.push(id);
            } else {
                tree.remove(dir, &name)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use firebuild_rootfs::tree::{Kind, Time, Tree};

    use super::{docker_habits, find, put, tidy};

    fn tree(files: &[&str]) -> Tree {
        let mut tree = Tree::new();
        for file in files {
            put(&mut tree, file, 0o644, "x", Time::default()).unwrap();
        }
        tree
    }

    #[test]
    fn what_belongs_to_the_build_goes_and_the_rest_stays() {
        let mut tree = tree(&[
            "dev/null",
            "var/lib/apt/lists/partial/x",
            "var/cache/apt/archives/partial/y.deb",
            "var/cache/apt/pkgcache.bin",
            "etc/resolv.conf",
            "etc/machine-id",
            "etc/passwd",
            "var/log/lastlog",
        ]);
        tidy(&mut tree).unwrap();
        for gone in [
            "dev/null",
            "var/lib/apt/lists/partial",
            "var/cache/apt/pkgcache.bin",
            "var/cache/apt/archives/partial/y.deb",
            "etc/resolv.conf",
        ] {
            assert!(find(&tree, gone).is_none(), "{gone}");
        }
        for here in [
            "dev",
            "var/lib/apt/lists",
            "var/cache/apt/archives/partial",
            "etc/passwd",
            "var/log/lastlog",
        ] {
            assert!(find(&tree, here).is_some(), "{here}");
        }
        let id = find(&tree, "etc/machine-id").unwrap();
        assert!(matches!(&tree[id].kind, Kind::File(content) if content.size == 0));
    }

    #[test]
    fn an_empty_tree_is_no_error() {
        tidy(&mut Tree::new()).unwrap();
    }

    #[test]
    fn habits_go_through_merged_usr() {
        let mut tree = tree(&["usr/bin/sh"]);
        docker_habits(&mut tree, Time { secs: 5, nanos: 0 }).unwrap();
        let id = find(&tree, "usr/sbin/policy-rc.d").unwrap();
        assert_eq!(tree[id].meta.mode, 0o755);
        assert_eq!(tree[id].meta.mtime.secs, 5);
    }
}
