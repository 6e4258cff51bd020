//! A task of a VM as the thread sees it that wants something done: pipes, read and written with an eye on the stop.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use firebuild_build::cancel::Cancel;
use firebuild_build::event::Stream;
use firebuild_build::exec::{ExecError, ExecErrorKind};
use firebuild_build::sandbox::exec_error;
use firebuild_guest_proto::TaskSocket;
use firebuild_sandbox::task::{Answer, Task, read_head, write_head};
use firebuild_vm::TaskFiles;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};

use super::vm::{Command, Vm};
use super::{host, stopped};

/// The longest head of an answer: a status, or a chain of messages.
const MAX_ANSWER: usize = 1 << 20;
const CHUNK: usize = 64 << 10;

/// Writes the archive of a task.
pub(super) type Archive<'a> = &'a mut dyn FnMut(&mut dyn Write) -> io::Result<()>;

/// Takes what a step prints.
pub(super) type Printed<'a> = &'a mut dyn FnMut(Stream, &[u8]);

/// What goes with a task.
#[derive(Default)]
pub(super) struct With<'a> {
    /// The archive that follows its head.
    pub(super) archive: Option<Archive<'a>>,
    /// Takes the archive that follows the answer, up to so many bytes.
    pub(super) spool: Option<(&'a mut File, u64)>,
    /// Takes what a step prints.
    pub(super) output: Option<Printed<'a>>,
    /// Sockets of the host that it can reach.
    pub(super) sockets: Vec<(PathBuf, TaskSocket)>,
}

/// Has a task done. A failure of the task is an error.
pub(super) fn run(
    vm: &Vm,
    number: u32,
    task: &Task,
    with: With<'_>,
    cancel: &Cancel,
) -> Result<Answer, ExecError> {
    let (ends, files) = pipes().map_err(|error| host("cannot make a pipe", error))?;
    vm.tell(Command::Start {
        task: number,
        files,
        sockets: with.sockets,
    })?;
    let _stop = Stop { vm, number };
    let sent = give(ends.input, task, with.archive, cancel);
    let mut answer = Collected {
        head: Vec::new(),
        answer: None,
        spool: with.spool,
    };
    let mut nobody = |_: Stream, _: &[u8]| {};
    let output = with.output.unwrap_or(&mut nobody);
    collect(&ends.outputs, &mut answer, output, cancel)?;
    match answer.answer {
        Some(Answer::Failed(failure)) => Err(exec_error(failure, None)),
        Some(answer) => {
            sent.map_err(|error| host("cannot send files to the VM of the build", error))?;
            Ok(answer)
        }
        None if cancel.is_raised() => Err(stopped()),
        None if vm.is_dead() => Err(vm.dead()),
        // Why it stopped to listen is not known; that we could not read what we send may be the reason.
        None => Err(match sent {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                host("cannot send files to the VM of the build", error)
            }
            _ => ExecError::new(
                ExecErrorKind::Host,
                "a task in the VM of the build ended without an answer",
            ),
        }),
    }
}

/// Tells the VM that nobody waits any more.
struct Stop<'a> {
    vm: &'a Vm,
    number: u32,
}

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        // A dead VM has stopped.
        let _ = self.vm.tell(Command::Stop(self.number));
    }
}

struct Ends {
    input: OwnedFd,
    /// Standard output, standard error, result.
    outputs: [OwnedFd; 3],
}

fn pipes() -> io::Result<(Ends, TaskFiles)> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK);
    let (input_end, input) = pipe()?;
    let (stdout, stdout_end) = pipe()?;
    let (stderr, stderr_end) = pipe()?;
    let (result, result_end) = pipe()?;
    let files = TaskFiles {
        input: File::from(input_end),
        stdout: File::from(stdout_end),
        stderr: File::from(stderr_end),
        result: File::from(result_end),
    };
    let outputs = [stdout, stderr, result];
    Ok((Ends { input, outputs }, files))
}

fn give(
    input: OwnedFd,
    task: &Task,
    archive: Option<Archive<'_>>,
    cancel: &Cancel,
) -> io::Result<()> {
    let patient = Patient {
        file: File::from(input),
        cancel,
    };
    let mut to = io::BufWriter::with_capacity(CHUNK, patient);
    write_head(&mut to, task)?;
    if let Some(archive) = archive {
        archive(&mut to)?;
    }
    to.flush()
}

