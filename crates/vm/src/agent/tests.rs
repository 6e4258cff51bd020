use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use firebuild_guest_proto::mux::{Event, Limits, Mux, Role};
use firebuild_guest_proto::{
    Direction, ExitRecord, ExitStatus, GuestMessage, Hello, HostMessage, Incoming, MessageLevel,
    Signal, StreamId, WindowSize,
};

use super::{Agent, AgentError, AgentEvent};

/// A guest in our hands.
struct Guest {
    mux: Mux,
    socket: UnixStream,
}

fn pair() -> (Agent, Guest) {
    let (host, guest) = UnixStream::pair().unwrap();
    guest.set_nonblocking(true).unwrap();
    (
        Agent::new(OwnedFd::from(host)).unwrap(),
        Guest {
            mux: Mux::new(Role::Guest, Limits::default()),
            socket: guest,
        },
    )
}

impl Guest {
    fn tell(&mut self, message: &GuestMessage) {
        self.mux.send_control(&message.encode().unwrap()).unwrap();
    }

    fn greet(&mut self) {
        self.tell(&GuestMessage::Hello(Hello::new(Vec::new(), None)));
        self.tell(&GuestMessage::ConfigAck);
        self.tell(&GuestMessage::Started {
            pid: 5,
            unix_ns: 6,
            uptime_ns: 7,
        });
    }

    fn exit(&mut self, code: u8) {
        let record = ExitRecord {
            status: ExitStatus::Exited { code },
            oom_killed: false,
            finished_unix_ns: 1,
        };
        self.tell(&GuestMessage::Exit(record));
    }

    /// Writes and reads what there is; the messages that came.
    fn turn(&mut self) -> Vec<HostMessage> {
        loop {
            let output = self.mux.output();
            if output.is_empty() {
                break;
            }
            match self.socket.write(output) {
                Ok(count) => self.mux.written(count),
                Err(_) => break,
            }
        }
        let mut buffer = [0; 65536];
        while let Ok(count @ 1..) = self.socket.read(&mut buffer) {
            self.mux.receive(&buffer[..count]).unwrap();
        }
        let mut messages = Vec::new();
        while let Some(event) = self.mux.next_event() {
            let Event::Control(bytes) = event else {
                panic!("the host opens no streams")
            };
            messages.push(HostMessage::decode(&bytes).unwrap());
        }
        messages
    }
}

fn events(agent: &mut Agent) -> Vec<AgentEvent> {
    let mut events = Vec::new();
    while let Some(event) = agent.next_event().unwrap() {
        events.push(event);
    }
    events
}

#[test]
fn the_conversation_goes_from_hello_to_acknowledgement() {
    let (mut agent, mut guest) = pair();
    guest.greet();
    guest.tell(&GuestMessage::Log {
        level: MessageLevel::Warning,
        text: "two\nlines\u{1b}[31m".to_owned(),
    });
    guest.turn();
    agent.pump(Some(42)).unwrap();
    assert_eq!(
        events(&mut agent),
        [
            AgentEvent::Greeted { version: 1 },
            AgentEvent::Configured,
            AgentEvent::Started {
                pid: 5,
                unix_ns: 6,
                uptime_ns: 7
            },
            AgentEvent::Log {
                level: MessageLevel::Warning,
                text: "two lines [31m".to_owned()
            },
        ]
    );
    agent.signal(Signal::TERM).unwrap();
    agent
        .resize(WindowSize {
            rows: 24,
            columns: 80,
        })
        .unwrap();
    agent.shutdown(Duration::from_secs(2)).unwrap();
    agent.pump(None).unwrap();
    let told = guest.turn();
    assert!(
        matches!(&told[0], HostMessage::Hello(hello) if hello.unix_ns == Some(42)),
        "{told:?}"
    );
    assert_eq!(
        told[1],
        HostMessage::Signal {
            signal: Signal::TERM
        }
    );
    assert_eq!(told[3], HostMessage::Shutdown { grace_ms: 2000 });
    guest.exit(3);
    guest.turn();
    agent.pump(None).unwrap();
    assert!(
        matches!(&events(&mut agent)[..], [AgentEvent::Exited(record)] if record.exit_code() == 3)
    );
    agent.acknowledge_exit().unwrap();
    agent.pump(None).unwrap();
    assert_eq!(guest.turn(), [HostMessage::ExitAck]);
    drop(guest);
    agent.pump(None).unwrap();
    assert_eq!(events(&mut agent), [AgentEvent::Closed]);
    assert!(agent.poll_fd().is_none());
    assert!(events(&mut agent).is_empty());
}

#[test]
fn the_exit_waits_until_all_output_is_taken() {
    let (mut agent, mut guest) = pair();
    guest.greet();
    guest.mux.write(StreamId::STDOUT, b"last words").unwrap();
    guest.mux.end(StreamId::STDOUT);
    guest.turn();
    guest.exit(0);
    guest.turn();
    drop(guest);
    agent.pump(None).unwrap();
    agent.pump(None).unwrap();
    assert_eq!(events(&mut agent).len(), 3, "no exit and no end yet");
    assert_eq!(agent.stdout(), Incoming::Bytes(b"last words"));
    agent.consume_stdout(5);
    assert!(events(&mut agent).is_empty());
    agent.consume_stdout(5);
    assert_eq!(agent.stdout(), Incoming::Ended);
    assert!(matches!(
        &events(&mut agent)[..],
        [AgentEvent::Exited(_), AgentEvent::Closed]
    ));
}

