//! Instances: named runs of images, as users see them.
//!
//! ```text
//! <state>/instances/
//! ├── .lock                    held while a name is chosen
//! ├── <id>/  0700
//! │   ├── lock                 held by the owner from the creation to the very end
//! │   ├── record.json order.json spec.json plan.json machine.json started.json health.json restarts.json mmds.json
//! │   ├── output.log console.log      capped
//! │   ├── scratch.raw          the writable half of the disk
//! │   └── exit.json            written last, by rename
//! └── .tmp-*                   being made or removed; nobody's once its lock is free
//! ```
//!
//! The owner is the monitor of a detached instance, or the `run` in the foreground. It holds the lock
//! through one open file description which it inherits, so there is no moment between two holders.
//!
//! The state is derived from what is there, and never stored:
//!
//! | `exit.json` | lock | `started.json` | state |
//! |---|---|---|---|
//! | yes, and `restarts.json` says that it is not the last | held | | restarting |
//! | yes | | | exited |
//! | no | held | no | created |
//! | no | held | yes | running |
//! | no | free | | dead: a power cut, or somebody killed the owner |

mod directory;
mod documents;
mod error;
mod health;
mod lock;
mod name;
mod one;
mod process;
mod record;
mod restart;
mod state;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use directory::Instances;
pub use error::{InstanceError, InstanceErrorKind};
pub use health::{Health, HealthLog};
pub use name::{InstanceId, check_name};
pub use one::{Instance, Owned};
pub use process::{ProcessRef, boot_id};
pub use record::{Ended, MASK, MachineRecord, NetworkRecord, Record, Started};
pub use restart::{RestartPolicy, RestartPolicyError, Restarts};
pub use state::State;

pub(crate) use documents::RECORDS;
pub(crate) use error::io;
pub(crate) use record::FORMAT;
