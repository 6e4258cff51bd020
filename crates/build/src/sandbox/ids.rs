//! The ids that steps have, and processes that act with them.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::ThreadId;

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
    /// Processes that wait for the next step, each of the thread that started it: the kernel ends a child that wants to
    /// die with its parent when that thread ends.
    spares: Mutex<HashMap<ThreadId, Running>>,
    /// How many steps were started.
    steps: AtomicUsize,
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
            spares: Mutex::default(),
            steps: AtomicUsize::new(0),
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
        let mut running = self.start(Job::Remove(paths.to_vec()))?;
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
    pub(super) fn start(&self, job: Job) -> Result<Running, ExecError> {
        let running = Running::spawn(&self.program, false)?;
        self.begin(&running, job, None)?;
        Ok(running)
    }

    /// Starts a step with these ids, in a network namespace if one is given. From the second one on a process for the next is made ready meanwhile.
    pub(super) fn start_step(
        &self,
        job: Job,
        network: Option<&OwnedFd>,
    ) -> Result<Running, ExecError> {
        let thread = std::thread::current().id();
        let spare = self.spares().remove(&thread);
        let running = match spare {
            Some(spare) => spare,
            None => Running::spawn(&self.program, true)?,
        };
        self.begin(&running, job, network)?;
        if self.steps.fetch_add(1, Ordering::Relaxed) > 0
            && let Ok(next) = Running::spawn(&self.program, true)
        {
            self.spares().insert(thread, next);
        }
        Ok(running)
    }

    fn begin(
        &self,
        running: &Running,
        job: Job,
        network: Option<&OwnedFd>,
    ) -> Result<(), ExecError> {
        let namespace = self.namespace()?;
        running.begin(job, namespace.scope, namespace.fd.as_ref(), network)
    }

    fn spares(&self) -> MutexGuard<'_, HashMap<ThreadId, Running>> {
        self.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What would give steps more ids than they have, once a step has been run.
    pub(super) fn hint(&self) -> Option<String> {
        self.namespace
            .get()
            .and_then(|namespace| namespace.hint.clone())
    }
}
