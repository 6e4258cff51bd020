//! What must hold, for whom.

// Named by their paths, since the test of steps in VMs has this file as a module, too.
#[path = "cases/changes.rs"]
mod changes;
#[path = "cases/confinement.rs"]
mod confinement;
#[path = "cases/life.rs"]
mod life;
#[path = "cases/mounts.rs"]
mod mounts;
#[path = "cases/surroundings.rs"]
mod surroundings;

use std::path::Path;
use std::process::ExitCode;

use crate::user::Who;

/// `builder DIRECTORY`: a process that runs a step which does not end.
pub(crate) const BUILDER: &str = "builder";

pub(crate) fn builder(arguments: &[String]) -> ExitCode {
    life::builder(Path::new(&arguments[0]), &arguments[1]);
    ExitCode::SUCCESS
}

pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) who: &'static [Who],
    pub(crate) run: fn(&Path, Who),
}

pub(crate) const EVERYBODY: &[Who] = &[Who::Root, Who::Ranges, Who::Single];

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "codes_signals_and_streams",
        who: EVERYBODY,
        run: life::codes_signals_and_streams,
    },
    Case {
        name: "programs_that_cannot_be_executed",
        who: EVERYBODY,
        run: life::programs_that_cannot_be_executed,
    },
    Case {
        name: "much_output_arrives_whole",
        who: &[Who::Root],
        run: life::much_output_arrives_whole,
    },
    Case {
        name: "a_cancelled_step_leaves_nothing",
        who: EVERYBODY,
        run: life::a_cancelled_step_leaves_nothing,
    },
    Case {
        name: "a_killed_builder_leaves_no_process",
        who: EVERYBODY,
        run: life::a_killed_builder_leaves_no_process,
    },
    Case {
        name: "what_a_step_leaves_running_ends",
        who: EVERYBODY,
        run: life::what_a_step_leaves_running_ends,
    },
    Case {
        name: "steps_run_at_the_same_time",
        who: EVERYBODY,
        run: life::steps_run_at_the_same_time,
    },
    Case {
        name: "no_mount_is_left",
        who: &[Who::Root],
        run: life::no_mount_is_left,
    },
    Case {
        name: "nothing_changed_is_an_empty_layer",
        who: EVERYBODY,
        run: changes::nothing_changed_is_an_empty_layer,
    },
    Case {
        name: "changes_become_a_layer",
        who: EVERYBODY,
        run: changes::changes_become_a_layer,
    },
    Case {
        name: "owners_and_nodes",
        who: &[Who::Root, Who::Ranges],
        run: changes::owners_and_nodes,
    },
    Case {
        name: "what_cannot_be_held_is_kept",
        who: &[Who::Ranges, Who::Single],
        run: changes::what_cannot_be_held_is_kept,
    },
    Case {
        name: "steps_build_on_steps",
        who: EVERYBODY,
        run: changes::steps_build_on_steps,
    },
    Case {
        name: "layers_of_archives_are_shown_exactly",
        who: EVERYBODY,
        run: changes::layers_of_archives_are_shown_exactly,
    },
    Case {
        name: "long_chains_are_made_flat",
        who: &[Who::Root],
        run: changes::long_chains_are_made_flat,
    },
    Case {
        name: "a_copy_does_what_an_overlay_does",
        who: EVERYBODY,
        run: changes::a_copy_does_what_an_overlay_does,
    },
    Case {
        name: "scratch_is_a_root",
        who: EVERYBODY,
        run: changes::scratch_is_a_root,
    },
    Case {
        name: "surroundings_are_dockers",
        who: EVERYBODY,
        run: surroundings::surroundings_are_dockers,
    },
    Case {
        name: "users_by_name_and_number",
        who: &[Who::Root, Who::Ranges],
        run: surroundings::users_by_name_and_number,
    },
    Case {
        name: "other_users_need_ids",
        who: &[Who::Single],
        run: surroundings::other_users_need_ids,
    },
    Case {
        name: "unknown_users_are_refused",
        who: EVERYBODY,
        run: surroundings::unknown_users_are_refused,
    },
    Case {
        name: "mount_points_leave_no_trace",
        who: EVERYBODY,
        run: surroundings::mount_points_leave_no_trace,
    },
    Case {
        name: "devices_work",
        who: EVERYBODY,
        run: surroundings::devices_work,
    },
    Case {
        name: "no_network_but_loopback",
        who: EVERYBODY,
        run: surroundings::no_network_but_loopback,
    },
    Case {
        name: "capabilities_and_calls",
        who: EVERYBODY,
        run: confinement::capabilities_and_calls,
    },
    Case {
        name: "set_id_programs_work",
        who: &[Who::Root, Who::Ranges],
        run: confinement::set_id_programs_work,
    },
    Case {
        name: "devices_that_a_step_makes_do_not_open",
        who: &[Who::Root],
        run: confinement::devices_that_a_step_makes_do_not_open,
    },
    Case {
        name: "the_host_is_out_of_reach",
        who: EVERYBODY,
        run: confinement::the_host_is_out_of_reach,
    },
    Case {
        name: "bind_mounts",
        who: EVERYBODY,
        run: mounts::bind_mounts,
    },
    Case {
        name: "caches_live_on",
        who: EVERYBODY,
        run: mounts::caches_live_on,
    },
    Case {
        name: "memory_and_secrets",
        who: EVERYBODY,
        run: mounts::memory_and_secrets,
    },
    Case {
        name: "heredoc_files",
        who: EVERYBODY,
        run: mounts::heredoc_files,
    },
    Case {
        name: "an_agents_socket",
        who: EVERYBODY,
        run: mounts::an_agents_socket,
    },
];
