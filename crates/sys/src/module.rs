//! Loading kernel modules: `finit_module(2)`.

use std::ffi::CStr;
use std::io;
use std::os::fd::AsFd;

/// What [`load`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// The module is in the kernel now.
    New,
    /// It was there already, loaded or built in.
    Already,
}

/// Loads an uncompressed module from an open file.
///
/// # Errors
/// `ENOEXEC` for a file that is no module of this kernel, `ENOENT` for a symbol that no loaded module has (a dependency
/// is missing), `EPERM` without the capability.
pub fn load(file: impl AsFd, parameters: &CStr) -> io::Result<Loaded> {
    match rustix::system::finit_module(file, parameters, 0) {
        Ok(()) => Ok(Loaded::New),
        Err(rustix::io::Errno::EXIST) => Ok(Loaded::Already),
        Err(error) => Err(error.into()),
    }
}
