//! What the host tells the supervisor.

use std::time::{Duration, Instant};

use firebuild_guest_proto::{GuestMessage, Hello, HostMessage, Signal, WindowSize};
use firebuild_sys::{pty, signal};

use super::{Phase, Supervisor};
use crate::clock;
use crate::system::System;

impl Supervisor<'_> {
    /// Does what the host says.
    pub(super) fn obey(&mut self) {
        while let Some(message) = self.link.next_message(self.journal) {
            match message {
                HostMessage::Hello(hello) => self.greet(&hello),
                HostMessage::Signal { signal } => self.signal(signal),
                HostMessage::WindowSize(size) => self.resize(size),
                HostMessage::Shutdown { grace_ms } => {
                    self.shut_down(Duration::from_millis(grace_ms))
                }
                HostMessage::ExitAck if self.phase == Phase::Acknowledging => {
                    self.phase = Phase::Done
                }
                HostMessage::Metadata { document } => {
                    if let Some(metadata) = &mut self.metadata {
                        metadata.set(document);
                    }
                }
                HostMessage::Ping => self.link.send(&GuestMessage::Pong, self.journal),
                HostMessage::Session(_)
                | HostMessage::SessionSignal { .. }
                | HostMessage::SessionWindowSize { .. }
                | HostMessage::SessionClose { .. } => self.session(&message),
                HostMessage::Clock { unix_ns } => clock::follow(unix_ns, self.journal),
                HostMessage::Task(_) | HostMessage::Connected { .. } => self
                    .journal
                    .warning("a task came, and this guest runs an application"),
                HostMessage::ExitAck => self
                    .journal
                    .warning("the host acknowledged an exit that was not reported"),
            }
        }
    }

    fn session(&mut self, message: &HostMessage) {
        let Some(sessions) = &mut self.sessions else {
            return;
        };
        match *message {
            HostMessage::Session(order) => sessions.open(order),
            HostMessage::SessionSignal { session, signal } => {
                sessions.signal(session, signal, self.journal);
            }
            HostMessage::SessionWindowSize { session, size } => {
                sessions.resize(session, size, self.journal);
            }
            HostMessage::SessionClose { session } => sessions.close(session, &mut self.link.mux),
            _ => {}
        }
    }

    fn resize(&mut self, size: WindowSize) {
        if let Some(waiting) = self.system.as_mut().and_then(System::waiting) {
            return waiting.resize(size);
        }
        let size = pty::Size {
            rows: size.rows,
            columns: size.columns,
        };
        let application = self.application.as_ref();
        if let Some(terminal) = application.and_then(|app| app.terminal.as_ref())
            && let Err(error) = pty::set_size(terminal, size)
        {
            self.journal
                .debug(&format!("cannot set the size of the terminal: {error}"));
        }
    }

    fn greet(&mut self, hello: &Hello) {
        if let Err(error) = Hello::new(Vec::new(), None).negotiate(hello) {
            self.journal.error(&error.to_string());
        }
        if let Some(unix) = hello.unix_ns {
            clock::set(unix, self.journal);
        }
    }

    pub(super) fn signal(&mut self, signal: Signal) {
        let Some(application) = &self.application else {
            if self
                .system
                .as_mut()
                .is_some_and(|it| it.waiting().is_some())
            {
                self.journal
                    .warning(&format!("{signal} came before the application ran"));
            }
            return;
        };
        // A unit's process is the init's child.
        let pid = match &self.system {
            Some(system) if application.pid.is_init() => system.main(),
            _ => Some(application.pid),
        };
        let Some(pid) = pid else {
            self.journal
                .warning(&format!("{signal} came before the application ran"));
            return;
        };
        if let Err(error) = signal::send(pid, signal.number().into()) {
            self.journal
                .warning(&format!("cannot send {signal} to the application: {error}"));
        }
    }

    pub(super) fn shut_down(&mut self, grace: Duration) {
        if self.phase == Phase::Running && self.deadline.is_none() {
            let is_waiting = self.system.as_mut().and_then(System::waiting).is_some();
            if is_waiting {
                return self.boot_is_cut();
            }
            let is_child = self.has_child();
            match &mut self.system {
                // Its end asks the init.
                Some(system) if !is_child => system.shut_down(self.journal),
                _ => self.signal(self.stop_signal),
            }
            self.deadline = Instant::now().checked_add(grace);
        }
    }
}
