//! What is tested: the sandbox. Another test gives the same cases another subject.

use std::path::Path;

use firebuild_build::sandbox::Sandbox;
use firebuild_store::Store;

pub(crate) type Subject = Sandbox<'static>;

/// The store of a test; each test is a process of its own, so it may live for ever.
pub(crate) fn store(directory: &Path) -> &'static Store {
    Box::leak(Box::new(Store::open(directory.join("store")).unwrap()))
}

pub(crate) fn executor(store: &'static Store) -> Subject {
    Sandbox::new(store)
}
