//! The executor of VMs, one for the whole test.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use firebuild_build::cancel::Cancel;
use firebuild_build::chain::Chain;
use firebuild_build::event::Stream;
use firebuild_build::exec::{ExecError, Executed, Executor, Step};
use firebuild_engine::kernel::{self, Request, Source};
use firebuild_engine::microvm_executor::{MicroVm, MicroVmOptions};
use firebuild_engine::paths::Paths;
use firebuild_engine::run::Accel;
use firebuild_store::Store;

static VMINIT: &[u8] = include_bytes!(env!("VMINIT_PATH"));

struct World {
    _directory: tempfile::TempDir,
    store: &'static Store,
    executor: Mutex<Option<Arc<MicroVm<'static>>>>,
}

/// Why there is no executor, if so.
pub(crate) fn missing() -> Option<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let has = |tool: &str| std::env::split_paths(&path).any(|dir| dir.join(tool).is_file());
    if !has("qemu-system-x86_64") {
        return Some("qemu-system-x86_64 is not installed".to_owned());
    }
    if crate::base::busybox().is_none() {
        return Some("busybox is not installed".to_owned());
    }
    let package = std::env::var_os("FIREBUILD_TEST_KERNEL_DEB").filter(|path| !path.is_empty());
    package
        .is_none()
        .then(|| "FIREBUILD_TEST_KERNEL_DEB names no kernel package".to_owned())
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::under(&directory.path().join("home"));
        let package = PathBuf::from(std::env::var_os("FIREBUILD_TEST_KERNEL_DEB").unwrap());
        let request = Request {
            source: Source::Files(vec![package]),
            id: None,
        };
        kernel::import(&paths, &request, &mut |_| {}).unwrap();
        let store: &'static Store = Box::leak(Box::new(
            Store::open(directory.path().join("store")).unwrap(),
        ));
        let mut options = MicroVmOptions::new(VMINIT);
        options.accel = Accel::Tcg;
        options.memory_mib = 512;
        let executor = MicroVm::new(store, &paths, &options);
        World {
            _directory: directory,
            store,
            executor: Mutex::new(Some(Arc::new(executor))),
        }
    })
}

/// The subject of a case.
pub(crate) struct Subject(Arc<MicroVm<'static>>);

impl Subject {
    /// A VM has an overlay.
    pub(crate) fn without_overlay(self) -> Self {
        self
    }

    /// A VM has a number of its own.
    pub(crate) fn with_most_lowers(self, _: usize) -> Self {
        self
    }

    pub(crate) fn remove(&self, paths: &[PathBuf]) -> std::io::Result<()> {
        paths
            .iter()
            .try_for_each(|path| match fs_err::remove_dir_all(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            })
    }
}

impl Executor for Subject {
    fn run(
        &self,
        base: &Arc<Chain>,
        step: &Step,
        output: &mut dyn FnMut(Stream, &[u8]),
        cancel: &Cancel,
    ) -> Result<Executed, ExecError> {
        self.0.run(base, step, output, cancel)
    }
}

pub(crate) fn store(_: &Path) -> &'static Store {
    world().store
}

pub(crate) fn executor(_: &'static Store) -> Subject {
    let executor = world().executor.lock().unwrap();
    Subject(Arc::clone(executor.as_ref().unwrap()))
}

/// Drops the executor.
pub(crate) fn end() {
    let executor = world().executor.lock().unwrap().take().unwrap();
    drop(Arc::into_inner(executor).expect("nobody else has it"));
}

/// How many processes this one has started that are still there.
pub(crate) fn machines() -> usize {
    fs_err::read_dir("/proc/self/task")
        .unwrap()
        .flatten()
        .map(|task| {
            let children = fs_err::read_to_string(task.path().join("children"));
            children.unwrap_or_default().split_whitespace().count()
        })
        .sum()
}
