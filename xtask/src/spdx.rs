//! Licence expressions of SPDX, as far as manifests use them: names, `AND`, `OR`, `WITH`, parentheses, and `/` as the
//! old way to write `OR`.

/// Whether an expression can be satisfied with these licences. `None` when it cannot be read.
pub(crate) fn allows(expression: &str, licences: &[&str]) -> Option<bool> {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    // One frame per open parenthesis: (an alternative was satisfied, the current one is so far, a term is wanted).
    let mut stack = vec![(false, true, true)];
    let mut at = 0;
    while at < tokens.len() {
        let nested = stack.len() > 1;
        let (any, all, wanted) = stack.last_mut()?;
        let value = match tokens[at] {
            "(" if *wanted => {
                stack.push((false, true, true));
                at += 1;
                continue;
            }
            ")" if !*wanted && nested => {
                let (any, all, _) = stack.pop()?;
                any || all
            }
            "AND" if !*wanted => {
                *wanted = true;
                at += 1;
                continue;
            }
            "OR" if !*wanted => {
                *any |= *all;
                (*all, *wanted) = (true, true);
                at += 1;
                continue;
            }
            "(" | ")" | "AND" | "OR" | "WITH" => return None,
            name if *wanted => {
                if tokens.get(at + 1) == Some(&"WITH") {
                    let exception = format!("{name} WITH {}", tokens.get(at + 2)?);
                    at += 2;
                    licences.contains(&exception.as_str())
                } else {
                    licences.contains(&name)
                }
            }
            _ => return None,
        };
        let (_, all, wanted) = stack.last_mut()?;
        *all &= value;
        *wanted = false;
        at += 1;
    }
    match stack.as_slice() {
        [(any, all, false)] => Some(*any || *all),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::allows;

    #[test]
    fn expressions_are_read() {
        let ours = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"];
        for (expression, answer) in [
            ("MIT", Some(true)),
            ("GPL-2.0", Some(false)),
            ("GPL-2.0 OR MIT", Some(true)),
            ("MIT/Apache-2.0", Some(true)),
            ("MIT AND GPL-2.0", Some(false)),
            ("GPL-2.0 OR MIT AND ISC", Some(true)),
            ("(GPL-2.0 OR MIT) AND ISC", Some(true)),
            ("(MIT OR ISC) AND GPL-2.0", Some(false)),
            ("Apache-2.0 WITH LLVM-exception OR GPL-2.0", Some(true)),
            ("Apache-2.0", Some(false)),
            ("", None),
            ("MIT OR", None),
            ("(MIT", None),
            ("MIT)", None),
            ("MIT MIT", None),
        ] {
            assert_eq!(allows(expression, &ours), answer, "{expression}");
        }
    }
}
