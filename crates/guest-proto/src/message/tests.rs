use super::{
    ExitRecord, ExitStatus, FailureReason, GuestMessage, Hello, HostMessage, MAX_TEXT_BYTES,
    MessageError, MessageLevel, one_line,
};
use crate::config::WindowSize;
use crate::health::{HealthReport, HealthStatus, Probe, Verdict};
use crate::signal::Signal;

fn exit(status: ExitStatus) -> ExitRecord {
    ExitRecord {
        status,
        oom_killed: false,
        finished_unix_ns: 5,
    }
}

#[test]
fn the_text_forms_are_pinned() {
    let failed = ExitStatus::Failed {
        reason: FailureReason::NotFound,
        message: "no".to_owned(),
    };
    let guest = [
        (
            GuestMessage::Hello(Hello::new(vec!["x".to_owned()], None)),
            r#"{"type":"hello","version_min":1,"version_max":1,"features":["x"]}"#,
        ),
        (GuestMessage::ConfigAck, r#"{"type":"config-ack"}"#),
        (
            GuestMessage::Log {
                level: MessageLevel::Warning,
                text: "a".to_owned(),
            },
            r#"{"type":"log","level":"warning","text":"a"}"#,
        ),
        (
            GuestMessage::Started {
                pid: 2,
                unix_ns: 3,
                uptime_ns: 4,
            },
            r#"{"type":"started","pid":2,"unix_ns":3,"uptime_ns":4}"#,
        ),
        (
            GuestMessage::Health(HealthReport {
                verdict: Verdict {
                    status: HealthStatus::Unhealthy,
                    failing_streak: 3,
                },
                probe: Probe {
                    started_unix_ns: 1,
                    ended_unix_ns: 2,
                    exit_code: -1,
                    output: "no".to_owned(),
                },
            }),
            concat!(
                r#"{"type":"health","verdict":{"status":"unhealthy","failing_streak":3},"#,
                r#""probe":{"started_unix_ns":1,"ended_unix_ns":2,"exit_code":-1,"output":"no"}}"#
            ),
        ),
        (
            GuestMessage::Exit(exit(ExitStatus::Exited { code: 3 })),
            r#"{"type":"exit","status":{"kind":"exited","code":3},"oom_killed":false,"finished_unix_ns":5}"#,
        ),
        (
            GuestMessage::Exit(exit(failed)),
            concat!(
                r#"{"type":"exit","status":{"kind":"failed","reason":"not-found","message":"no"},"#,
                r#""oom_killed":false,"finished_unix_ns":5}"#
            ),
        ),
    ];
    for (message, text) in guest {
        assert_eq!(String::from_utf8(message.encode().unwrap()).unwrap(), text);
        assert_eq!(GuestMessage::decode(text.as_bytes()).unwrap(), message);
    }
    let host = [
        (
            HostMessage::Hello(Hello::new(vec![], Some(7))),
            r#"{"type":"hello","version_min":1,"version_max":1,"features":[],"unix_ns":7}"#,
        ),
        (
            HostMessage::Signal {
                signal: Signal::TERM,
            },
            r#"{"type":"signal","signal":15}"#,
        ),
        (
            HostMessage::WindowSize(WindowSize {
                rows: 24,
                columns: 80,
            }),
            r#"{"type":"window-size","rows":24,"columns":80}"#,
        ),
        (
            HostMessage::Shutdown { grace_ms: 10_000 },
            r#"{"type":"shutdown","grace_ms":10000}"#,
        ),
        (HostMessage::ExitAck, r#"{"type":"exit-ack"}"#),
    ];
    for (message, text) in host {
        assert_eq!(String::from_utf8(message.encode().unwrap()).unwrap(), text);
        assert_eq!(HostMessage::decode(text.as_bytes()).unwrap(), message);
    }
}

#[test]
fn exit_codes_are_dockers() {
    let failed = |reason| ExitStatus::Failed {
        reason,
        message: String::new(),
    };
    for (status, code) in [
        (ExitStatus::Exited { code: 0 }, 0),
        (ExitStatus::Exited { code: 255 }, 255),
        (
            ExitStatus::Signaled {
                signal: Signal::KILL,
                core_dumped: false,
            },
            137,
        ),
        (failed(FailureReason::CannotExecute), 126),
        (failed(FailureReason::NotFound), 127),
        (failed(FailureReason::UnknownUser), 125),
    ] {
        assert_eq!(exit(status).exit_code(), code);
    }
}

#[test]
fn versions_meet_at_the_newest_common_one() {
    let hello = |version_min, version_max| Hello {
        version_min,
        version_max,
        features: vec![],
        unix_ns: None,
    };
    assert_eq!(hello(1, 3).negotiate(&hello(2, 5)).unwrap(), 3);
    assert_eq!(hello(1, 1).negotiate(&hello(1, 9)).unwrap(), 1);
    assert!(matches!(
        hello(1, 1).negotiate(&hello(2, 3)),
        Err(MessageError::Version { ours: 1, theirs: 3 })
    ));
}

#[test]
fn what_is_no_message_is_an_error() {
    for text in [
        "",
        "{}",
        "{\"type\":\"nope\"}",
        "{\"type\":\"signal\",\"signal\":0}",
        "\u{fffd}",
    ] {
        HostMessage::decode(text.as_bytes()).unwrap_err();
        GuestMessage::decode(text.as_bytes()).unwrap_err();
    }
    GuestMessage::decode("[".repeat(60_000).as_bytes()).unwrap_err();
    let long = GuestMessage::Log {
        level: MessageLevel::Debug,
        text: "a".repeat(70_000),
    };
    assert!(matches!(long.encode(), Err(MessageError::TooLong { .. })));
}

#[test]
fn texts_are_cut_to_one_line() {
    assert_eq!(one_line("a\nb\tc"), "a b c");
    let cut = one_line(&"é".repeat(MAX_TEXT_BYTES));
    assert!(cut.len() <= MAX_TEXT_BYTES && cut.len() >= MAX_TEXT_BYTES - 1);
}

#[test]
fn sessions_are_written_as_documented() {
    use crate::session::SessionOrder;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let host = [
        (
            HostMessage::Session(SessionOrder {
                session: 1,
                input: 64,
                stdout: 65,
                stderr: 69,
            }),
            r#"{"type":"session","session":1,"input":64,"stdout":65,"stderr":69}"#,
        ),
        (
            HostMessage::SessionSignal {
                session: 1,
                signal: Signal::TERM,
            },
            r#"{"type":"session-signal","session":1,"signal":15}"#,
        ),
        (
            HostMessage::SessionWindowSize {
                session: 1,
                size: WindowSize {
                    rows: 24,
                    columns: 80,
                },
            },
            r#"{"type":"session-window-size","session":1,"size":{"rows":24,"columns":80}}"#,
        ),
        (
            HostMessage::SessionClose { session: 1 },
            r#"{"type":"session-close","session":1}"#,
        ),
        (
            HostMessage::Clock { unix_ns: 5 },
            r#"{"type":"clock","unix_ns":5}"#,
        ),
    ];
    for (message, expected) in host {
        let bytes = message.encode().unwrap();
        assert_eq!(HostMessage::decode(&bytes).unwrap(), message);
        assert_eq!(text(bytes), expected);
    }
    let guest = [
        (
            GuestMessage::SessionStarted { session: 1, pid: 9 },
            r#"{"type":"session-started","session":1,"pid":9}"#,
        ),
        (
            GuestMessage::SessionEnded {
                session: 1,
                record: ExitRecord {
                    status: ExitStatus::Exited { code: 3 },
                    oom_killed: false,
                    finished_unix_ns: 7,
                },
            },
            r#"{"type":"session-ended","session":1,"record":{"status":{"kind":"exited","code":3},"oom_killed":false,"finished_unix_ns":7}}"#,
        ),
    ];
    for (message, expected) in guest {
        let bytes = message.encode().unwrap();
        assert_eq!(GuestMessage::decode(&bytes).unwrap(), message);
        assert_eq!(text(bytes), expected);
    }
}
