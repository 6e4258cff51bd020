use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use super::{Accounts, ErrorKind, Id, MAX_FILE, Owner, resolve_chown};

const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n\
    toor:x:0:5:second root:/root2:/bin/sh\n\
    app:x:1000:1001:App:/srv/app:/bin/sh\n\
    bare:x:1002:1002\n\
    12:x:77:78::/twelve:\n\
    www:x:33:33::/var/www:\n\
    www:x:34:34::/var/www2:\n";

const GROUP: &[u8] = b"root:x:0:\n\
    wheel:x:10:root,app\n\
    app:x:1001:\n\
    disk:x:6:app,www\n\
    again:x:6:app\n\
    own:x:1001:app\n\
    www:x:33:\n";

fn accounts() -> Accounts {
    Accounts::parse(Some(PASSWD), Some(GROUP))
}

#[test]
fn users_by_dockers_rules() {
    // text, uid, gid, groups, home, name
    type Row = (
        &'static str,
        u32,
        u32,
        &'static [u32],
        &'static str,
        Option<&'static str>,
    );
    let table: &[Row] = &[
        ("", 0, 0, &[0, 10], "/root", Some("root")),
        ("root", 0, 0, &[0, 10], "/root", Some("root")),
        ("0", 0, 0, &[0, 10], "/root", Some("root")),
        ("app", 1000, 1001, &[1001, 10, 6], "/srv/app", Some("app")),
        ("1000", 1000, 1001, &[1001, 10, 6], "/srv/app", Some("app")),
        ("+1000", 1000, 1001, &[1001, 10, 6], "/srv/app", Some("app")),
        ("app:", 1000, 1001, &[1001, 10, 6], "/srv/app", Some("app")),
        ("app:disk", 1000, 6, &[6], "/srv/app", Some("app")),
        ("app:99", 1000, 99, &[99], "/srv/app", Some("app")),
        ("1000:0", 1000, 0, &[0], "/srv/app", Some("app")),
        ("4711", 4711, 0, &[0], "/", None),
        ("4711:4712", 4711, 4712, &[4712], "/", None),
        (":disk", 0, 6, &[6], "/root", Some("root")),
        // Digits are an id, even where a name has the same text.
        ("12", 12, 0, &[0], "/", None),
        ("bare", 1002, 1002, &[1002], "/", Some("bare")),
        // The home is that of the first entry with the uid; the group is the named entry's.
        ("toor", 0, 5, &[5], "/root", Some("toor")),
        ("www", 33, 33, &[33, 6], "/var/www", Some("www")),
        ("2147483647", 2_147_483_647, 0, &[0], "/", None),
    ];
    for (text, uid, gid, groups, home, name) in table {
        let identity = accounts().resolve_user(text).unwrap();
        assert_eq!((identity.uid, identity.gid), (*uid, *gid), "{text:?}");
        assert_eq!(identity.groups, *groups, "{text:?}");
        assert_eq!(identity.home, Path::new(home), "{text:?}");
        assert_eq!(identity.name, name.map(OsString::from), "{text:?}");
    }
}

#[test]
fn users_that_are_refused() {
    let table = [
        ("nobody", ErrorKind::Unknown, Id::User, "nobody"),
        ("app:nogroup", ErrorKind::Unknown, Id::Group, "nogroup"),
        ("app:disk:x", ErrorKind::Unknown, Id::Group, "disk:x"),
        ("-1", ErrorKind::OutOfRange, Id::User, "-1"),
        ("2147483648", ErrorKind::OutOfRange, Id::User, "2147483648"),
        (
            "99999999999999999999",
            ErrorKind::OutOfRange,
            Id::User,
            "99999999999999999999",
        ),
        (
            "0:4294967295",
            ErrorKind::OutOfRange,
            Id::Group,
            "4294967295",
        ),
        ("1e3", ErrorKind::Unknown, Id::User, "1e3"),
        (" app", ErrorKind::Unknown, Id::User, " app"),
    ];
    for (text, kind, id, part) in table {
        let error = accounts().resolve_user(text).unwrap_err();
        assert_eq!(
            (error.kind(), error.id(), error.text()),
            (kind, id, part),
            "{text:?}"
        );
    }
    let error = accounts().resolve_user("nobody").unwrap_err();
    assert_eq!(
        error.to_string(),
        "unable to find user \"nobody\": no such entry in /etc/passwd"
    );
}

