//! `/etc/hostname`, `/etc/hosts`, `/etc/resolv.conf` of this machine, and `/etc/nsswitch.conf` where there is none.
//!
//! They are written into the root that is entered, so every path, links included, is resolved inside of it. Each is
//! written beside its place and renamed, so nobody ever sees half of it.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use firebuild_guest_proto::{Resolver, RunConfig};
use fs_err::OpenOptions;

use crate::journal::Journal;
use crate::mounts::make_directory;

const HEAD: &str = "127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::\tip6-localnet\n\
    ff00::\tip6-mcastprefix\n\
    ff02::1\tip6-allnodes\n\
    ff02::2\tip6-allrouters\n";

/// What the C library would do without the file differs from one to the next; this is what images have that have one.
const NSSWITCH: &str = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n";

/// Writes the files. What cannot be written is told; the application starts all the same.
pub(crate) fn write_all(config: &RunConfig, journal: &mut Journal) {
    if let Err(error) = make_directory("/etc", 0o755) {
        journal.warning(&error.chain());
        return;
    }
    let mut files = vec![
        ("/etc/hostname", format!("{}\n", config.hostname)),
        ("/etc/hosts", hosts(config)),
    ];
    if let Some(resolver) = &config.resolver {
        files.push(("/etc/resolv.conf", resolv_conf(resolver)));
    }
    if fs_err::symlink_metadata("/etc/nsswitch.conf").is_err() {
        files.push(("/etc/nsswitch.conf", NSSWITCH.to_owned()));
    }
    for (path, text) in files {
        if let Err(error) = replace(Path::new(path), text.as_bytes()) {
            journal.warning(&format!("cannot write {path}: {error}"));
        }
    }
}

fn hosts(config: &RunConfig) -> String {
    let mut text = HEAD.to_owned();
    let addresses: Vec<IpAddr> = config
        .interfaces
        .iter()
        .flat_map(|interface| &interface.addresses)
        .map(|cidr| cidr.address)
        .collect();
    // The name always resolves, as programs expect that ask for their own host.
    let addresses = if addresses.is_empty() {
        vec![IpAddr::from([127, 0, 1, 1])]
    } else {
        addresses
    };
    let name = &config.hostname;
    for address in addresses {
        // Writing to a String does not fail.
        let _ = match name.split_once('.') {
            Some((short, _)) if !short.is_empty() => writeln!(text, "{address}\t{name} {short}"),
            _ => writeln!(text, "{address}\t{name}"),
        };
    }
    for host in &config.hosts {
        let _ = writeln!(text, "{}\t{}", host.address, host.names.join(" "));
    }
    text
}

fn resolv_conf(resolver: &Resolver) -> String {
    let mut text = String::new();
    for server in &resolver.nameservers {
        let _ = writeln!(text, "nameserver {server}");
    }
    for (word, list) in [("search", &resolver.search), ("options", &resolver.options)] {
        if !list.is_empty() {
            let _ = writeln!(text, "{word} {}", list.join(" "));
        }
    }
    text
}

/// Puts a file in place. A symbolic link is followed when it leads to a regular file or to a place where one can be; any
/// other link, to a device or to a directory that is not there, gives way to the file.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(target) = link_target(path)
        && write_beside(&target, bytes).is_ok()
    {
        return Ok(());
    }
    write_beside(path, bytes)
}

/// Where a symbolic link leads, if a regular file is there or nothing is.
fn link_target(path: &Path) -> Option<PathBuf> {
    if !fs_err::symlink_metadata(path).ok()?.is_symlink() {
        return None;
    }
    if let Ok(target) = fs_err::canonicalize(path) {
        return fs_err::metadata(&target).ok()?.is_file().then_some(target);
    }
    // Nothing there: one step further, and only into a directory that exists.
    let link = fs_err::read_link(path).ok()?;
    let target = path.parent()?.join(link);
    let directory = fs_err::canonicalize(target.parent()?).ok()?;
    let target = directory.join(target.file_name()?);
    fs_err::symlink_metadata(&target).is_err().then_some(target)
}

fn write_beside(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let name = path.file_name().unwrap_or_default();
    let mut beside = std::ffi::OsString::from(".");
    beside.push(name);
    beside.push(".vminit");
    let beside = path.with_file_name(beside);
    let _ = fs_err::remove_file(&beside);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    options.options_mut().mode(0o644);
    let written = options
        .open(&beside)
        .and_then(|mut file| file.write_all(bytes));
    let placed = written.and_then(|()| fs_err::rename(&beside, path));
    if placed.is_err() {
        let _ = fs_err::remove_file(&beside);
    }
    placed
}

#[cfg(test)]
mod tests;
