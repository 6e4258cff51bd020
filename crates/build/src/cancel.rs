//! Stopping work that is under way.
//!
//! A [`Cancel`] is a flag that anybody may raise, once and for good, and a descriptor that becomes readable then, so that
//! a `poll(2)` on something else wakes up too. Ctrl+C, the first failed step of a build and a closed client all raise it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use firebuild_oci::registry::Stop;
use rustix::event::{EventfdFlags, eventfd};

/// A shared request to stop. Clones raise and see the same flag.
#[derive(Clone, Debug)]
pub struct Cancel {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    raised: AtomicBool,
    event: OwnedFd,
}

impl Cancel {
    /// A flag that nobody has raised yet.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn new() -> std::io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self {
            inner: Arc::new(Inner {
                raised: AtomicBool::new(false),
                event,
            }),
        })
    }

    /// Asks for a stop. Further calls change nothing.
    pub fn raise(&self) {
        if !self.inner.raised.swap(true, Ordering::SeqCst) {
            // The counter starts at 0 and is written once: this cannot block or overflow.
            let _ = rustix::io::write(&self.inner.event, &1u64.to_ne_bytes());
        }
    }

    /// The same flag, as the clients of registries and servers look at it.
    #[must_use]
    pub fn stop(&self) -> Stop {
        let flag = self.clone();
        Stop::when(move || flag.is_raised())
    }

    /// Whether a stop was asked for.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        self.inner.raised.load(Ordering::SeqCst)
    }
}

impl AsFd for Cancel {
    /// Readable from the moment on when the flag is raised. Do not read from it: others poll it too.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::Cancel;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    #[test]
    fn a_raised_flag_wakes_a_poll() {
        let cancel = Cancel::new().unwrap();
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let mut fds = [PollFd::new(&cancel, PollFlags::IN)];
        assert_eq!(poll(&mut fds, Some(&zero)).unwrap(), 0);
        cancel.clone().raise();
        cancel.raise();
        assert!(cancel.is_raised());
        let mut fds = [PollFd::new(&cancel, PollFlags::IN)];
        assert_eq!(poll(&mut fds, Some(&zero)).unwrap(), 1);
    }
}
