use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use firebuild_guest_proto::{
    Event, ExitRecord, ExitStatus, GuestMessage, Hello, HostMessage, Incoming, Limits, Mux, Role,
    SessionOrder, Signal, StreamId,
};
use firebuild_vm::{Agent, AgentEvent};

use super::Sessions;
use crate::log_file::Stream;

/// A guest in our hands.
struct Guest {
    mux: Mux,
    socket: UnixStream,
    told: Vec<HostMessage>,
}

/// A monitor with a guest that runs its application.
struct World {
    agent: Agent,
    sessions: Sessions,
    guest: Guest,
}

fn limits() -> Limits {
    Limits {
        peer_streams: 256,
        ..Limits::default()
    }
}

fn write(mux: &mut Mux, socket: &mut UnixStream) {
    loop {
        let bytes = mux.output();
        if bytes.is_empty() {
            return;
        }
        match socket.write(bytes) {
            Ok(count) => mux.written(count),
            Err(_) => return,
        }
    }
}

fn read(mux: &mut Mux, socket: &mut UnixStream) {
    let mut buffer = [0; 65536];
    while let Ok(count @ 1..) = socket.read(&mut buffer) {
        mux.receive(&buffer[..count]).unwrap();
    }
}

impl World {
    fn new() -> World {
        let (near, far) = UnixStream::pair().unwrap();
        far.set_nonblocking(true).unwrap();
        let mut world = World {
            agent: Agent::new(OwnedFd::from(near)).unwrap(),
            sessions: Sessions::default(),
            guest: Guest {
                mux: Mux::new(Role::Guest, limits()),
                socket: far,
                told: Vec::new(),
            },
        };
        let features = vec!["sessions".to_owned()];
        world.say(&GuestMessage::Hello(Hello::new(features, None)));
        world.say(&GuestMessage::ConfigAck);
        world.say(&GuestMessage::Started {
            pid: 2,
            unix_ns: 0,
            uptime_ns: 0,
        });
        world.turn();
        assert!(world.agent.takes_sessions());
        world
    }

    fn say(&mut self, message: &GuestMessage) {
        self.guest
            .mux
            .send_control(&message.encode().unwrap())
            .unwrap();
    }

    /// Everybody's turn, often enough for what was said to arrive.
    fn turn(&mut self) {
        for _ in 0..4 {
            write(&mut self.guest.mux, &mut self.guest.socket);
            self.agent.pump(None).unwrap();
            while let Some(event) = self.agent.next_event().unwrap() {
                match event {
                    AgentEvent::SessionStarted { session, pid } => {
                        self.sessions.started(session, pid);
                    }
                    AgentEvent::SessionEnded { session, record } => {
                        self.sessions.ended(session, record);
                    }
                    AgentEvent::Exited(record) => self.sessions.application_ended(&record),
                    _ => {}
                }
            }
            self.sessions.turn(&mut self.agent).unwrap();
            self.agent.pump(None).unwrap();
            read(&mut self.guest.mux, &mut self.guest.socket);
            while let Some(event) = self.guest.mux.next_event() {
                if let Event::Control(bytes) = event {
                    self.guest.told.push(HostMessage::decode(&bytes).unwrap());
                }
            }
        }
    }

    fn client(&mut self) -> Agent {
        let (near, far) = UnixStream::pair().unwrap();
        self.sessions.open(near, b"", &mut self.agent).unwrap();
        Agent::new(OwnedFd::from(far)).unwrap()
    }

    /// The session that the guest was asked for last.
    fn order(&self) -> SessionOrder {
        let mut orders = self.guest.told.iter().filter_map(|message| match message {
            HostMessage::Session(order) => Some(*order),
            _ => None,
        });
        orders.next_back().unwrap()
    }
}

fn events(client: &mut Agent) -> Vec<AgentEvent> {
    client.pump(None).unwrap();
    std::iter::from_fn(|| client.next_event().unwrap()).collect()
}

fn record(code: u8) -> ExitRecord {
    ExitRecord {
        status: ExitStatus::Exited { code },
        oom_killed: false,
        finished_unix_ns: 1,
    }
}

#[test]
fn a_session_is_carried_from_its_first_byte_to_its_record() {
    let mut world = World::new();
    let mut client = world.client();
    client.write_stdin(b"work and input").unwrap();
    client.end_stdin();
    client.pump(None).unwrap();
    world.turn();
    let order = world.order();
    let [input, stdout, stderr] = order.streams();
    assert_eq!(
        world.guest.mux.peek(input),
        Incoming::Bytes(b"work and input")
    );
    world.guest.mux.consume(input, 14);
    assert_eq!(world.guest.mux.peek(input), Incoming::Ended);
    world.say(&GuestMessage::SessionStarted {
        session: order.session,
        pid: 77,
    });
    world.guest.mux.write(stdout, b"out").unwrap();
    world.guest.mux.write(stderr, b"err").unwrap();
    world.turn();
    let seen = events(&mut client);
    assert!(
        matches!(
            seen[..],
            [
                AgentEvent::Greeted { .. },
                AgentEvent::Configured,
                AgentEvent::Started { pid: 77, .. }
            ]
        ),
        "{seen:?}"
    );
    assert_eq!(client.stdout(), Incoming::Bytes(b"out"));
    assert_eq!(client.stderr(), Incoming::Bytes(b"err"));
    client.signal(Signal::TERM).unwrap();
    client.pump(None).unwrap();
    world.turn();
    let told = HostMessage::SessionSignal {
        session: order.session,
        signal: Signal::TERM,
    };
    assert!(world.guest.told.contains(&told), "{:?}", world.guest.told);

    world.guest.mux.end(stdout);
    world.guest.mux.end(stderr);
    world.guest.mux.output();
    world.say(&GuestMessage::SessionEnded {
        session: order.session,
        record: record(5),
    });
    world.turn();
    assert!(events(&mut client).is_empty(), "output waits to be taken");
    client.consume_stdout(3);
    client.consume_stderr(3);
    assert!(
        matches!(&events(&mut client)[..], [AgentEvent::Exited(seen)] if seen.exit_code() == 5)
    );
    client.acknowledge_exit().unwrap();
    client.pump(None).unwrap();
    world.turn();
    assert!(world.sessions.is_empty());
}

