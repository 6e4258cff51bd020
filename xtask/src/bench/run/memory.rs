//! Private memory of the process that owns a detached VM.

use std::time::Duration;

use serde_json::Value;

use super::scene::{IMAGE, Scene, text_of};
use crate::Fallible;

/// What it needed for the start is given back or not by then.
const SETTLED: Duration = Duration::from_secs(2);

/// The table.
pub(super) fn section(scene: &Scene) -> Fallible<String> {
    let mut text = "## Memory of a monitor\n\n`Pss_Anon` of the monitor of a VM that has run for 2 s (`/proc/PID/smaps_rollup`).\n\n\
                    | network | private memory |\n|---|---|\n"
        .to_owned();
    let root = rustix::process::geteuid().is_root();
    for network in ["none", "user", "bridge"] {
        if network == "bridge" && !root {
            continue;
        }
        let flag = format!("--network={network}");
        let id = text_of(&mut scene.firebuild(&[
            "run",
            "-d",
            &flag,
            IMAGE,
            "--",
            "/bin/sleep",
            "1000",
        ]))?;
        let id = id.trim();
        std::thread::sleep(SETTLED);
        let measured = of_monitor(scene, id);
        text_of(&mut scene.firebuild(&["rm", "-f", id]))?;
        text.push_str(&format!("| {network} | {:.2} MiB |\n", measured? / 1024.0));
    }
    text.push_str("\nAim: 3 MiB.\n");
    Ok(text)
}

/// In KiB.
fn of_monitor(scene: &Scene, id: &str) -> Fallible<f64> {
    let seen: Value = serde_json::from_str(&text_of(&mut scene.firebuild(&["inspect", id]))?)?;
    let pid = &seen["Firebuild"]["Machine"]["monitor"]["pid"];
    let pid = pid.as_i64().ok_or("the record names no monitor")?;
    let rollup = fs_err::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Pss_Anon:"));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    Ok(number.ok_or("this kernel tells no Pss_Anon")?.parse()?)
}
