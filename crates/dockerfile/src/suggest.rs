//! "Did you mean": the nearest of some names.

/// Names further away than this are no suggestion.
const MAX_DISTANCE: usize = 2;

/// The nearest of `names` to `word`, in any case, if it is near; in capitals when `word` is.
///
/// Gives nothing when `word` is one of the names: then something else is wrong.
pub fn nearest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<String> {
    // Words much longer than every name cannot be near one; do not measure them.
    if word.is_empty() || word.len() > 64 {
        return None;
    }
    let wanted = word.to_lowercase();
    let mut best: Option<(usize, String)> = None;
    for name in names {
        let name = name.to_lowercase();
        if name == wanted {
            return None;
        }
        let distance = distance(&wanted, &name);
        if distance <= MAX_DISTANCE
            && best
                .as_ref()
                .is_none_or(|(d, n)| (distance, &name) < (*d, n))
        {
            best = Some((distance, name));
        }
    }
    best.map(|(_, name)| {
        if word.chars().any(char::is_alphabetic) && word == word.to_uppercase() {
            name.to_uppercase()
        } else {
            name
        }
    })
}

/// The nearest of `names` to `word` where case counts, as in names of variables; nothing when it is one of them.
pub fn nearest_exact<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.is_empty() || word.len() > 64 {
        return None;
    }
    let mut best: Option<(usize, &str)> = None;
    for name in names {
        if name == word {
            return None;
        }
        // The lengths alone bound the distance from below.
        if name.len().abs_diff(word.len()) > 4 * MAX_DISTANCE {
            continue;
        }
        let distance = distance(word, name);
        if distance <= MAX_DISTANCE && best.is_none_or(|known| (distance, name) < known) {
            best = Some((distance, name));
        }
    }
    best.map(|(_, name)| name)
}

/// Levenshtein distance in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &cb) in b.iter().enumerate() {
            let replace = diagonal + usize::from(ca != cb);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::{distance, nearest, nearest_exact};

    #[test]
    fn distances() {
        for (a, b, d) in [
            ("", "abc", 3),
            ("kitten", "sitting", 3),
            ("copy", "cpoy", 2),
            ("x", "x", 0),
        ] {
            assert_eq!(distance(a, b), d, "{a} {b}");
            assert_eq!(distance(b, a), d, "{b} {a}");
        }
    }

    #[test]
    fn near_names() {
        let names = ["COPY", "ENTRYPOINT", "RUN"];
        assert_eq!(nearest("FNTRYPOINT", names).as_deref(), Some("ENTRYPOINT"));
        assert_eq!(nearest("cpoy", names).as_deref(), Some("copy"));
        assert_eq!(nearest("FETCH", names), None);
        assert_eq!(nearest("run", names), None, "exact");
        assert_eq!(nearest("", names), None);
        assert_eq!(
            nearest_exact("VERSON", ["VERSION", "verson"]),
            Some("VERSION")
        );
        assert_eq!(nearest_exact("version", ["VERSION"]), None);
    }
}