#[test]
fn a_client_that_stalls_holds_up_itself_and_one_that_leaves_is_told_of() {
    let mut world = World::new();
    let stalled = world.client();
    world.turn();
    let first = world.order();
    let mut other = world.client();
    world.turn();
    let second = world.order();
    let megabyte = vec![b'x'; 1 << 20];
    let mut sent = 0;
    for _ in 0..40 {
        sent += world
            .guest
            .mux
            .write(first.streams()[1], &megabyte)
            .unwrap();
        world.turn();
    }
    assert!(
        sent < 2 << 20,
        "the guest is held up after the windows: {sent}"
    );
    world.guest.mux.write(second.streams()[1], b"free").unwrap();
    world.turn();
    events(&mut other);
    assert_eq!(other.stdout(), Incoming::Bytes(b"free"));
    drop(stalled);
    world.turn();
    let told = HostMessage::SessionClose {
        session: first.session,
    };
    assert!(world.guest.told.contains(&told));
    // Nothing of it is kept: the stream takes nothing any more.
    assert_eq!(world.guest.mux.room(first.streams()[1]), None);
}

#[test]
fn a_client_that_breaks_the_rules_is_cut_off() {
    for bytes in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"\x00\xfffirebuild/mux\nnonsense",
    ] {
        let mut world = World::new();
        let (near, mut far) = UnixStream::pair().unwrap();
        world.sessions.open(near, b"", &mut world.agent).unwrap();
        far.write_all(bytes).unwrap();
        // Text that is no preamble is skipped, but not for ever.
        far.set_nonblocking(true).unwrap();
        for _ in 0..600 {
            let _ = far.write(&[b'x'; 1024]);
            world.turn();
        }
        assert!(world.sessions.is_empty(), "{bytes:?}");
    }
    let mut world = World::new();
    let mut client = world.client();
    client.shutdown(Duration::ZERO).unwrap();
    client.pump(None).unwrap();
    world.turn();
    assert!(
        world.sessions.is_empty(),
        "only signals and sizes are a client's to send"
    );
}

#[test]
fn attached_clients_get_output_and_are_not_waited_for_long() {
    let mut world = World::new();
    world.sessions.patience = Duration::from_millis(50);
    let attach = |world: &mut World| {
        let (near, far) = UnixStream::pair().unwrap();
        world.sessions.attach(near, b"");
        Agent::new(OwnedFd::from(far)).unwrap()
    };
    let mut reader = attach(&mut world);
    let stalled = attach(&mut world);
    world.sessions.output(Stream::Stdout, b"hello");
    reader.write_stdin(b"typed").unwrap();
    reader.end_stdin();
    reader.pump(None).unwrap();
    world.turn();
    events(&mut reader);
    assert_eq!(reader.stdout(), Incoming::Bytes(b"hello"));
    reader.consume_stdout(5);
    assert_eq!(
        world.guest.mux.peek(StreamId::STDIN),
        Incoming::Bytes(b"typed")
    );
    world.guest.mux.consume(StreamId::STDIN, 5);
    assert_eq!(
        world.guest.mux.peek(StreamId::STDIN),
        Incoming::Pending,
        "its end is not the application's"
    );

    // One of them does not read: the application waits for it a little, then goes on.
    let mut given = 0;
    let mut gone = false;
    for _ in 0..2000 {
        let room = world.sessions.room(Stream::Stdout).min(64 << 10);
        let piece = vec![b'y'; room];
        world.sessions.output(Stream::Stdout, &piece);
        given += room;
        world.turn();
        events(&mut reader);
        if let Incoming::Bytes(bytes) = reader.stdout() {
            let count = bytes.len();
            reader.consume_stdout(count);
            reader.pump(None).unwrap();
        }
        gone = world.sessions.clients.len() == 1;
        if gone && given > 8 << 20 {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(gone, "the one that stalls is cut off");
    assert!(given > 8 << 20, "the other one goes on: {given}");
    drop(stalled);

    // The end comes behind the last of the output.
    world.sessions.output(Stream::Stdout, b"last words");
    world.sessions.application_ended(&record(9));
    let mut last = Vec::new();
    let mut exited = None;
    for _ in 0..100 {
        world.turn();
        for event in events(&mut reader) {
            if let AgentEvent::Exited(record) = event {
                exited = Some(record.exit_code());
            }
        }
        if let Incoming::Bytes(bytes) = reader.stdout() {
            assert_eq!(exited, None, "the record waits for the output");
            last.extend_from_slice(bytes);
            let count = bytes.len();
            reader.consume_stdout(count);
        }
    }
    assert!(last.ends_with(b"last words"));
    assert_eq!(exited, Some(9));
}

#[test]
fn the_end_of_the_machine_is_the_end_of_all() {
    let mut world = World::new();
    let mut client = world.client();
    world.turn();
    world.sessions.machine_ended();
    world.turn();
    let seen = events(&mut client);
    let Some(AgentEvent::Exited(record)) = seen.last() else {
        panic!("{seen:?}");
    };
    assert_eq!(record.exit_code(), 137);
    client.acknowledge_exit().unwrap();
    client.pump(None).unwrap();
    world.turn();
    assert!(world.sessions.is_empty());
}
