//! What is known of a build's tasks: steps of the graph, and what takes time outside of it (pulls, exports).

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use firebuild_engine::build::{BuildEvent, Stream};

/// Bytes of a step's output that are kept: its last lines.
const KEPT_BYTES: usize = 64 << 10;
/// Bytes of one kept line.
const LINE_BYTES: usize = 4 << 10;

/// Everything seen so far.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    begin: Instant,
    tasks: Vec<Task>,
    steps: BTreeMap<u32, usize>,
    items: BTreeMap<String, usize>,
}

/// One task. Times count from the beginning of the build.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    /// Its number for people, from 1.
    pub(crate) number: usize,
    /// What it does.
    pub(crate) name: String,
    /// The stage it belongs to; may be empty.
    pub(crate) stage: String,
    pub(crate) kind: Kind,
    /// Numbers of the tasks it is computed from.
    pub(crate) inputs: Vec<usize>,
    pub(crate) state: State,
    pub(crate) started: Option<Duration>,
    pub(crate) ended: Option<Duration>,
    /// Bytes done, and in all.
    pub(crate) bytes: Option<(u64, Option<u64>)>,
    pub(crate) output: Output,
}

/// Whether a task is a vertex of the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Step,
    /// A pull, an export.
    Item,
}

/// How far a task is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Waiting,
    Running,
    Done,
    Cached,
    Failed(String),
}

/// The last lines that a step printed, with their times since its beginning.
#[derive(Clone, Debug, Default)]
pub(crate) struct Output {
    lines: VecDeque<(Duration, String)>,
    bytes: usize,
    /// The unfinished line of each stream.
    partial: [Vec<u8>; 2],
}

/// What an event changed, for the view that prints as it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Started(usize),
    Line(usize, Duration, String),
    Bytes(usize),
    Ended(usize),
}

impl Model {
    pub(crate) fn new() -> Self {
        Self {
            begin: Instant::now(),
            tasks: Vec::new(),
            steps: BTreeMap::new(),
            items: BTreeMap::new(),
        }
    }

    /// Time since the beginning.
    pub(crate) fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }

    pub(crate) fn tasks(&self) -> &[Task] {
        &self.tasks
    }

    /// Whether any task has begun.
    pub(crate) fn has_started(&self) -> bool {
        self.tasks.iter().any(|task| task.started.is_some())
    }

    fn add(&mut self, kind: Kind, name: String, stage: String, inputs: Vec<usize>) -> usize {
        let number = self.tasks.len() + 1;
        self.tasks.push(Task {
            number,
            name,
            stage,
            kind,
            inputs,
            state: State::Waiting,
            started: None,
            ended: None,
            bytes: None,
            output: Output::default(),
        });
        number - 1
    }

    /// Takes an event in; gives what it changed, by position of the task.
    pub(crate) fn apply(&mut self, event: BuildEvent) -> Vec<Change> {
        let now = self.elapsed();
        match event {
            BuildEvent::Planned {
                id,
                name,
                stage,
                inputs,
            } => {
                let inputs = inputs.iter().filter_map(|input| self.steps.get(&input.0));
                let inputs = inputs.map(|at| at + 1).collect();
                let at = self.add(Kind::Step, name, stage, inputs);
                self.steps.insert(id.0, at);
                Vec::new()
            }
            BuildEvent::Started { id } => match self.steps.get(&id.0) {
                Some(&at) => self.start(at, now),
                None => Vec::new(),
            },
            BuildEvent::Output { id, stream, data } => {
                let Some(&at) = self.steps.get(&id.0) else {
                    return Vec::new();
                };
                let task = &mut self.tasks[at];
                let since = now.saturating_sub(task.started.unwrap_or(now));
                let lines = task.output.take(stream, &data, since);
                changes(at, lines)
            }
            BuildEvent::Finished { id, cached, .. } => {
                let state = if cached { State::Cached } else { State::Done };
                self.steps
                    .get(&id.0)
                    .copied()
                    .map_or_else(Vec::new, |at| self.end(at, now, state))
            }
            BuildEvent::Failed { id, message } => self
                .steps
                .get(&id.0)
                .copied()
                .map_or_else(Vec::new, |at| self.end(at, now, State::Failed(message))),
            BuildEvent::Progress {
                item,
                current,
                total,
                done,
            } => self.item(&item, current, total, done, now),
            BuildEvent::Warning(_) | BuildEvent::Notice { .. } => Vec::new(),
        }
    }

    fn start(&mut self, at: usize, now: Duration) -> Vec<Change> {
        let task = &mut self.tasks[at];
        task.started = Some(now);
        task.state = State::Running;
        vec![Change::Started(at)]
    }

    fn end(&mut self, at: usize, now: Duration, state: State) -> Vec<Change> {
        let task = &mut self.tasks[at];
        let since = now.saturating_sub(task.started.unwrap_or(now));
        let lines = task.output.flush(since);
        task.started.get_or_insert(now);
        task.ended = Some(now);
        task.state = state;
        let mut found = changes(at, lines);
        found.push(Change::Ended(at));
        found
    }

    fn item(
        &mut self,
        item: &str,
        current: u64,
        total: Option<u64>,
        done: bool,
        now: Duration,
    ) -> Vec<Change> {
        let mut found = Vec::new();
        let at = match self.items.get(item) {
            Some(&at) => at,
            None => {
                let at = self.add(Kind::Item, item.to_owned(), String::new(), Vec::new());
                self.items.insert(item.to_owned(), at);
                found = self.start(at, now);
                at
            }
        };
        let has_size = total.is_some() || current > 0;
        self.tasks[at].bytes = has_size.then_some((current, total));
        if done {
            // The next one of that name is another.
            self.items.remove(item);
            found.extend(self.end(at, now, State::Done));
        } else if has_size {
            found.push(Change::Bytes(at));
        }
        found
    }
}

