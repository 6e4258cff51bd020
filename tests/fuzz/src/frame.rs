use firebuild_guest_proto::frame::PREAMBLE;
use firebuild_guest_proto::{
    Event, GuestMessage, HostMessage, Incoming, Limits, Mux, Role, RunConfig, StreamId,
};

/// Both ends of the guest channel, fed with whatever comes: no panic, and no more memory than the limits allow.
pub fn frame(bytes: &[u8]) {
    let _ = RunConfig::from_json(bytes);
    for (role, readable) in [
        (Role::Host, [StreamId::STDOUT, StreamId::STDERR]),
        (Role::Guest, [StreamId::STDIN, StreamId::STDIN]),
    ] {
        let mut mux = Mux::new(role, Limits::default());
        if mux.receive(&PREAMBLE).is_err() {
            continue;
        }
        for chunk in bytes.chunks(257) {
            let outcome = mux.receive(chunk);
            while let Some(event) = mux.next_event() {
                if let Event::Control(message) = event {
                    let _ = (
                        HostMessage::decode(&message),
                        GuestMessage::decode(&message),
                    );
                }
            }
            for id in readable {
                if let Incoming::Bytes(bytes) = mux.peek(id) {
                    assert!(bytes.len() <= 256 * 1024, "no more than a window is held");
                    let count = bytes.len() / 2 + 1;
                    mux.consume(id, count);
                }
            }
            let count = mux.output().len();
            mux.written(count);
            if outcome.is_err() {
                break;
            }
        }
    }
}
