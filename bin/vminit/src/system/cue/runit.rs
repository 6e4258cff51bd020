//! The cue of runit: a service. runit runs its boot (stage 1) to its end, and then, in stage 2, the supervisor of services.
//!
//! Debian, Void and Artix have them in `/etc/runit/runsvdir/default`, which stage 2 makes the current ones; elsewhere they
//! lie where runit's own documentation has them.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{STAY, command};
use crate::files;

/// Sets of services, one of which is taken.
const SETS: &str = "/etc/runit/runsvdir";
/// Which one, where Debian has another than `default`.
const CHOSEN: &str = "/etc/runit/default.runsvdir";
/// Directories of services where there are no sets.
const PLAIN: [&str; 2] = ["/etc/service", "/service"];
/// Its name.
const NAME: &str = "firebuild";

/// The directory of services that the supervisor looks at after the boot.
pub(super) fn services() -> Option<PathBuf> {
    let chosen = fs_err::read_to_string(CHOSEN).unwrap_or_default();
    let set = match chosen.trim() {
        "" => "default",
        chosen => chosen,
    };
    let sets = Path::new(SETS);
    let all = [sets.join(set), sets.join("default")];
    let mut all = all.into_iter().chain(PLAIN.into_iter().map(PathBuf::from));
    all.find(|services| services.is_dir())
}

/// Puts the service in place.
pub(super) fn install(services: &Path, agent: i32) -> io::Result<()> {
    let service = services.join(NAME);
    fs_err::create_dir_all(&service)?;
    let run = service.join("run");
    files::replace(&run, script(agent).as_bytes())?;
    fs_err::set_permissions(&run, Permissions::from_mode(0o755))
}

/// A service that ends would be started again.
fn script(agent: i32) -> String {
    format!("#!/bin/sh\nexec {} {STAY}\n", command(agent))
}

#[cfg(test)]
mod tests {
    use super::script;

    #[test]
    fn the_service_gives_the_cue_and_stays() {
        assert_eq!(script(7), "#!/bin/sh\nexec /proc/7/exe cue 7 stay\n");
    }
}
