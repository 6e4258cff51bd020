//! One picture of a running build, as lines:
//!
//! ```text
//! [+] Building 3.2s (4/7)
//!  => CACHED [2/4] COPY . /src                                0.0s
//!  => [3/4] RUN make                                          2.9s
//!  => => # cc -c main.c
//!  => layer 0b04bb02775e   [=======>      ] 1.2 MiB / 2.0 MiB 0.3s
//! ```
//!
//! A frame is a function of the model, the time and the size of the terminal, and fits into it.

use std::time::Duration;

use console::{Style, measure_text_width, strip_ansi_codes, truncate_str};

use super::model::{Model, State, Task};
use crate::report::table::size;

/// Lines of output that a running step shows, if there is room.
const OUTPUT_LINES: usize = 6;
/// Columns of a bar, where there is room for one.
const BAR: usize = 24;

/// The lines of the frame, none wider than `columns`, at most `rows` of them.
pub(super) fn frame(
    model: &Model,
    now: Duration,
    columns: usize,
    rows: usize,
    is_over: bool,
) -> Vec<String> {
    let tasks = model.tasks();
    let over = tasks.iter().filter(|task| task.is_over()).count();
    let mut head = format!(
        "[+] Building {:.1}s ({over}/{})",
        now.as_secs_f64(),
        tasks.len()
    );
    if is_over {
        head += if tasks
            .iter()
            .any(|task| matches!(task.state, State::Failed(_)))
        {
            " FAILED"
        } else {
            " FINISHED"
        };
    }
    let room = rows.saturating_sub(1);
    let (shown, hidden) = choose(tasks, room);
    let mut lines = vec![fit(&head, "", columns)];
    if hidden > 0 && room > 0 {
        let text = format!(" => … {hidden} more");
        lines.push(
            Style::new()
                .for_stderr()
                .dim()
                .apply_to(fit(&text, "", columns))
                .to_string(),
        );
    }
    let running = shown.iter().filter(|task| task.is_running()).count();
    let spare = room.saturating_sub(shown.len() + usize::from(hidden > 0));
    let each = (spare / running.max(1)).min(OUTPUT_LINES);
    for task in shown {
        lines.push(task_line(task, now, columns));
        if !task.is_running() || is_over {
            continue;
        }
        let output = task.output.lines();
        for (_, line) in &output[output.len().saturating_sub(each)..] {
            let text = fit(&format!(" => => # {}", printable(line)), "", columns);
            lines.push(Style::new().for_stderr().dim().apply_to(text).to_string());
        }
    }
    lines
}

/// The tasks that are shown, in order of their beginnings, and how many more there are. What is over goes first, from
/// the top; then what runs longest.
fn choose(tasks: &[Task], room: usize) -> (Vec<&Task>, usize) {
    let mut shown: Vec<&Task> = tasks.iter().filter(|task| task.started.is_some()).collect();
    shown.sort_by_key(|task| (task.started, task.number));
    if shown.len() <= room {
        return (shown, 0);
    }
    // One line says that there are more.
    let keep = room.saturating_sub(1);
    let running = shown.iter().filter(|task| task.is_running()).count();
    let mut over_to_drop = (shown.len() - running).saturating_sub(keep.saturating_sub(running));
    let mut running_to_drop = running.saturating_sub(keep);
    let hidden = over_to_drop + running_to_drop;
    shown.retain(|task| {
        let left = if task.is_running() {
            &mut running_to_drop
        } else {
            &mut over_to_drop
        };
        let stays = *left == 0;
        *left = left.saturating_sub(1);
        stays
    });
    (shown, hidden)
}

fn task_line(task: &Task, now: Duration, columns: usize) -> String {
    let name = one_line(&task.name);
    let (mark, style) = match &task.state {
        State::Cached => ("CACHED ", Style::new().blue()),
        State::Done => ("", Style::new().blue()),
        State::Failed(_) => ("ERROR ", Style::new().red()),
        State::Waiting | State::Running => ("", Style::new()),
    };
    let left = format!(" => {mark}{name}");
    let mut right = format!("{:.1}s", task.duration(now).as_secs_f64());
    if let Some(amount) = amount(task) {
        right = format!("{amount} {right}");
        let room = columns.saturating_sub(measure_text_width(&left) + right.len() + 4);
        if let Some((done, Some(total))) = task.bytes
            && task.is_running()
            && room >= BAR
        {
            right = format!("{} {right}", bar(done, total));
        }
    }
    style
        .for_stderr()
        .apply_to(fit(&left, &right, columns))
        .to_string()
}

