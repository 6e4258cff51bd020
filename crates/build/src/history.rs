//! Times of an image's history.
//!
//! Lowering leaves the times of new entries open, because a layer that comes from the cache keeps the time at which it
//! was made. [`stamp`] fills them in when the layers are known: an entry with a layer takes the layer's time, one without
//! takes that of the layer before it, and the image takes that of its last entry (BuildKit,
//! `exporter/containerimage/writer.go`). With an epoch nothing is later than that.

use firebuild_oci::{History, ImageConfig};

/// Fills in times. `layers` are the times of the layers in seconds since the epoch of Unix, lowest first, where known.
pub fn stamp(config: &mut ImageConfig, layers: &[Option<i64>], epoch: Option<i64>) {
    let mut times = layers.iter().copied();
    for entry in &mut config.history {
        if !entry.empty_layer {
            let time = times.next().flatten();
            if entry.created.is_none() {
                entry.created = time.map(rfc3339);
            }
        }
    }
    fill_gaps(&mut config.history);
    if let Some(epoch) = epoch {
        for entry in &mut config.history {
            if entry
                .created
                .as_deref()
                .and_then(seconds)
                .is_none_or(|time| time > epoch)
            {
                entry.created = Some(rfc3339(epoch));
            }
        }
        config.created = Some(rfc3339(epoch));
    } else if let Some(last) = config.history.last() {
        config.created.clone_from(&last.created);
    }
}

/// Entries without a time take that of the entry before; the first of them that of the first new layer.
fn fill_gaps(history: &mut [History]) {
    // The first time behind the first gap, or the last one before it.
    let mut first = None;
    let mut gap = false;
    for entry in history.iter() {
        match &entry.created {
            Some(time) => {
                first = Some(time.clone());
                if gap {
                    break;
                }
            }
            None => gap = true,
        }
    }
    let mut time = first;
    let mut gap = false;
    for entry in history {
        match &entry.created {
            Some(own) => {
                if gap {
                    time = Some(own.clone());
                }
            }
            None => {
                gap = true;
                entry.created.clone_from(&time);
            }
        }
    }
}

/// Seconds since the epoch of Unix as `2006-01-02T15:04:05Z`. Years before 0 and after 9999 are cut to those.
pub fn rfc3339(seconds: i64) -> String {
    // 0000-01-01 and the last second of 9999.
    let seconds = seconds.clamp(-62_167_219_200, 253_402_300_799);
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The date of a day counted from 1970-01-01, in the proleptic Gregorian calendar.
fn civil(days: i64) -> (i64, i64, i64) {
    // Years begin in March here, so that the leap day is the last of the year; an era has 400 years.
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The whole seconds of an RFC 3339 time; `None` when the text is none.
pub fn seconds(text: &str) -> Option<i64> {
    let number = |from: usize, to: usize| {
        let digits = text.get(from..to)?;
        digits
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| digits.parse::<i64>().ok())
            .flatten()
    };
    let bytes = text.as_bytes();
    let marks = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    if !marks.iter().all(|&(at, mark)| bytes.get(at) == Some(&mark))
        || !matches!(bytes.get(10), Some(b'T' | b't' | b' '))
    {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !(1..=12).contains(&month)
        || !(1..=31).contains(&day)
        || hour > 23
        || minute > 59
        || second > 60
    {
        return None;
    }
    let zone = text
        .get(19..)?
        .trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let offset = match zone.as_bytes() {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2]
            if [h1, h2, m1, m2].iter().all(|byte| byte.is_ascii_digit()) =>
        {
            let pair = |high: &u8, low: &u8| i64::from(high - b'0') * 10 + i64::from(low - b'0');
            let offset = pair(h1, h2) * 3600 + pair(m1, m2) * 60;
            if *sign == b'-' { -offset } else { offset }
        }
        _ => return None,
    };
    // March-based again: the inverse of `civil`.
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let year_of_era = shifted.rem_euclid(400);
    let month_index = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month_index + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second - offset)
}

#[cfg(test)]
mod tests {
    use super::{rfc3339, seconds, stamp};
    use firebuild_oci::{History, ImageConfig};

    #[test]
    fn times() {
        for (number, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_234_567_890, "2009-02-13T23:31:30Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(number), text);
            assert_eq!(seconds(text), Some(number), "{text}");
        }
        assert_eq!(rfc3339(i64::MAX), "9999-12-31T23:59:59Z");
        assert_eq!(rfc3339(i64::MIN), "0000-01-01T00:00:00Z");
        assert_eq!(seconds("1970-01-01T01:00:00.123456789+01:00"), Some(0));
        assert_eq!(seconds("1969-12-31T23:30:00-00:30"), Some(0));
        for text in [
            "",
            "1970-01-01",
            "1970-01-01T00:00:00",
            "1970-13-01T00:00:00Z",
            "1970-01-01T00:00:00+0100",
            "éééééééééééééééé",
        ] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    fn config(entries: &[(Option<&str>, bool)]) -> ImageConfig {
        let mut config = ImageConfig::default();
        for &(created, empty_layer) in entries {
            let created = created.map(str::to_owned);
            config.history.push(History {
                created,
                empty_layer,
                ..History::default()
            });
        }
        config
    }

    fn created(config: &ImageConfig) -> Vec<&str> {
        config
            .history
            .iter()
            .map(|entry| entry.created.as_deref().unwrap_or("-"))
            .collect()
    }

    #[test]
    fn gaps() {
        let old = "2000-01-01T00:00:00Z";
        let mut mixed = config(&[
            (Some(old), false),
            (None, true),
            (None, false),
            (None, true),
            (None, false),
        ]);
        stamp(&mut mixed, &[Some(0), Some(60), Some(120)], None);
        let minute = "1970-01-01T00:01:00Z";
        assert_eq!(
            created(&mixed),
            [old, minute, minute, minute, "1970-01-01T00:02:00Z"]
        );
        assert_eq!(mixed.created.as_deref(), Some("1970-01-01T00:02:00Z"));
        let mut only_text = config(&[(Some(old), false), (None, true)]);
        stamp(&mut only_text, &[Some(0)], None);
        assert_eq!(created(&only_text), [old, old]);
        let mut nothing = config(&[(None, true)]);
        stamp(&mut nothing, &[], None);
        assert_eq!(created(&nothing), ["-"]);
    }

    #[test]
    fn epochs() {
        let mut late = config(&[
            (Some("1969-01-01T00:00:00Z"), false),
            (Some("2000-01-01T00:00:00Z"), false),
            (None, true),
        ]);
        stamp(&mut late, &[None, None], Some(0));
        let zero = "1970-01-01T00:00:00Z";
        assert_eq!(created(&late), ["1969-01-01T00:00:00Z", zero, zero]);
        assert_eq!(late.created.as_deref(), Some(zero));
    }
}
