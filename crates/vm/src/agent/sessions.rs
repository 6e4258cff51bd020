//! Sessions of a guest: what is asked of it while its application runs (`firebuild_guest_proto::session`).
//!
//! The other end of a session is a client with a multiplexer of its own, whose three streams of the protocol are the
//! session's: [`Agent::relay`] moves bytes between the two, at the pace of the slower one and with no more memory than
//! the windows of both.

use firebuild_guest_proto::flow::{Moved, relay};
use firebuild_guest_proto::session::FEATURE_SESSIONS;
use firebuild_guest_proto::{
    Direction, HostMessage, Incoming, Mux, SessionOrder, Signal, StreamId, WindowSize,
};

use super::{Agent, AgentError, Phase};

/// A session that is open: [`Agent::close_session`] when nobody wants it any more.
#[derive(Debug)]
pub struct GuestSession {
    order: SessionOrder,
    /// Which of the three streams have ended.
    over: [bool; 3],
}

impl GuestSession {
    /// Its number, as events name it.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.order.session
    }

    /// Whether everything that the guest sent on its outputs has been moved.
    #[must_use]
    pub fn outputs_ended(&self) -> bool {
        self.over[1] && self.over[2]
    }
}

impl Agent {
    /// Whether the guest takes sessions now: it can, and its application runs.
    #[must_use]
    pub fn takes_sessions(&self) -> bool {
        self.phase == Phase::Running && self.features.iter().any(|name| name == FEATURE_SESSIONS)
    }

    /// Opens a session. Its work is what its client sends first.
    ///
    /// # Errors
    /// When the guest takes no messages.
    pub fn open_session(&mut self) -> Result<GuestSession, AgentError> {
        let mut open = |direction| self.mux.open(direction).map_err(AgentError::Send);
        let order = SessionOrder {
            session: self.last_session + 1,
            input: open(Direction::ToGuest)?.raw(),
            stdout: open(Direction::ToHost)?.raw(),
            stderr: open(Direction::ToHost)?.raw(),
        };
        self.last_session = order.session;
        self.send(&HostMessage::Session(order))?;
        Ok(GuestSession {
            order,
            over: [false; 3],
        })
    }

    /// Moves what can be moved between a session and its client; says whether anything was.
    pub fn relay(&mut self, session: &mut GuestSession, client: &mut Mux) -> bool {
        let [input, stdout, stderr] = session.order.streams();
        let [input_over, stdout_over, stderr_over] = &mut session.over;
        let mut moved = false;
        let mut step = |over: &mut bool, outcome: Moved| {
            *over = outcome == Moved::Ended;
            moved |= outcome != Moved::Nothing;
        };
        if !*input_over {
            step(
                input_over,
                relay(client, StreamId::STDIN, &mut self.mux, input),
            );
        }
        if !*stdout_over {
            step(
                stdout_over,
                relay(&mut self.mux, stdout, client, StreamId::STDOUT),
            );
        }
        if !*stderr_over {
            step(
                stderr_over,
                relay(&mut self.mux, stderr, client, StreamId::STDERR),
            );
        }
        self.has_output |= moved;
        moved
    }

    /// Takes what a session prints, for nobody.
    pub fn discard(&mut self, session: &mut GuestSession) {
        let [_, stdout, stderr] = session.order.streams();
        for (place, stream) in [(1, stdout), (2, stderr)] {
            while !session.over[place] {
                match self.mux.peek(stream) {
                    Incoming::Bytes(bytes) => {
                        let count = bytes.len();
                        self.mux.consume(stream, count);
                        self.has_output = true;
                    }
                    Incoming::Ended => session.over[place] = true,
                    Incoming::Pending => break,
                }
            }
        }
    }

    /// Sends a signal to the processes of a session.
    ///
    /// # Errors
    /// When the guest takes no messages.
    pub fn signal_session(
        &mut self,
        session: &GuestSession,
        signal: Signal,
    ) -> Result<(), AgentError> {
        let session = session.number();
        self.send(&HostMessage::SessionSignal { session, signal })
    }

    /// Tells the size of a session's terminal.
    ///
    /// # Errors
    /// When the guest takes no messages.
    pub fn resize_session(
        &mut self,
        session: &GuestSession,
        size: WindowSize,
    ) -> Result<(), AgentError> {
        let session = session.number();
        self.send(&HostMessage::SessionWindowSize { session, size })
    }

    /// Forgets a session; what still runs of it is killed.
    ///
    /// # Errors
    /// When the guest takes no messages.
    pub fn close_session(&mut self, session: &GuestSession) -> Result<(), AgentError> {
        let [input, stdout, stderr] = session.order.streams();
        self.mux.end(input);
        self.mux.stop(stdout);
        self.mux.stop(stderr);
        let session = session.number();
        self.send(&HostMessage::SessionClose { session })
    }

    /// Tells the guest the host's time, for a clock that stood still.
    ///
    /// # Errors
    /// When the guest takes no messages.
    pub fn tell_time(&mut self, unix_ns: u64) -> Result<(), AgentError> {
        self.send(&HostMessage::Clock { unix_ns })
    }

    /// Checks that a session that the guest speaks of has ever been.
    pub(super) fn session(&self, number: u32) -> Result<(), AgentError> {
        if number == 0 || number > self.last_session {
            return Err(AgentError::OutOfOrder {
                message: "news of a session that never was",
            });
        }
        Ok(())
    }
}
