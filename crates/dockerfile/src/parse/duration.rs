//! Durations as Go writes them: `1h30m`, `1.5s`, `100ms`.

use std::time::Duration;

/// Units in nanoseconds.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// What a duration text says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    Negative,
    Value(Duration),
}

/// A duration as Go reads it (`time.ParseDuration`): `1m30s`, `1.5s`, `100ms`; `None` for anything else, for one below zero
/// and for one above 2^63 - 1 ns (292 years).
#[must_use]
pub fn go_duration(text: &str) -> Option<Duration> {
    match parse_duration(text)? {
        Parsed::Negative => None,
        Parsed::Value(duration) => Some(duration),
    }
}

/// Go's `time.ParseDuration`; `None` when the text is none or above 2^63 - 1 ns (292 years).
pub(super) fn parse_duration(text: &str) -> Option<Parsed> {
    let (text, negative) = match text.as_bytes().first()? {
        b'-' => (&text[1..], true),
        b'+' => (&text[1..], false),
        _ => (text, false),
    };
    if text == "0" {
        return Some(Parsed::Value(Duration::ZERO));
    }
    if text.is_empty() {
        return None;
    }
    let mut rest = text;
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let number = rest.len()
            - rest
                .trim_start_matches(|c: char| c.is_ascii_digit() || c == '.')
                .len();
        let (digits, tail) = rest.split_at(number);
        let unit = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let scale = UNITS.iter().find(|(name, _)| *name == unit)?.1;
        total = total.checked_add(scaled(digits, scale)?)?;
        rest = tail;
    }
    let nanos = u64::try_from(i64::try_from(total).ok()?).ok()?;
    if negative && nanos > 0 {
        return Some(Parsed::Negative);
    }
    Some(Parsed::Value(Duration::from_nanos(nanos)))
}

/// `12.5` times the unit, cut to whole nanoseconds.
fn scaled(digits: &str, scale: u64) -> Option<u128> {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let scale = u128::from(scale);
    let whole: u128 = match whole {
        "" => 0,
        _ => u128::from(whole.parse::<u64>().ok()?),
    };
    // Digits behind the 18th are below a nanosecond of the largest unit.
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let fraction = &fraction[..fraction.len().min(18)];
    let part: u128 = match fraction {
        "" => 0,
        _ => {
            fraction.parse::<u128>().ok()? * scale / 10u128.pow(u32::try_from(fraction.len()).ok()?)
        }
    };
    whole.checked_mul(scale)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::{Parsed, parse_duration};
    use std::time::Duration;

    #[test]
    fn forms() {
        for (text, nanos) in [
            ("0", Some(0)),
            ("+0", Some(0)),
            ("1s", Some(1_000_000_000)),
            ("1h30m", Some(5_400_000_000_000)),
            ("1.5s", Some(1_500_000_000)),
            (".5s", Some(500_000_000)),
            ("1.s", Some(1_000_000_000)),
            ("100ms1us2ns", Some(100_001_002)),
            ("1µs", Some(1_000)),
            ("0.0000000000000000000001h", Some(0)),
            ("-0s", Some(0)),
            ("", None),
            ("-", None),
            ("1", None),
            ("s", None),
            (".s", None),
            ("1..5s", None),
            ("1x", None),
            ("1 s", None),
            ("1S", None),
            ("9999999999h", None),
        ] {
            let expected = nanos.map(|n| Parsed::Value(Duration::from_nanos(n)));
            assert_eq!(parse_duration(text), expected, "{text}");
        }
        assert_eq!(parse_duration("-1s"), Some(Parsed::Negative));
    }
}