/// Text at the left and at the right edge; the left one gives way.
fn fit(left: &str, right: &str, columns: usize) -> String {
    if right.is_empty() {
        return truncate_str(left, columns, "…").into_owned();
    }
    // Where there is room for one of them only, the name is what a person looks for.
    let right = if measure_text_width(right) > columns.saturating_sub(12) {
        right.rsplit(' ').next().unwrap_or_default()
    } else {
        right
    };
    let room = columns.saturating_sub(measure_text_width(right) + 1);
    let left = truncate_str(left, room, "…");
    let gap = columns.saturating_sub(measure_text_width(&left) + measure_text_width(right));
    format!("{left}{}{right}", " ".repeat(gap))
}

fn bar(done: u64, total: u64) -> String {
    let total = total.max(1);
    let filled = usize::try_from(u128::from(done.min(total)) * BAR as u128 / u128::from(total));
    let filled = filled.unwrap_or(BAR).min(BAR);
    let mut text = "=".repeat(filled);
    if filled < BAR {
        text.push('>');
    }
    format!("[{text:<BAR$}]")
}

/// How many bytes of a task are done.
pub(super) fn amount(task: &Task) -> Option<String> {
    match task.bytes? {
        (done, Some(total)) => Some(format!("{} / {}", size(done), size(total))),
        (done, None) => Some(size(done)),
    }
}

/// A name on one line.
pub(super) fn one_line(text: &str) -> String {
    printable(&text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Text without what a terminal would obey.
pub(super) fn printable(text: &str) -> String {
    strip_ansi_codes(text)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use console::{measure_text_width, strip_ansi_codes};
    use firebuild_engine::build::{BuildEvent, Stream, VertexId};

    use super::{frame, printable};
    use crate::report::progress::model::Model;

    fn model(steps: u32) -> Model {
        let mut model = Model::new();
        for id in 0..steps {
            model.apply(BuildEvent::Planned {
                id: VertexId(id),
                name: format!(
                    "[{}/{steps}] RUN a long command 日本語 that goes on",
                    id + 1
                ),
                stage: String::new(),
                inputs: Vec::new(),
            });
        }
        for id in 0..steps.saturating_sub(1) {
            model.apply(BuildEvent::Started { id: VertexId(id) });
        }
        for id in 0..steps / 2 {
            model.apply(BuildEvent::Finished {
                id: VertexId(id),
                cached: id % 2 == 0,
                elapsed: Duration::ZERO,
            });
        }
        for id in steps / 2..steps.saturating_sub(1) {
            model.apply(BuildEvent::Output {
                id: VertexId(id),
                stream: Stream::Stdout,
                data: b"one\ntwo \x1b[31mred\x1b[0m \x07 three\n".to_vec(),
            });
        }
        model.apply(BuildEvent::Progress {
            item: "layer 0123456789ab".to_owned(),
            current: 1 << 20,
            total: Some(2 << 20),
            done: false,
        });
        model
    }

    #[test]
    fn a_frame_fits_the_terminal() {
        for steps in [0, 1, 4, 40] {
            let model = model(steps);
            for (columns, rows) in [(19, 2), (30, 5), (79, 10), (200, 60), (79, usize::MAX)] {
                for over in [false, true] {
                    let now = Duration::from_secs(70);
                    let lines = frame(&model, now, columns, rows, over);
                    assert!(lines.len() <= rows, "{steps} {columns} {rows}");
                    for line in &lines {
                        assert!(measure_text_width(line) <= columns, "{line:?}");
                        let plain = strip_ansi_codes(line);
                        assert!(!plain.contains(['\x1b', '\x07', '\n']), "{line:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_view() {
        let model = model(4);
        let lines = frame(&model, Duration::from_secs(3), 79, 24, false);
        let plain: Vec<String> = lines
            .iter()
            .map(|line| strip_ansi_codes(line).into())
            .collect();
        assert_eq!(plain[0], "[+] Building 3.0s (2/5)");
        assert!(
            plain[1].starts_with(" => CACHED [1/4] RUN a long"),
            "{}",
            plain[1]
        );
        assert!(plain[1].ends_with("0.0s"), "{}", plain[1]);
        assert!(plain[3].starts_with(" => [3/4] RUN"), "{}", plain[3]);
        assert_eq!(plain[4], " => => # one");
        assert_eq!(plain[5], " => => # two red   three");
        assert!(plain[6].contains("[============>"), "{}", plain[6]);
        assert!(plain[6].contains("1.0 MiB / 2.0 MiB"), "{}", plain[6]);
        assert_eq!(printable("a\tb\x1b[2Jc"), "a bc");
    }
}
