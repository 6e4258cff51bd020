//! Addresses of build contexts and Dockerfiles.
//!
//! | written | means |
//! |---|---|
//! | `git+https://HOST/REPO.git:/PATH/Dockerfile#REF` (`git+http`, `git+ssh`, `git`, `ssh`) | that Dockerfile; the context is its directory |
//! | `https://HOST/REPO.git#REF:DIR`, `git://…`, `ssh://…`, `USER@HOST:REPO#REF:DIR`, `github.com/OWNER/REPO` | Docker's spelling: that directory is the context |
//! | `http://…`, `https://…` | a document: an archive is a context, anything else a Dockerfile |

use super::git_ref::{GitRef, parse_git};
use crate::graph::GitOp;

/// What an address leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A directory of a repository.
    Git {
        /// The directory.
        op: GitOp,
        /// The Dockerfile in it, where the address names one.
        dockerfile: Option<String>,
    },
    /// A document.
    Http(String),
}

/// Whether a text is an address and no path.
#[must_use]
pub fn is_address(text: &str) -> bool {
    parse_address(text).map_or(true, |address| address.is_some())
}

/// Reads an address; nothing when it is none.
///
/// # Errors
/// What is wrong with it.
pub fn parse_address(text: &str) -> Result<Option<Address>, String> {
    if let Some(address) = with_path(text)? {
        return Ok(Some(address));
    }
    let plain = text.strip_prefix("git+").unwrap_or(text);
    let whole = if plain.starts_with("github.com/") {
        format!("https://{plain}")
    } else {
        plain.to_owned()
    };
    if let Some(git) = parse_git(&whole)? {
        return Ok(Some(Address::Git {
            op: op(git),
            dockerfile: None,
        }));
    }
    // Of these only repositories can be meant, also without `.git`.
    if text.starts_with("git+") || text.starts_with("github.com/") {
        let (address, fragment) = whole.split_once('#').unwrap_or((&whole, ""));
        let git = parse_git(&format!("{address}.git#{fragment}"))?;
        return match git {
            Some(git) if address.contains("://") => Ok(Some(Address::Git {
                op: GitOp {
                    remote: address.to_owned(),
                    ..op(git)
                },
                dockerfile: None,
            })),
            _ => Err(format!("{text:?} is no address of a repository")),
        };
    }
    if text.starts_with("http://") || text.starts_with("https://") {
        return Ok(Some(Address::Http(text.to_owned())));
    }
    Ok(None)
}

/// `SCHEME://HOST/REPO:/PATH#REF`.
fn with_path(text: &str) -> Result<Option<Address>, String> {
    let plain = text.strip_prefix("git+").unwrap_or(text);
    let Some((scheme, rest)) = plain.split_once("://") else {
        return Ok(None);
    };
    if !matches!(scheme, "http" | "https" | "ssh" | "git") {
        return Ok(None);
    }
    let (rest, reference) = rest.split_once('#').unwrap_or((rest, ""));
    // The host may have a port, or nothing, behind its colon.
    let Some(slash) = rest.find('/') else {
        return Ok(None);
    };
    let (host, path) = rest.split_at(slash);
    let Some((repository, file)) = path.split_once(":/") else {
        return Ok(None);
    };
    // An ordinary address of a file may have such a colon in it.
    if !text.starts_with("git+")
        && matches!(scheme, "http" | "https")
        && !repository.ends_with(".git")
    {
        return Ok(None);
    }
    if reference.contains(':') {
        return Err(format!(
            "{text:?} names a Dockerfile with :/PATH, so only a branch, tag or commit can follow the #"
        ));
    }
    let names_a_directory = file.is_empty() || file.ends_with('/');
    let file = &crate::lower::join_dir("/", file)[1..];
    let (dir, name) = file.rsplit_once('/').unwrap_or(("", file));
    if names_a_directory || name.is_empty() {
        return Err(format!("{text:?} names no Dockerfile after the colon"));
    }
    let git = GitRef {
        remote: format!("{scheme}://{host}{repository}"),
        reference: reference.to_owned(),
        subdir: dir.to_owned(),
        submodules: true,
        ..GitRef::default()
    };
    Ok(Some(Address::Git {
        op: op(git),
        dockerfile: Some(name.to_owned()),
    }))
}

