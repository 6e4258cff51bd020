//! `--ssh-user`, `--identity-file`, `--create-user`: who may log in to the guest.

use std::io::Read;
use std::path::{Path, PathBuf};

use firebuild_guest_proto::Account;

use super::error::{RunError, RunErrorKind};
use crate::error::Error;

/// The largest file of keys.
const LARGEST_FILE: u64 = 256 << 10;

/// Who may log in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// The account.
    pub user: Option<String>,
    /// Files of public keys that open it.
    pub identity_files: Vec<PathBuf>,
    /// Make the account if the image does not have it.
    pub create: bool,
}

impl Access {
    /// The accounts as the guest is told of them.
    pub(crate) fn accounts(&self) -> Result<Vec<Account>, RunError> {
        let Some(user) = &self.user else {
            return if self.identity_files.is_empty() && !self.create {
                Ok(Vec::new())
            } else {
                Err(flag(
                    "--identity-file and --create-user need the name of an account: give it with --ssh-user"
                        .to_owned(),
                ))
            };
        };
        if !is_login_name(user) {
            return Err(flag(format!(
                "'{user}' cannot be the name of an account: lower-case letters, digits, '_' and '-' can, \
                 32 at most, the first one no digit"
            )));
        }
        let mut keys = Vec::new();
        for path in &self.identity_files {
            for key in read(path)? {
                if !keys.contains(&key) {
                    keys.push(key);
                }
            }
        }
        if keys.is_empty() && !self.create {
            // The original took an account without keys, too; there is nothing to do for it.
            return Ok(Vec::new());
        }
        Ok(vec![Account {
            name: user.clone(),
            keys,
            create: self.create,
        }])
    }
}

/// What `useradd` takes, but for the `$` at the end.
fn is_login_name(name: &str) -> bool {
    name.len() <= 32
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte))
}

/// The public keys of a file.
fn read(path: &Path) -> Result<Vec<String>, RunError> {
    let mut text = String::new();
    fs_err::File::open(path)
        .and_then(|file| file.take(LARGEST_FILE + 1).read_to_string(&mut text))
        .map_err(|error| {
            Error::caused(
                RunErrorKind::Flag,
                "cannot read the public key of --identity-file",
                error,
            )
        })?;
    if text.len() as u64 > LARGEST_FILE {
        return Err(flag(format!(
            "{} is larger than {} KiB, which no file of public keys is",
            path.display(),
            LARGEST_FILE >> 10
        )));
    }
    parse(&text).map_err(|problem| flag(format!("{}: {problem}", path.display())))
}

/// The lines that are keys. An error says what is wrong with the file.
fn parse(text: &str) -> Result<Vec<String>, String> {
    if text.contains("PRIVATE KEY-----") {
        return Err(
            "this is a private key, which stays where it is: give the public one, which ends with .pub".to_owned(),
        );
    }
    let mut keys = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        // Type, body, comment; options may stand in front. Every body begins with the length of its type.
        let is_key = line.split_whitespace().any(|word| word.starts_with("AAAA"))
            && !line.starts_with("AAAA");
        if !is_key || line.chars().any(|c| c.is_control() && c != '\t') {
            return Err(format!(
                "line {} is no public key (like 'ssh-ed25519 AAAA… me@home')",
                index + 1
            ));
        }
        keys.push(line.to_owned());
    }
    if keys.is_empty() {
        return Err("there is no public key in it".to_owned());
    }
    Ok(keys)
}

fn flag(text: String) -> RunError {
    Error::new(RunErrorKind::Flag, text)
}

#[cfg(test)]
mod tests {
    use super::{Access, parse};

    #[test]
    fn keys_are_taken_and_what_is_none_is_told() {
        let text = "# mine\nssh-ed25519 AAAAC3Nz me@home\n\nrestrict,pty ssh-rsa AAAAB3Nz\n";
        assert_eq!(
            parse(text).unwrap(),
            [
                "ssh-ed25519 AAAAC3Nz me@home",
                "restrict,pty ssh-rsa AAAAB3Nz"
            ]
        );
        for (text, why) in [
            ("", "no public key"),
            ("-----BEGIN OPENSSH PRIVATE KEY-----\nx\n", "private key"),
            ("AAAAC3Nz\n", "line 1"),
            ("ssh-rsa AAAA x\nhello\n", "line 2"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn who_and_how() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("id.pub");
        fs_err::write(&file, "ssh-ed25519 AAAAC3Nz me\n").unwrap();
        let access = |user: Option<&str>| Access {
            user: user.map(str::to_owned),
            identity_files: vec![file.clone(), file.clone()],
            create: false,
        };
        let accounts = access(Some("debian")).accounts().unwrap();
        assert_eq!(accounts[0].keys, ["ssh-ed25519 AAAAC3Nz me"]);
        for user in [None, Some("Mister X"), Some("1000"), Some("")] {
            access(user).accounts().unwrap_err();
        }
        assert!(Access::default().accounts().unwrap().is_empty());
        let missing = Access {
            identity_files: vec![dir.path().join("absent.pub")],
            ..access(Some("root"))
        };
        missing.accounts().unwrap_err();
    }
}
