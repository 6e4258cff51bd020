//! Removing what dead machines left of the network.

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;

use firebuild_sys::nftables::Socket;
use fs_err as fs;

use super::error::Failures;
use super::place::{self, DeadLease, LeaseRecord, Place};
use super::{TABLE, TAP, host, namespace, rules};

/// What was found and removed.
#[derive(Debug, Default)]
pub struct Swept {
    /// What is gone.
    pub removed: Vec<String>,
    /// What could not be removed, and why.
    pub failed: Vec<(String, io::Error)>,
}

/// Removes what machines whose owners are dead left of the networks: in this network namespace, and in those that machines
/// were started in by path. A network that is left without machines goes, too. Living machines are not touched, and
/// nothing is removed that no record of ours names.
#[must_use]
pub fn sweep() -> Swept {
    let mut swept = Swept::default();
    let mut failures = Failures::default();
    sweep_here(&mut swept.removed, &mut failures);
    for (dir, netns) in elsewhere() {
        let Ok(namespace) = namespace::open(&netns) else {
            continue;
        };
        let (removed, failures) = (&mut swept.removed, &mut failures);
        let entered = namespace::inside(Some(namespace.as_fd()), move || {
            // The path may name another namespace by now.
            if place::dir_here().is_ok_and(|here| here == dir) {
                sweep_here(removed, failures);
            }
        });
        // One that cannot be entered is nobody's any more.
        drop(entered);
    }
    swept.failed = failures.into_list();
    swept
}

/// Directories of other namespaces whose records tell how to get there.
fn elsewhere() -> Vec<(PathBuf, PathBuf)> {
    let here = place::dir_here().unwrap_or_default();
    let entries = fs::read_dir(place::BASE).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|dir| *dir != here)
        .filter_map(|dir| Some((dir.clone(), place::netns_of(&dir)?)))
        .collect()
}

fn sweep_here(removed: &mut Vec<String>, failures: &mut Failures) {
    match Place::enter_if_there() {
        Ok(None) => {}
        Ok(Some(place)) => {
            dead_leases(&place, failures, removed);
            if let Ok(Some(network)) = place.network()
                && place
                    .addresses()
                    .is_ok_and(|addresses| addresses.is_empty())
            {
                removed.push(format!("network {}", network.bridge));
            }
            failures.append(unused_network(place));
        }
        Err(error) => failures.push("the record of the network", error),
    }
}

/// Removes what dead machines have, their addresses last.
pub(super) fn dead_leases(place: &Place, failures: &mut Failures, removed: &mut Vec<String>) {
    let dead = match place.dead() {
        Ok(dead) => dead,
        Err(error) => return failures.push("the addresses of dead machines", error),
    };
    for DeadLease { lease, record } in dead {
        let address = lease.address();
        let mut own = Failures::default();
        if let Some(record) = record.filter(is_ours) {
            own.note(&record.tap, || host::delete_tap(&record.tap));
            own.note(&record.table, || {
                rules::delete(&Socket::open()?, &record.table)
            });
            removed.push(format!("address {address} of {}", record.machine));
        }
        let all_gone = own.is_empty();
        own.note(&address.to_string(), || lease.give_back(all_gone));
        failures.append(own);
    }
}

/// Whether a record names only what a machine of ours could have.
fn is_ours(record: &LeaseRecord) -> bool {
    let short = record.tap.strip_prefix(TAP);
    let table = record.table.strip_prefix(TABLE);
    short.is_some() && short == table.and_then(|rest| rest.strip_prefix('-'))
}

/// Removes the network if no machine has an address in it, and what recorded it.
pub(super) fn unused_network(place: Place) -> Failures {
    let mut failures = Failures::default();
    match place.addresses() {
        Ok(addresses) if addresses.is_empty() => {}
        Ok(_) => return failures,
        Err(error) => {
            failures.push("the addresses of the network", error);
            return failures;
        }
    }
    match place.network() {
        Ok(Some(record)) => failures.append(host::remove(&record)),
        Ok(None) => {}
        Err(error) => failures.push("the record of the network", error),
    }
    if failures.is_empty() {
        failures.note("the record of the network", || place.dissolve());
    }
    failures
}
