//! Moments as people write them: RFC 3339, a date, seconds since 1970, or how long ago (`docker logs --since`).

use std::fmt;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// A text that names no moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MomentError(String);

impl fmt::Display for MomentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is no time: 2026-11-25T08:00:00Z, 2026-11-25, seconds since 1970, or how long ago: 90s, 10m, 1h30m",
            self.0
        )
    }
}

impl std::error::Error for MomentError {}

/// Reads a moment; without a zone it is UTC, and how long ago counts from `now`.
///
/// # Errors
/// A text that is none of these.
pub fn parse(text: &str, now: Timestamp) -> Result<Timestamp, MomentError> {
    let bad = || MomentError(text.to_owned());
    if let Some(ago) = ago(text) {
        return now.checked_sub(ago).map_err(|_| bad());
    }
    if let Some(seconds) = unix(text) {
        return seconds.ok_or_else(bad);
    }
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Ok(moment);
    }
    let civil = text
        .parse::<DateTime>()
        .or_else(|_| text.parse::<Date>().map(Date::into));
    let moment = civil.and_then(|civil| civil.to_zoned(TimeZone::UTC));
    moment.map(|zoned| zoned.timestamp()).map_err(|_| bad())
}

/// Seconds since 1970, with a fraction or not.
fn unix(text: &str) -> Option<Option<Timestamp>> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let nanoseconds = format!("{fraction:0<9}").parse().ok()?;
    let seconds = whole.parse().ok();
    Some(seconds.and_then(|seconds| Timestamp::new(seconds, nanoseconds).ok()))
}

/// A duration as Go writes it: numbers with units, one behind the other.
fn ago(text: &str) -> Option<SignedDuration> {
    let mut total = SignedDuration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let units = [
            ("ns", 1e-9),
            ("us", 1e-6),
            ("ms", 1e-3),
            ("h", 3600.0),
            ("m", 60.0),
            ("s", 1.0),
        ];
        let (unit, seconds) = units.into_iter().find(|(unit, _)| rest.starts_with(unit))?;
        rest = &rest[unit.len()..];
        let part = SignedDuration::try_from_secs_f64(number * seconds).ok()?;
        total = total.checked_add(part)?;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::parse;

    #[test]
    fn moments_are_read_as_docker_reads_them() {
        let now: Timestamp = "2026-11-25T08:00:00Z".parse().unwrap();
        for (text, expected) in [
            ("2026-11-25T07:30:00Z", "2026-11-25T07:30:00Z"),
            ("2026-11-25T07:30:00.5+01:00", "2026-11-25T06:30:00.5Z"),
            ("2026-11-25T07:30:00", "2026-11-25T07:30:00Z"),
            ("2026-11-24", "2026-11-24T00:00:00Z"),
            ("1700000000", "2023-11-14T22:13:20Z"),
            ("1700000000.25", "2023-11-14T22:13:20.25Z"),
            ("10m", "2026-11-25T07:50:00Z"),
            ("1h30m", "2026-11-25T06:30:00Z"),
            ("1.5s", "2026-11-25T07:59:58.5Z"),
            ("250ms", "2026-11-25T07:59:59.75Z"),
        ] {
            let moment = parse(text, now).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(moment.to_string(), expected, "{text}");
        }
        for bad in [
            "",
            "yesterday",
            "10",
            "5x",
            "m",
            "1h30",
            "99999999999999999999",
            "2026-13-01",
        ] {
            // A bare number is seconds since 1970.
            assert_eq!(parse(bad, now).is_err(), bad != "10", "{bad}");
        }
    }
}
