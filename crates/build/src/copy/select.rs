//! Which files a COPY means.
//!
//! - A source path is taken from the root of its tree; `..` cannot leave it; a trailing slash means nothing.
//! - Wildcards are matched component by component (Go's `filepath.Match`); one that matches nothing is no error, a plain
//!   path that is not there is one. From the first wildcard on, links to directories are not entered.
//! - A source that is itself a symbolic link is followed inside its tree; links below a copied directory are not.
//! - With `--parents` the source is everything below the pivot `/./` (without one: below the root), seen through a
//!   pattern: what matches keeps its path after the pivot, `**` matches any number of components, links stay links, and
//!   `--exclude` is relative to the pivot.

use std::collections::HashSet;

use firebuild_dockerfile::{IgnorePatterns, glob_match, has_wildcard};
use firebuild_rootfs::path;
use firebuild_rootfs::tree::{Follow, InodeId, Tree, TreeError};

use super::{CopyError, CopyErrorKind};

/// One thing that was selected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected {
    /// Position of the source tree in what the caller gave.
    pub tree: usize,
    /// The inode; a link at the end of the path is followed, except with `--parents`.
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
    let clean = path::clean_rooted(pattern.as_bytes()).map_err(|error| {
        CopyError::caused(
            CopyErrorKind::Pattern,
            format!("cannot use the source {:?}", selection.pattern),
            error,
        )
    })?;
    let clean = String::from_utf8_lossy(&clean).into_owned();
    let paths = if has_wildcard(&clean) {
        expand(tree, &clean, parents)?
    } else {
        vec![clean.into_bytes()]
    };
    let mut selected = Vec::with_capacity(paths.len());
    for path in paths {
        // The pivot counts components, because a wildcard before it may have matched names of any length.
        let pivot = component_offset(&path, pivot);
        let relative = if parents {
            &path[pivot..]
        } else {
            path::file_name(&path)
        };
        // What is named is wanted, also by a wildcard, whatever is excluded below it.
        if parents && exclude.is_ignored(relative) && !reaches_below(exclude, relative) {
            continue;
        }
        let follow = if parents {
            Follow::ButLast
        } else {
            Follow::All
        };
        let id = tree
            .lookup(&path, follow)
            .map_err(|error| not_found(&path, error))?;
        selected.push(Selected {
            tree: selection.tree,
            id,
            path,
            pivot,
            remote: selection.remote,
        });
    }
    Ok(selected)
}

fn not_found(path: &[u8], error: TreeError) -> CopyError {
    let text = format!("\"/{}\" not found", path::escape(path));
    CopyError::caused(CopyErrorKind::NotFound, text, error)
}

/// Whether an exception may match something below an excluded path.
fn reaches_below(exclude: &IgnorePatterns, path: &[u8]) -> bool {
    exclude.has_exceptions() && !exclude.skips_below(path)
}

/// Splits `a/./b` into the whole path and the number of components before the pivot.
fn split_pivot(pattern: &str, parents: bool) -> (String, usize) {
    if parents && let Some(at) = pattern.find("/./") {
        let before = &pattern[..at];
        let count = path::components(before.as_bytes())
            .filter(|part| *part != b".")
            .count();
        return (format!("{before}/{}", &pattern[at + 3..]), count);
    }
    (pattern.to_owned(), 0)
}

/// The offset of the component with a number.
fn component_offset(path: &[u8], number: usize) -> usize {
    if number == 0 {
        return 0;
    }
    let mut slashes = path
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'/')
        .map(|(at, _)| at + 1);
    slashes.nth(number - 1).unwrap_or(path.len())
}

/// All paths that a pattern matches, in the order of a walk. None is no error, but the directory before the first wildcard
/// has to be there.
fn expand(tree: &Tree, pattern: &str, any_depth: bool) -> Result<Vec<Vec<u8>>, CopyError> {
    let components: Vec<&str> = pattern.split('/').collect();
    for component in &components {
        glob_match(component, b"").map_err(|error| CopyError::pattern(pattern, error))?;
    }
    let plain = components
        .iter()
        .take_while(|component| !has_wildcard(component))
        .count();
    let base = components[..plain].join("/").into_bytes();
    let start = match tree.lookup(&base, Follow::All) {
        Ok(start) => start,
        // With `--parents` the whole is a pattern, which may match nothing.
        Err(_) if any_depth => return Ok(Vec::new()),
        Err(error) => return Err(not_found(&base, error)),
    };
    let mut found = Vec::new();
    // Two `**` lead to the same place in many ways; each is gone once.
    let mut seen: HashSet<(Vec<u8>, usize)> = HashSet::new();
    let mut todo = vec![(base, start, plain)];
    while let Some((at, id, index)) = todo.pop() {
        if !seen.insert((at.clone(), index)) {
            continue;
        }
        let Some(component) = components.get(index) else {
            found.push(at);
            continue;
        };
        let Some(children) = tree[id].children() else {
            continue;
        };
        let deep = any_depth && *component == "**";
        let last = index + 1 == components.len();
        // Backwards, so that they are taken in order.
        for (name, child) in children.iter().rev() {
            if deep {
                // `**` at the end means all that is here, each with what is below it.
                todo.push((
                    path::join(&at, name),
                    *child,
                    if last { index + 1 } else { index },
                ));
            } else if glob_match(component, name)
                .map_err(|error| CopyError::pattern(pattern, error))?
            {
                todo.push((path::join(&at, name), *child, index + 1));
            }
        }
        if deep && !last {
            todo.push((at, id, index + 1));
        }
    }
    // A path that was reached in two ways is meant once.
    let mut once = HashSet::new();
    found.retain(|path| once.insert(path.clone()));
    Ok(found)
}
