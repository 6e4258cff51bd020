//! `firebuild cp`: files into a VM and out of it.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use firebuild_engine::paths::Paths;
use firebuild_engine::session::{self, CopyRequest, Direction, LocalEnd};

use super::Done;
use crate::args::CpArgs;
use crate::failure::Failure;
use crate::report::output;

/// Runs the command.
pub(crate) fn run(paths: &Paths, args: &CpArgs) -> Done {
    let request = request(args)?;
    if request.direction == Direction::FromVm
        && request.local == LocalEnd::Archive
        && std::io::stdout().is_terminal()
    {
        return Err(Failure::usage("an archive is nothing for a terminal")
            .hint("firebuild cp VM:PATH - | tar -tv shows it"));
    }
    for name in session::cp(paths, &request)? {
        output::note(&format!("note: {name}: not all of it could be made"));
    }
    Ok(ExitCode::SUCCESS)
}

fn request(args: &CpArgs) -> Result<CopyRequest, Failure> {
    let (direction, (vm, path), local) = match (end(&args.source), end(&args.destination)) {
        (None, Some(vm)) => (Direction::ToVm, vm, &args.source),
        (Some(vm), None) => (Direction::FromVm, vm, &args.destination),
        (None, None) => {
            return Err(Failure::usage("neither end of the copy is in a VM")
                .hint("firebuild cp VM:PATH DEST, or firebuild cp SRC VM:PATH"));
        }
        (Some(_), Some(_)) => {
            return Err(Failure::usage("both ends of the copy are in VMs")
                .hint("firebuild cp ONE:PATH - | firebuild cp - OTHER:DIRECTORY"));
        }
    };
    Ok(CopyRequest {
        vm,
        path,
        local: match local.as_str() {
            "-" => LocalEnd::Archive,
            path => LocalEnd::Path(path.to_owned()),
        },
        direction,
        keep_owners: args.archive,
        follow: args.follow_link,
    })
}

/// The VM and the path of `VM:PATH`; nothing for a path of this host. As in Docker, what begins with `/` or `.` is one,
/// colons or not.
fn end(text: &str) -> Option<(String, String)> {
    if text.starts_with(['/', '.']) {
        return None;
    }
    let (vm, path) = text.split_once(':')?;
    (!vm.is_empty()).then(|| {
        let path = if path.is_empty() { "/" } else { path };
        (vm.to_owned(), path.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::end;

    #[test]
    fn ends_are_told_apart_as_docker_does() {
        let vm = |vm: &str, path: &str| Some((vm.to_owned(), path.to_owned()));
        assert_eq!(end("web:/etc"), vm("web", "/etc"));
        assert_eq!(end("web:etc:x"), vm("web", "etc:x"));
        assert_eq!(end("web:"), vm("web", "/"));
        for local in ["/a:b", "./a:b", "../a:b", "a", "-", ":x"] {
            assert_eq!(end(local), None, "{local}");
        }
    }
}
