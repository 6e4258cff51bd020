//! Progress of a build: a live view on a terminal, numbered lines elsewhere, JSON for programs.
//!
//! ```text
//!   events ─▶ model: tasks with times, states, last output ─┬─▶ plain   lines as they come
//!                                                           ├─▶ live    a frame, ten times a second ─▶ screen
//!                                                           └─▶ record  for --timeline
//!   events ─▶ json, unchanged
//! ```
//!
//! Both forms for people are BuildKit's, which their eyes and log filters know. What a step printed is kept to its last
//! lines only, and shown again below everything else when the step failed.

mod frame;
mod json;
mod model;
mod plain;
mod screen;

use std::io::IsTerminal as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use firebuild_engine::build::{BuildEvent, Warned};

use crate::args::ProgressMode;
use crate::report::{finding, output};
pub(crate) use model::{Kind, Model, State, Task};
use screen::Screen;

/// Time between two frames; nothing is drawn more often.
const FRAME: Duration = Duration::from_millis(100);
/// Lines of a failed step that are shown again: where nothing of it was seen, and where it stands further up.
const FAILED_LINES: usize = 200;
const FAILED_LINES_AGAIN: usize = 20;

/// Draws what a build tells.
#[derive(Debug)]
pub(crate) struct Progress {
    style: Style,
    shared: Arc<Shared>,
    painter: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Quiet,
    Plain,
    Json,
    Live,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<Inner>,
    ended: Condvar,
}

#[derive(Debug)]
struct Inner {
    model: Model,
    screen: Screen,
    plain: plain::Printer,
    /// Findings, to be shown below the live view.
    warnings: Vec<Warned>,
    is_over: bool,
}

impl Progress {
    /// Progress in the wanted form.
    pub(crate) fn new(mode: ProgressMode) -> Self {
        let style = match mode {
            ProgressMode::Quiet => Style::Quiet,
            ProgressMode::Json => Style::Json,
            ProgressMode::Plain => Style::Plain,
            ProgressMode::Tty => Style::Live,
            ProgressMode::Auto if std::io::stderr().is_terminal() => Style::Live,
            ProgressMode::Auto => Style::Plain,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(Inner {
                model: Model::new(),
                screen: Screen::stderr(),
                plain: plain::Printer::default(),
                warnings: Vec::new(),
                is_over: false,
            }),
            ended: Condvar::new(),
        });
        let painter = (style == Style::Live).then(|| {
            let shared = shared.clone();
            std::thread::spawn(move || paint(&shared))
        });
        Self {
            style,
            shared,
            painter: Mutex::new(painter),
        }
    }

    /// Takes an event in.
    pub(crate) fn event(&self, event: BuildEvent) {
        let mut inner = self.shared.lock();
        if self.style == Style::Json {
            let line = json::line(&event, inner.model.elapsed());
            output::note(&line);
        }
        match event {
            BuildEvent::Warning(warned) => match self.style {
                Style::Plain => {
                    output::note(&finding::line(&warned));
                    output::note(finding::excerpt(&warned).trim_end());
                }
                Style::Live => inner.warnings.push(*warned),
                Style::Json | Style::Quiet => {}
            },
            BuildEvent::Notice { message } => {
                let text = format!("note: {message}");
                match self.style {
                    Style::Live => inner.screen.above(&text),
                    Style::Plain | Style::Quiet => output::note(&text),
                    Style::Json => {}
                }
            }
            event => {
                let changes = inner.model.apply(event);
                if self.style == Style::Plain {
                    let Inner { model, plain, .. } = &mut *inner;
                    for change in changes {
                        plain.tell(model, &change);
                    }
                }
            }
        }
    }

    /// Ends the view: the last frame, what a failed step printed, findings. Later events change nothing on the screen.
    pub(crate) fn finish(&self) {
        {
            let mut inner = self.shared.lock();
            if std::mem::replace(&mut inner.is_over, true) {
                return;
            }
        }
        self.shared.ended.notify_all();
        let painter = self
            .painter
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(painter) = painter {
            let _ = painter.join();
        }
        let inner = self.shared.lock();
        if self.style != Style::Json {
            let lines = if self.style == Style::Plain {
                FAILED_LINES_AGAIN
            } else {
                FAILED_LINES
            };
            for task in inner.model.tasks() {
                if let Some(text) = failed_output(task, lines) {
                    output::note(&text);
                }
            }
        }
        for warned in &inner.warnings {
            output::note(&finding::line(warned));
            output::note(finding::excerpt(warned).trim_end());
        }
    }

    /// What was seen, for a picture of it.
    pub(crate) fn record(&self) -> Model {
        self.shared.lock().model.clone()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Draws frames until the build is over.
fn paint(shared: &Shared) {
    let mut inner = shared.lock();
    loop {
        let is_over = inner.is_over;
        let (columns, rows) = inner.screen.size();
        // The last frame stays, so it may be longer than the screen.
        let rows = if is_over { usize::MAX } else { rows };
        let lines = frame::frame(&inner.model, inner.model.elapsed(), columns, rows, is_over);
        if is_over || inner.model.has_started() {
            inner.screen.draw(&lines, columns);
        }
        if is_over {
            return;
        }
        inner = shared
            .ended
            .wait_timeout_while(inner, FRAME, |inner| !inner.is_over)
            .unwrap_or_else(PoisonError::into_inner)
            .0;
    }
}

/// The last output of a step that failed, in a frame of dashes as BuildKit's.
fn failed_output(task: &Task, lines: usize) -> Option<String> {
    if !matches!(task.state, State::Failed(_)) {
        return None;
    }
    let kept = task.output.lines();
    let from = kept.len().saturating_sub(lines);
    let text: Vec<String> = kept[from..]
        .iter()
        .map(|(at, line)| format!("{:.3} {}", at.as_secs_f64(), frame::printable(line)))
        .collect();
    (!text.is_empty()).then(|| {
        format!(
            "------\n > {}:\n{}\n------",
            frame::one_line(&task.name),
            text.join("\n")
        )
    })
}