#[test]
fn a_reader_who_stalls_stops_his_stream_and_no_other() {
    let (mut agent, mut guest) = pair();
    guest.greet();
    let megabyte = vec![b'x'; 1 << 20];
    let mut sent = 0;
    for _ in 0..200 {
        sent += guest.mux.write(StreamId::STDOUT, &megabyte).unwrap();
        guest.turn();
        agent.pump(None).unwrap();
    }
    assert!(sent < 1 << 20, "the guest is held up after a window");
    guest.mux.write(StreamId::STDERR, b"still").unwrap();
    guest.turn();
    agent.pump(None).unwrap();
    assert_eq!(agent.stderr(), Incoming::Bytes(b"still"));
    let Incoming::Bytes(waiting) = agent.stdout() else {
        panic!("stdout waits")
    };
    assert!(waiting.len() <= 256 * 1024);
    let count = waiting.len();
    agent.consume_stdout(count);
    agent.pump(None).unwrap();
    // The first turn reads the credit, the second one uses it.
    guest.turn();
    guest.turn();
    assert!(guest.mux.write(StreamId::STDOUT, b"more").unwrap() > 0);
}

#[test]
fn stdin_is_carried_within_limits() {
    let (mut agent, mut guest) = pair();
    let mut written = 0;
    while let Some(count @ 1..) = agent.write_stdin(&[b'i'; 10_000]) {
        written += count;
    }
    assert!(written > 0 && agent.stdin_room() == Some(0));
    agent.end_stdin();
    let mut received = 0;
    for _ in 0..100 {
        agent.pump(None).unwrap();
        guest.turn();
        if let Incoming::Bytes(bytes) = guest.mux.peek(StreamId::STDIN) {
            let count = bytes.len();
            received += count;
            guest.mux.consume(StreamId::STDIN, count);
        }
    }
    assert_eq!(received, written);
    assert_eq!(guest.mux.peek(StreamId::STDIN), Incoming::Ended);
    assert_eq!(agent.write_stdin(b"x"), None);
}

#[test]
fn stopping_stdout_reaches_the_guest() {
    let (mut agent, mut guest) = pair();
    agent.stop_stdout();
    agent.pump(None).unwrap();
    guest.turn();
    assert!(guest.mux.write(StreamId::STDOUT, b"x").is_err());
    assert_eq!(agent.stdout(), Incoming::Ended);
}

#[test]
fn messages_have_their_place() {
    let hello = GuestMessage::Hello(Hello::new(Vec::new(), None));
    let record = ExitRecord {
        status: ExitStatus::Exited { code: 0 },
        oom_killed: false,
        finished_unix_ns: 0,
    };
    let exit = GuestMessage::Exit(record);
    let started = GuestMessage::Started {
        pid: 1,
        unix_ns: 1,
        uptime_ns: 1,
    };
    let log = GuestMessage::Log {
        level: MessageLevel::Debug,
        text: String::new(),
    };
    // Of a session that nobody has opened.
    let ended = GuestMessage::SessionEnded {
        session: 1,
        record: ExitRecord {
            status: ExitStatus::Exited { code: 0 },
            oom_killed: false,
            finished_unix_ns: 0,
        },
    };
    let begun = GuestMessage::SessionStarted { session: 0, pid: 1 };
    let wrong: [&[&GuestMessage]; 9] = [
        &[&hello, &ended],
        &[&hello, &begun],
        &[&GuestMessage::ConfigAck],
        &[&log],
        &[&exit],
        &[&hello, &hello],
        &[&hello, &started],
        &[&hello, &exit, &exit],
        &[&hello, &exit, &GuestMessage::ConfigAck],
    ];
    for messages in wrong {
        let (mut agent, mut guest) = pair();
        messages.iter().for_each(|message| guest.tell(message));
        guest.turn();
        agent.pump(None).unwrap();
        let error = loop {
            match agent.next_event() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("{messages:?} went through"),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, AgentError::OutOfOrder { .. }), "{error}");
    }
}

#[test]
fn a_broken_peer_is_an_error_and_no_panic() {
    let (mut agent, mut guest) = pair();
    guest.turn();
    guest.socket.write_all(&[0xff; 4096]).unwrap();
    assert!(matches!(agent.pump(None), Err(AgentError::Protocol(_))));

    let (mut agent, mut guest) = pair();
    guest.mux.send_control(b"{\"type\":\"nonsense\"}").unwrap();
    guest.turn();
    agent.pump(None).unwrap();
    assert!(matches!(agent.next_event(), Err(AgentError::Message(_))));

    let (mut agent, mut guest) = pair();
    guest.mux.open(Direction::ToHost).unwrap();
    guest.turn();
    agent.pump(None).unwrap();
    assert!(matches!(
        agent.next_event(),
        Err(AgentError::OutOfOrder {
            message: "a new stream"
        })
    ));

    let (mut agent, mut guest) = pair();
    guest.tell(&GuestMessage::Hello(Hello {
        version_min: 9,
        version_max: 9,
        features: Vec::new(),
        unix_ns: None,
    }));
    guest.turn();
    agent.pump(None).unwrap();
    let error = agent.next_event().unwrap_err();
    assert!(
        std::error::Error::source(&error)
            .unwrap()
            .to_string()
            .contains("no common version")
    );
}
