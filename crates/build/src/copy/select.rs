//! Which files a COPY means.
//!
//! - A source path is taken from the root of its tree; `..` cannot leave it; a trailing slash means nothing.
//! - Wildcards are matched component by component (Go's `filepath.Match`); one that matches nothing is no error, a plain
//!   path that is not there is one.
//! - A source that is itself a symbolic link is followed inside its tree; links below a copied directory are not.
//! - With `--parents` `**` matches any number of components, and the part of the path after the pivot `/./` is kept.

use firebuild_dockerfile::{IgnorePatterns, glob_match, has_wildcard};
use firebuild_rootfs::path;
use firebuild_rootfs::tree::{Follow, InodeId, Kind, Tree};

use super::{CopyError, CopyErrorKind};

/// One thing that was selected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected {
    /// Position of the source tree in what the caller gave.
    pub tree: usize,
    /// The inode, links followed.
    pub id: InodeId,
    /// The path as it was matched, clean: what names the copy. Empty for the root.
    pub path: Vec<u8>,
    /// With `--parents`: how many leading bytes of `path` stand before the pivot and are not kept.
    pub pivot: usize,
    /// Whether ADD fetched it from elsewhere.
    pub remote: bool,
}

/// One source of a COPY, before it is looked up.
#[derive(Clone, Debug)]
pub struct Selection<'a> {
    /// Position of the source tree in what the caller gave.
    pub tree: usize,
    /// The path or pattern, expanded.
    pub pattern: &'a str,
    /// Whether ADD fetched it from elsewhere.
    pub remote: bool,
}

/// Looks a source up. `exclude` is `--exclude`.
///
/// # Errors
/// When a plain path is not there, a pattern is malformed, or a link leads nowhere.
pub fn select(
    tree: &Tree,
    selection: &Selection<'_>,
    parents: bool,
    exclude: &IgnorePatterns,
) -> Result<Vec<Selected>, CopyError> {
    let (pattern, pivot) = split_pivot(selection.pattern, parents);
    let clean = path::clean_rooted(pattern.as_bytes())
        .map_err(|error| CopyError::caused(CopyErrorKind::Pattern, format!("cannot use the source {:?}", selection.pattern), error))?;
    let clean = String::from_utf8_lossy(&clean).into_owned();
    let paths = if has_wildcard(&clean) {
        expand(tree, &clean, parents)?
            .into_iter()
            .filter(|path| !exclude.is_ignored(path::file_name(path)))
            .collect()
    } else {
        vec![clean.clone().into_bytes()]
    };
    let mut selected = Vec::with_capacity(paths.len());
    for path in paths {
        let id = tree.lookup(&path, Follow::All).map_err(|error| {
            let shown = path::escape(&path);
            CopyError::caused(CopyErrorKind::NotFound, format!("\"/{shown}\" not found"), error)
        })?;
        // The pivot counts components, because a wildcard before it may have matched names of any length.
        let kept_from = component_offset(&path, pivot);
        selected.push(Selected { tree: selection.tree, id, path, pivot: kept_from, remote: selection.remote });
    }
    Ok(selected)
}

/// Splits `a/./b` into the whole path and the number of components before the pivot.
fn split_pivot(pattern: &str, parents: bool) -> (String, usize) {
    if parents && let Some(at) = pattern.find("/./") {
        let before = &pattern[..at];
        let count = path::components(before.as_bytes()).filter(|part| *part != b".").count();
        return (format!("{before}/{}", &pattern[at + 3..]), count);
    }
    (pattern.to_owned(), 0)
}

/// The offset of the component with a number.
fn component_offset(path: &[u8], number: usize) -> usize {
    if number == 0 {
        return 0;
    }
    let mut slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at + 1);
    slashes.nth(number - 1).unwrap_or(path.len())
}

/// All paths that a pattern matches, in byte order.
fn expand(tree: &Tree, pattern: &str, any_depth: bool) -> Result<Vec<Vec<u8>>, CopyError> {
    let components: Vec<&str> = pattern.split('/').collect();
    for component in &components {
        glob_match(component, b"").map_err(|error| CopyError::pattern(pattern, error))?;
    }
    let mut found = std::collections::BTreeSet::new();
    let mut todo: Vec<(Vec<u8>, usize)> = vec![(Vec::new(), 0)];
    while let Some((at, index)) = todo.pop() {
        let Some(component) = components.get(index) else {
            found.insert(at);
            continue;
        };
        if any_depth && *component == "**" {
            // Nothing, or one directory more and the same again.
            todo.push((at.clone(), index + 1));
            for (name, _) in children(tree, &at, Follow::ButLast) {
                todo.push((path::join(&at, name), index));
            }
            continue;
        }
        if !has_wildcard(component) {
            let next = path::join(&at, component.as_bytes());
            if tree.lookup(&next, Follow::ButLast).is_ok() {
                todo.push((next, index + 1));
            }
            continue;
        }
        for (name, _) in children(tree, &at, Follow::All) {
            if glob_match(component, name).map_err(|error| CopyError::pattern(pattern, error))? {
                todo.push((path::join(&at, name), index + 1));
            }
        }
    }
    // `a/**` means what is below `a`, not `a` once more.
    if any_depth && pattern.ends_with("**") {
        let base = pattern.trim_end_matches("**").trim_end_matches('/').as_bytes().to_vec();
        found.remove(&base);
    }
    Ok(found.into_iter().collect())
}

fn children<'t>(tree: &'t Tree, path: &[u8], follow: Follow) -> impl Iterator<Item = (&'t [u8], InodeId)> {
    let map = tree.lookup(path, follow).ok().and_then(|id| match &tree[id].kind {
        Kind::Dir(children) => Some(children),
        _ => None,
    });
    map.into_iter().flatten().map(|(name, id)| (&**name, *id))
}
