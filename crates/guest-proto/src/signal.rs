//! Signals by number and by name, as STOPSIGNAL and `kill --signal` write them.
//!
//! Names and numbers are those of Linux on every architecture but alpha, mips, parisc and sparc (signal(7));
//! the real-time range is the one a program on glibc sees (`SIGRTMIN` is 34), as in moby/sys `signal`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A signal that can be sent: 1 to 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Signal(u8);

/// The first real-time signal that programs may use; the C library keeps 32 and 33 for itself.
const RTMIN: u8 = 34;
/// The last signal there is.
const RTMAX: u8 = 64;

const NAMES: [(&str, u8); 34] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
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
    ("PWR", 30),
    ("SYS", 31),
    // Other names of the same numbers, after the ones that are printed.
    ("IOT", 6),
    ("CLD", 17),
    ("POLL", 29),
];

impl Signal {
    /// SIGHUP.
    pub const HUP: Signal = Signal(1);
    /// SIGINT.
    pub const INT: Signal = Signal(2);
    /// SIGKILL.
    pub const KILL: Signal = Signal(9);
    /// SIGTERM, the default of `stop`.
    pub const TERM: Signal = Signal(15);

    /// The signal of a number, if there is one.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Signal> {
        (1..=RTMAX).contains(&number).then_some(Signal(number))
    }

    /// Its number, 1 to 64.
    #[must_use]
    pub fn number(self) -> u8 {
        self.0
    }
}

/// A text or a number that names no signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseSignalError(String);

impl fmt::Display for ParseSignalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' is no signal", self.0.escape_default())
    }
}

impl std::error::Error for ParseSignalError {}

impl FromStr for Signal {
    type Err = ParseSignalError;

    /// Reads `15`, `TERM`, `SIGTERM`, `sigterm`, `RTMIN`, `SIGRTMIN+3`, `RTMAX-2`.
    fn from_str(text: &str) -> Result<Signal, ParseSignalError> {
        let error = || ParseSignalError(text.to_owned());
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            return text
                .parse()
                .ok()
                .and_then(Signal::from_number)
                .ok_or_else(error);
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
            return Ok(Signal(*number));
        }
        real_time(name).ok_or_else(error)
    }
}

fn real_time(name: &str) -> Option<Signal> {
    let (base, sign, offset) = if let Some(rest) = name.strip_prefix("RTMIN") {
        (RTMIN, '+', rest)
    } else if let Some(rest) = name.strip_prefix("RTMAX") {
        (RTMAX, '-', rest)
    } else {
        return None;
    };
    if offset.is_empty() {
        return Some(Signal(base));
    }
    let digits = offset.strip_prefix(sign)?;
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let offset: u8 = digits.parse().ok()?;
    let number = if sign == '+' {
        base.checked_add(offset)?
    } else {
        base.checked_sub(offset)?
    };
    (RTMIN..=RTMAX).contains(&number).then_some(Signal(number))
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => write!(f, "SIG{name}"),
            None if self.0 == RTMIN => f.write_str("SIGRTMIN"),
            None if self.0 > RTMIN => write!(f, "SIGRTMIN+{}", self.0 - RTMIN),
            None => write!(f, "signal {}", self.0),
        }
    }
}

impl TryFrom<u8> for Signal {
    type Error = ParseSignalError;

    fn try_from(number: u8) -> Result<Signal, ParseSignalError> {
        Signal::from_number(number).ok_or_else(|| ParseSignalError(number.to_string()))
    }
}

impl From<Signal> for u8 {
    fn from(signal: Signal) -> u8 {
        signal.0
    }
}

#[cfg(test)]
mod tests {
    use super::Signal;

    #[test]
    fn reads_numbers_names_and_real_time_signals() {
        for (text, number) in [
            ("15", 15),
            ("TERM", 15),
            ("SIGTERM", 15),
            ("sigquit", 3),
            ("SIGRTMIN+3", 37),
            ("RTMAX-14", 50),
            ("RTMIN", 34),
            ("64", 64),
            ("IOT", 6),
        ] {
            assert_eq!(text.parse::<Signal>().unwrap().number(), number, "{text}");
        }
        for text in [
            "", "0", "65", "SIG", "NOPE", "RTMIN-1", "RTMIN+31", "RTMAX-31", "RTMIN+", "-1", "256",
            "RTMIN++1",
        ] {
            text.parse::<Signal>().unwrap_err();
        }
    }

    #[test]
    fn every_signal_prints_as_a_name_that_reads_back() {
        for number in 1..=64 {
            let signal = Signal::from_number(number).unwrap();
            if number != 32 && number != 33 {
                assert_eq!(signal.to_string().parse::<Signal>().unwrap(), signal);
            }
        }
    }
}
