//! The way from the kernel's hand-over to the application, and from its end to the machine's.
//!
//! ```text
//!   /dev, /sys ▸ configuration ▸ modules ▸ channel ▸ Hello, ConfigAck
//!     ▸ clock, entropy, host name ▸ root file system ▸ /proc … ▸ /etc ▸ network ▸ user ▸ application
//! ```
//!
//! Until the channel is open, what fails is told on the console only. After that it is told to the host as the exit
//! record of an application that never began.

use firebuild_guest_proto::session::FEATURE_SESSIONS;
use firebuild_guest_proto::{ExitStatus, GuestMessage, Hello, RootLayout, RunConfig};
use firebuild_sys::signal::SignalFd;

use crate::channel::Link;
use crate::error::InitError;
use crate::journal::Journal;
use crate::launch::{self, Application, Surroundings};
use crate::metadata::Metadata;
use crate::modules::Spare;
use crate::mounts::{self, Writable};
use crate::sessions::Common;
use crate::supervise::{Supervisor, watch_signals};
use crate::system::{self, Handed};
use crate::wait::Devices;
use crate::{clock, files, login, modules, net, sessions, steps, sweep, user};

/// What is over when [`run`] returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The machine, which is to restart.
    Machine,
    /// This process, the agent beside the image's init, which ends the machine.
    Agent,
}

/// What runs.
pub(crate) enum Ready {
    Application(Application),
    System(Handed),
}

/// What the machine around the application is made with.
struct Found {
    devices: Devices,
    /// Modules for the metadata service, should the kernel need them for it.
    spare: Spare,
}

/// Runs the machine.
pub(crate) fn run(journal: &mut Journal) -> End {
    let (config, mut link, found) = match reach_host(journal) {
        Ok(reached) => reached,
        Err(error) => {
            journal.error(&error.chain());
            return End::Machine;
        }
    };
    let signals = match watch_signals() {
        Ok(signals) => signals,
        Err(error) => {
            journal.error(&format!("cannot watch signals: {error}"));
            return End::Machine;
        }
    };
    let mut writable = Writable::default();
    if matches!(config.root, RootLayout::Steps { .. }) {
        match machine(&config, &found.devices, &mut writable, journal) {
            Ok(_) => steps::serve(&mut link, journal, &signals),
            Err(error) => fail(&error, &mut link, journal, signals, writable),
        }
        return End::Machine;
    }
    match prepare(&config, found, &mut writable, journal) {
        Ok((ready, surroundings, metadata)) => {
            let stop_signal = config.stop_signal;
            let health = config.health.clone();
            // What else runs here has the application's variables too; no more of the configuration is needed, and it
            // may hold secrets.
            let common = Common::of(&config);
            drop(config);
            Supervisor::new(&mut link, journal, signals, writable)
                .with_health(health, surroundings)
                .with_metadata(metadata)
                .with_sessions(common)
                .watch(ready, stop_signal)
        }
        Err(error) => {
            fail(&error, &mut link, journal, signals, writable);
            End::Machine
        }
    }
}

/// All up to the channel: from here on the host can be told what goes wrong.
fn reach_host(journal: &mut Journal) -> Result<(RunConfig, Link, Found), InitError> {
    mounts::early()?;
    journal.open_console();
    let config = sweep::take_config()?;
    journal.set_level(config.log_level);
    journal.debug("the configuration is read");
    let devices = Devices::watch(journal);
    modules::load_all(&config.modules, journal);
    let spare = config
        .metadata
        .as_ref()
        .map(|metadata| Spare::keep(&metadata.modules, journal))
        .unwrap_or_default();
    let limits = steps::limits(&config.root).unwrap_or_else(sessions::limits);
    let mut link = Link::open(&config.channel, &devices, limits)?;
    journal.debug("the channel is open");
    let features = match config.root {
        RootLayout::Steps { .. } => Vec::new(),
        _ => vec![FEATURE_SESSIONS.to_owned()],
    };
    link.send(&GuestMessage::Hello(Hello::new(features, None)), journal);
    link.send(&GuestMessage::ConfigAck, journal);
    link.flush(journal);
    Ok((config, link, Found { devices, spare }))
}

