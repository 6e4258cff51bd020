//! Progress of a build: a live view on a terminal, numbered lines elsewhere, JSON for programs.
//!
//! The plain form is that of BuildKit, which people's log filters know:
//!
//! ```text
//! #3 [build 2/4] RUN make
//! #3 0.412 cc -c main.c
//! #3 DONE 1.2s
//! ```

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use firebuild_engine::build::{BuildEvent, Stream, Warned};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::args::ProgressMode;
use crate::report::{finding, output};

/// How many of the last lines of a running step the live view shows.
const LIVE_LINES: usize = 5;
/// How much output of a step is kept to be shown again when it fails.
const KEPT_BYTES: usize = 64 << 10;

/// Draws what a build tells.
#[derive(Debug)]
pub(crate) struct Progress {
    style: Style,
    state: Mutex<State>,
}

#[derive(Debug)]
enum Style {
    Quiet,
    Plain,
    Json,
    Live(MultiProgress),
}

#[derive(Debug, Default)]
struct State {
    vertices: BTreeMap<u32, Vertex>,
    items: BTreeMap<String, (Instant, Option<ProgressBar>)>,
    count: usize,
}

#[derive(Debug)]
struct Vertex {
    number: usize,
    name: String,
    announced: bool,
    started: Option<Instant>,
    /// The last, unfinished line of each stream.
    partial: [Vec<u8>; 2],
    kept: Vec<u8>,
    bar: Option<ProgressBar>,
    live: Vec<String>,
}

impl Progress {
    /// Progress in the wanted form.
    pub(crate) fn new(mode: ProgressMode) -> Self {
        let style = match mode {
            ProgressMode::Quiet => Style::Quiet,
            ProgressMode::Json => Style::Json,
            ProgressMode::Plain => Style::Plain,
            ProgressMode::Tty => Style::Live(MultiProgress::new()),
            ProgressMode::Auto if std::io::stderr().is_terminal() => {
                Style::Live(MultiProgress::new())
            }
            ProgressMode::Auto => Style::Plain,
        };
        Self {
            style,
            state: Mutex::default(),
        }
    }

    /// Takes an event in.
    pub(crate) fn event(&self, event: BuildEvent) {
        let mut state = self.state();
        if matches!(self.style, Style::Json) {
            output::note(&json(&event));
        }
        match event {
            BuildEvent::Planned { id, name, .. } => {
                state.count += 1;
                let number = state.count;
                state.vertices.insert(id.0, Vertex::new(number, name));
            }
            BuildEvent::Started { id } => {
                if let Some(vertex) = state.vertices.get_mut(&id.0) {
                    vertex.started = Some(Instant::now());
                    self.started(vertex);
                }
            }
            BuildEvent::Output { id, stream, data } => {
                if let Some(vertex) = state.vertices.get_mut(&id.0) {
                    self.output(vertex, stream, &data);
                }
            }
            BuildEvent::Finished {
                id,
                cached,
                elapsed,
            } => {
                if let Some(vertex) = state.vertices.get_mut(&id.0) {
                    self.finished(vertex, cached, elapsed);
                }
            }
            BuildEvent::Failed { id, message } => {
                if let Some(vertex) = state.vertices.get_mut(&id.0) {
                    self.failed(vertex, &message);
                }
            }
            BuildEvent::Progress {
                item,
                current,
                total,
                done,
            } => self.item(&mut state, &item, current, total, done),
            BuildEvent::Warning(warned) => self.warning(&warned),
            BuildEvent::Notice { message } => match &self.style {
                Style::Json => {}
                Style::Live(multi) => multi.suspend(|| output::note(&format!("note: {message}"))),
                Style::Plain | Style::Quiet => output::note(&format!("note: {message}")),
            },
        }
    }

