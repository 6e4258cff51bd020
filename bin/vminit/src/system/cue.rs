//! How the image's init says that the system is up, which is when the application starts beside it.
//!
//! | init | what it is given |
//! |---|---|
//! | any with an inittab (sysvinit, busybox, OpenRC under either) | a line that is run after the boot ([`inittab`]) |
//! | runit | a service: services are what its boot, stage 1, makes room for ([`runit`]) |
//! | openrc-init | a service of the runlevel `default` that comes after all others ([`openrc`]) |
//!
//! Each runs this program, found by the agent's `/proc/PID/exe` since the image does not have it, which sends the agent a
//! signal. It is written anew at each start, into the VM and never into the image.

mod inittab;
mod openrc;
mod runit;

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::ExitCode;

use firebuild_sys::signal;
use rustix::process::Pid;

use super::request::Kind;

/// What the cue is: SIGUSR1, which nothing else sends to the agent.
pub(super) const SIGNAL: i32 = 10;
/// The first argument that makes this program give it; the agent's process is the second.
const NAME: &str = "cue";
/// The third of one that stays until it is ended, as a service has to.
const STAY: &str = "stay";

/// A way to be told.
#[derive(Debug)]
pub(super) enum Cue {
    /// A line of the inittab; that of busybox has other fields.
    Inittab { is_busybox: bool },
    /// A service among these.
    Runit(PathBuf),
    /// A service of OpenRC's.
    OpenRc,
}

impl Cue {
    /// That of an init, where it has one.
    pub(super) fn of(kind: Kind) -> Option<Self> {
        match kind {
            Kind::Systemd => None,
            Kind::Runit => runit::services().map(Self::Runit),
            Kind::OpenRc => openrc::is_there().then_some(Self::OpenRc),
            Kind::Busybox | Kind::Other => inittab::is_there().then_some(Self::Inittab {
                is_busybox: kind == Kind::Busybox,
            }),
        }
    }

    /// Puts it in place.
    pub(super) fn install(&self, agent: Pid) -> std::io::Result<()> {
        let agent = agent.as_raw_nonzero().get();
        match self {
            Self::Inittab { is_busybox } => inittab::install(agent, *is_busybox),
            Self::Runit(services) => runit::install(services, agent),
            Self::OpenRc => openrc::install(agent),
        }
    }
}

/// The words that run this program to give the cue.
fn command(agent: i32) -> String {
    format!("/proc/{agent}/exe {NAME} {agent}")
}

/// When this process was started to give the cue, gives it, and the code to leave with.
pub(crate) fn cue_main() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    if args.next().as_deref() != Some(OsStr::new(NAME)) || rustix::process::getpid().is_init() {
        return None;
    }
    let agent = args.next().and_then(|agent| agent.to_str()?.parse().ok());
    let sent = agent
        .and_then(Pid::from_raw)
        .map(|agent| signal::send(agent, SIGNAL));
    let was_sent = matches!(sent, Some(Ok(())));
    if was_sent && args.next().as_deref() == Some(OsStr::new(STAY)) {
        loop {
            std::thread::park();
        }
    }
    Some(match was_sent {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
