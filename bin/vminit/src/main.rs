//! `vminit`, PID 1 of a firebuild guest.
//!
//! It comes in the initrd beside its configuration, makes the machine that the configuration describes, runs one
//! application as its child, carries its streams and its exit record to the host, and ends the machine by a restart, which
//! every VMM takes as the end (`-no-reboot` under QEMU).
//!
//! | module | what it does |
//! |---|---|
//! | `boot` | the order of everything |
//! | `sweep` | takes the configuration, empties the initrd |
//! | `modules`, `wait`, `disks`, `channel` | drivers, and waiting for what they find |
//! | `mounts`, `files`, `net`, `clock` | the surroundings of the application |
//! | `metadata` | the metadata service, where the VMM has none |
//! | `login`, `keys` | what people find who log in |
//! | `user`, `launch`, `program`, `stdio` | the application |
//! | `health` | the probes that tell whether it is well |
//! | `supervise` | the one loop while it runs |
//! | `sessions` | what the host asks for beside the application: programs, copies, samples |
//! | `system` | process 1 handed over to the image's own init |
//! | `steps` | the other loop: tasks of a build in place of an application |
//! | `journal`, `error` | what there is to tell, on the console and to the host |
//!
//! It has one thread, knows nothing of VMMs and images, and trusts the host; what the image brings is resolved inside of
//! the image's root, which it has entered by then.

mod boot;
mod channel;
mod clock;
mod disks;
mod error;
mod files;
mod health;
mod journal;
mod keys;
mod launch;
mod login;
mod metadata;
mod modules;
mod mounts;
mod net;
mod program;
mod sessions;
mod stdio;
mod steps;
mod supervise;
mod sweep;
mod system;
mod user;
mod wait;

use std::process::ExitCode;

use boot::End;
use journal::{Journal, open_console, write_line};

fn main() -> ExitCode {
    let helper = steps::task_main()
        .or_else(sessions::helper_main)
        .or_else(system::cue_main);
    if let Some(code) = helper {
        return code;
    }
    if !rustix::process::getpid().is_init() {
        let _ = rustix::io::write(
            rustix::stdio::stderr(),
            b"vminit: this is the init of a firebuild guest; it runs as process 1 only\n",
        );
        return ExitCode::from(2);
    }
    std::panic::set_hook(Box::new(|info| {
        if let Some(console) = open_console() {
            write_line(&console, &format!("vminit: {info}\n"));
        }
        // Else the abort that follows is the kernel's to handle: the end of process 1 is a panic of the kernel.
        let _ = firebuild_sys::reboot::restart();
    }));
    let mut journal = Journal::new();
    if boot::run(&mut journal) == End::Agent {
        return ExitCode::SUCCESS;
    }
    rustix::fs::sync();
    if let Err(error) = firebuild_sys::reboot::restart() {
        journal.error(&format!("cannot restart the machine: {error}"));
    }
    ExitCode::FAILURE
}
