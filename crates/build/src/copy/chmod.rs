//! `--chmod`: an octal mode, or symbolic changes as in chmod(1).

/// A parsed `--chmod`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chmod {
    /// This mode for files and directories alike, and for parents that are made.
    Octal(u16),
    /// Changes relative to each file's own mode.
    Symbolic(Vec<Clause>),
}

/// One `[ugoa...][+-=][rwxXst...]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clause {
    /// Bits of user (4), group (2) and others (1).
    who: u8,
    /// Operators with their permissions, in order.
    actions: Vec<(char, String)>,
}

/// A `--chmod` that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid chmod parameter: {0:?} should be an octal number between 0 and 07777, or symbolic like u=rwX,go=rX"
)]
pub struct ChmodError(String);

impl Chmod {
    /// Reads a `--chmod`.
    ///
    /// # Errors
    /// When it is neither an octal number up to 07777 nor a list of symbolic clauses.
    pub fn parse(text: &str) -> Result<Self, ChmodError> {
        let wrong = || ChmodError(text.to_owned());
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            return match u16::from_str_radix(text, 8) {
                Ok(mode) if mode <= 0o7777 => Ok(Self::Octal(mode)),
                _ => Err(wrong()),
            };
        }
        text.split(',')
            .map(|clause| Clause::parse(clause).ok_or_else(wrong))
            .collect::<Result<_, _>>()
            .map(Self::Symbolic)
    }

    /// The mode that a file gets.
    #[must_use]
    pub fn apply(&self, mode: u16, is_dir: bool) -> u16 {
        match self {
            Self::Octal(mode) => *mode,
            Self::Symbolic(clauses) => clauses
                .iter()
                .fold(mode, |mode, clause| clause.apply(mode, is_dir)),
        }
    }

    /// The mode of parents that are made: as of `mkdir` with a umask of 022, which is that of Docker's daemon.
    #[must_use]
    pub fn of_parents(&self) -> u16 {
        match self {
            Self::Octal(mode) => mode & 0o755,
            Self::Symbolic(_) => 0o755,
        }
    }
}

impl Clause {
    fn parse(text: &str) -> Option<Self> {
        let at = text.find(['+', '-', '='])?;
        let mut who = 0;
        for c in text[..at].chars() {
            who |= match c {
                'u' => 4,
                'g' => 2,
                'o' => 1,
                'a' => 7,
                _ => return None,
            };
        }
        if who == 0 {
            who = 7;
        }
        let mut actions: Vec<(char, String)> = Vec::new();
        for c in text[at..].chars() {
            match c {
                '+' | '-' | '=' => actions.push((c, String::new())),
                'r' | 'w' | 'x' | 'X' | 's' | 't' | 'u' | 'g' | 'o' => {
                    actions.last_mut()?.1.push(c)
                }
                _ => return None,
            }
        }
        Some(Self { who, actions })
    }

    fn apply(&self, mut mode: u16, is_dir: bool) -> u16 {
        let before = mode;
        for (operator, permissions) in &self.actions {
            let mut bits = 0;
            for permission in permissions.chars() {
                bits |= self.bits(permission, before, mode, is_dir);
            }
            match operator {
                '+' => mode |= bits,
                '-' => mode &= !bits,
                _ => {
                    let mut cleared = self.spread(7);
                    // `=` also takes set-id bits away from files; those of directories are left, as chmod(1) does. Where
                    // the permissions of somebody else are taken over, they stay.
                    let copies = permissions.contains(['u', 'g', 'o']);
                    if !is_dir && !copies {
                        cleared |= if self.who & 4 != 0 { 0o4000 } else { 0 }
                            | if self.who & 2 != 0 { 0o2000 } else { 0 };
                    }
                    mode = (mode & !cleared) | bits;
                }
            }
        }
        mode
    }

    /// Three permission bits for everybody the clause is about.
    fn spread(&self, bits: u16) -> u16 {
        let mut mode = 0;
        for (mask, shift) in [(4, 6), (2, 3), (1, 0)] {
            if self.who & mask != 0 {
                mode |= bits << shift;
            }
        }
        mode
    }

    fn bits(&self, permission: char, before: u16, mode: u16, is_dir: bool) -> u16 {
        match permission {
            'r' => self.spread(4),
            'w' => self.spread(2),
            'x' => self.spread(1),
            'X' if is_dir || before & 0o111 != 0 => self.spread(1),
            's' => {
                (if self.who & 4 != 0 { 0o4000 } else { 0 })
                    | (if self.who & 2 != 0 { 0o2000 } else { 0 })
            }
            // For others alone it means nothing.
            't' if self.who == 1 => 0,
            't' => 0o1000,
            'u' => self.spread((mode >> 6) & 7),
            'g' => self.spread((mode >> 3) & 7),
            'o' => self.spread(mode & 7),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Chmod;

    #[test]
    fn modes() {
        for (text, mode, is_dir, expected) in [
            ("755", 0o600, false, 0o755),
            ("0700", 0o4755, true, 0o700),
            ("7777", 0, false, 0o7777),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, false, 0o755),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("u=rw,go=", 0o755, false, 0o600),
            ("+x", 0o644, false, 0o755),
            ("a-w", 0o666, false, 0o444),
            ("u+s,g+s,+t", 0o755, false, 0o7755),
            ("g=u", 0o640, false, 0o660),
            ("o+r-w", 0o602, false, 0o604),
            ("o+t", 0o644, false, 0o644),
            ("u+t", 0o644, false, 0o1644),
            ("u=g", 0o4755, false, 0o4555),
        ] {
            assert_eq!(
                Chmod::parse(text).unwrap().apply(mode, is_dir),
                expected,
                "{text}"
            );
        }
        for text in ["10000", "8", "", "u", "u+y", "z+r", "7a", "-1", "0o755"] {
            assert!(Chmod::parse(text).is_err(), "{text}");
        }
    }
}
