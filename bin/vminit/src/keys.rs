//! Keys of people who may log in, and the account for them where it is asked for.
//!
//! Everything lies in the image's own root: what is there is added to and never cut. Links are not followed into `.ssh`,
//! so a key ends up where sshd looks for it or nowhere.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use firebuild_accounts::{Accounts, Identity};
use firebuild_guest_proto::Account;
use fs_err::OpenOptions;
use rustix::fs::{Gid, Mode, OFlags, Uid, fchmod, fchown, fstat, mkdirat, openat};
use rustix::io::Errno;

use crate::user;

/// The largest file that is added to.
const MAX_KEYS_BYTES: u64 = 1 << 20;
/// Ids of people's accounts, as Debian and Alpine give them.
const IDS: std::ops::Range<u32> = 1000..60_000;

/// Puts the keys of an account in place. An error is a sentence for people.
pub(crate) fn install(account: &Account) -> Result<(), String> {
    let name = &account.name;
    let failed = |problem: String| format!("no key opens the account {name}: {problem}");
    let identity = match lookup(name) {
        Some(identity) => identity,
        None if account.create => {
            create(name).map_err(|problem| format!("cannot make the account {name}: {problem}"))?
        }
        None => {
            return Err(failed(
                "the image has no such user; --create-user makes it, or name another with --ssh-user"
                    .to_owned(),
            ));
        }
    };
    if account.keys.is_empty() {
        return Ok(());
    }
    add_keys(&identity, &account.keys).map_err(failed)
}

/// The account of this name; numbers name none.
fn lookup(name: &str) -> Option<Identity> {
    let accounts = user::accounts();
    accounts.user_by_name(name)?;
    accounts.resolve_user(name).ok()
}

fn add_keys(identity: &Identity, keys: &[String]) -> Result<(), String> {
    let home = &identity.home;
    let step = |what: &'static str| {
        let home = home.display().to_string();
        move |error: Errno| format!("{what} of {home}: {error}")
    };
    make_home(identity).map_err(|error| format!("its home {}: {error}", home.display()))?;
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let home_fd = rustix::fs::open(home, flags, Mode::empty()).map_err(step("the directory"))?;
    match mkdirat(&home_fd, ".ssh", Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(step("the directory .ssh")(error)),
    }
    let ssh = openat(&home_fd, ".ssh", flags | OFlags::NOFOLLOW, Mode::empty())
        .map_err(step("the directory .ssh"))?;
    own(&ssh, identity, 0o700).map_err(step("the directory .ssh"))?;
    let file = openat(
        &ssh,
        "authorized_keys",
        OFlags::RDWR
            | OFlags::CREATE
            | OFlags::APPEND
            | OFlags::NOFOLLOW
            | OFlags::NONBLOCK
            | OFlags::CLOEXEC,
        Mode::from_raw_mode(0o600),
    )
    .map_err(step("the file .ssh/authorized_keys"))?;
    let is_file = fstat(&file).is_ok_and(|stat| {
        rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile
    });
    if !is_file {
        return Err(format!(
            "{} is no regular file",
            home.join(".ssh/authorized_keys").display()
        ));
    }
    own(&file, identity, 0o600).map_err(step("the file .ssh/authorized_keys"))?;
    append(file, keys).map_err(|error| format!("its authorized_keys: {error}"))
}

fn append(file: OwnedFd, keys: &[String]) -> std::io::Result<()> {
    let mut file = std::fs::File::from(file);
    let mut there = Vec::new();
    (&file).take(MAX_KEYS_BYTES).read_to_end(&mut there)?;
    let added = additions(&String::from_utf8_lossy(&there), keys);
    file.write_all(added.as_bytes())
}

/// What is to be added so that each key is there once. A key is known by its body: the same one with other options or
/// another comment is the same.
fn additions(there: &str, keys: &[String]) -> String {
    let mut added = String::new();
    if !there.is_empty() && !there.ends_with('\n') {
        added.push('\n');
    }
    let mut known: Vec<&str> = there
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(str::split_whitespace)
        .collect();
    let before = added.len();
    for key in keys {
        let Some(body) = body(key) else { continue };
        if !known.contains(&body) {
            known.push(body);
            added.push_str(key.trim());
            added.push('\n');
        }
    }
    if added.len() == before {
        added.clear();
    }
    added
}