impl Task {
    /// How long it took, or has taken until now.
    pub(crate) fn duration(&self, now: Duration) -> Duration {
        let start = self.started.unwrap_or(now);
        self.ended.unwrap_or(now).saturating_sub(start)
    }

    pub(crate) fn is_running(&self) -> bool {
        self.state == State::Running
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state, State::Done | State::Cached | State::Failed(_))
    }
}

fn changes(at: usize, lines: Vec<(Duration, String)>) -> Vec<Change> {
    let lines = lines.into_iter();
    lines
        .map(|(since, line)| Change::Line(at, since, line))
        .collect()
}

impl Output {
    /// The kept lines, in order.
    pub(crate) fn lines(&self) -> Vec<(Duration, &str)> {
        let lines = self.lines.iter();
        lines.map(|(at, line)| (*at, line.as_str())).collect()
    }

    /// Takes output in; gives the lines that it completes.
    fn take(&mut self, stream: Stream, data: &[u8], since: Duration) -> Vec<(Duration, String)> {
        let index = usize::from(stream == Stream::Stderr);
        let mut found = Vec::new();
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            self.partial[index].extend_from_slice(piece);
            // A line without an end does not grow without bound.
            if piece.ends_with(b"\n") || self.partial[index].len() > KEPT_BYTES {
                found.push((since, self.line(index, since)));
            }
        }
        found
    }

    fn flush(&mut self, since: Duration) -> Vec<(Duration, String)> {
        (0..2)
            .filter(|index| !self.partial[*index].is_empty())
            .collect::<Vec<_>>()
            .into_iter()
            .map(|index| (since, self.line(index, since)))
            .collect()
    }

    /// Ends the unfinished line, and keeps it.
    fn line(&mut self, index: usize, since: Duration) -> String {
        let bytes = std::mem::take(&mut self.partial[index]);
        let text = String::from_utf8_lossy(&bytes);
        // A progress bar of the step redraws its line with carriage returns: the last drawing counts.
        let text = text
            .trim_end_matches(['\n', '\r'])
            .rsplit('\r')
            .next()
            .unwrap_or_default()
            .to_owned();
        let mut kept = text.clone();
        if kept.len() > LINE_BYTES {
            let end = (0..=LINE_BYTES).rev().find(|at| kept.is_char_boundary(*at));
            kept.truncate(end.unwrap_or(0));
        }
        self.bytes += kept.len();
        self.lines.push_back((since, kept));
        while self.bytes > KEPT_BYTES {
            let Some((_, line)) = self.lines.pop_front() else {
                break;
            };
            self.bytes -= line.len();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::{Change, Duration, Output, Stream};

    #[test]
    fn lines_are_put_together_and_bounded() {
        let mut output = Output::default();
        let mut take = |text: &str, stream| -> Vec<String> {
            let found = output.take(stream, text.as_bytes(), Duration::ZERO);
            found.into_iter().map(|(_, line)| line).collect()
        };
        assert_eq!(take("a", Stream::Stdout), Vec::<String>::new());
        assert_eq!(take("err\n", Stream::Stderr), ["err"]);
        assert_eq!(
            take("b\nc\r\n10%\r20%\nd", Stream::Stdout),
            ["ab", "c", "20%"]
        );
        assert_eq!(output.flush(Duration::ZERO)[0].1, "d");
        for _ in 0..100_000 {
            output.take(Stream::Stdout, b"0123456789\n", Duration::ZERO);
        }
        let kept: usize = output.lines().iter().map(|(_, line)| line.len()).sum();
        assert!(kept <= super::KEPT_BYTES);
        output.take(Stream::Stdout, &vec![b'x'; 1 << 20], Duration::ZERO);
        assert!(output.partial[0].len() <= super::KEPT_BYTES);
        assert_ne!(Change::Started(0), Change::Ended(0));
    }
}