#[test]
fn without_files_numbers_and_root_by_default_still_work() {
    let none = Accounts::parse(None, None);
    let root = none.resolve_user("").unwrap();
    assert_eq!(
        (
            root.uid,
            root.gid,
            root.groups.as_slice(),
            root.home.as_path()
        ),
        (0, 0, &[0][..], Path::new("/"))
    );
    assert_eq!(none.resolve_user("7:8").unwrap().gid, 8);
    assert_eq!(
        none.resolve_user("root").unwrap_err().kind(),
        ErrorKind::Unknown
    );
}

#[test]
fn owners_by_the_rules_of_copy() {
    let table = [
        ("55", 55, 55),
        ("55:66", 55, 66),
        ("app", 1000, 1001),
        ("app:disk", 1000, 6),
        ("app:7", 1000, 7),
        ("www", 33, 33),
        (":disk", 0, 6),
        (":9", 0, 9),
        ("root", 0, 0),
        ("0", 0, 0),
        ("nobody", 0, 0),
        ("nobody:disk", 0, 6),
        ("nobody:nogroup", 0, 0),
        ("app:nogroup", 1000, 1001),
        ("app:", 1000, 0),
        ("55:", 55, 0),
        ("", 0, 0),
    ];
    for (text, uid, gid) in table {
        assert_eq!(
            resolve_chown(Some(&accounts()), text),
            Ok(Owner { uid, gid }),
            "{text:?}"
        );
    }
}

#[test]
fn owners_on_an_empty_file_system_must_be_numbers() {
    for (text, uid, gid) in [
        ("5", 5, 5),
        ("5:6", 5, 6),
        ("root:root", 0, 0),
        (":6", 0, 6),
    ] {
        assert_eq!(
            resolve_chown(None, text),
            Ok(Owner { uid, gid }),
            "{text:?}"
        );
    }
    for (text, id) in [
        ("app", Id::User),
        ("app:5", Id::User),
        ("5:disk", Id::Group),
        (":disk", Id::Group),
    ] {
        let error = resolve_chown(None, text).unwrap_err();
        assert_eq!(
            (error.kind(), error.id()),
            (ErrorKind::NoAccounts, id),
            "{text:?}"
        );
    }
    assert_eq!(
        resolve_chown(None, "-1").unwrap_err().kind(),
        ErrorKind::OutOfRange
    );
}

#[test]
fn lines_that_are_no_entries_are_skipped() {
    let passwd = b"# comment\n\n   \nroot\n:x:3:3::/:\n+::::::\nneg:x:-1:0::/:\nno:x:4294967295:0::/:\nnul\0:x:1:1::/:\n\
        bad:x:one:1::/:\n  spaced : x : 5 : 6 : : /home/spaced :\n\xff\xfe:x:8:9::/h\xff:\ncr:x:10:11::/h:/bin/sh\r\n\
        many:x:12:13:a:/m:s:t:u:v";
    let found = Accounts::parse(Some(passwd), None);
    let names: Vec<_> = found
        .users()
        .iter()
        .map(|user| user.name.clone().into_vec())
        .collect();
    assert_eq!(names, [&b"spaced"[..], b"\xff\xfe", b"cr", b"many"]);
    assert_eq!((found.users()[0].uid, found.users()[0].gid), (5, 6));
    assert_eq!(
        found.users()[1].home.as_os_str().as_encoded_bytes(),
        b"/h\xff"
    );

    let group = b"x\ny:x\nz:x:5\nw:x:6:, a ,,b,\n-:-:-:-\n";
    let found = Accounts::parse(None, Some(group));
    assert_eq!(found.groups().len(), 2);
    assert_eq!(found.groups()[1].members, ["a", "b"]);
}

#[test]
fn an_endless_file_is_cut_at_a_line() {
    let mut passwd = b"first:x:1:1::/:\n".repeat(MAX_FILE / 16);
    passwd.extend_from_slice(b"last:x:2:2::/:\n");
    let found = Accounts::parse(Some(&passwd), Some(&vec![b'a'; MAX_FILE + 1]));
    assert!(found.user_by_name("first").is_some());
    assert!(found.user_by_name("last").is_none());
    assert!(found.groups().is_empty());
}
