//! Numbered lines, for logs. The form is that of BuildKit:
//!
//! ```text
//! #3 [build 2/4] RUN make
//! #3 0.412 cc -c main.c
//! #3 DONE 1.2s
//! ```

use std::collections::BTreeSet;
use std::time::Duration;

use super::frame::{amount, one_line};
use super::model::{Change, Model, State, Task};
use crate::report::output;

/// Time between two lines about the bytes of one task.
const BYTES_EVERY: Duration = Duration::from_secs(5);

/// Prints changes.
#[derive(Debug, Default)]
pub(super) struct Printer {
    announced: BTreeSet<usize>,
    /// The task of the last line: another one says its name again.
    last: Option<usize>,
    bytes_told: Option<(usize, Duration)>,
}

impl Printer {
    /// Tells what changed.
    pub(super) fn tell(&mut self, model: &Model, change: &Change) {
        for line in self.lines(model, change) {
            output::note(&line);
        }
    }

    fn lines(&mut self, model: &Model, change: &Change) -> Vec<String> {
        let (Change::Started(at) | Change::Line(at, ..) | Change::Bytes(at) | Change::Ended(at)) =
            change;
        let task = &model.tasks()[*at];
        let number = task.number;
        let mut lines = Vec::new();
        let text = match change {
            Change::Started(_) => {
                self.announced.insert(*at);
                self.last = Some(*at);
                return vec![format!("#{number} {}", one_line(&task.name))];
            }
            Change::Line(_, since, line) => format!("{:.3} {line}", since.as_secs_f64()),
            Change::Bytes(_) => {
                let since = task.duration(model.elapsed());
                let told = match self.bytes_told {
                    Some((of, when)) if of == *at => when,
                    _ => Duration::ZERO,
                };
                if since < told + BYTES_EVERY {
                    return Vec::new();
                }
                self.bytes_told = Some((*at, since));
                format!(
                    "{} {:.1}s",
                    amount(task).unwrap_or_default(),
                    since.as_secs_f64()
                )
            }
            Change::Ended(_) => format!("{}\n", ending(task)),
        };
        let is_new = self.announced.insert(*at);
        if is_new || self.last != Some(*at) {
            lines.push(format!("#{number} {}", one_line(&task.name)));
        }
        self.last = Some(*at);
        lines.push(format!("#{number} {text}"));
        lines
    }
}

fn ending(task: &Task) -> String {
    match &task.state {
        State::Cached => "CACHED".to_owned(),
        State::Failed(message) => format!("ERROR: {}", one_line(message)),
        _ => {
            let seconds = task.duration(Duration::ZERO).as_secs_f64();
            format!("DONE {seconds:.1}s")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Printer;
    use crate::report::progress::model::Model;
    use firebuild_engine::build::{BuildEvent, Stream, VertexId};

    #[test]
    fn steps_that_take_turns_say_their_names() {
        let mut model = Model::new();
        let mut printer = Printer::default();
        let mut seen = Vec::new();
        let mut tell = |event: BuildEvent| {
            for change in model.apply(event) {
                seen.extend(printer.lines(&model, &change));
            }
        };
        for (id, name) in [(0, "[1/2] FROM x"), (1, "[2/2] RUN a\nb")] {
            tell(BuildEvent::Planned {
                id: VertexId(id),
                name: name.to_owned(),
                stage: String::new(),
                inputs: Vec::new(),
            });
            tell(BuildEvent::Started { id: VertexId(id) });
        }
        let output = |id, text: &str| BuildEvent::Output {
            id: VertexId(id),
            stream: Stream::Stdout,
            data: text.as_bytes().to_vec(),
        };
        tell(output(1, "x\n"));
        tell(output(0, "y\n"));
        tell(BuildEvent::Finished {
            id: VertexId(0),
            cached: true,
            elapsed: std::time::Duration::ZERO,
        });
        tell(BuildEvent::Failed {
            id: VertexId(1),
            message: "exit code: 3".to_owned(),
        });
        assert_eq!(
            seen,
            [
                "#1 [1/2] FROM x",
                "#2 [2/2] RUN a b",
                "#2 0.000 x",
                "#1 [1/2] FROM x",
                "#1 0.000 y",
                "#1 CACHED\n",
                "#2 [2/2] RUN a b",
                "#2 ERROR: exit code: 3\n",
            ]
        );
    }
}
