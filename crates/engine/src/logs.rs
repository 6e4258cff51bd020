//! `firebuild logs`.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::time::Duration;

use jiff::Timestamp;

use crate::cancel::Cancel;
use crate::error::Error;
use crate::instance::{Instance, InstanceError, InstanceErrorKind, Instances, RECORDS, io};
use crate::log_file::{LogReader, LogRecord, tail};
use crate::paths::Paths;

pub mod moment;

/// How often a log that is followed is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How much of a console is read at once.
const PIECE: usize = 64 << 10;

/// What to show.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Name, id, or a unique beginning of the id.
    pub wanted: String,
    /// Go on until the instance has ended.
    pub follow: bool,
    /// Only the last lines.
    pub tail: Option<usize>,
    /// Only what came at this time or later.
    pub since: Option<Timestamp>,
    /// Only what came at this time or earlier.
    pub until: Option<Timestamp>,
}

impl Request {
    fn is_late(&self, time: Timestamp) -> bool {
        self.until.is_some_and(|until| time > until)
    }

    fn shows(&self, record: &LogRecord) -> bool {
        self.since.is_none_or(|since| record.time >= since) && !self.is_late(record.time)
    }
}

/// Gives every record to `show`, the oldest first, until it says `false`. As in Docker, the last lines are counted
/// before their times are looked at.
///
/// # Errors
/// `NotFound`, `Ambiguous`, `Io`.
pub fn logs(
    paths: &Paths,
    request: &Request,
    cancel: &Cancel,
    show: &mut dyn FnMut(&LogRecord) -> bool,
) -> Result<(), InstanceError> {
    let instance = Instances::new(paths).find(&request.wanted)?;
    let path = instance.path(RECORDS.output);
    let failed = |error: std::io::Error| io("read", &path, error);
    let mut reader = LogReader::open(&path).map_err(failed)?;
    if let Some(count) = request.tail {
        for record in tail(&mut reader, count).map_err(failed)? {
            if request.shows(&record) && !show(&record) {
                return Ok(());
            }
        }
    }
    loop {
        // Asked before reading: what an instance wrote before its end is read after it.
        let over = !request.follow
            || cancel.is_raised()
            || request.is_late(Timestamp::now())
            || !lives(&instance)?;
        while let Some(record) = reader.next_record().map_err(failed)? {
            // Times only grow.
            if request.is_late(record.time) {
                return Ok(());
            }
            if request.shows(&record) && !show(&record) {
                return Ok(());
            }
        }
        if over {
            return Ok(());
        }
        std::thread::sleep(LOOK);
    }
}

/// Gives what the guest's console has shown, piece by piece, until `show` says `false`; with `follow` until the instance has
/// ended. It has no times.
///
/// # Errors
/// `NotFound`, `Ambiguous`, `Io`; `NotFound` too when the guest has written nothing and is not followed.
pub fn console(
    paths: &Paths,
    request: &Request,
    cancel: &Cancel,
    show: &mut dyn FnMut(&[u8]) -> bool,
) -> Result<(), InstanceError> {
    let instance = Instances::new(paths).find(&request.wanted)?;
    let path = instance.path(RECORDS.console);
    let failed = |error: std::io::Error| io("read", &path, error);
    let mut file: Option<File> = None;
    let mut buffer = vec![0; PIECE];
    loop {
        let over = !request.follow || cancel.is_raised() || !lives(&instance)?;
        if file.is_none() {
            file = match fs_err::File::open(&path) {
                Ok(opened) => Some(from_tail(opened.into_file(), request.tail).map_err(failed)?),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
                Err(error) => return Err(failed(error)),
            };
        }
        while let Some(file) = &mut file {
            let count = file.read(&mut buffer).map_err(failed)?;
            if count == 0 {
                break;
            }
            if !show(&buffer[..count]) {
                return Ok(());
            }
        }
        if over {
            break;
        }
        std::thread::sleep(LOOK);
    }
    if file.is_none() && !request.follow {
        return Err(Error::new(
            InstanceErrorKind::NotFound,
            format!("the console of the VM {} has shown nothing", request.wanted),
        ));
    }
    Ok(())
}

/// Goes to the last lines of a file: back in pieces until there are enough line feeds.
fn from_tail(mut file: File, lines: Option<usize>) -> std::io::Result<File> {
    let Some(lines) = lines else { return Ok(file) };
    let mut at = file.seek(SeekFrom::End(0))?;
    let end = at;
    let mut wanted = lines;
    let mut buffer = vec![0; PIECE];
    while at > 0 {
        let count = usize::try_from(at).unwrap_or(PIECE).min(PIECE);
        at -= count as u64;
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut buffer[..count])?;
        for place in (0..count).rev() {
            // The line feed at the very end ends a line and begins none.
            let here = at + place as u64 + 1;
            if buffer[place] != b'\n' || here == end {
                continue;
            }
            wanted = wanted.saturating_sub(1);
            if wanted == 0 {
                file.seek(SeekFrom::Start(if lines == 0 { end } else { here }))?;
                return Ok(file);
            }
        }
    }
    file.seek(SeekFrom::Start(if lines == 0 { end } else { 0 }))?;
    Ok(file)
}

/// One that is removed at its end is over too.
fn lives(instance: &Instance) -> Result<bool, InstanceError> {
    match instance.state() {
        Ok(state) => Ok(state.is_alive()),
        Err(error) if error.kind() == InstanceErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::from_tail;

    #[test]
    fn the_last_lines_of_a_console() {
        let dir = tempfile::tempdir().unwrap();
        let tail = |text: &str, lines: usize| {
            let path = dir.path().join("console");
            fs_err::write(&path, text).unwrap();
            let file = fs_err::File::open(&path).unwrap().into_file();
            let mut rest = String::new();
            from_tail(file, Some(lines))
                .unwrap()
                .read_to_string(&mut rest)
                .unwrap();
            rest
        };
        assert_eq!(tail("a\nb\nc\n", 2), "b\nc\n");
        assert_eq!(tail("a\nb\nc", 2), "b\nc");
        assert_eq!(tail("a\nb\n", 9), "a\nb\n");
        assert_eq!(tail("a\nb\n", 0), "");
        assert_eq!(tail("", 3), "");
        let long: String = (0..40_000).map(|n| format!("line {n}\n")).collect();
        let rest = tail(&long, 30_000);
        assert!(rest.starts_with("line 10000\n") && rest.ends_with("line 39999\n"));
    }
}
