//! Writing to a descriptor that may block, without blocking.
//!
//! The caller's stdout may be a pipe whose reader stalls or a terminal that is held; making it
//! non-blocking would change it for everybody who shares it. So a thread of its own writes, fed
//! through a bounded queue, and a wake-up tells the loop that there is room again.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;

/// Bytes that wait at most.
const CAPACITY: usize = 256 << 10;

/// One output.
#[derive(Debug)]
pub(crate) struct Output {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Readable when the state changed in a way that the loop wants to know.
    wake: OwnedFd,
}

#[derive(Debug, Default)]
struct State {
    queue: Vec<u8>,
    /// The thread writes what it took from the queue.
    writing: bool,
    /// Nobody reads any more.
    broken: bool,
    finished: bool,
}

impl Output {
    /// Begins to write to `fd`.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            wake,
        });
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("output".to_owned())
            .spawn(move || write_all(&fd, &of_thread))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// How many bytes [`Output::push`] takes now.
    pub(crate) fn room(&self) -> usize {
        CAPACITY.saturating_sub(self.state().queue.len())
    }

    /// Takes bytes, at most as many as there is room for.
    pub(crate) fn push(&self, bytes: &[u8]) {
        self.state().queue.extend_from_slice(bytes);
        self.shared.changed.notify_one();
    }

    /// Whether writing has failed: nobody reads any more.
    pub(crate) fn is_broken(&self) -> bool {
        self.state().broken
    }

    /// Whether everything is written, or never will be.
    pub(crate) fn is_drained(&self) -> bool {
        let state = self.state();
        state.broken || (state.queue.is_empty() && !state.writing)
    }

    /// What to wait for; cleared by [`Output::clear`].
    pub(crate) fn wake_fd(&self) -> BorrowedFd<'_> {
        self.shared.wake.as_fd()
    }

    /// Forgets the wake-ups so far. Look at the state after it, not before.
    pub(crate) fn clear(&self) {
        let mut count = [0; 8];
        // EAGAIN: there was none.
        let _ = rustix::io::read(&self.shared.wake, &mut count);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }
}

impl Drop for Output {
    /// Waits for the thread unless it may be stuck in a write: then it is left behind, and ends with the
    /// process.
    fn drop(&mut self) {
        let drained = self.is_drained();
        self.state().finished = true;
        self.shared.changed.notify_one();
        if drained && let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // The counter cannot overflow: it is cleared long before.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

/// The thread: takes what is queued, writes it, says that there is room.
fn write_all(fd: &OwnedFd, shared: &Shared) {
    let mut taken = Vec::new();
    loop {
        {
            let mut state = shared.state();
            while state.queue.is_empty() && !state.finished {
                state = shared
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            if state.queue.is_empty() {
                return;
            }
            std::mem::swap(&mut state.queue, &mut taken);
            state.writing = true;
        }
        shared.wake(); // there is room while this is written
        let written = write_blocking(fd, &taken);
        taken.clear();
        let mut state = shared.state();
        state.writing = false;
        state.broken = written.is_err();
        let broken = state.broken;
        drop(state);
        shared.wake();
        if broken {
            return;
        }
    }
}

fn write_blocking(fd: &OwnedFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            // Somebody else made it non-blocking.
            Err(Errno::AGAIN) => {
                let _ = poll(&mut [PollFd::new(fd, PollFlags::OUT)], None);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags, poll};

    use super::{CAPACITY, Output};

    #[test]
    fn a_stalled_reader_costs_bounded_memory_and_loses_nothing() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let output = Output::new(OwnedFd::from(writer)).unwrap();
        let total = 3 * CAPACITY;
        let data: Vec<u8> = (0..total)
            .map(|at| u8::try_from(at % 251).unwrap())
            .collect();
        let mut sent = output.room().min(total);
        output.push(&data[..sent]);
        std::thread::sleep(Duration::from_millis(50));
        assert!(!output.is_drained(), "the pipe holds less than the queue");

        let collector = std::thread::spawn(move || {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).unwrap();
            all
        });
        while sent < total || !output.is_drained() {
            let mut fds = [PollFd::from_borrowed_fd(output.wake_fd(), PollFlags::IN)];
            poll(&mut fds, None).unwrap();
            output.clear();
            let count = output.room().min(total - sent);
            if count > 0 {
                output.push(&data[sent..sent + count]);
                sent += count;
            }
        }
        drop(output);
        assert!(collector.join().unwrap() == data);
    }

    #[test]
    fn a_reader_that_leaves_is_noticed() {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = Output::new(OwnedFd::from(writer)).unwrap();
        output.push(b"x");
        let mut fds = [PollFd::from_borrowed_fd(output.wake_fd(), PollFlags::IN)];
        while !output.is_broken() {
            poll(&mut fds, None).unwrap();
            output.clear();
        }
        assert!(output.is_drained());
    }
}