/// A repository as the operation that fetches it.
fn op(git: GitRef) -> GitOp {
    GitOp {
        remote: git.remote,
        reference: git.reference,
        subdir: git.subdir,
        keep_git_dir: git.keep_git_dir.unwrap_or(false),
        checksum: git.checksum,
        submodules: git.submodules,
        commit_times: git.commit_times,
        fetch_by_commit: git.fetch_by_commit,
    }
}

#[cfg(test)]
mod tests {
    use super::{Address, is_address, parse_address};

    fn git(text: &str) -> (String, String, String, Option<String>) {
        match parse_address(text).unwrap().unwrap() {
            Address::Git { op, dockerfile } => (op.remote, op.reference, op.subdir, dockerfile),
            Address::Http(url) => panic!("{url}"),
        }
    }

    #[test]
    fn repositories() {
        let some = |text: &str| Some(text.to_owned());
        for (text, remote, reference, subdir, dockerfile) in [
            (
                "git+https://github.com/hashicorp/docker-consul.git:/0.X/Dockerfile#master",
                "https://github.com/hashicorp/docker-consul.git",
                "master",
                "0.X",
                some("Dockerfile"),
            ),
            (
                "git+https://github.com/grepplabs/kafka-proxy.git:/Dockerfile#v0.2.8",
                "https://github.com/grepplabs/kafka-proxy.git",
                "v0.2.8",
                "",
                some("Dockerfile"),
            ),
            (
                "git+ssh://git@h:22/x.git:/a/b/D.file",
                "ssh://git@h:22/x.git",
                "",
                "a/b",
                some("D.file"),
            ),
            (
                "git://host:99/a/b:/../D",
                "git://host:99/a/b",
                "",
                "",
                some("D"),
            ),
            (
                "ssh://git@h/x.git:/D#abc",
                "ssh://git@h/x.git",
                "abc",
                "",
                some("D"),
            ),
            ("http://h/x.git:/D", "http://h/x.git", "", "", some("D")),
            (
                "https://h/x.git#main:dir/",
                "https://h/x.git",
                "main",
                "dir",
                None,
            ),
            ("git@h:o/x#:dir", "git@h:o/x", "", "dir", None),
            ("github.com/o/x", "https://github.com/o/x", "", "", None),
            (
                "github.com/o/x.git#v1",
                "https://github.com/o/x.git",
                "v1",
                "",
                None,
            ),
            ("git+http://h/x#v1", "http://h/x", "v1", "", None),
            ("git+ssh://u@h/x", "ssh://u@h/x", "", "", None),
        ] {
            let expected = (
                remote.to_owned(),
                reference.to_owned(),
                subdir.to_owned(),
                dockerfile,
            );
            assert_eq!(git(text), expected, "{text}");
        }
    }

    #[test]
    fn documents_and_paths() {
        for text in ["http://h/Dockerfile", "https://h/a:/b", "http://h"] {
            assert_eq!(
                parse_address(text),
                Ok(Some(Address::Http(text.to_owned())))
            );
        }
        for text in [
            ".",
            "/a/b",
            "a.git",
            "dir/github.com/x",
            "-",
            "ftp://h/x.git",
            "C:/x",
        ] {
            assert_eq!(parse_address(text), Ok(None), "{text}");
            assert!(!is_address(text));
        }
        for text in [
            "git+https://h/x.git:/a/",
            "git+file:///x.git",
            "git+https://h/x.git:/D#a:b",
            "https://h/x.git?nope=1",
        ] {
            assert!(parse_address(text).is_err(), "{text}");
        }
    }
}
