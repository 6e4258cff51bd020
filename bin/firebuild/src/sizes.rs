//! Sizes on the command line: `512`, `2G`, `1.5GiB`, `300m`.

use crate::failure::Failure;

/// Bytes of a size; a bare number is bytes.
pub(crate) fn bytes(text: &str, flag: &str) -> Result<u64, Failure> {
    parse(text, 1).ok_or_else(|| wrong(text, flag))
}

/// MiB of a size; a bare number is MiB, as the original's `--mem` takes it.
pub(crate) fn mebibytes(text: &str, flag: &str) -> Result<u32, Failure> {
    let bytes = parse(text, 1 << 20).ok_or_else(|| wrong(text, flag))?;
    u32::try_from(bytes.div_ceil(1 << 20)).map_err(|_| wrong(text, flag))
}

fn wrong(text: &str, flag: &str) -> Failure {
    Failure::usage(format!("{flag} {text:?} is no size"))
        .hint("a size is a number with K, M, G or T: 512M, 2G")
}

fn parse(text: &str, bare: u64) -> Option<u64> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let unit = match text[end..]
        .trim()
        .to_ascii_lowercase()
        .trim_end_matches("ib")
        .trim_end_matches('b')
    {
        "" if text[end..].is_empty() => bare,
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        _ => return None,
    };
    let (whole, fraction) = text[..end].split_once('.').unwrap_or((&text[..end], ""));
    let mut value = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    let mut scale = unit;
    for digit in fraction.chars() {
        scale /= 10;
        value = value.checked_add(scale.checked_mul(u64::from(digit.to_digit(10)?))?)?;
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn sizes() {
        for (text, bare, expected) in [
            ("512", 1, Some(512)),
            ("512", 1 << 20, Some(512 << 20)),
            ("2G", 1, Some(2 << 30)),
            ("2GiB", 1, Some(2 << 30)),
            ("1.5k", 1, Some(1024 + 510)),
            ("300mb", 1, Some(300 << 20)),
            ("7b", 1 << 20, Some(7)),
            ("", 1, None),
            ("G", 1, None),
            ("12X", 1, None),
            ("99999999999T", 1, None),
        ] {
            assert_eq!(parse(text, bare), expected, "{text}");
        }
    }
}
