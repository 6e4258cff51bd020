//! The contract between host and guest.
//!
//! ```text
//!   host                                             guest (vminit, PID 1)
//!   ────                                             ─────────────────────
//!   RunConfig ──json──▶ /firebuild/config.json in the initrd ──▶ RunConfig      config
//!
//!   HostMessage ─┐                                ┌─▶ HostMessage               message
//!   stdin bytes ─┤ Mux ══ frames over a byte ══ Mux ├─▶ stdin bytes              mux
//!   stdout bytes ◀┤      stream (virtio-serial,      ├── stdout bytes             frame
//!   GuestMessage ◀┘      vsock, a socket in tests) └── GuestMessage
//! ```
//!
//! Everything here is data or a state machine without I/O: both sides drive the same [`Mux`] with bytes they
//! read and write themselves. What the peer sends is never trusted: each length is checked before it is used,
//! each buffer has a bound, and a broken peer gives a [`ProtocolError`], never a panic.
//!
//! The wire format is described in `docs/formats/guest-protocol.md`. This crate knows nothing of VMMs, images
//! or sockets.

pub mod config;
pub mod flow;
pub mod frame;
pub mod health;
mod hex;
pub mod message;
pub mod metadata;
pub mod mux;
pub mod net;
mod queue;
pub mod sample;
pub mod session;
pub mod signal;

pub use config::{
    Account, Channel, ConfigError, DiskRef, EnvVar, HostEntry, LogLevel, Resolver, RootLayout,
    RunConfig, SystemInit, WindowSize,
};
pub use frame::{Frame, FrameError, StreamId};
pub use health::{HealthCheck, HealthReport, HealthStatus, Probe, Verdict};
pub use message::{
    ExitRecord, ExitStatus, FailureReason, GuestMessage, Hello, HostMessage, MessageError,
    MessageLevel, TaskOrder, TaskSocket,
};
pub use metadata::Metadata;
pub use mux::{Direction, Event, Incoming, Limits, Mux, ProtocolError, Role, SendError};
pub use net::{Cidr, Interface, InterfaceRef, MacAddress, Route};
pub use session::{SessionOrder, SessionWork};
pub use signal::Signal;

/// Where the initrd holds the guest init; the kernel starts it without being told.
pub const INIT_PATH: &str = "/init";
/// Where the initrd holds the [`RunConfig`], as JSON.
pub const CONFIG_PATH: &str = "/firebuild/config.json";
/// The directory of the initrd under which kernel modules lie.
pub const MODULES_DIR: &str = "/firebuild/modules";
/// The name of the virtio-serial port that carries the channel.
pub const CHANNEL_PORT_NAME: &str = "firebuild.channel";
/// The port on which the host listens where the channel is a vsock connection that the guest opens.
pub const CHANNEL_VSOCK_PORT: u32 = 1024;
/// Serial number of the disk that holds the image (virtio-blk gives 20 bytes for it).
pub const ROOT_DISK_SERIAL: &str = "firebuild-root";
/// Serial number of the disk that holds what the machine writes.
pub const SCRATCH_DISK_SERIAL: &str = "firebuild-scratch";

/// A character device that the initrd must hold beside [`INIT_PATH`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitrdDevice {
    /// Its absolute path.
    pub path: &'static str,
    /// Its major number.
    pub major: u32,
    /// Its minor number.
    pub minor: u32,
    /// Its permission bits.
    pub mode: u32,
}

/// The devices that a program needs before anything is mounted: the kernel opens the first for the init's standard
/// streams, and where it cannot (no console), the runtime library of the init opens the second in its place.
pub const INITRD_DEVICES: [InitrdDevice; 2] = [
    InitrdDevice {
        path: "/dev/console",
        major: 5,
        minor: 1,
        mode: 0o600,
    },
    InitrdDevice {
        path: "/dev/null",
        major: 1,
        minor: 3,
        mode: 0o666,
    },
];
