//! The part of a terminal that a live view owns: its last lines, drawn again and again in place.
//!
//! Each drawing is one write: the cursor goes up over the last drawing, lines are overwritten and cleared to their ends,
//! and what is left below is erased. Nothing is blank in between, so nothing flickers; terminals that know synchronised
//! output (private mode 2026) show the whole at once. A terminal that became narrower has wrapped the old lines: the
//! cursor goes up by the rows that they take now.

use std::fmt::Write as _;
use std::io::Write as _;

use console::{Term, measure_text_width};

/// Columns and rows where the terminal does not tell.
const DEFAULT_SIZE: (usize, usize) = (80, 24);
/// A frame narrower than this could not be read.
const MIN_COLUMNS: usize = 20;

/// The view's place on the terminal.
#[derive(Debug)]
pub(super) struct Screen {
    term: Term,
    /// Widths of the lines that stand there.
    drawn: Vec<usize>,
    /// Lines that stand there, to be drawn again below something else.
    lines: Vec<String>,
}

impl Screen {
    pub(super) fn stderr() -> Self {
        Self {
            term: Term::stderr(),
            drawn: Vec::new(),
            lines: Vec::new(),
        }
    }

    /// Columns and rows that a frame may take.
    pub(super) fn size(&self) -> (usize, usize) {
        let (rows, columns) = self
            .term
            .size_checked()
            .map_or((DEFAULT_SIZE.1, DEFAULT_SIZE.0), |(rows, columns)| {
                (usize::from(rows), usize::from(columns))
            });
        // The last column stays free, for terminals wrap early; so does the last row, where the cursor is.
        (columns.max(MIN_COLUMNS) - 1, rows.saturating_sub(1).max(2))
    }

    /// Draws a frame in place of the last one.
    pub(super) fn draw(&mut self, lines: &[String], columns: usize) {
        let bytes = self.redraw(None, lines, columns);
        self.write(&bytes);
    }

    /// Writes something above the view, where it stays.
    pub(super) fn above(&mut self, text: &str) {
        let lines = std::mem::take(&mut self.lines);
        let (columns, _) = self.size();
        let bytes = self.redraw(Some(text), &lines, columns);
        self.write(&bytes);
    }

    fn write(&mut self, bytes: &str) {
        // A terminal that went away is no reason to end a build.
        let mut term = &self.term;
        let _ = term.write_all(bytes.as_bytes());
        let _ = term.flush();
    }

    fn redraw(&mut self, above: Option<&str>, lines: &[String], columns: usize) -> String {
        let width = columns + 1;
        let up: usize = self
            .drawn
            .iter()
            .map(|drawn| drawn.div_ceil(width).max(1))
            .sum();
        let mut out = String::from("\x1b[?2026h\r");
        if up > 0 {
            let _ = write!(out, "\x1b[{up}A");
        }
        for line in above.into_iter().flat_map(str::lines) {
            let _ = writeln!(out, "{line}\x1b[K");
        }
        self.drawn.clear();
        for line in lines {
            self.drawn.push(measure_text_width(line));
            let _ = writeln!(out, "{line}\x1b[K");
        }
        self.lines = lines.to_vec();
        out.push_str("\x1b[J\x1b[?2026l");
        out
    }
}

#[cfg(test)]
mod tests {
    use super::Screen;

    /// What a terminal that wraps its lines anew on a resize would show.
    struct Terminal {
        columns: usize,
        /// Logical lines; a row is a piece of one.
        lines: Vec<String>,
        row: usize,
    }

    impl Terminal {
        fn rows(&self) -> Vec<String> {
            let mut rows = Vec::new();
            for line in &self.lines {
                let chars: Vec<char> = line.chars().collect();
                if chars.is_empty() {
                    rows.push(String::new());
                }
                rows.extend(chars.chunks(self.columns).map(|part| part.iter().collect()));
            }
            rows
        }

        fn feed(&mut self, text: &str) {
            let mut rows = self.rows();
            let mut rest = text;
            while !rest.is_empty() {
                if let Some(tail) = rest.strip_prefix("\x1b[") {
                    let end = tail.find(|c: char| c.is_ascii_alphabetic()).unwrap();
                    let (number, code) = (&tail[..end], &tail[end..=end]);
                    match code {
                        "A" => self.row = self.row.saturating_sub(number.parse().unwrap()),
                        "J" => rows.truncate(self.row),
                        _ => {}
                    }
                    rest = &tail[end + 1..];
                } else if let Some(tail) = rest.strip_prefix('\n') {
                    self.row += 1;
                    rest = tail;
                } else if let Some(tail) = rest.strip_prefix('\r') {
                    rest = tail;
                } else {
                    let end = rest.find(['\x1b', '\n', '\r']).unwrap_or(rest.len());
                    while rows.len() <= self.row {
                        rows.push(String::new());
                    }
                    assert!(
                        rest[..end].chars().count() < self.columns,
                        "wraps: {rest:?}"
                    );
                    rows[self.row] = rest[..end].to_owned();
                    rest = &rest[end..];
                }
            }
            self.lines = rows;
        }
    }

    #[test]
    fn nothing_is_left_behind_when_the_terminal_becomes_narrower() {
        let mut screen = Screen::stderr();
        let mut terminal = Terminal {
            columns: 40,
            lines: Vec::new(),
            row: 0,
        };
        let frame = |count: usize, width: usize| -> Vec<String> {
            (0..count)
                .map(|at| format!("{at}{}", "x".repeat(width - 2)))
                .collect()
        };
        for (columns, count) in [(40, 3), (40, 5), (15, 4), (15, 2), (60, 3), (7, 6)] {
            if columns < terminal.columns {
                // The cursor follows its line.
                terminal.columns = columns;
                terminal.row = terminal.rows().len();
            } else {
                // Pieces of a line grow together again.
                terminal.columns = columns;
            }
            let lines = frame(count, columns - 1);
            let text = screen.redraw(None, &lines, columns - 1);
            terminal.feed(&text);
            assert_eq!(terminal.rows(), lines, "{columns} columns");
        }
        let lines = frame(6, 6);
        let text = screen.redraw(Some("note"), &lines, 6);
        terminal.feed(&text);
        assert_eq!(terminal.rows()[0], "note");
        assert_eq!(terminal.rows().len(), 7);
    }
}
