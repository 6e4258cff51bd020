//! What runs the steps of a build.

use firebuild_build::exec::Executor;
use firebuild_build::sandbox::Sandbox;
use firebuild_store::Store;
use firebuild_vm::backend::qemu::{PASST, find_program};

use super::Isolation;
use crate::microvm_executor::MicroVm;
use crate::paths::Paths;

/// The executor of an isolation. What it has started ends when it is dropped.
pub(super) fn executor<'a>(
    store: &'a Store,
    paths: &Paths,
    isolation: &Isolation,
) -> Box<dyn Executor + 'a> {
    match isolation {
        Isolation::Sandbox => Box::new(sandbox(store)),
        Isolation::MicroVm(options) => Box::new(MicroVm::new(store, paths, options)),
    }
}

/// The sandbox, with a network of its own where passt is installed.
fn sandbox(store: &Store) -> Sandbox<'_> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sandbox = Sandbox::new(store);
    match find_program(PASST, &path) {
        Some(passt) => sandbox.with_network(passt),
        None => sandbox.without_network(format!(
            "{PASST} is not installed; install the package {PASST}"
        )),
    }
}
