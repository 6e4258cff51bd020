//! Addresses of git repositories, in ADD and as contexts: `git@host:path`, `ssh://`, `git://`, and `http(s)://….git`, with `#ref:subdir` or a query.

/// A git source, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GitRef {
    /// What git is given: the address without fragment and query.
    pub remote: String,
    /// Branch, tag or commit; empty for the default branch.
    pub reference: String,
    /// Clean and relative; empty for all.
    pub subdir: String,
    /// A prefix of the commit that it must be.
    pub checksum: Option<String>,
    /// Whether `.git` stays, where the query says so.
    pub keep_git_dir: Option<bool>,
    /// Whether submodules are fetched, too.
    pub submodules: bool,
    /// Whether files get the time of the commit.
    pub commit_times: bool,
    /// Whether the commit of `checksum` is fetched, whatever the reference stands for.
    pub fetch_by_commit: bool,
}

/// Reads a source; nothing when it is none of git.
///
/// # Errors
/// What is wrong with the query, when it is one of git.
pub fn parse_git(source: &str) -> Result<Option<GitRef>, String> {
    if source.starts_with("./") || source.starts_with("../") {
        return Ok(None);
    }
    let (address, fragment) = cut(source, '#');
    let (address, query) = cut(address, '?');
    if !is_git(address) {
        return Ok(None);
    }
    let mut git = GitRef {
        remote: address.to_owned(),
        submodules: true,
        ..GitRef::default()
    };
    if address.starts_with('-') {
        return Err("an address cannot begin with a dash".to_owned());
    }
    let (reference, subdir) = cut(fragment, ':');
    git.reference = reference.to_owned();
    git.subdir = clean_subdir(subdir);
    load_query(&mut git, query)?;
    Ok(Some(git))
}

/// Splits at the first mark; without one the tail is empty.
fn cut(text: &str, mark: char) -> (&str, &str) {
    text.split_once(mark).unwrap_or((text, ""))
}

fn is_git(address: &str) -> bool {
    match address.split_once("://") {
        Some((scheme, rest)) => match scheme.to_ascii_lowercase().as_str() {
            "ssh" | "git" => true,
            "http" | "https" => rest
                .split_once('/')
                .is_some_and(|(_, path)| path.ends_with(".git")),
            _ => false,
        },
        // user@host:path
        None => address.split_once('@').is_some_and(|(user, rest)| {
            let plain = |text: &str, more: &[char]| {
                !text.is_empty()
                    && text
                        .chars()
                        .all(|c| c.is_ascii_alphanumeric() || more.contains(&c))
            };
            let host = rest.split_once(':').map(|(host, _)| host);
            plain(user, &['-', '_']) && host.is_some_and(|host| plain(host, &['-', '.']))
        }),
    }
}

fn clean_subdir(path: &str) -> String {
    crate::lower::join_dir("/", path)[1..].to_owned()
}

fn load_query(git: &mut GitRef, query: &str) -> Result<(), String> {
    let mut seen: Vec<&str> = Vec::new();
    let (mut tag, mut branch) = (None, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = cut(pair, '=');
        if seen.contains(&key) {
            return Err(format!("query {key:?} has multiple values"));
        }
        seen.push(key);
        let flag = || match value {
            "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            _ => Err(format!("invalid {key} value: {value:?}")),
        };
        let some = || {
            if value.is_empty() {
                Err(format!("query {key:?} has no value"))
            } else {
                Ok(value.to_owned())
            }
        };
        match key {
            "ref" => set("ref", &mut git.reference, some()?)?,
            "subdir" => set("subdir", &mut git.subdir, clean_subdir(&some()?))?,
            "tag" => tag = Some(qualified("refs/tags/", &some()?)),
            "branch" => branch = Some(qualified("refs/heads/", &some()?)),
            "checksum" | "commit" => git.checksum = Some(some()?),
            "keep-git-dir" => git.keep_git_dir = Some(flag()?),
            "submodules" => git.submodules = flag()?,
            "fetch-by-commit" => git.fetch_by_commit = flag()?,
            "mtime" => {
                git.commit_times = match some()?.as_str() {
                    "commit" => true,
                    "checkout" => false,
                    other => {
                        return Err(format!(
                            "invalid mtime value: {other:?} (must be \"checkout\" or \"commit\")"
                        ));
                    }
                }
            }
            _ => return Err(format!("unexpected query {key:?}")),
        }
    }
    match (tag, branch) {
        (Some(_), Some(_)) => Err("branch conflicts with tag".to_owned()),
        (Some(name), None) | (None, Some(name)) => set("ref", &mut git.reference, name),
        (None, None) => Ok(()),
    }
}

fn qualified(prefix: &str, name: &str) -> String {
    if name.starts_with(prefix) {
        name.to_owned()
    } else {
        format!("{prefix}{name}")
    }
}

/// What the fragment said must not be said otherwise.
fn set(what: &str, place: &mut String, value: String) -> Result<(), String> {
    if !place.is_empty() && *place != value {
        return Err(format!("{what} conflicts: {place:?} vs {value:?}"));
    }
    *place = value;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{GitRef, parse_git};

    #[test]
    fn what_is_git() {
        for (source, expected) in [
            ("https://github.com/a/b.git", true),
            ("https://github.com/a/b.git#main:sub", true),
            ("https://github.com/a/b.git?ref=main", true),
            ("https://github.com/a/b", false),
            ("https://host/a.git/x", false),
            ("http://host.git", false),
            ("ssh://git@host/a", true),
            ("git://host/a", true),
            ("GIT://host/a", true),
            ("git@github.com:a/b", true),
            ("git@github.com/a", false),
            ("github.com/a/b", false),
            ("./git@host:x", false),
            ("a.git", false),
            ("a b@c:d", false),
            ("ftp://host/a.git", false),
        ] {
            assert_eq!(parse_git(source).unwrap().is_some(), expected, "{source}");
        }
    }

    #[test]
    fn parts() {
        let git = parse_git("https://h/a.git#v1:/x/../y/").unwrap().unwrap();
        let expected = GitRef {
            remote: "https://h/a.git".to_owned(),
            reference: "v1".to_owned(),
            subdir: "y".to_owned(),
            submodules: true,
            ..GitRef::default()
        };
        assert_eq!(git, expected);
        let git = parse_git(
            "git@h:a?tag=v1&subdir=s&keep-git-dir&submodules=false&mtime=commit&checksum=ab&fetch-by-commit=1",
        );
        let expected = GitRef {
            remote: "git@h:a".to_owned(),
            reference: "refs/tags/v1".to_owned(),
            subdir: "s".to_owned(),
            checksum: Some("ab".to_owned()),
            keep_git_dir: Some(true),
            submodules: false,
            commit_times: true,
            fetch_by_commit: true,
        };
        assert_eq!(git.unwrap().unwrap(), expected);
    }

    #[test]
    fn errors() {
        for (query, message) in [
            ("x=1", "unexpected query \"x\""),
            ("ref=a&ref=b", "query \"ref\" has multiple values"),
            ("ref=", "query \"ref\" has no value"),
            ("tag=a&branch=b", "branch conflicts with tag"),
            (
                "mtime=now",
                "invalid mtime value: \"now\" (must be \"checkout\" or \"commit\")",
            ),
            ("submodules=maybe", "invalid submodules value: \"maybe\""),
            ("branch=b#c", "ref conflicts: \"c\" vs \"refs/heads/b\""),
        ] {
            assert_eq!(
                parse_git(&format!("https://h/a.git?{query}")).unwrap_err(),
                message,
                "{query}"
            );
        }
    }
}
