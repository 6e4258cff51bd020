//! What `run` costs beside the VMM itself: until the first output, until the machine starts, in the guest's init, in memory,
//! in commands of a running VM, and with twenty at once.

mod crowd;
mod first;
mod handover;
mod memory;
mod scene;
mod share;
mod talk;

use super::{Plan, Section};
use crate::Fallible;
use scene::Scene;

/// Single starts take a second or two and differ by a fifth from one to the next: their medians want more of them.
const STARTS_A_ROUND: usize = 5;

/// Needs `target/release/firebuild`, QEMU, a static busybox, and the kernel package that `scripts/kernel` fetches.
pub(super) fn run(plan: Plan<'_>) -> Fallible<Section> {
    let scene = Scene::make(plan.root)?;
    let sections = [
        first::section(&scene, STARTS_A_ROUND * plan.rounds)?,
        share::section(&scene, STARTS_A_ROUND * plan.rounds)?,
        handover::section(&scene, plan.rounds)?,
        memory::section(&scene)?,
        talk::section(&scene, plan.rounds)?,
        crowd::section(&scene, plan.rounds)?,
    ];
    Ok(Section {
        name: "run",
        text: sections.join("\n"),
    })
}
