//! A record for tests.

use jiff::Timestamp;

use super::record::FORMAT;
use super::{InstanceId, NetworkRecord, Record};

/// A record of an instance that asks for little.
pub(crate) fn record() -> Record {
    Record {
        format: FORMAT,
        id: InstanceId::random().unwrap(),
        name: String::new(),
        image: "debian:bookworm".to_owned(),
        image_digest: None,
        labels: Default::default(),
        created_at: Timestamp::now(),
        argv: vec!["sh".to_owned()],
        entrypoint_words: 0,
        env: vec!["PATH=***".to_owned()],
        cwd: "/".to_owned(),
        user: String::new(),
        hostname: "h".to_owned(),
        stop_signal: "SIGTERM".to_owned(),
        system: false,
        stop_timeout: None,
        restart: Default::default(),
        healthcheck: None,
        kernel: "6.1".to_owned(),
        kernel_args: Vec::new(),
        cpus: 1,
        memory_mib: 512,
        disk_bytes: 1 << 30,
        image_disk: "/x".to_owned(),
        network: NetworkRecord::default(),
        detached: false,
        remove: false,
        terminal: false,
        stdin: false,
        stdin_once: false,
        metadata: false,
        interface_limits: firebuild_vm::hardware::InterfaceLimits::default(),
    }
}
