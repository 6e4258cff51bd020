//! What runs the steps of a build.

use firebuild_build::exec::Executor;
use firebuild_build::sandbox::Sandbox;
use firebuild_store::Store;

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
        Isolation::Sandbox => Box::new(Sandbox::new(store)),
        Isolation::MicroVm(options) => Box::new(MicroVm::new(store, paths, options)),
    }
}
