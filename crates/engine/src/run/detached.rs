//! `run -d`: a monitor process owns the machine.

use std::os::fd::OwnedFd;

use firebuild_vm::net::host::HostNetwork;

use super::error::{RunError, RunErrorKind};
use super::prepare::{Prepared, hold, prepare};
use super::request::{Detached, DiskFor, Outcome, Request};
use crate::error::Error;
use crate::instance::{InstanceId, Instances};
use crate::kernel::{self, Hold};
use crate::monitor::{Causes, News, Notice, Notices, abandon, listen, spawn};
use crate::paths::Paths;

/// Starts an image under a monitor of its own, and comes back when its application runs, or could not be
/// executed: then with the outcome, as the second half.
///
/// # Errors
/// Whatever kept the machine from being started.
pub fn detached(
    paths: &Paths,
    request: &Request,
    disk_for: DiskFor<'_>,
    notices: Notices<'_>,
) -> Result<Result<Detached, Outcome>, RunError> {
    let held = hold(paths)?;
    let kernel = kernel::select(
        paths,
        request.kernel_root.as_deref(),
        request.kernel.as_deref(),
    )
    .map_err(|error| Error::caused(RunErrorKind::Kernel, "no kernel for the VM", error))?;
    let Prepared {
        mut record,
        order,
        notices: told,
        held: _held,
    } = prepare(
        paths,
        request,
        &kernel,
        &HostNetwork::discover(),
        None,
        disk_for,
    )?;
    for text in told {
        notices(Notice::Note(text));
    }
    record.detached = true;
    let owned = Instances::prepare(paths)
        .and_then(|instances| instances.create(request.name.as_deref(), record))
        .map_err(|error| Error::caused(RunErrorKind::Instance, "cannot record the VM", error))?;
    let (id, name) = (order.id.clone(), owned.instance().record().name.clone());
    let news = match spawn(owned, &order) {
        Ok(news) => news,
        Err(error) => {
            abandon(paths, &order);
            return Err(error);
        }
    };
    begun(news, id.clone(), held, notices).map(|begun| begun.map(|()| Detached { id, name }))
}

/// Waits until the application of a monitor runs, or could not be executed: then with the outcome. `held` keeps the kernel
/// until the machine has it open.
pub(crate) fn begun(
    news: OwnedFd,
    id: InstanceId,
    held: Hold,
    notices: Notices<'_>,
) -> Result<Result<(), Outcome>, RunError> {
    begun_after(news, id, held, &mut || (), notices)
}

/// As [`begun`], and does something as soon as the machine is launched.
pub(crate) fn begun_after(
    news: OwnedFd,
    id: InstanceId,
    held: Hold,
    launched: &mut dyn FnMut(),
    notices: Notices<'_>,
) -> Result<Result<(), Outcome>, RunError> {
    let mut held = Some(held);
    let last = listen(news, &mut |news| match news {
        News::Notice { text } => notices(Notice::Note(text)),
        // The machine has its kernel open; who wants to change kernels need not wait for the boot.
        _ => {
            held = None;
            launched();
        }
    });
    match last {
        Some(News::Started) => Ok(Ok(())),
        Some(News::Exited { code, error }) => Ok(Err(Outcome {
            id,
            exit_code: code,
            error: (!error.is_empty()).then_some(error),
        })),
        Some(News::Failed {
            kind,
            message,
            causes,
        }) => Err(match Causes::chain(causes) {
            Some(cause) => Error::caused(kind.into_error_kind(), message, cause),
            None => Error::new(kind.into_error_kind(), message),
        }),
        Some(News::Notice { .. } | News::Launched) | None => Err(Error::new(
            RunErrorKind::Monitor,
            format!(
                "the monitor of the VM {} ended without a word; 'firebuild inspect {}' shows what is known",
                id.short(),
                id.short()
            ),
        )),
    }
}
