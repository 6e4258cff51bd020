use std::os::fd::OwnedFd;

use firebuild_guest_proto::{Incoming, Limits, Mux, Role, StreamId};
use rustix::pipe::{PipeFlags, pipe_with};

use super::{Ids, Stdio};

fn pipe() -> (OwnedFd, OwnedFd) {
    pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap()
}

fn settle(a: &mut Mux, b: &mut Mux) {
    loop {
        let bytes = a.output().to_vec();
        a.written(bytes.len());
        b.receive(&bytes).unwrap();
        let back = b.output().to_vec();
        b.written(back.len());
        a.receive(&back).unwrap();
        if bytes.is_empty() && back.is_empty() {
            return;
        }
    }
}

fn muxes() -> (Mux, Mux) {
    (
        Mux::new(Role::Host, Limits::default()),
        Mux::new(Role::Guest, Limits::default()),
    )
}

#[test]
fn output_reaches_the_host_to_its_last_byte_and_ends() {
    let (mut host, mut guest) = muxes();
    let (read, write) = pipe();
    let mut stdio = Stdio::new(
        Ids::APPLICATION,
        vec![(StreamId::STDOUT, read)],
        None,
        false,
        &mut guest,
    );
    let mut got = Vec::new();
    let mut sent = 0u32;
    let mut write = Some(write);
    while got.len() < 1_000_000 || !stdio.outputs_ended() {
        if let Some(end) = &write {
            let chunk: Vec<u8> = (sent..sent + 1000)
                .map(|n| u8::try_from(n % 251).unwrap())
                .collect();
            if let Ok(count) = rustix::io::write(end, &chunk) {
                sent += u32::try_from(count).unwrap();
            }
            if sent >= 1_000_000 {
                write = None;
            }
        }
        stdio.turn(&mut guest);
        settle(&mut guest, &mut host);
        if let Incoming::Bytes(bytes) = host.peek(StreamId::STDOUT) {
            let bytes = bytes.to_vec();
            host.consume(StreamId::STDOUT, bytes.len());
            got.extend_from_slice(&bytes);
        }
    }
    settle(&mut guest, &mut host);
    assert_eq!(host.peek(StreamId::STDOUT), Incoming::Ended);
    assert_eq!(
        host.peek(StreamId::STDERR),
        Incoming::Ended,
        "a stream that is not there ends at once"
    );
    assert_eq!(got.len(), usize::try_from(sent).unwrap());
    assert!(
        got.iter()
            .zip(0u32..)
            .all(|(byte, n)| u32::from(*byte) == n % 251)
    );
}

#[test]
fn input_reaches_the_application_and_its_end_closes_the_pipe() {
    let (mut host, mut guest) = muxes();
    let (read, write) = pipe();
    let mut stdio = Stdio::new(Ids::APPLICATION, Vec::new(), Some(write), false, &mut guest);
    host.write(StreamId::STDIN, b"question").unwrap();
    host.end(StreamId::STDIN);
    settle(&mut host, &mut guest);
    while stdio.turn(&mut guest) {}
    let mut buffer = [0; 20];
    assert_eq!(rustix::io::read(&read, &mut buffer).unwrap(), 8);
    assert_eq!(rustix::io::read(&read, &mut buffer).unwrap(), 0);
}

#[test]
fn an_application_that_reads_no_more_stops_the_stream() {
    let (mut host, mut guest) = muxes();
    let (read, write) = pipe();
    let mut stdio = Stdio::new(Ids::APPLICATION, Vec::new(), Some(write), false, &mut guest);
    drop(read);
    host.write(StreamId::STDIN, b"question").unwrap();
    settle(&mut host, &mut guest);
    stdio.turn(&mut guest);
    settle(&mut host, &mut guest);
    host.write(StreamId::STDIN, b"more").unwrap_err();
}

#[test]
fn a_host_that_wants_no_more_closes_the_pipe_under_the_application() {
    let (mut host, mut guest) = muxes();
    let (read, write) = pipe();
    let mut stdio = Stdio::new(
        Ids::APPLICATION,
        vec![(StreamId::STDOUT, read)],
        None,
        false,
        &mut guest,
    );
    host.stop(StreamId::STDOUT);
    settle(&mut host, &mut guest);
    stdio.turn(&mut guest);
    assert_eq!(
        rustix::io::write(&write, b"x"),
        Err(rustix::io::Errno::PIPE)
    );
}
