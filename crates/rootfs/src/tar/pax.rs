//! Extended headers: records of `LENGTH KEY=VALUE\n`, where LENGTH counts the whole record.

use crate::tree::Time;

/// The records in their order; GNU's first sparse format repeats keys.
#[derive(Clone, Debug, Default)]
pub(super) struct Records(pub(super) Vec<(Vec<u8>, Vec<u8>)>);

impl Records {
    /// The last record with this key. An empty value means that the key is to be taken as not given.
    pub(super) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let (_, value) = self.0.iter().rev().find(|(k, _)| k == key)?;
        (!value.is_empty()).then_some(value.as_slice())
    }

    /// A decimal number; the outer `None` when the key is not there.
    pub(super) fn number(&self, key: &[u8]) -> Option<Option<u64>> {
        self.get(key).map(decimal)
    }

    /// Reads records. `None` when the text is malformed.
    pub(super) fn parse(mut text: &[u8]) -> Option<Self> {
        let mut records = Vec::new();
        while !text.is_empty() {
            // Some archivers pad with NULs.
            if text.iter().all(|&b| b == 0) {
                break;
            }
            let blank = text.iter().take(20).position(|&b| b == b' ')?;
            let len = usize::try_from(decimal(&text[..blank])?).ok()?;
            let record = text.get(blank + 1..len)?;
            let record = record.strip_suffix(b"\n")?;
            let equals = record.iter().position(|&b| b == b'=')?;
            if equals == 0 {
                return None;
            }
            records.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
            text = &text[len..];
        }
        Some(Self(records))
    }
}

/// Appends a record.
pub(super) fn append(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    // The length counts its own digits: try until it is stable.
    let mut len = rest + 1;
    loop {
        let next = rest + len.to_string().len();
        if next == len {
            break;
        }
        len = next;
    }
    out.extend_from_slice(format!("{len} ").as_bytes());
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// Decimal digits and nothing else.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Seconds with any number of decimals, perhaps negative; more than nine decimals are cut.
pub(super) fn parse_time(text: &[u8]) -> Option<Time> {
    let (negative, digits) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = digits.splitn(2, |&b| b == b'.');
    let secs = i64::try_from(decimal(parts.next()?)?).ok()?;
    let fraction = parts.next().unwrap_or(b"");
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nanos = fraction
        .iter()
        .copied()
        .chain(std::iter::repeat(b'0'))
        .take(9)
        .fold(0u32, |n, digit| n * 10 + u32::from(digit - b'0'));
    Some(match (negative, nanos) {
        (false, _) => Time { secs, nanos },
        (true, 0) => Time { secs: -secs, nanos },
        (true, _) => Time {
            secs: -secs - 1,
            nanos: 1_000_000_000 - nanos,
        },
    })
}

/// The inverse of [`parse_time`].
pub(super) fn format_time(time: Time) -> String {
    if time.nanos == 0 {
        return time.secs.to_string();
    }
    let (sign, secs, nanos) = if time.secs < 0 {
        (
            "-",
            (time.secs + 1).unsigned_abs(),
            1_000_000_000 - time.nanos,
        )
    } else {
        ("", time.secs.unsigned_abs(), time.nanos)
    };
    format!("{sign}{secs}.{nanos:09}")
        .trim_end_matches('0')
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_round_trip_at_every_length() {
        for n in [
            0, 1, 4, 5, 6, 7, 88, 89, 90, 91, 92, 985, 986, 987, 988, 9975, 9980, 9985,
        ] {
            let value = vec![b'\n'; n];
            let mut out = Vec::new();
            append(&mut out, b"key", &value);
            append(&mut out, b"k", b"a=b");
            let records = Records::parse(&out).unwrap();
            assert_eq!(records.0[0].1, value, "{n}");
            assert_eq!(records.get(b"k").unwrap(), b"a=b");
        }
    }

    #[test]
    fn malformed_records() {
        for bad in [
            &b"x"[..],
            b"5 a=b",
            b"6 a=b\n\n1",
            b"3 \n",
            b"99999999999999999999999 a=b\n",
            b"7 =ab\n",
            b"2 a=b\n",
        ] {
            assert!(Records::parse(bad).is_none(), "{bad:?}");
        }
        assert!(Records::parse(b"6 a=b\n\0\0\0").is_some());
        assert!(Records::parse(b"5 a=\n").unwrap().get(b"a").is_none());
    }

    #[test]
    fn times() {
        for (text, secs, nanos) in [
            ("0", 0, 0),
            ("1.5", 1, 500_000_000),
            ("-1.5", -2, 500_000_000),
            ("-0.25", -1, 750_000_000),
            ("-3", -3, 0),
            ("4102444800.000000001", 4_102_444_800, 1),
        ] {
            let time = Time { secs, nanos };
            assert_eq!(parse_time(text.as_bytes()), Some(time));
            assert_eq!(format_time(time), text);
        }
        assert_eq!(parse_time(b"1.1234567891").unwrap().nanos, 123_456_789);
        for bad in [&b""[..], b"-", b"1.x", b"+1", b"99999999999999999999"] {
            assert_eq!(parse_time(bad), None);
        }
    }
}