    fn warning(&self, warned: &Warned) {
        let text = format!("{}\n{}", finding::line(warned), finding::excerpt(warned));
        match &self.style {
            Style::Json | Style::Quiet => {}
            Style::Live(multi) => multi.suspend(|| output::note(text.trim_end())),
            Style::Plain => output::note(text.trim_end()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn announce(&self, vertex: &mut Vertex) {
        if !vertex.announced && matches!(self.style, Style::Plain) {
            output::note(&format!("#{} {}", vertex.number, one_line(&vertex.name)));
        }
        vertex.announced = true;
    }

    fn started(&self, vertex: &mut Vertex) {
        self.announce(vertex);
        if let Style::Live(multi) = &self.style {
            let bar = multi.add(ProgressBar::new_spinner());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} {elapsed}{msg}") {
                bar.set_style(style);
            }
            bar.set_prefix(clip(&one_line(&vertex.name)));
            bar.enable_steady_tick(Duration::from_millis(120));
            vertex.bar = Some(bar);
        }
    }

    fn output(&self, vertex: &mut Vertex, stream: Stream, data: &[u8]) {
        vertex.kept.extend_from_slice(data);
        if vertex.kept.len() > 2 * KEPT_BYTES {
            let cut = vertex.kept.len() - KEPT_BYTES;
            vertex.kept.drain(..cut);
        }
        let index = usize::from(stream == Stream::Stderr);
        vertex.partial[index].extend_from_slice(data);
        while let Some(end) = vertex.partial[index].iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = vertex.partial[index].drain(..=end).collect();
            self.output_line(vertex, &line[..line.len() - 1]);
        }
        // A line without an end does not grow without bound.
        if vertex.partial[index].len() > KEPT_BYTES {
            let line = std::mem::take(&mut vertex.partial[index]);
            self.output_line(vertex, &line);
        }
    }

    fn output_line(&self, vertex: &mut Vertex, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        // A progress bar of the step redraws its line with carriage returns: the last drawing counts.
        let text = text
            .trim_end_matches('\r')
            .rsplit('\r')
            .next()
            .unwrap_or_default();
        match &self.style {
            Style::Plain => {
                let seconds = vertex
                    .started
                    .map_or(0.0, |start| start.elapsed().as_secs_f64());
                output::note(&format!("#{} {seconds:.3} {text}", vertex.number));
            }
            Style::Live(_) => {
                vertex.live.push(clip(&printable(text)));
                if vertex.live.len() > LIVE_LINES {
                    vertex.live.remove(0);
                }
                if let Some(bar) = &vertex.bar {
                    bar.set_message(
                        vertex
                            .live
                            .iter()
                            .map(|line| format!("\n    {line}"))
                            .collect::<String>(),
                    );
                }
            }
            Style::Json | Style::Quiet => {}
        }
    }

    fn finished(&self, vertex: &mut Vertex, cached: bool, elapsed: Duration) {
        self.announce(vertex);
        self.flush(vertex);
        match &self.style {
            Style::Plain if cached => output::note(&format!("#{} CACHED\n", vertex.number)),
            Style::Plain => output::note(&format!(
                "#{} DONE {:.1}s\n",
                vertex.number,
                elapsed.as_secs_f64()
            )),
            Style::Live(multi) => {
                if let Some(bar) = vertex.bar.take() {
                    bar.finish_and_clear();
                }
                let state = if cached {
                    "CACHED".to_owned()
                } else {
                    format!("{:.1}s", elapsed.as_secs_f64())
                };
                multi.suspend(|| {
                    output::note(&format!(" => {} {state}", clip(&one_line(&vertex.name))))
                });
            }
            Style::Json | Style::Quiet => {}
        }
    }

    fn failed(&self, vertex: &mut Vertex, message: &str) {
        self.announce(vertex);
        self.flush(vertex);
        match &self.style {
            Style::Plain => output::note(&format!("#{} ERROR: {message}\n", vertex.number)),
            Style::Live(multi) => {
                if let Some(bar) = vertex.bar.take() {
                    bar.finish_and_clear();
                }
                multi.suspend(|| output::note(&format!(" => ERROR {}", one_line(&vertex.name))));
            }
            Style::Json | Style::Quiet => {}
        }
        // The live view has scrolled it away and the quiet one never showed it.
        if matches!(self.style, Style::Live(_) | Style::Quiet) && !vertex.kept.is_empty() {
            let kept = String::from_utf8_lossy(&vertex.kept).into_owned();
            let text = format!(
                "------\n > {}:\n{}\n------",
                one_line(&vertex.name),
                kept.trim_end()
            );
            match &self.style {
                Style::Live(multi) => multi.suspend(|| output::note(&text)),
                _ => output::note(&text),
            }
        }
    }

