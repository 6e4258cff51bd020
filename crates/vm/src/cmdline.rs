//! The kernel command line: arguments merged by key.
//!
//! The backend's defaults come first, in their order. An argument of the caller replaces every default of the same key
//! and otherwise goes to the end; several arguments of one key stay several (`console=` may be given twice). Keys on
//! which the boot rests are refused, compared as the kernel compares parameter names (`kernel/params.c`, `parameq`:
//! `-` and `_` are the same). What follows ` -- ` would be arguments of the init, so `--` is refused too.

use std::fmt;

/// Longest command line in bytes: `COMMAND_LINE_SIZE` of x86 (`arch/x86/include/asm/setup.h`) without its final NUL.
pub const MAX_BYTES: usize = 2047;

/// Keys that the caller may not set: the machine would not come up, or its end would not be seen.
const RESERVED: [&str; 12] = [
    "init",
    "initrd",
    "panic",
    "rdinit",
    "reboot",
    "ro",
    "root",
    "rootflags",
    "rootfstype",
    "rootwait",
    "rw",
    "--",
];

/// An argument or a command line that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CmdlineError {
    /// Something that is not one argument.
    Malformed {
        /// The argument.
        argument: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// A key that the boot rests on.
    Reserved {
        /// The argument.
        argument: String,
    },
    /// More than there is room for.
    TooLong {
        /// Length of the whole command line in bytes.
        bytes: usize,
        /// How long it may be.
        most: usize,
    },
}

impl fmt::Display for CmdlineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { argument, problem } => {
                write!(f, "kernel argument {argument:?} {problem}")
            }
            Self::Reserved { argument } => {
                write!(
                    f,
                    "kernel argument {argument:?} is reserved: the guest init and the root file system depend on it"
                )
            }
            Self::TooLong { bytes, most } => {
                write!(
                    f,
                    "kernel command line has {bytes} bytes, it may have {most}; give fewer arguments"
                )
            }
        }
    }
}

impl std::error::Error for CmdlineError {}

/// Checks one argument of the caller.
///
/// # Errors
/// When it is not one argument, or reserved.
pub fn check_argument(argument: &str) -> Result<(), CmdlineError> {
    let malformed = |problem| CmdlineError::Malformed {
        argument: argument.to_owned(),
        problem,
    };
    let key = key(argument);
    if key.is_empty() {
        return Err(malformed("has no name"));
    }
    if !argument.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        return Err(malformed("has characters other than printable ASCII"));
    }
    if !argument.matches('"').count().is_multiple_of(2) {
        return Err(malformed("has a quote that does not end"));
    }
    // The kernel takes spaces inside double quotes only (lib/cmdline.c, next_arg).
    let mut quoted = false;
    for byte in argument.bytes() {
        match byte {
            b'"' => quoted = !quoted,
            b' ' if !quoted => return Err(malformed("has a space outside double quotes")),
            _ => {}
        }
    }
    if key.contains('"') {
        return Err(malformed("has a quote in its name"));
    }
    if RESERVED.iter().any(|reserved| same_key(reserved, key)) {
        return Err(CmdlineError::Reserved {
            argument: argument.to_owned(),
        });
    }
    Ok(())
}

/// The command line of these defaults and these arguments of the caller.
///
/// # Errors
/// As [`check_argument`]; a command line that is too long.
pub fn merge(defaults: &[&str], arguments: &[String]) -> Result<String, CmdlineError> {
    merge_within(defaults, arguments, MAX_BYTES)
}

/// The same for a VMM that adds words of its own and leaves room for `most` bytes.
///
/// # Errors
/// As [`merge`].
pub fn merge_within(
    defaults: &[&str],
    arguments: &[String],
    most: usize,
) -> Result<String, CmdlineError> {
    for argument in arguments {
        check_argument(argument)?;
    }
    let kept = defaults.iter().filter(|default| {
        !arguments
            .iter()
            .any(|argument| same_key(key(argument), key(default)))
    });
    let words: Vec<&str> = kept
        .copied()
        .chain(arguments.iter().map(String::as_str))
        .collect();
    let line = words.join(" ");
    if line.len() > most {
        return Err(CmdlineError::TooLong {
            bytes: line.len(),
            most,
        });
    }
    Ok(line)
}

fn key(argument: &str) -> &str {
    argument.split_once('=').map_or(argument, |(key, _)| key)
}

fn same_key(a: &str, b: &str) -> bool {
    let fold = |byte: u8| if byte == b'-' { b'_' } else { byte };
    a.len() == b.len() && a.bytes().zip(b.bytes()).all(|(a, b)| fold(a) == fold(b))
}

#[cfg(test)]
mod tests {
    use super::{CmdlineError, MAX_BYTES, check_argument, merge};

    fn merged(arguments: &[&str]) -> Result<String, CmdlineError> {
        let arguments: Vec<String> = arguments.iter().map(|&a| a.to_owned()).collect();
        merge(
            &["console=ttyS0", "quiet", "random.trust_cpu=on"],
            &arguments,
        )
    }

    #[test]
    fn arguments_replace_defaults_of_their_key() {
        assert_eq!(
            merged(&[]).unwrap(),
            "console=ttyS0 quiet random.trust_cpu=on"
        );
        assert_eq!(
            merged(&["quiet"]).unwrap(),
            "console=ttyS0 random.trust_cpu=on quiet"
        );
        assert_eq!(
            merged(&["console=tty0", "console=ttyS0,9600"]).unwrap(),
            "quiet random.trust_cpu=on console=tty0 console=ttyS0,9600"
        );
        assert_eq!(
            merged(&["random.trust-cpu=off"]).unwrap(),
            "console=ttyS0 quiet random.trust-cpu=off"
        );
        assert_eq!(
            merged(&["dyndbg=\"file a +p\""]).unwrap(),
            "console=ttyS0 quiet random.trust_cpu=on dyndbg=\"file a +p\""
        );
    }

    #[test]
    fn reserved_keys_are_refused_however_they_are_written() {
        for argument in [
            "init=/bin/sh",
            "rdinit=/x",
            "root=/dev/vda",
            "ro",
            "rw",
            "panic=5",
            "reboot=k",
            "--",
            "rootflags",
        ] {
            assert!(
                matches!(check_argument(argument), Err(CmdlineError::Reserved { .. })),
                "{argument}"
            );
        }
        check_argument("init_on_alloc=1").unwrap();
        check_argument("panic_on_warn=1").unwrap();
    }

    #[test]
    fn what_is_not_one_argument_is_refused() {
        for argument in [
            "",
            "=x",
            "a b",
            "a=b c",
            "a=\"b",
            "a\nb",
            "a=\u{e4}",
            "\"a b\"=c",
            "a=\"b\" c",
        ] {
            assert!(
                matches!(
                    check_argument(argument),
                    Err(CmdlineError::Malformed { .. })
                ),
                "{argument:?}"
            );
        }
    }

    #[test]
    fn the_length_has_a_limit() {
        let room = MAX_BYTES - merged(&[]).unwrap().len() - 1;
        merged(&[&"a".repeat(room)]).unwrap();
        assert_eq!(
            merged(&[&"a".repeat(room + 1)]).unwrap_err(),
            CmdlineError::TooLong {
                bytes: MAX_BYTES + 1,
                most: MAX_BYTES,
            }
        );
    }
}
