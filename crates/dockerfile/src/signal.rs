//! Names and numbers of signals, as `STOPSIGNAL` and `kill` take them (Linux, x86 and arm numbering).

/// The classic signals. Several names may share a number.
const NAMES: [(&str, u8); 34] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
];

const RTMIN: u8 = 34;
const RTMAX: u8 = 64;

/// The number of a signal given as `TERM`, `SIGTERM` (any case), `RTMIN+3`, `SIGRTMAX-2` or `15`.
///
/// Numbers go from 1 to 64.
pub fn signal_number(text: &str) -> Option<u8> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let number = text.parse::<u8>().ok()?;
        return (1..=RTMAX).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return offset(rest, '+', 15).map(|n| RTMIN + n);
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        return offset(rest, '-', 14).map(|n| RTMAX - n);
    }
    NAMES
        .iter()
        .find(|(known, _)| *known == name)
        .map(|&(_, number)| number)
}

/// The nearest signal name, for hints.
pub fn nearest_signal(text: &str) -> Option<String> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    crate::suggest::nearest(name, NAMES.iter().map(|(known, _)| *known))
        .map(|near| format!("SIG{}", near.to_ascii_uppercase()))
}

/// `` or `+3`: a number up to `max` without leading zeros.
fn offset(text: &str, sign: char, max: u8) -> Option<u8> {
    if text.is_empty() {
        return Some(0);
    }
    let digits = text.strip_prefix(sign)?;
    let number: u8 = digits.parse().ok()?;
    (number <= max && number > 0 && digits == number.to_string()).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::{nearest_signal, signal_number};

    #[test]
    fn forms() {
        for (text, number) in [
            ("SIGTERM", Some(15)),
            ("term", Some(15)),
            ("sigkill", Some(9)),
            ("9", Some(9)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX", Some(64)),
            ("RTMAX-14", Some(50)),
            ("RTMIN+16", None),
            ("RTMIN+", None),
            ("RTMIN+03", None),
            ("RTMIN+0", None),
            ("0", None),
            ("32", Some(32)),
            ("65", None),
            ("300", None),
            ("", None),
            ("SIG", None),
            ("-1", None),
            ("NOPE", None),
        ] {
            assert_eq!(signal_number(text), number, "{text}");
        }
        assert_eq!(nearest_signal("SIGTREM").as_deref(), Some("SIGTERM"));
    }
}
