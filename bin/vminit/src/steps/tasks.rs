//! The tasks that run: their processes, their pipes, their sockets.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Command, Stdio};

use firebuild_guest_proto::flow::Flows;
use firebuild_guest_proto::message::MAX_TASK_SOCKETS;
use firebuild_guest_proto::{GuestMessage, Mux, StreamId, TaskOrder};
use firebuild_sys::spawn;
use rustix::event::PollFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal};

use super::sockets::Listener;
use super::{RESULT, TASK};
use crate::journal::Journal;

#[derive(Debug)]
struct Running {
    task: u32,
    pid: Pid,
    result: StreamId,
    killed: bool,
}

/// All that run.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    running: Vec<Running>,
    flows: Flows,
    listeners: Vec<Listener>,
    connects: Vec<GuestMessage>,
}

impl Tasks {
    /// Starts the process of a task. When that fails its streams are closed, which tells the host.
    pub(super) fn start(&mut self, order: &TaskOrder, mux: &mut Mux) -> io::Result<()> {
        let started = self.spawn(order);
        if started.is_err() {
            mux.stop(StreamId::from_raw(order.input));
            for id in [order.stdout, order.stderr, order.result] {
                mux.end(StreamId::from_raw(id));
            }
            self.listeners
                .retain(|listener| listener.name.0 != order.task);
        }
        started
    }

    fn spawn(&mut self, order: &TaskOrder) -> io::Result<()> {
        for (number, looks) in order.sockets.iter().take(MAX_TASK_SOCKETS).enumerate() {
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            self.listeners
                .push(Listener::open(order.task, number, *looks)?);
        }
        let pipe = || pipe_with(PipeFlags::CLOEXEC);
        let (input, input_end) = pipe()?;
        let (stdout_end, stdout) = pipe()?;
        let (stderr_end, stderr) = pipe()?;
        let (result_end, result) = pipe()?;
        let ours = [&input_end, &stdout_end, &stderr_end, &result_end];
        for fd in ours {
            rustix::io::ioctl_fionbio(fd, true)?;
        }
        // By the link, since the file has no name any more.
        let mut command = Command::new("/proc/self/exe");
        command.arg(TASK).env_clear().current_dir("/");
        command
            .stdin(Stdio::from(input))
            .stdout(Stdio::from(stdout))
            .stderr(Stdio::from(stderr));
        spawn::pass_fds(&mut command, vec![(result, RESULT)])?;
        let child = command.spawn()?;
        let id = StreamId::from_raw;
        self.flows.inward(id(order.input), input_end);
        self.flows.outward(id(order.stdout), stdout_end);
        self.flows.outward(id(order.stderr), stderr_end);
        self.flows.outward(id(order.result), result_end);
        self.running.push(Running {
            task: order.task,
            pid: Pid::from_child(&child),
            result: id(order.result),
            killed: false,
        });
        Ok(())
    }

    /// A process has ended. If it was a task's, its sockets go; its pipes end by themselves.
    pub(super) fn ended(&mut self, pid: Pid) {
        let Some(index) = self.running.iter().position(|running| running.pid == pid) else {
            return;
        };
        let task = self.running.swap_remove(index).task;
        self.listeners.retain(|listener| listener.name.0 != task);
    }

    /// The host has made a connection that was asked for.
    pub(super) fn connected(
        &mut self,
        name: (u32, u32),
        to_guest: u32,
        to_host: u32,
        mux: &mut Mux,
    ) {
        let (inward, outward) = (StreamId::from_raw(to_guest), StreamId::from_raw(to_host));
        let taken = self
            .listeners
            .iter_mut()
            .find(|listener| listener.name == name)
            .and_then(Listener::take)
            .and_then(|fd| Some((fd.try_clone().ok()?, fd)));
        match taken {
            Some((one, other)) => {
                self.flows.inward(inward, one);
                self.flows.outward(outward, other);
            }
            // Who connected has gone meanwhile.
            None => {
                mux.stop(inward);
                mux.end(outward);
            }
        }
    }

    /// Connections to ask the host for.
    pub(super) fn take_connects(&mut self) -> Vec<GuestMessage> {
        std::mem::take(&mut self.connects)
    }

    /// Moves what can be moved; says whether anything was.
    pub(super) fn turn(&mut self, mux: &mut Mux, journal: &mut Journal) -> bool {
        for running in &mut self.running {
            if !running.killed && mux.room(running.result).is_none() {
                running.killed = true;
                if let Err(error) = rustix::process::kill_process(running.pid, Signal::KILL) {
                    journal.debug(&format!("cannot kill task {}: {error}", running.task));
                }
            }
        }
        let mut moved = false;
        for listener in &mut self.listeners {
            while listener.accept() {
                moved = true;
                let (task, socket) = listener.name;
                self.connects.push(GuestMessage::Connect { task, socket });
            }
        }
        let told = |file: File| {
            // A pipe is closed by being dropped.
            let _ = rustix::net::shutdown(&file, rustix::net::Shutdown::Write);
        };
        self.flows.turn(mux, told) || moved
    }

    /// The descriptors to wait for.
    pub(super) fn interest<'a>(&'a self, mux: &Mux) -> Vec<(BorrowedFd<'a>, PollFlags)> {
        let mut fds = Vec::new();
        for (file, read) in self.flows.interest(mux) {
            let flags = if read { PollFlags::IN } else { PollFlags::OUT };
            fds.push((file.as_fd(), flags));
        }
        fds.extend(
            self.listeners
                .iter()
                .filter_map(Listener::interest)
                .map(|fd| (fd, PollFlags::IN)),
        );
        fds
    }
}
