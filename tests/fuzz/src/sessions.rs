use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use firebuild_engine::log_file::Stream;
use firebuild_engine::monitor::sessions::Sessions;
use firebuild_guest_proto::{
    GuestMessage, Hello, HostMessage, Limits, Mux, Role, Signal, StreamId,
};
use firebuild_vm::{Agent, AgentEvent};

use crate::choices::Choices;

/// Who speaks next, and whether as the protocol wants it or not.
#[derive(Clone, Copy)]
enum Step {
    Guest,
    Client,
    RawGuest,
    RawClient,
    Turn,
    NewSession,
    NewAttached,
    Leave,
}

const STEPS: [Step; 8] = [
    Step::Turn,
    Step::Guest,
    Step::Client,
    Step::NewSession,
    Step::NewAttached,
    Step::RawGuest,
    Step::RawClient,
    Step::Leave,
];

/// A monitor between a hostile guest and hostile clients: no panic, no endless turn, and what it holds for either is
/// bounded by their windows.
pub fn sessions(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let (near, mut guest_socket) = UnixStream::pair().unwrap();
    guest_socket.set_nonblocking(true).unwrap();
    let mut agent = Agent::new(OwnedFd::from(near)).unwrap();
    let mut guest = Mux::new(
        Role::Guest,
        Limits {
            peer_streams: 256,
            ..Limits::default()
        },
    );
    for message in [
        GuestMessage::Hello(Hello::new(vec!["sessions".to_owned()], None)),
        GuestMessage::ConfigAck,
        GuestMessage::Started {
            pid: 1,
            unix_ns: 1,
            uptime_ns: 1,
        },
    ] {
        guest.send_control(&message.encode().unwrap()).unwrap();
    }
    let mut sessions = Sessions::default();
    let mut clients: Vec<(UnixStream, Mux)> = Vec::new();
    let mut opened = 0;
    let mut idle = 0;
    for _ in 0..200 {
        // What is still under way arrives within a few turns; with nobody who says anything more, further ones are the same.
        idle += u32::from(choices.are_made());
        if idle > 12 {
            break;
        }
        match *choices.of(&STEPS) {
            Step::Turn => {}
            Step::Guest => speak(&mut choices, &mut guest, Role::Guest),
            Step::Client => {
                if let Some((_, mux)) = clients.last_mut() {
                    speak(&mut choices, mux, Role::Host);
                }
            }
            Step::RawGuest => raw(&mut choices, &mut guest_socket),
            Step::RawClient => {
                if let Some((socket, _)) = clients.last_mut() {
                    raw(&mut choices, socket);
                }
            }
            step @ (Step::NewSession | Step::NewAttached) => {
                if !sessions.has_room() || opened >= 70 {
                    continue;
                }
                opened += 1;
                let (near, far) = UnixStream::pair().unwrap();
                far.set_nonblocking(true).unwrap();
                if matches!(step, Step::NewAttached) {
                    sessions.attach(near, &[]);
                } else if sessions.open(near, &[], &mut agent).is_err() {
                    return;
                }
                clients.push((far, Mux::new(Role::Host, Limits::default())));
            }
            Step::Leave => drop(clients.pop()),
        }
        exchange(&mut guest, &mut guest_socket);
        for (socket, mux) in &mut clients {
            exchange(mux, socket);
        }
        if turn(&mut agent, &mut sessions).is_none() {
            break;
        }
    }
    sessions.machine_ended();
}

/// One turn of the loop of an owner; nothing when the guest is to be ended.
fn turn(agent: &mut Agent, sessions: &mut Sessions) -> Option<()> {
    agent.pump(None).ok()?;
    while let Some(event) = agent.next_event().ok()? {
        match event {
            AgentEvent::SessionStarted { session, pid } => sessions.started(session, pid),
            AgentEvent::SessionEnded { session, record } => sessions.ended(session, record),
            AgentEvent::Exited(record) => sessions.application_ended(&record),
            _ => {}
        }
    }
    for (stream, is_stdout) in [(Stream::Stdout, true), (Stream::Stderr, false)] {
        let incoming = if is_stdout {
            agent.stdout()
        } else {
            agent.stderr()
        };
        if let firebuild_guest_proto::Incoming::Bytes(bytes) = incoming {
            assert!(bytes.len() <= 256 * 1024, "no more than a window is held");
            let count = bytes.len().min(sessions.room(stream));
            sessions.output(stream, &bytes[..count]);
            if is_stdout {
                agent.consume_stdout(count);
            } else {
                agent.consume_stderr(count);
            }
        }
    }
    sessions.turn(agent).ok()
}

/// Says something that the protocol has, though maybe not here.
fn speak(choices: &mut Choices<'_>, mux: &mut Mux, role: Role) {
    let number = u32::from(choices.below(6));
    let stream = StreamId::from_raw(u32::from(choices.below(128)));
    let record = firebuild_guest_proto::ExitRecord {
        status: firebuild_guest_proto::ExitStatus::Exited { code: 3 },
        oom_killed: false,
        finished_unix_ns: 0,
    };
    match choices.below(9) {
        0 => {
            let count = 1 << choices.below(18);
            let _ = mux.write(stream, &vec![b'x'; count]);
        }
        1 => mux.end(stream),
        2 => mux.stop(stream),
        3 => {
            let _ = mux.open(firebuild_guest_proto::Direction::ToHost);
        }
        4 => mux.consume(stream, 1 << choices.below(18)),
        kind => {
            let message = match (role, kind) {
                (Role::Guest, 5) => GuestMessage::SessionEnded {
                    session: number,
                    record,
                }
                .encode(),
                (Role::Guest, 6) => GuestMessage::SessionStarted {
                    session: number,
                    pid: number,
                }
                .encode(),
                (Role::Guest, 7) => GuestMessage::Exit(record).encode(),
                (Role::Guest, _) => GuestMessage::Pong.encode(),
                (Role::Host, 5) => HostMessage::Signal {
                    signal: Signal::TERM,
                }
                .encode(),
                (Role::Host, 6) => HostMessage::Hello(Hello::new(Vec::new(), None)).encode(),
                (Role::Host, 7) => HostMessage::ExitAck.encode(),
                (Role::Host, _) => HostMessage::SessionClose { session: number }.encode(),
            };
            let _ = mux.send_control(&message.unwrap());
        }
    }
}

/// Bytes as they come, in place of frames.
fn raw(choices: &mut Choices<'_>, socket: &mut UnixStream) {
    let bytes: Vec<u8> = (0..choices.below(40)).map(|_| choices.below(255)).collect();
    let _ = socket.write_all(&bytes);
}

/// Moves what the socket takes and has.
fn exchange(mux: &mut Mux, socket: &mut UnixStream) {
    loop {
        let bytes = mux.output();
        if bytes.is_empty() {
            break;
        }
        match socket.write(bytes) {
            Ok(count) if count > 0 => mux.written(count),
            _ => break,
        }
    }
    let mut buffer = [0; 16 << 10];
    while let Ok(count @ 1..) = socket.read(&mut buffer) {
        if mux.receive(&buffer[..count]).is_err() {
            break;
        }
        while mux.next_event().is_some() {}
    }
}
