//! Who owns: `--chown` of COPY and ADD.

use crate::error::{AccountsError, ErrorKind, Id};
use crate::parse::Accounts;
use crate::{Part, part};

/// The owner of a copied file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// Whom `--chown=user[:group]` names, by BuildKit's rules (`client/llb/fileop.go` `WithUser`,
/// `solver/llbsolver/file/user_linux.go` `readUser`):
///
/// | text | uid | gid |
/// |---|---|---|
/// | `U` | U | U |
/// | `name` | of passwd | primary group of passwd |
/// | `root` | 0 | 0, without a lookup |
/// | `:group` | 0 | the group's |
/// | `user:` | the user's | 0 |
/// | a name that no file has | 0 | 0 for a user, the gid of the user part for a group |
///
/// `accounts` is what the destination holds at that point; `None` where there is nothing to look names up in (a stage that
/// is still `scratch`, or `--link`).
///
/// # Errors
/// [`ErrorKind::NoAccounts`] for a name when `accounts` is `None`; [`ErrorKind::OutOfRange`] for a number outside
/// 0 to 2³¹ − 1.
pub fn resolve_chown(accounts: Option<&Accounts>, spec: &str) -> Result<Owner, AccountsError> {
    let (user_text, group_text) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (spec, None),
    };
    let mut owner = Owner::default();

    match chown_part(user_text, Id::User)? {
        Part::Number(id) => owner = Owner { uid: id, gid: id },
        // An absent user is root; nothing is looked up for it.
        Part::Name("") => {}
        Part::Name(name) => {
            if let Some(user) = known(accounts, Id::User, name)?.user_by_name(name) {
                owner = Owner {
                    uid: user.uid,
                    gid: user.gid,
                };
            }
        }
    }
    if let Some(text) = group_text {
        match chown_part(text, Id::Group)? {
            Part::Number(gid) => owner.gid = gid,
            Part::Name("") => owner.gid = 0,
            Part::Name(name) => {
                if let Some(group) = known(accounts, Id::Group, name)?.group_by_name(name) {
                    owner.gid = group.gid;
                }
            }
        }
    }
    Ok(owner)
}

fn chown_part(text: &str, id: Id) -> Result<Part<'_>, AccountsError> {
    if text == "root" {
        Ok(Part::Number(0))
    } else {
        part(text, id)
    }
}

fn known<'a>(
    accounts: Option<&'a Accounts>,
    id: Id,
    name: &str,
) -> Result<&'a Accounts, AccountsError> {
    accounts.ok_or_else(|| AccountsError::new(ErrorKind::NoAccounts, id, name))
}