fn prepare(
    config: &RunConfig,
    found: Found,
    writable: &mut Writable,
    journal: &mut Journal,
) -> Result<(Ready, Surroundings, Option<Metadata>), InitError> {
    let interfaces = machine(config, &found.devices, writable, journal)?;
    let identity = user::resolve(&config.user)?;
    let surroundings = Surroundings::new(config, identity)?;
    let metadata = metadata(config, &interfaces, found.spare, journal);
    journal.debug("the application starts");
    let ready = match &config.system {
        Some(system) => {
            // These would keep the file systems of an orderly shutdown busy.
            *writable = Writable::default();
            let handed = system::hand_over(
                config,
                &system.argv,
                system.application,
                &surroundings,
                journal,
            )?;
            Ready::System(handed)
        }
        None => Ready::Application(launch::start(config, &surroundings)?),
    };
    Ok((ready, surroundings, metadata))
}

/// The metadata service; the application starts without it where it cannot be.
fn metadata(
    config: &RunConfig,
    interfaces: &[String],
    spare: Spare,
    journal: &mut Journal,
) -> Option<Metadata> {
    let started = Metadata::start(config.metadata.as_ref()?, interfaces, spare, journal);
    journal.debug("the metadata is there");
    started
        .map_err(|error| {
            let text = format!(
                "there is no metadata at 169.254.169.254 (does the kernel have BPF or veth?): {error}"
            );
            journal.warning(&text);
        })
        .ok()
}

/// Makes the machine around the application, or around the tasks. Gives the names of the interfaces that were set up.
fn machine(
    config: &RunConfig,
    devices: &Devices,
    writable: &mut Writable,
    journal: &mut Journal,
) -> Result<Vec<String>, InitError> {
    if let Some(written) = config.clock_unix_ns {
        // The configuration was written a little before this kernel started.
        clock::set(written.saturating_add(clock::uptime_ns()), journal);
    }
    clock::add_entropy(&config.entropy, journal);
    if let Err(error) = rustix::system::sethostname(config.hostname.as_bytes()) {
        journal.warning(&format!("cannot set the host name: {error}"));
    }
    if let Err(error) = firebuild_sys::reboot::no_ctrl_alt_del() {
        journal.debug(&format!("Ctrl+Alt+Delete restarts at once: {error}"));
    }
    *writable = mounts::enter_root(&config.root, devices, journal)?;
    mounts::expected(journal)?;
    journal.debug("the usual file systems are mounted");
    settings(journal);
    if !matches!(config.root, RootLayout::Steps { .. }) {
        files::write_all(config, journal);
        login::prepare(config, journal);
        journal.debug("the files in /etc are written");
    }
    let interfaces = net::configure(&config.interfaces, devices, journal)?;
    journal.debug("the network is up");
    Ok(interfaces)
}

/// Settings of the kernel that containers have and programs in images rely on: any user may listen on any port and ping.
fn settings(journal: &mut Journal) {
    for (name, value) in [
        ("ip_unprivileged_port_start", "0"),
        ("ping_group_range", "0 2147483647"),
    ] {
        let path = format!("/proc/sys/net/ipv4/{name}");
        if let Err(error) = fs_err::write(&path, value) {
            journal.debug(&format!("cannot set {name}: {error}"));
        }
    }
}

fn fail(
    error: &InitError,
    link: &mut Link,
    journal: &mut Journal,
    signals: SignalFd,
    writable: Writable,
) {
    let message = firebuild_guest_proto::message::one_line(&error.chain());
    journal.error(&message);
    let status = ExitStatus::Failed {
        reason: error.reason(),
        message,
    };
    Supervisor::new(link, journal, signals, writable).report(status);
}
