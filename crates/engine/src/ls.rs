//! `firebuild ls`.

use crate::instance::{Health, Instance, InstanceError, Instances, Record, Started, State};
use crate::paths::Paths;

/// An instance in a list.
#[derive(Debug, Clone)]
pub struct Listed {
    /// What was asked for.
    pub record: Record,
    /// What it does.
    pub state: State,
    /// Since when, or since when it did, if its application ever ran.
    pub started: Option<Started>,
    /// How its application is, if it is looked at.
    pub health: Option<Health>,
}

/// A list of instances.
#[derive(Debug, Default)]
pub struct Listing {
    /// The youngest first.
    pub instances: Vec<Listed>,
    /// Records that cannot be read.
    pub broken: Vec<InstanceError>,
}

/// Lists instances: those that live, or with `all` every one.
///
/// # Errors
/// When the directory of instances cannot be read.
pub fn ls(paths: &Paths, all: bool) -> Result<Listing, InstanceError> {
    let (instances, broken) = Instances::new(paths).list()?;
    let mut listing = Listing {
        instances: Vec::new(),
        broken,
    };
    for instance in instances {
        match listed(&instance) {
            Ok(listed) if all || listed.state.is_alive() => listing.instances.push(listed),
            Ok(_) => {}
            // Removed while this was looked at.
            Err(error) if error.kind() == crate::instance::InstanceErrorKind::NotFound => {}
            Err(error) => listing.broken.push(error),
        }
    }
    Ok(listing)
}

fn listed(instance: &Instance) -> Result<Listed, InstanceError> {
    let state = instance.state()?;
    Ok(Listed {
        record: instance.record().clone(),
        health: instance.health()?.map(|health| state.health(health)),
        started: instance.started()?,
        state,
    })
}

/// The time by the host's clock, for records that are printed.
#[must_use]
pub fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}
