//! The name of a file that an address leads to.

/// The last element of an address's path, decoded; query and fragment do not count.
#[must_use]
pub fn url_file_name(url: &str) -> String {
    const UNNAMED: &str = "__unnamed__";
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let path = rest.split_once('/').map_or("", |(_, path)| path);
    let name = path
        .trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or_default();
    match percent_decode(name) {
        // A name that was decoded to a path names no file.
        Some(name)
            if !name.is_empty()
                && !matches!(name.as_str(), "." | "..")
                && !name.contains(['/', '\0']) =>
        {
            name
        }
        _ => UNNAMED.to_owned(),
    }
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::url_file_name;

    #[test]
    fn names_of_addresses() {
        for (url, name) in [
            ("http://h/a/b.txt", "b.txt"),
            ("http://h/a/b/?q=/x", "b"),
            ("http://h/a%20b#f", "a b"),
            ("http://h", "__unnamed__"),
            ("http://h/", "__unnamed__"),
            ("http://h/..", "__unnamed__"),
            ("http://h/a%2fb", "__unnamed__"),
            ("http://h/a%zz", "__unnamed__"),
            ("http://h?x=y", "__unnamed__"),
        ] {
            assert_eq!(url_file_name(url), name, "{url}");
        }
    }
}
