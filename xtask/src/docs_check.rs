//! Every relative link in a Markdown file of the repository leads to a file, and its fragment to a heading.

use std::path::{Component, Path, PathBuf};

use crate::Fallible;

/// Links that lead nowhere.
pub(crate) fn problems(root: &Path) -> Fallible<Vec<String>> {
    let mut problems = Vec::new();
    for file in documents(root)? {
        let text = fs_err::read_to_string(root.join(&file))?;
        for (line, target) in links(&text) {
            if let Some(why) = broken(root, &file, &target) {
                problems.push(format!("{}:{line}: {target}: {why}", file.display()));
            }
        }
    }
    Ok(problems)
}

/// The Markdown files of the repository, sorted. What is built or hidden is left out, and test data is not documentation.
fn documents(root: &Path) -> Fallible<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(directory) = todo.pop() {
        for entry in fs_err::read_dir(root.join(&directory))? {
            let entry = entry?;
            let name = entry.file_name();
            let path = directory.join(&name);
            let name = name.to_string_lossy();
            if name.starts_with('.') || matches!(name.as_ref(), "target" | "context") {
                continue;
            }
            if entry.file_type()?.is_dir() {
                todo.push(path);
            } else if name.ends_with(".md") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The targets of links `[text](target)` outside of code, with their lines.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        let mut rest = line.as_str();
        while let Some((_, after)) = rest.split_once("](") {
            let Some((target, more)) = after.split_once(')') else {
                break;
            };
            let target = target.split_whitespace().next().unwrap_or_default();
            found.push((number, target.to_owned()));
            rest = more;
        }
    }
    found
}

/// Lines with their numbers, without code blocks and inline code.
fn prose(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut fence: Option<&str> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let start = line.trim_start();
        let mark = ["```", "~~~"]
            .into_iter()
            .find(|mark| start.starts_with(mark));
        match (fence, mark) {
            (Some(open), Some(mark)) if open == mark => fence = None,
            (None, Some(mark)) => fence = Some(mark),
            (None, None) => {
                let outside: String = line.split('`').step_by(2).collect::<Vec<_>>().join("``");
                lines.push((number, outside));
            }
            _ => {}
        }
    }
    lines
}

/// Why a link of `file` leads nowhere.
fn broken(root: &Path, file: &Path, target: &str) -> Option<String> {
    let scheme = target
        .split_once(':')
        .is_some_and(|(scheme, _)| scheme.chars().all(char::is_alphanumeric));
    if target.is_empty() || scheme {
        return target.is_empty().then(|| "empty link".to_owned());
    }
    let (path, fragment) = target.split_once('#').unwrap_or((target, ""));
    let place = if path.is_empty() {
        file.to_path_buf()
    } else {
        let Some(place) = resolve(file.parent().unwrap_or(Path::new("")), path) else {
            return Some("leads out of the repository".to_owned());
        };
        place
    };
    let full = root.join(&place);
    if !full.exists() {
        return Some("no such file".to_owned());
    }
    if fragment.is_empty() || place.extension().is_none_or(|extension| extension != "md") {
        return None;
    }
    let text = fs_err::read_to_string(full).ok()?;
    (!headings(&text).iter().any(|known| known == fragment)).then(|| "no such heading".to_owned())
}

/// A path relative to a directory, without `.` and `..`.
fn resolve(directory: &Path, path: &str) -> Option<PathBuf> {
    let mut place = directory.to_path_buf();
    for component in Path::new(path).components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                if !place.pop() {
                    return None;
                }
            }
            Component::Normal(name) => place.push(name),
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(place)
}

/// The fragments that lead to headings, as GitHub makes them.
fn headings(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for line in text.lines() {
        let Some(title) = line
            .trim_start_matches('#')
            .strip_prefix(' ')
            .filter(|_| line.starts_with('#'))
        else {
            continue;
        };
        let slug: String = title
            .trim()
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .map(|c| {
                if c == ' ' {
                    '-'
                } else {
                    c.to_ascii_lowercase()
                }
            })
            .collect();
        let again = found.iter().filter(|known| **known == slug).count();
        found.push(if again == 0 {
            slug
        } else {
            format!("{slug}-{again}")
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_are_linked_right() {
        assert_eq!(
            problems(&crate::root()).expect("the documents"),
            Vec::<String>::new()
        );
    }

    #[test]
    fn links_in_code_are_not_links() {
        let text = "[a](x.md) and [b](y.md#z \"title\")\n```\n[c](no)\n```\n`[d](no)` [e](https://e.org)\n";
        let found: Vec<(usize, String)> = links(text);
        let expected = [(1, "x.md"), (1, "y.md#z"), (5, "https://e.org")];
        assert_eq!(
            found,
            expected.map(|(line, target)| (line, target.to_owned()))
        );
    }

    #[test]
    fn headings_become_fragments() {
        assert_eq!(
            headings("# A `b` (c)\n## x-y z\n## x-y z\ntext # no\n"),
            ["a-b-c", "x-y-z", "x-y-z-1"]
        );
    }

    #[test]
    fn what_leads_nowhere_is_found() {
        let temp = tempfile::tempdir().expect("a directory");
        let root = temp.path();
        fs_err::create_dir(root.join("docs")).expect("a directory");
        fs_err::write(root.join("docs/a.md"), "# Title\n").expect("a file");
        let check = |target: &str| broken(root, Path::new("docs/b.md"), target);
        assert_eq!(check("a.md"), None);
        assert_eq!(check("a.md#title"), None);
        assert_eq!(check("../docs/a.md"), None);
        assert_eq!(check("https://example.org/x"), None);
        assert!(check("a.md#other").is_some());
        assert!(check("missing.md").is_some());
        assert!(check("../../etc/passwd").is_some());
        assert!(check("/etc/passwd").is_some());
    }
}
