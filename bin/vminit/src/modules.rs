//! Kernel modules: loaded from the initrd, in the order that the host worked out.

use firebuild_sys::module::{Loaded, load};
use fs_err::File;

use crate::journal::Journal;

/// Loads what the list names. A module that does not load is told and left out: what needs it will fail by its own name.
pub(crate) fn load_all(paths: &[String], journal: &mut Journal) {
    for path in paths {
        match File::open(path).and_then(|file| load(file.file(), c"")) {
            Ok(Loaded::New) => journal.debug(&format!("loaded {path}")),
            Ok(Loaded::Already) => journal.debug(&format!("{path} is loaded already")),
            Err(error) => journal.warning(&format!("cannot load the module {path}: {error}")),
        }
    }
}
