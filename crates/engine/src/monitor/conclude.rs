//! From the launch to the last file: everything an owner does for one instance.

use super::control::Server;
use super::event_loop::{EventLoop, Finished};
use super::front::{Front, Notice};
use super::launch::{Launched, launch};
use super::order::Order;
use super::{disk, report};
use crate::instance::{Ended, Instances, Owned, RECORDS};
use crate::kernel;
use crate::run::RunError;
use crate::sweep::sweep;

/// How an instance ended.
#[derive(Debug)]
pub(crate) struct Concluded {
    pub(crate) ended: Ended,
}

/// Runs an instance to its end. What it used is released whatever happens; its record stays, unless the
/// order says otherwise or nothing was ever started. `held` keeps the kernel from being removed until it is open.
pub(crate) fn own(
    owned: Owned,
    order: &Order,
    vminit: &[u8],
    held: Option<kernel::Hold>,
    mut front: Front<'_>,
) -> Result<Concluded, RunError> {
    let launched = match launch(&owned, order, vminit, &mut || front.interrupted()) {
        Ok(launched) => {
            drop(held);
            if let Some(reporter) = &front.reporter {
                reporter.tell(&report::News::Launched);
            }
            launched
        }
        Err(error) => {
            // Nothing has run: nothing is left of the attempt. Its own failure is less than the error.
            let _ = disk::remove(owned.instance());
            let _ = owned.remove();
            if let Some(reporter) = front.reporter.take() {
                reporter.fail(&error);
            }
            return Err(error);
        }
    };
    let Launched {
        machine,
        agent,
        mut notices,
    } = launched;
    // While the guest boots there is time to look after those who died. Nothing of theirs is in the way of this one.
    let swept = sweep(&Instances::in_directories(
        order.instances.clone(),
        order.runtime.clone(),
    ));
    notices.extend(swept.failed.iter().map(|error| {
        format!("what a dead VM left cannot be removed: {error}; 'firebuild purge' tells more")
    }));
    for text in notices {
        if let Some(reporter) = &front.reporter {
            reporter.tell(&report::News::Notice { text: text.clone() });
        }
        (front.notices)(Notice::Note(text));
    }
    let finished = EventLoop::new(&owned, machine, agent, front).run();
    Ok(conclude(owned, order.remove, finished))
}

/// Writes the end down, tells who waits, removes what is not kept, and lets go.
fn conclude(owned: Owned, remove: bool, finished: Finished) -> Concluded {
    let Finished {
        mut ended,
        server,
        mut cleanup,
        abandoned,
        reporter,
    } = finished;
    if let Err(error) = disk::remove(owned.instance()) {
        cleanup.push(format!("cannot remove the scratch disk: {error}"));
    }
    if !cleanup.is_empty() {
        if !ended.error.is_empty() {
            ended.error.push('\n');
        }
        ended.error.push_str(&cleanup.join("\n"));
    }
    let written = owned.write(RECORDS.exit, &ended);
    if let Some(server) = server {
        Server::end(server, &ended);
    }
    // Without an exit record the instance would look dead, which is then the truth.
    let removed = if remove || abandoned {
        owned.remove()
    } else {
        Ok(())
    };
    for error in [written.err(), removed.err()].into_iter().flatten() {
        if !ended.error.is_empty() {
            ended.error.push('\n');
        }
        ended.error.push_str(&error.to_string());
    }
    if let Some(reporter) = reporter {
        reporter.tell(&report::News::Exited {
            code: ended.exit_code,
            error: ended.error.clone(),
        });
    }
    Concluded { ended }
}
