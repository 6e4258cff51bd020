//! The cue of `openrc-init`: a service of the runlevel in which its boot ends, after all others of it. (OpenRC under another
//! init has that one's inittab.)

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::command;
use crate::files;

/// The runlevel that openrc-init comes to.
const LEVEL: &str = "/etc/runlevels/default";
/// The service, and its name in the runlevel.
const SERVICE: &str = "/etc/init.d/firebuild";
const IN_LEVEL: &str = "/etc/runlevels/default/firebuild";

/// Whether services can be put there.
pub(super) fn is_there() -> bool {
    Path::new(LEVEL).is_dir()
}

/// Puts the service in place.
pub(super) fn install(agent: i32) -> io::Result<()> {
    let path = Path::new(SERVICE);
    files::replace(path, script(agent).as_bytes())?;
    fs_err::set_permissions(path, Permissions::from_mode(0o755))?;
    match fs_err::os::unix::fs::symlink(SERVICE, IN_LEVEL) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

fn script(agent: i32) -> String {
    format!(
        "#!/sbin/openrc-run\ndescription=\"Tells firebuild that the system is up\"\n\
         depend() {{\n\tafter *\n}}\nstart() {{\n\t{}\n}}\n",
        command(agent)
    )
}

#[cfg(test)]
mod tests {
    use super::script;

    #[test]
    fn the_service_comes_last() {
        let text = script(7);
        assert!(text.starts_with("#!/sbin/openrc-run\n"), "{text}");
        assert!(text.contains("after *\n"), "{text}");
        assert!(text.contains("start() {\n\t/proc/7/exe cue 7\n}"), "{text}");
    }
}