/// A pipe that is written as its reader reads, until a stop.
struct Patient<'a> {
    file: File,
    cancel: &'a Cancel,
}

impl Write for Patient<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.file.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return outcome,
            }
            let mut fds = [
                PollFd::new(&self.file, PollFlags::OUT),
                PollFd::new(self.cancel, PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            if !fds[1].revents().is_empty() {
                return Err(io::Error::other("the step was stopped"));
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Collected<'a> {
    head: Vec<u8>,
    answer: Option<Answer>,
    spool: Option<(&'a mut File, u64)>,
}

impl Collected<'_> {
    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        let rest;
        let bytes = if self.answer.is_none() {
            self.head.extend_from_slice(bytes);
            let Some(length) = self.head.first_chunk::<4>() else {
                return Ok(());
            };
            let whole = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
            let whole = whole.saturating_add(4);
            if whole <= MAX_ANSWER && self.head.len() < whole {
                return Ok(());
            }
            self.answer = Some(read_head(&mut &self.head[..], MAX_ANSWER)?);
            rest = self.head.split_off(whole);
            &rest[..]
        } else {
            bytes
        };
        if bytes.is_empty() {
            return Ok(());
        }
        let Some((file, left)) = &mut self.spool else {
            return Err(io::Error::other("more came than was asked for"));
        };
        *left = left
            .checked_sub(bytes.len() as u64)
            .ok_or_else(|| io::Error::other("the archive is larger than the VM's disk"))?;
        file.write_all(bytes)
    }
}

/// Reads all outputs to their ends.
fn collect(
    outputs: &[OwnedFd; 3],
    answer: &mut Collected<'_>,
    output: Printed<'_>,
    cancel: &Cancel,
) -> Result<(), ExecError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::StorageFull => ExecError::caused(
            ExecErrorKind::NoSpace,
            "cannot keep what the VM of the build sends",
            error,
        ),
        _ => host("cannot use what the VM of the build sends", error),
    };
    let mut open = [true; 3];
    let mut buffer = vec![0; CHUNK];
    while open.contains(&true) {
        let mut fds: Vec<PollFd<'_>> = outputs
            .iter()
            .zip(open)
            .filter(|(_, open)| *open)
            .map(|(fd, _)| PollFd::new(fd, PollFlags::IN))
            .collect();
        fds.push(PollFd::new(cancel, PollFlags::IN));
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(failed(error.into())),
        }
        if cancel.is_raised() {
            return Err(stopped());
        }
        for (index, open) in open.iter_mut().enumerate() {
            if !*open {
                continue;
            }
            let count = match rustix::io::read(outputs[index].as_fd(), &mut buffer[..]) {
                Ok(count) => count,
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(failed(error.into())),
            };
            *open = count > 0;
            match index {
                _ if count == 0 => {}
                0 => output(Stream::Stdout, &buffer[..count]),
                1 => output(Stream::Stderr, &buffer[..count]),
                _ => answer.take(&buffer[..count]).map_err(failed)?,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Collected;
    use firebuild_sandbox::task::{Answer, write_head};
    use std::io::{Read, Seek};

    #[test]
    fn an_answer_may_come_in_pieces() {
        let mut bytes = Vec::new();
        write_head(&mut bytes, &Answer::Packed).unwrap();
        bytes.extend(b"archive");
        let mut file = tempfile::tempfile().unwrap();
        let mut collected = Collected {
            head: Vec::new(),
            answer: None,
            spool: Some((&mut file, 7)),
        };
        for byte in &bytes {
            collected.take(&[*byte]).unwrap();
        }
        assert!(matches!(collected.answer, Some(Answer::Packed)));
        assert!(collected.take(b"!").is_err(), "more than the limit");
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "archive");
    }

    #[test]
    fn a_long_head_is_refused_at_once() {
        let mut collected = Collected {
            head: Vec::new(),
            answer: None,
            spool: None,
        };
        assert!(collected.take(&[255; 4]).is_err());
    }
}
