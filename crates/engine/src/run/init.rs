//! `--init`: who is process 1 of the guest.

use firebuild_guest_proto::SystemInit;
use serde::{Deserialize, Serialize};

use super::request::Request;

/// Programs that are inits, by their paths in images.
const INITS: [&str; 12] = [
    "/sbin/init",
    "/usr/sbin/init",
    "/bin/init",
    "/usr/bin/init",
    "/lib/systemd/systemd",
    "/usr/lib/systemd/systemd",
    "/bin/systemd",
    "/usr/bin/systemd",
    "/sbin/openrc-init",
    "/usr/sbin/openrc-init",
    "/sbin/runit-init",
    "/usr/bin/runit-init",
];
/// Commands of base images that wait for somebody to type.
const SHELLS: [&str; 6] = ["sh", "/bin/sh", "bash", "/bin/bash", "ash", "/bin/ash"];

/// Who is process 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Init {
    /// The image's init where the command is one, else the guest init.
    #[default]
    Auto,
    /// The guest init, whatever the command is.
    Vminit,
    /// The image's init, with the guest init beside it.
    System,
}

/// How the guest is told, for a command of these words; `None` for its own init.
pub(super) fn system(request: &Request, argv: &[String]) -> Option<SystemInit> {
    let is_init = argv
        .first()
        .is_some_and(|program| INITS.contains(&program.as_str()));
    match request.init {
        Init::Vminit => None,
        Init::Auto if !is_init => None,
        _ if is_init => Some(SystemInit {
            argv: argv.to_vec(),
            application: false,
        }),
        _ => Some(SystemInit {
            argv: Vec::new(),
            application: !is_idle_shell(request, argv),
        }),
    }
}

/// Whether the command is a bare shell that nobody asked for and nobody types to: what base images name where Docker wants
/// a command. A whole system needs none.
fn is_idle_shell(request: &Request, argv: &[String]) -> bool {
    let asked = !request.arguments.is_empty() || request.entrypoint.is_some() || request.terminal;
    !asked && matches!(argv, [shell] if SHELLS.contains(&shell.as_str()))
}

#[cfg(test)]
mod tests {
    use super::{Init, system};
    use crate::run::request::Request;

    #[test]
    fn who_is_process_1() {
        let mut request = Request::new("debian:bookworm".parse().unwrap());
        let words = |line: &str| -> Vec<String> { line.split(' ').map(str::to_owned).collect() };
        let (init, bash, app) = (words("/sbin/init --x"), words("bash"), words("nginx -g x"));
        assert_eq!(system(&request, &app), None);
        let found = system(&request, &init).unwrap();
        assert!(!found.application && found.argv == init);
        request.init = Init::Vminit;
        assert_eq!(system(&request, &init), None);
        request.init = Init::System;
        assert_eq!(system(&request, &init).unwrap().argv, init);
        assert!(!system(&request, &bash).unwrap().application);
        let found = system(&request, &app).unwrap();
        assert!(found.application && found.argv.is_empty());
        request.terminal = true;
        assert!(system(&request, &bash).unwrap().application);
        request.terminal = false;
        request.arguments = bash.clone();
        assert!(system(&request, &bash).unwrap().application);
    }
}
