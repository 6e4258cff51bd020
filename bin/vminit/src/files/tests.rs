use std::os::unix::fs::symlink;
use std::path::PathBuf;

use firebuild_guest_proto::{
    Channel, HostEntry, Interface, InterfaceRef, Resolver, RootLayout, RunConfig,
};

use super::{hosts, replace, resolv_conf};

fn config(hostname: &str) -> RunConfig {
    RunConfig::new(
        vec!["x".to_owned()],
        hostname.to_owned(),
        RootLayout::Initrd,
        Channel::virtio_serial(),
    )
}

/// A directory of its own for a test, gone at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("vminit-files-{name}-{}", std::process::id()));
        fs_err::create_dir_all(&path).unwrap();
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs_err::remove_dir_all(&self.0);
    }
}

#[test]
fn hosts_name_the_machine_by_all_its_addresses() {
    let mut config = config("db.example.org");
    assert!(hosts(&config).ends_with("127.0.1.1\tdb.example.org db\n"));
    config.interfaces = vec![Interface {
        select: InterfaceRef::Name("eth0".to_owned()),
        addresses: vec![
            "10.0.2.15/24".parse().unwrap(),
            "fd00::15/64".parse().unwrap(),
        ],
        routes: vec![],
        mtu: None,
    }];
    config.hosts = vec![HostEntry {
        address: "10.0.2.2".parse().unwrap(),
        names: vec!["gateway".to_owned(), "gw".to_owned()],
    }];
    let text = hosts(&config);
    assert!(text.starts_with("127.0.0.1\tlocalhost\n"));
    assert!(text.ends_with(
        "10.0.2.15\tdb.example.org db\nfd00::15\tdb.example.org db\n10.0.2.2\tgateway gw\n"
    ));
}

#[test]
fn the_resolver_is_written_as_resolv_conf_has_it() {
    let resolver = Resolver {
        nameservers: vec!["10.0.2.3".parse().unwrap(), "fd00::3".parse().unwrap()],
        search: vec!["a.example".to_owned(), "b.example".to_owned()],
        options: vec!["ndots:2".to_owned()],
    };
    assert_eq!(
        resolv_conf(&resolver),
        "nameserver 10.0.2.3\nnameserver fd00::3\nsearch a.example b.example\noptions ndots:2\n"
    );
    assert_eq!(resolv_conf(&Resolver::default()), "");
}

#[test]
fn links_are_followed_where_a_file_can_be_and_replaced_elsewhere() {
    let scratch = Scratch::new("links");
    let at = |name: &str| scratch.0.join(name);
    let text = |name: &str| fs_err::read_to_string(at(name)).unwrap();
    fs_err::create_dir_all(at("run")).unwrap();
    fs_err::write(at("run/there"), "old").unwrap();

    symlink("run/there", at("to-file")).unwrap();
    replace(&at("to-file"), b"new").unwrap();
    assert_eq!(text("run/there"), "new");
    assert!(at("to-file").is_symlink());

    symlink("run/not-yet", at("to-place")).unwrap();
    replace(&at("to-place"), b"new").unwrap();
    assert_eq!(text("run/not-yet"), "new");

    for (name, target) in [
        ("device", "/dev/null"),
        ("nowhere", "no/such/directory/x"),
        ("loop", "loop"),
    ] {
        symlink(target, at(name)).unwrap();
        replace(&at(name), b"new").unwrap();
        assert_eq!(text(name), "new", "{name}");
        assert!(!at(name).is_symlink(), "{name}");
    }

    fs_err::write(at("plain"), "old").unwrap();
    replace(&at("plain"), b"new").unwrap();
    assert_eq!(text("plain"), "new");
    // Nothing is left beside the files.
    let mut names: Vec<_> = fs_err::read_dir(&scratch.0)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.retain(|name| name.to_string_lossy().contains("vminit"));
    assert!(names.is_empty(), "{names:?}");
}
