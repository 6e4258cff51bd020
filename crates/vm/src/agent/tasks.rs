//! Tasks of a guest that runs steps of a build.
//!
//! The host opens every stream; a guest that opens one breaks the protocol. Bytes are moved by [`Agent::turn`] between
//! the streams and the descriptors of the owner's [`Flows`].

use std::fs::File;

use firebuild_guest_proto::flow::Flows;
use firebuild_guest_proto::{Direction, HostMessage, StreamId, TaskOrder, TaskSocket};
use rustix::event::{PollFd, PollFlags};

use super::{Agent, AgentError};

/// The descriptors of a task, none of which blocks.
#[derive(Debug)]
pub struct TaskFiles {
    /// What it reads.
    pub input: File,
    /// Takes what its program prints.
    pub stdout: File,
    /// Takes its program's standard error.
    pub stderr: File,
    /// Takes what came of it.
    pub result: File,
}

impl Agent {
    fn stream(&mut self, direction: Direction) -> Result<StreamId, AgentError> {
        self.has_output = true;
        self.mux.open(direction).map_err(AgentError::Send)
    }

    /// Starts a task, and gives the stream of its result: [`Agent::stop`] on it ends the task.
    ///
    /// # Errors
    /// When the guest takes no messages.
    pub fn start_task(
        &mut self,
        task: u32,
        files: TaskFiles,
        sockets: Vec<TaskSocket>,
        flows: &mut Flows,
    ) -> Result<StreamId, AgentError> {
        let input = self.stream(Direction::ToGuest)?;
        let stdout = self.stream(Direction::ToHost)?;
        let stderr = self.stream(Direction::ToHost)?;
        let result = self.stream(Direction::ToHost)?;
        self.send(&HostMessage::Task(TaskOrder {
            task,
            input: input.raw(),
            stdout: stdout.raw(),
            stderr: stderr.raw(),
            result: result.raw(),
            sockets,
        }))?;
        flows.outward(input, files.input);
        flows.inward(stdout, files.stdout);
        flows.inward(stderr, files.stderr);
        flows.inward(result, files.result);
        Ok(result)
    }

    /// Answers a guest that wants a connection: `ends` are two descriptors of the host's socket, or none if it cannot be
    /// reached.
    ///
    /// # Errors
    /// When the guest takes no messages.
    pub fn connect(
        &mut self,
        (task, socket): (u32, u32),
        ends: Option<(File, File)>,
        flows: &mut Flows,
    ) -> Result<(), AgentError> {
        let to_guest = self.stream(Direction::ToGuest)?;
        let to_host = self.stream(Direction::ToHost)?;
        self.send(&HostMessage::Connected {
            task,
            socket,
            to_guest: to_guest.raw(),
            to_host: to_host.raw(),
        })?;
        match ends {
            Some((read, write)) => {
                flows.outward(to_guest, read);
                flows.inward(to_host, write);
            }
            None => {
                self.mux.end(to_guest);
                self.mux.stop(to_host);
            }
        }
        Ok(())
    }

    /// Wants no more of a stream.
    pub fn stop(&mut self, stream: StreamId) {
        self.has_output = true;
        self.mux.stop(stream);
    }

    /// Asks the guest init for a sign of life.
    ///
    /// # Errors
    /// When the guest takes no messages.
    pub fn ping(&mut self) -> Result<(), AgentError> {
        self.send(&HostMessage::Ping)
    }

    /// What to wait for on behalf of the flows.
    #[must_use]
    pub fn interest<'a>(&self, flows: &'a Flows) -> Vec<PollFd<'a>> {
        let interest = flows.interest(&self.mux);
        interest
            .into_iter()
            .map(|(file, read)| {
                let wanted = if read { PollFlags::IN } else { PollFlags::OUT };
                PollFd::new(file, wanted)
            })
            .collect()
    }

    /// Moves what can be moved without waiting; says whether anything was.
    pub fn turn(&mut self, flows: &mut Flows) -> bool {
        let moved = flows.turn(&mut self.mux, |file| {
            // A socket's other half lives on; a pipe is closed with its descriptor.
            let _ = rustix::net::shutdown(&file, rustix::net::Shutdown::Write);
        });
        self.has_output |= moved;
        moved
    }
}
