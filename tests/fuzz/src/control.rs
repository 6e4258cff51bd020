use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use firebuild_engine::monitor::control::{Answer, Connection, Request, SessionKind, Verdict};
use firebuild_engine::monitor::sessions::Sessions;
use firebuild_vm::Agent;

/// The control socket of an owner: any bytes, in pieces. No panic, no more held than a request may be long, and what comes
/// behind a request reaches its session.
pub fn control(bytes: &[u8]) {
    let (near, mut far) = UnixStream::pair().unwrap();
    for end in [&near, &far] {
        end.set_nonblocking(true).unwrap();
    }
    let mut connection = Connection::new(near);
    let mut handle = |request| match request {
        Request::Wait => Verdict::Later,
        Request::Session => Verdict::Session(SessionKind::Guest),
        Request::Attach => Verdict::Session(SessionKind::Attach),
        _ => Verdict::Answer(Answer::done()),
    };
    let mut pieces = bytes.chunks(257);
    for piece in pieces.by_ref() {
        let _ = far.write_all(piece);
        let stays = connection.serve(&mut handle);
        assert!(connection.held() <= 66 << 10, "a request has a limit");
        if !stays {
            break;
        }
    }
    let Some(new) = connection.into_session() else {
        return;
    };
    let (channel, _guest) = UnixStream::pair().unwrap();
    let mut agent = Agent::new(OwnedFd::from(channel)).unwrap();
    let mut sessions = Sessions::default();
    match new.kind {
        SessionKind::Attach => sessions.attach(new.socket, &new.early),
        SessionKind::Guest => sessions.open(new.socket, &new.early, &mut agent).unwrap(),
    }
    for piece in pieces {
        let _ = far.write_all(piece);
        let _ = sessions.turn(&mut agent);
    }
    sessions.machine_ended();
}
