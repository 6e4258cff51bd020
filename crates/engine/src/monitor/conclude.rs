//! From the launch to the last file: everything an owner does for one instance.
//!
//! ```text
//! launch ▸ event_loop ▸ ended ──policy, restart──▶ pause ▸ launch ▸ …
//!                         └──────────────────────▶ conclude
//! ```

use std::time::Duration;

use super::control::Server;
use super::event_loop::{EventLoop, Finished};
use super::front::{Front, Notice};
use super::launch::{Launched, launch};
use super::order::Order;
use super::report;
use super::restart::{Paused, Restarter, pause};
use crate::instance::{Ended, FORMAT, Instances, Owned, RECORDS};
use crate::kernel;
use crate::run::RunError;
use crate::sweep::sweep;

/// The code of a machine that could not be started again.
const NOT_STARTED: u8 = 125;

/// How an instance ended.
#[derive(Debug)]
pub(crate) struct Concluded {
    pub(crate) ended: Ended,
}

/// Runs an instance to its end. What it used is released whatever happens; its record and its disk stay, unless the
/// order says otherwise or nothing was ever started. `held` keeps the kernel from being removed until it is open.
pub(crate) fn own(
    owned: Owned,
    order: &Order,
    vminit: &'static [u8],
    held: Option<kernel::Hold>,
    mut front: Front<'_>,
) -> Result<Concluded, RunError> {
    let mut held = held;
    let mut restarter = Restarter::new(owned.instance().record().restart);
    // Who was started before keeps what it has, however this start ends.
    let mut keep = owned.instance().path(RECORDS.order).exists();
    if !keep
        && !order.remove
        && let Err(error) = owned.write(RECORDS.order, order)
    {
        let text = format!("this VM cannot be started again: {error}");
        (front.notices)(Notice::Note(text));
    }
    let mut waiting = None;
    loop {
        let launched = match launch(&owned, order, vminit, &mut || front.interrupted()) {
            Ok(launched) => launched,
            Err(error) if keep => {
                let failed = cannot_start(&error);
                let reporter = front.reporter.take();
                conclude(owned, order.remove, failed, waiting, &[]);
                if let Some(reporter) = reporter {
                    reporter.fail(&error);
                }
                return Err(error);
            }
            Err(error) => {
                // Nothing has run: nothing is left of the attempt. Its own failure is less than the error.
                let _ = owned.remove();
                if let Some(reporter) = front.reporter.take() {
                    reporter.fail(&error);
                }
                return Err(error);
            }
        };
        drop(held.take());
        if let Some(reporter) = &front.reporter {
            reporter.tell(&report::News::Launched);
        }
        let Launched {
            machine,
            agent,
            vmm,
            mut notices,
            metadata,
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
        let finished = EventLoop::new(&owned, machine, agent, vmm, front, waiting)
            .restarted(restarter.count())
            .with_metadata(metadata)
            .run();
        let Finished {
            ended,
            server,
            cleanup,
            abandoned,
            front: returned,
            ran,
            stopped,
            again,
        } = finished;
        front = returned;
        waiting = server;
        // A start that nobody waited for leaves nothing of what it made.
        let remove = order.remove || (abandoned && !keep);
        let next = if abandoned {
            None
        } else if again {
            Some(Duration::ZERO)
        } else {
            // One that never ran is not tried again, as in Docker, unless it has run before.
            ran.or((restarter.count() > 0).then_some(Duration::ZERO))
                .filter(|_| !stopped)
                .and_then(|ran| restarter.after(ended.exit_code, ran))
        };
        if let Some(length) = next
            && front.reporter.is_none()
            && between(&owned, &restarter, &ended, &cleanup, &mut front)
            && (length.is_zero() || pause(order, &mut front, &mut waiting, length) == Paused::Over)
        {
            keep = true;
            continue;
        }
        if owned.instance().path(RECORDS.restarts).exists()
            && let Err(error) = restarter.record(&owned, false)
        {
            (front.notices)(Notice::Note(error.to_string()));
        }
        drop(front.raw.take());
        let reporter = front.reporter.take();
        let ended = conclude(owned, remove, ended, waiting, &cleanup);
        if let Some(reporter) = reporter {
            reporter.tell(&report::News::Exited {
                code: ended.exit_code,
                error: ended.error.clone(),
            });
        }
        return Ok(Concluded { ended });
    }
}

/// Writes down that it has ended and begins again; false when that cannot be, and then it does not begin again.
fn between(
    owned: &Owned,
    restarter: &Restarter,
    ended: &Ended,
    cleanup: &[String],
    front: &mut Front<'_>,
) -> bool {
    for text in cleanup {
        (front.notices)(Notice::Note(text.clone()));
    }
    let written = restarter
        .record(owned, true)
        .and_then(|()| owned.write(RECORDS.exit, ended));
    match written {
        Ok(()) => true,
        Err(error) => {
            (front.notices)(Notice::Note(format!("it is not started again: {error}")));
            false
        }
    }
}

fn cannot_start(error: &RunError) -> Ended {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    Ended {
        format: FORMAT,
        exit_code: NOT_STARTED,
        oom_killed: false,
        error: text,
        finished_at: jiff::Timestamp::now(),
    }
}

/// Writes the end down, tells who waits, removes what is not kept, and lets go.
fn conclude(
    owned: Owned,
    remove: bool,
    mut ended: Ended,
    server: Option<Server>,
    cleanup: &[String],
) -> Ended {
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
    let removed = if remove { owned.remove() } else { Ok(()) };
    for error in [written.err(), removed.err()].into_iter().flatten() {
        if !ended.error.is_empty() {
            ended.error.push('\n');
        }
        ended.error.push_str(&error.to_string());
    }
    ended
}
