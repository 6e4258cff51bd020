//! The control connection of a VMM, on a thread of its own: a VMM that hangs holds up whoever asked, and not the loop.
//!
//! The thread is there from the first command on and does one after the other. It ends with the connection, at the latest
//! when the machine has ended.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use firebuild_guest_proto::metadata::Document;
use firebuild_vm::backend::ControlError;
use firebuild_vm::hardware::BalloonStatistics;
use firebuild_vm::{Backend, Control};
use rustix::event::{EventfdFlags, eventfd};

/// Commands that wait at most, the one that is being done included.
const MOST: usize = 4;

/// What a VMM can be told.
#[derive(Debug, Clone)]
pub(crate) enum Command {
    /// Stop the processors.
    Pause,
    /// Let them run again.
    Resume,
    /// Give the guest this document.
    Metadata(Document),
    /// Say what the balloon tells of the guest's memory.
    Balloon,
}

impl Command {
    fn name(&self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Metadata(_) => "metadata",
            Self::Balloon => "balloon",
        }
    }
}

/// A command that has been done, or has failed.
#[derive(Debug)]
pub(crate) struct Done {
    /// Its number.
    pub(crate) work: u64,
    pub(crate) command: Command,
    /// With what it told, where it was asked.
    pub(crate) result: Result<Option<Box<BalloonStatistics>>, ControlError>,
}

/// A VMM that can be told something.
pub(crate) struct Vmm {
    backend: Option<Box<dyn Backend>>,
    connection: Option<OwnedFd>,
    serves_metadata: bool,
    has_statistics: bool,
    thread: Option<Thread>,
    next: u64,
    open: usize,
}

#[derive(Debug)]
struct Thread {
    commands: SyncSender<(u64, Command)>,
    done: Receiver<Done>,
    /// Readable when something has been done.
    wake: Arc<OwnedFd>,
}

impl Vmm {
    pub(crate) fn new(backend: Box<dyn Backend>, connection: Option<OwnedFd>) -> Self {
        Self {
            backend: Some(backend),
            connection,
            serves_metadata: false,
            has_statistics: false,
            thread: None,
            next: 0,
            open: 0,
        }
    }

    /// Says whether the VMM serves the guest's metadata.
    pub(crate) fn serving_metadata(self, serves_metadata: bool) -> Self {
        Self {
            serves_metadata,
            ..self
        }
    }

    /// Says whether there is a balloon that tells of the guest's memory.
    pub(crate) fn with_statistics(self, has_statistics: bool) -> Self {
        Self {
            has_statistics,
            ..self
        }
    }

    /// Whether there is a balloon that tells of the guest's memory.
    pub(crate) fn has_statistics(&self) -> bool {
        self.has_statistics
    }

    /// Whether the VMM serves the guest's metadata.
    pub(crate) fn serves_metadata(&self) -> bool {
        self.serves_metadata
    }

    /// What to wait for.
    pub(crate) fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        self.thread.as_ref().map(|thread| thread.wake.as_fd())
    }

    /// Tells it something; the number of the work, or why it cannot be told.
    pub(crate) fn tell(&mut self, command: Command) -> Result<u64, String> {
        if self.thread.is_none() {
            self.thread = Some(self.start()?);
        }
        let Some(thread) = self.thread.as_ref().filter(|_| self.open < MOST) else {
            return Err("its VMM does not answer".to_owned());
        };
        let work = self.next;
        thread
            .commands
            .try_send((work, command))
            .map_err(|_| "its VMM does not answer".to_owned())?;
        self.next += 1;
        self.open += 1;
        Ok(work)
    }

    /// The next command that is over.
    pub(crate) fn done(&mut self) -> Option<Done> {
        let thread = self.thread.as_ref()?;
        let mut count = [0; 8];
        let _ = rustix::io::read(&*thread.wake, &mut count);
        let done = thread.done.try_recv().ok()?;
        self.open -= 1;
        Some(done)
    }

    fn start(&mut self) -> Result<Thread, String> {
        let (Some(backend), Some(connection)) = (self.backend.take(), self.connection.take())
        else {
            return Err("its VMM has no control connection".to_owned());
        };
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let wake = Arc::new(eventfd(0, flags).map_err(|error| error.to_string())?);
        let (commands, orders) = sync_channel(MOST);
        let (results, done) = sync_channel(MOST);
        let of_thread = Arc::clone(&wake);
        std::thread::Builder::new()
            .name("vmm".to_owned())
            .spawn(move || obey(&*backend, connection, &orders, &results, &of_thread))
            .map_err(|error| error.to_string())?;
        Ok(Thread {
            commands,
            done,
            wake,
        })
    }
}

/// The thread: does commands until nobody gives any more.
fn obey(
    backend: &dyn Backend,
    connection: OwnedFd,
    orders: &Receiver<(u64, Command)>,
    results: &SyncSender<Done>,
    wake: &OwnedFd,
) {
    let mut connection = Some(connection);
    let mut control: Option<Box<dyn Control>> = None;
    while let Ok((work, command)) = orders.recv() {
        let mut result = match connection.take().map(|taken| backend.control(taken)) {
            Some(Ok(connected)) => {
                control = Some(connected);
                Ok(None)
            }
            Some(Err(error)) => Err(error),
            // An earlier command found no way to it.
            None if control.is_none() => Err(ControlError::lost(command.name())),
            None => Ok(None),
        };
        if let Some(control) = &mut control {
            result = match &command {
                Command::Pause => control.pause().map(|()| None),
                Command::Resume => control.resume().map(|()| None),
                Command::Metadata(document) => {
                    control.put_metadata(&document.clone().into()).map(|_| None)
                }
                Command::Balloon => control.balloon_statistics().map(Box::new).map(Some),
            };
        }
        let done = Done {
            work,
            command,
            result,
        };
        if results.send(done).is_err() {
            return;
        }
        let _ = rustix::io::write(wake, &1u64.to_ne_bytes());
    }
}

impl std::fmt::Debug for Vmm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vmm")
            .field("thread", &self.thread)
            .field("open", &self.open)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use firebuild_vm::backend::qemu::Qemu;
    use firebuild_vm::capability::KvmState;
    use firebuild_vm::net::host::HostNetwork;

    use super::{Command, Done, Vmm};

    fn next(vmm: &mut Vmm) -> Done {
        loop {
            if let Some(done) = vmm.done() {
                return done;
            }
            std::thread::yield_now();
        }
    }

    /// Nobody is told that a VMM obeyed that cannot be reached, be it the first command or a later one.
    #[test]
    fn a_vmm_that_is_gone_obeys_no_command() {
        let (near, far) = UnixStream::pair().unwrap();
        drop(far);
        let qemu = Qemu {
            program: "qemu".into(),
            passt: None,
            kvm: KvmState::Works { group: None },
            host: HostNetwork::default(),
        };
        let mut vmm = Vmm::new(Box::new(qemu), Some(near.into()));
        for command in [Command::Pause, Command::Resume, Command::Pause] {
            let work = vmm.tell(command).unwrap();
            let done = next(&mut vmm);
            assert_eq!(done.work, work);
            done.result.unwrap_err();
        }
    }
}