/// The base64 part of a public key, which begins with the length of the name of its type: three bytes of zero.
fn body(key: &str) -> Option<&str> {
    key.split_whitespace().find(|word| word.starts_with("AAAA"))
}

/// Makes the account: a group of its own, a home, a shell, no password that opens it.
fn create(name: &str) -> Result<Identity, String> {
    let accounts = user::accounts();
    let id = free_id(&accounts).ok_or("there is no free id")?;
    let gid = match accounts.group_by_name(name) {
        Some(group) => group.gid,
        None => {
            add_line("/etc/group", &format!("{name}:x:{id}:"), 0o644)?;
            id
        }
    };
    let shell = ["/bin/bash", "/bin/sh"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .unwrap_or("/bin/sh");
    let has_shadow = Path::new("/etc/shadow").exists();
    if has_shadow {
        // `*` is no password; `!` would be a locked account, which some servers do not let in by key either.
        add_line("/etc/shadow", &format!("{name}:*:::::::"), 0o640)?;
    }
    let password = if has_shadow { "x" } else { "*" };
    add_line(
        "/etc/passwd",
        &format!("{name}:{password}:{id}:{gid}::/home/{name}:{shell}"),
        0o644,
    )?;
    let identity = lookup(name).ok_or("it is not found after it was made")?;
    make_home(&identity).map_err(|error| error.to_string())?;
    Ok(identity)
}

/// An id that neither a user nor a group has.
fn free_id(accounts: &Accounts) -> Option<u32> {
    let is_taken = |id: u32| {
        accounts.user_by_uid(id).is_some() || accounts.groups().iter().any(|group| group.gid == id)
    };
    IDS.into_iter().find(|id| !is_taken(*id))
}

/// Adds a line to a file in one write.
fn add_line(path: &str, line: &str, mode: u32) -> Result<(), String> {
    let told = |error: std::io::Error| format!("{path}: {error}");
    let ends_open = match fs_err::read(path) {
        Ok(bytes) => bytes.last().is_some_and(|&last| last != b'\n'),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) => return Err(told(error)),
    };
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    options.options_mut().mode(mode);
    let mut file = options.open(path).map_err(told)?;
    let begin = if ends_open { "\n" } else { "" };
    file.write_all(format!("{begin}{line}\n").as_bytes())
        .map_err(told)
}

/// Makes the home where it is missing.
fn make_home(identity: &Identity) -> std::io::Result<()> {
    let home = &identity.home;
    if home.is_dir() {
        return Ok(());
    }
    if let Some(above) = home.parent() {
        fs_err::create_dir_all(above)?;
    }
    fs_err::create_dir(home)?;
    let directory = rustix::fs::open(home, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mode = if identity.uid == 0 { 0o700 } else { 0o755 };
    Ok(own(&directory, identity, mode)?)
}

fn own(file: &OwnedFd, identity: &Identity, mode: u32) -> rustix::io::Result<()> {
    fchown(
        file,
        Some(Uid::from_raw(identity.uid)),
        Some(Gid::from_raw(identity.gid)),
    )?;
    fchmod(file, Mode::from_raw_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::{additions, body};

    #[test]
    fn keys_are_added_once_and_nothing_is_cut() {
        let keys = [
            "ssh-rsa AAAAB3NzaC1 me@home",
            "ssh-ed25519 AAAAC3NzaC1lZDI1 you",
        ];
        let keys = keys.map(str::to_owned);
        let all = additions("", &keys);
        assert_eq!(all, format!("{}\n{}\n", keys[0], keys[1]));
        assert_eq!(additions(&all, &keys), "");
        // The last line may be open; a key with options or another comment is the same; a comment is none.
        let there = "# AAAAB3NzaC1\nrestrict ssh-ed25519 AAAAC3NzaC1lZDI1 other";
        assert_eq!(additions(there, &keys), format!("\n{}\n", keys[0]));
        assert_eq!(additions("ssh-rsa X", &[]), "");
        let twice = [keys[0].clone(), keys[0].clone()];
        assert_eq!(additions("", &twice), format!("{}\n", keys[0]));
        assert_eq!(body(&keys[1]), Some("AAAAC3NzaC1lZDI1"));
    }
}
