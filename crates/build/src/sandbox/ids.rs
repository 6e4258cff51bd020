//! The ids that steps have, and processes that act with them.

use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};

use super::process::Running;
use super::userns::Namespace;
use crate::exec::{ExecError, ExecErrorKind};
use firebuild_sandbox::job::{Job, Scope};

/// The ids that steps have: the host's for root, those of one user namespace for anybody else.
#[derive(Debug)]
pub struct IdSpace {
    program: PathBuf,
    /// Made when it is first needed, so that a build which executes nothing pays nothing.
    namespace: OnceLock<Namespace>,
    making: Mutex<()>,
}

impl Default for IdSpace {
    fn default() -> Self {
        Self::new()
    }
}

impl IdSpace {
    /// The ids of the caller's builds.
    ///
    /// Processes that act with them are this very program: its `main` has to begin with [`super::child_main`].
    #[must_use]
    pub fn new() -> Self {
        Self {
            program: PathBuf::from("/proc/self/exe"),
            namespace: OnceLock::new(),
            making: Mutex::new(()),
        }
    }

    /// Removes trees that may hold files of any id that a step could have made. What is not there is fine.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn remove(&self, paths: &[PathBuf]) -> Result<(), ExecError> {
        if paths.is_empty() {
            return Ok(());
        }
        // Without a namespace the ids are our own, and no process is needed.
        if self.namespace()?.scope == Scope::Host {
            return paths.iter().try_for_each(|path| {
                firebuild_sandbox::remove_tree(path).map_err(|error| {
                    let context = format!("cannot remove {}", path.display());
                    ExecError::caused(ExecErrorKind::Host, context, error)
                })
            });
        }
        let mut running = self.start(Job::Remove(paths.to_vec()), false)?;
        running.expect_done()?;
        running.finish()
    }

    /// The user namespace, or that there is none.
    pub(super) fn namespace(&self) -> Result<&Namespace, ExecError> {
        if let Some(namespace) = self.namespace.get() {
            return Ok(namespace);
        }
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if self.namespace.get().is_none() {
            let namespace = Namespace::make(&self.program)?;
            let _ = self.namespace.set(namespace);
        }
        Ok(self
            .namespace
            .get()
            .expect("set just above, and never taken away"))
    }

    /// Starts a job with these ids.
    pub(super) fn start(&self, job: Job, with_output: bool) -> Result<Running, ExecError> {
        let namespace = self.namespace()?;
        Running::start(
            &self.program,
            job,
            namespace.scope,
            namespace.fd.as_ref(),
            with_output,
        )
    }

    /// What would give steps more ids than they have, once a step has been run.
    pub(super) fn hint(&self) -> Option<String> {
        self.namespace
            .get()
            .and_then(|namespace| namespace.hint.clone())
    }
}
