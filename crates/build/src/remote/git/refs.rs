//! Which commit a reference stands for.

use super::{Failed, RemoteError};

/// What a reference stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tip {
    /// The object itself: a commit, or the tag that points to it.
    pub(super) object: String,
    /// The commit.
    pub(super) commit: String,
    /// `refs/heads/main`, `refs/tags/v1`; empty where only the commit is known.
    pub(super) full: String,
}

impl Tip {
    pub(super) fn of_commit(commit: &str) -> Self {
        let commit = commit.to_ascii_lowercase();
        Self {
            object: commit.clone(),
            commit,
            full: String::new(),
        }
    }
}

/// Whether it is the whole name of a commit (SHA-1 or SHA-256).
pub(super) fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether it may be the beginning of one. Git takes no fewer than four digits.
pub(super) fn may_be_short(text: &str) -> bool {
    (4..64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Refuses what git would not take for a name, or for something else (`git help check-ref-format`).
pub(super) fn check_name(name: &str) -> Result<(), RemoteError> {
    let bad = |c: char| c.is_control() || " ~^:?*[\\".contains(c);
    if name.starts_with('-') || name.contains("..") || name.contains("@{") || name.contains(bad) {
        let message = format!("{name:?} cannot be the name of a git reference");
        return Err(RemoteError::new(Failed::Address, message));
    }
    Ok(())
}

/// Chooses among the lines of `git ls-remote`, which lists every reference that *ends* in the name. A branch comes before
/// a tag, and both before other references, as with `git checkout`.
pub(super) fn choose(list: &str, reference: &str) -> Option<Tip> {
    let lines = || list.lines().filter_map(|line| line.split_once('\t'));
    let find = |name: &str| {
        let (object, _) = lines().find(|(_, known)| *known == name)?;
        is_commit(object).then(|| object.to_owned())
    };
    let short = |prefix: &str| {
        reference
            .strip_prefix(prefix)
            .unwrap_or(reference)
            .to_owned()
    };
    let candidates = match reference {
        "" | "HEAD" => vec!["HEAD".to_owned()],
        _ => vec![
            format!("refs/heads/{}", short("refs/heads/")),
            format!("refs/tags/{}", short("refs/tags/")),
            format!("refs/{}", short("refs/")),
        ],
    };
    candidates.into_iter().find_map(|full| {
        let object = find(&full)?;
        let commit = find(&format!("{full}^{{}}")).unwrap_or_else(|| object.clone());
        Some(Tip {
            object,
            commit,
            full,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::{check_name, choose, is_commit, may_be_short};

    fn id(digit: char) -> String {
        digit.to_string().repeat(40)
    }

    #[test]
    fn a_branch_before_a_tag_and_only_the_very_name() {
        let list = format!(
            "{}\trefs/heads/feature/main\n{}\trefs/heads/main\n{}\trefs/tags/main\n{}\trefs/tags/v1\n{}\trefs/tags/v1^{{}}\n{}\trefs/pull/1/head\n{}\tHEAD\n",
            id('1'),
            id('2'),
            id('3'),
            id('4'),
            id('5'),
            id('6'),
            id('7'),
        );
        for (reference, object, commit, full) in [
            ("main", '2', '2', "refs/heads/main"),
            ("refs/tags/main", '3', '3', "refs/tags/main"),
            ("refs/heads/main", '2', '2', "refs/heads/main"),
            ("v1", '4', '5', "refs/tags/v1"),
            ("pull/1/head", '6', '6', "refs/pull/1/head"),
            ("refs/pull/1/head", '6', '6', "refs/pull/1/head"),
            ("", '7', '7', "HEAD"),
        ] {
            let tip = choose(&list, reference).unwrap();
            assert_eq!(
                (tip.object, tip.commit, tip.full.as_str()),
                (id(object), id(commit), full),
                "{reference}"
            );
        }
        for reference in ["feature", "ain", "v", "head", "tags/none"] {
            assert_eq!(choose(&list, reference), None, "{reference}");
        }
    }

    #[test]
    fn names() {
        for good in ["main", "v1.0-rc1", "refs/heads/a/b", "feature/x@y", ""] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in [
            "-x",
            "--upload-pack=x",
            "a..b",
            "a b",
            "a:b",
            "a^{}",
            "a~1",
            "x@{1}",
            "a\n",
            "*",
        ] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        assert!(is_commit(&id('a')) && !is_commit("abc") && !is_commit(&id('g')));
        assert!(may_be_short("abcd") && !may_be_short("abc") && !may_be_short("main"));
    }
}