    fn flush(&self, vertex: &mut Vertex) {
        for index in 0..2 {
            let rest = std::mem::take(&mut vertex.partial[index]);
            if !rest.is_empty() {
                self.output_line(vertex, &rest);
            }
        }
    }

    fn item(&self, state: &mut State, item: &str, current: u64, total: Option<u64>, done: bool) {
        match &self.style {
            Style::Plain => {
                let start = state.items.entry(item.to_owned()).or_insert_with(|| {
                    output::note(&format!("{item} …"));
                    (Instant::now(), None)
                });
                if done {
                    output::note(&format!(
                        "{item} done {:.1}s",
                        start.0.elapsed().as_secs_f64()
                    ));
                }
            }
            Style::Live(multi) => {
                let entry = state.items.entry(item.to_owned()).or_insert_with(|| {
                    let bar = multi.add(ProgressBar::new(total.unwrap_or(0)));
                    let template = if total.is_some() {
                        "{prefix} [{bar:30}] {bytes}/{total_bytes} {eta}"
                    } else {
                        "{spinner} {prefix} {elapsed}"
                    };
                    if let Ok(style) = ProgressStyle::with_template(template) {
                        bar.set_style(style);
                    }
                    bar.set_prefix(clip(item));
                    bar.enable_steady_tick(Duration::from_millis(120));
                    (Instant::now(), Some(bar))
                });
                if let Some(bar) = &entry.1 {
                    bar.set_position(current);
                    if done {
                        bar.finish_and_clear();
                    }
                }
            }
            Style::Json | Style::Quiet => {}
        }
        if done {
            state.items.remove(item);
        }
    }
}

impl Vertex {
    fn new(number: usize, name: String) -> Self {
        Self {
            number,
            name,
            announced: false,
            started: None,
            partial: Default::default(),
            kept: Vec::new(),
            bar: None,
            live: Vec::new(),
        }
    }
}

/// A name on one line.
fn one_line(text: &str) -> String {
    printable(&text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Text without what a terminal would obey.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// Text that fits into one line of the terminal.
fn clip(text: &str) -> String {
    const COLUMNS: usize = 100;
    if text.chars().count() <= COLUMNS {
        return text.to_owned();
    }
    let mut clipped: String = text.chars().take(COLUMNS - 1).collect();
    clipped.push('…');
    clipped
}

/// An event as one JSON object.
fn json(event: &BuildEvent) -> String {
    let value = match event {
        BuildEvent::Planned {
            id,
            name,
            stage,
            inputs,
        } => {
            let inputs: Vec<u32> = inputs.iter().map(|input| input.0).collect();
            serde_json::json!({"event": "planned", "id": id.0, "name": name, "stage": stage, "inputs": inputs})
        }
        BuildEvent::Started { id } => serde_json::json!({"event": "started", "id": id.0}),
        BuildEvent::Output { id, stream, data } => serde_json::json!({
            "event": "output", "id": id.0,
            "stream": if *stream == Stream::Stdout { "stdout" } else { "stderr" },
            "data": String::from_utf8_lossy(data),
        }),
        BuildEvent::Finished {
            id,
            cached,
            elapsed,
        } => {
            serde_json::json!({"event": "finished", "id": id.0, "cached": cached, "seconds": elapsed.as_secs_f64()})
        }
        BuildEvent::Failed { id, message } => {
            serde_json::json!({"event": "failed", "id": id.0, "message": message})
        }
        BuildEvent::Progress {
            item,
            current,
            total,
            done,
        } => {
            serde_json::json!({"event": "progress", "item": item, "current": current, "total": total, "done": done})
        }
        BuildEvent::Warning(warned) => {
            serde_json::json!({"event": "warning", "line": warned.line, "warning": finding::value(warned)})
        }
        BuildEvent::Notice { message } => {
            serde_json::json!({"event": "notice", "message": message})
        }
    };
    let mut out = Vec::new();
    let _ = write!(out, "{value}");
    String::from_utf8(out).unwrap_or_default()
}
