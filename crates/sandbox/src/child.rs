//! The inner half of a sandbox: this program, executed again with a hidden subcommand, single-threaded by birth.
//!
//! ```text
//!  parent ──socket──▶ job process ──fork──▶ guardian ──fork──▶ step (process 1 of its own)
//!                     user namespace        pid namespace      pid, mount, ipc, uts namespaces
//!                     unpack, capture       its end is the     mounts, pivot_root, ids, capabilities,
//!                                           end of all below   filter, exec
//! ```
//!
//! The job process dies with its parent, the guardian with the job process, and everything below with the guardian,
//! because that is process 1 of the namespace in which all of it lives. A step cannot get out of this by forgetting its
//! parent or by a set-id program; a guardian in between is what that costs.

mod confine;
mod devices;
mod files;
mod network;
mod overlay;
mod place;
mod program;
mod remove;
mod root;
mod step;
mod syscalls;

pub use remove::tree as remove_tree;
pub use step::{Surroundings, perform};

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use firebuild_sys::namespace::{self, Namespaces};
use firebuild_sys::process;
use rustix::process::Pid;

use crate::job::{Failure, FailureKind, Job, Reply, Scope, Start};
use crate::wire::Link;

/// The hidden subcommand.
pub const SUBCOMMAND: &str = "sandbox-init";

/// What a part of a job gives.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// To be called first thing in `main`: when this process was started as the inner half of a sandbox, does its job and
/// gives the code to leave with; otherwise does nothing.
#[must_use]
pub fn child_main() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().as_deref() != Some(OsStr::new(SUBCOMMAND)) || arguments.next().is_some() {
        return None;
    }
    // Somebody's terminal or file is not our parent's socket.
    if rustix::net::sockopt::socket_domain(rustix::stdio::stdin()).ok()
        != Some(rustix::net::AddressFamily::UNIX)
    {
        return None;
    }
    Some(match process::take_stdin() {
        Ok(socket) => work(&Link::new(socket)),
        Err(_) => ExitCode::from(125),
    })
}

fn work(link: &Link) -> ExitCode {
    let reply = match begin(link) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(failure) => Reply::Failed(failure),
    };
    // If the parent is gone there is nobody to tell.
    let _ = link.say(&reply, &[]);
    ExitCode::from(1)
}

fn begin(link: &Link) -> Result<()> {
    let host = |message: &str| Failure::because(FailureKind::Host, message.to_owned());
    let heard = link
        .hear::<Start>()
        .map_err(host("cannot read the sandbox's job"))?;
    let Some((start, mut fds)) = heard else {
        return Err(Failure::new(
            FailureKind::Cancelled,
            "the sandbox was given up before it began",
        ));
    };
    let network = if start.network { fds.pop() } else { None };
    if start.scope != Scope::Host {
        let namespace = fds.pop();
        let namespace = namespace
            .ok_or_else(|| Failure::new(FailureKind::Host, "no user namespace came along"))?;
        enter(&namespace, start.scope)?;
    }
    if start.network {
        let network = network
            .ok_or_else(|| Failure::new(FailureKind::Host, "no network namespace came along"))?;
        namespace::join(network.as_fd()).map_err(host("cannot join the network of the build"))?;
    }
    // After the change of namespace, which makes the kernel forget it.
    process::die_with_parent(Pid::from_raw(start.parent))
        .map_err(host("the parent of the sandbox has ended"))?;
    // Descriptors that some ancestor forgot to mark are no business of a step.
    process::close_on_exec_from(3).map_err(host("cannot mark open descriptors"))?;
    // Every mode that is set is meant as it is; the step gets a mask of its own.
    rustix::process::umask(rustix::fs::Mode::empty());
    // A step gets the limit that its builder was started with.
    let open_files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    firebuild_sys::rlimit::raise_open_files()
        .map_err(host("cannot raise the limit of open files"))?;
    match start.job {
        Job::Hold => hold(link),
        Job::Network(job) => network::make(link, &job),
        Job::Unpack(job) => files::unpack(link, &job, start.scope),
        Job::Remove(paths) => {
            for path in &paths {
                remove::tree(path).map_err(Failure::because(
                    FailureKind::Host,
                    format!("cannot remove {}", path.display()),
                ))?;
            }
            done(link)
        }
        Job::Step(job) => {
            let surroundings = step::Surroundings {
                scope: start.scope,
                open_files,
            };
            step::run(link, &job, surroundings)
        }
    }
}

fn done(link: &Link) -> Result<()> {
    link.say(&Reply::Done, &[]).map_err(Failure::because(
        FailureKind::Cancelled,
        "nobody waits for the sandbox",
    ))
}

/// Joins a user namespace in which the caller is root.
fn enter(namespace: &OwnedFd, scope: Scope) -> Result<()> {
    namespace::join(namespace.as_fd()).map_err(Failure::because(
        FailureKind::Host,
        "cannot join the user namespace of the build",
    ))?;
    // The host's supplementary groups are no business of a step. With one id the kernel forbids to drop them, as they
    // may deny access.
    if scope == Scope::Mapped {
        rustix::thread::set_thread_groups(&[]).map_err(Failure::because(
            FailureKind::Host,
            "cannot drop the host's groups",
        ))?;
    }
    Ok(())
}

/// Makes a user namespace, hands it out, and stays until the parent has filled in its maps.
fn hold(link: &Link) -> Result<()> {
    let host = |message: &str| Failure::because(FailureKind::Host, message.to_owned());
    namespace::unshare(Namespaces::USER).map_err(host("cannot make a user namespace"))?;
    let file =
        fs_err::File::open("/proc/self/ns/user").map_err(host("cannot name the user namespace"))?;
    link.say(&Reply::Namespace, &[file.as_fd()])
        .map_err(Failure::because(
            FailureKind::Cancelled,
            "nobody waits for the namespace",
        ))?;
    // Nothing more comes; the end of the socket says that the maps are there.
    let _ = link.receive();
    Ok(())
}
